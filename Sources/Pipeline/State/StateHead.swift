import Pipeline

/// The last change that was durable, noted beside the logs: it tells a log that was cut, or whose end went bad, from one
/// that was never longer. Written after each sync and not synced itself, so it never says too much.
///
///     store u64 | sequence u64 | checksum u32
struct StateHead {
    static let name = "durable"
    private static let bytes = 20

    private let file: Int32
    private let store: UInt64
    private let disk: any Disk

    /// Nil: it can't be used, and is done without.
    init?(_ place: StatePlace, secret: [UInt8]) {
        let file = place.disk.open(place.path(StateHead.name), .make)
        guard file >= 0 else { return nil }
        self.file = file
        store = LogHeader.store(secret: secret)
        disk = place.disk
    }

    func close() { disk.close(file) }

    func write(_ sequence: UInt64) {
        _ = StateHead.encoded(store, sequence).withUnsafeBytes { disk.write(file, $0, at: 0) }
    }

    private static func encoded(_ store: UInt64, _ sequence: UInt64) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: StateHead.bytes)
        bytes.withUnsafeMutableBytes { to in
            to.put(store, at: 0)
            to.put(sequence, at: 8)
            to.put(checksum(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(to)[..<16])), at: 16)
        }
        return bytes
    }

    /// 0: it is not known.
    static func read(_ place: StatePlace, secret: [UInt8]) -> UInt64 {
        let file = place.disk.open(place.path(StateHead.name), .read)
        guard file >= 0 else { return 0 }
        defer { place.disk.close(file) }
        var bytes = [UInt8](repeating: 0, count: StateHead.bytes)
        let count = bytes.withUnsafeMutableBytes { place.disk.read(file, $0, at: 0) }
        guard count == StateHead.bytes else { return 0 }
        let sequence = bytes.withUnsafeBytes { $0.baseAddress?.number(8, as: UInt64.self) ?? 0 }
        guard bytes == StateHead.encoded(LogHeader.store(secret: secret), sequence) else { return 0 }
        return sequence
    }
}
