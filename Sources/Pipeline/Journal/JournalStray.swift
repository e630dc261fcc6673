/// Looks for a line that checks by itself.
struct JournalStray {
    private(set) var found = false
    private var line: [UInt8] = []

    mutating func finds(_ bytes: UnsafeRawBufferPointer) -> Bool {
        for byte in bytes where !found {
            guard byte == 0x0A else {
                // Longer than a line: not one.
                if line.count <= JournalLine.limit { line.append(byte) }
                continue
            }
            found = line.withUnsafeBytes { (try? JournalLink($0)) != nil }
            line.removeAll(keepingCapacity: true)
        }
        return found
    }
}
