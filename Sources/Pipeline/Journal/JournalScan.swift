/// Follows the chain over the bytes of one file.
package struct JournalScan {
    /// The last line that checks.
    package private(set) var link: JournalLink
    /// Bytes up to the end of that line, and lines.
    package private(set) var size: Int64 = 0
    package private(set) var lines = 0
    /// Of those bytes.
    package private(set) var content = SHA256()
    /// Why the line behind them does not check; nil: there is none, or it has no end yet.
    package private(set) var flaw: JournalFlaw?
    /// Bytes behind the last line break.
    private var rest: [UInt8] = []

    /// - Parameter link: what its first line has to follow; nil: anything.
    package init(after link: JournalLink?) {
        self.link = link ?? .none
        followsAny = link == nil
    }
    private var followsAny: Bool

    /// Takes what comes behind. After a flaw nothing more is looked at.
    package mutating func add(_ bytes: UnsafeRawBufferPointer) {
        var start = 0
        while flaw == nil, let end = bytes[start...].firstIndex(of: 0x0A) {
            if rest.isEmpty {
                take(UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
            } else {
                rest.append(contentsOf: bytes[start..<end])
                let whole = rest
                rest = []
                whole.withUnsafeBytes { take($0) }
            }
            start = end + 1
        }
        guard flaw == nil else { return }
        if rest.count + bytes.count - start > JournalLine.limit {
            flaw = JournalFlaw("it is longer than any line of a journal")
        } else {
            rest.append(contentsOf: bytes[start...])
        }
    }

    private mutating func take(_ line: UnsafeRawBufferPointer) {
        do throws(JournalFlaw) {
            let next = try JournalLink(line)
            if let broken = JournalScan.flaw(between: link, next, followsAny: followsAny) { throw broken }
            followsAny = false
            link = next
            size += Int64(line.count) + 1
            lines += 1
            content.add(line)
            withUnsafeBytes(of: UInt8(0x0A)) { content.add($0) }
        } catch {
            flaw = error
        }
    }

    /// What is wrong between two lines that check by themselves; nil: nothing.
    static func flaw(between last: JournalLink, _ next: JournalLink, followsAny: Bool) -> JournalFlaw? {
        guard !followsAny else { return nil }
        guard next.previous == last.hash else { return JournalFlaw("it does not follow the line before it") }
        guard next.number == last.number &+ 1 else {
            return JournalFlaw("its number is \(next.number), and that of the line before it is \(last.number)")
        }
        return nil
    }
}
