import PipelineJournal

/// What must hold of a journal's file, whatever stands in it, and of a line, whatever somebody has sent. For the tests
/// beside it and for Fuzz/run.
enum JournalProperties {
    /// Nil, or what is wrong.
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        let all = UnsafeRawBufferPointer(bytes)
        if let wrong = scanned(all) ?? written(String(decoding: bytes, as: UTF8.self)) { return wrong }
        // Behind a line that checks, so that chains are reached.
        let first = JournalLink.none.next(.applied, time: 0) { $0.field("what", "x") }
        let wrong = (first.line + bytes).withUnsafeBytes { scanned($0, atLeast: 1) }
        if let head = JournalHead(Array(bytes)), head.bytes != Array(bytes) { return "another head: \(head)" }
        return wrong
    }

    /// The same however the bytes come, and never more than there is.
    private static func scanned(_ bytes: UnsafeRawBufferPointer, atLeast least: Int = 0) -> String? {
        var (whole, pieces) = (JournalScan(after: nil), JournalScan(after: nil))
        whole.add(bytes)
        for start in stride(from: 0, to: bytes.count, by: 7) {
            pieces.add(UnsafeRawBufferPointer(rebasing: bytes[start..<min(start + 7, bytes.count)]))
        }
        guard whole.lines >= least else { return "a line that checks was not taken" }
        guard whole.size <= bytes.count, whole.lines <= bytes.count else {
            return "\(whole.size) bytes of \(bytes.count)"
        }
        // Without a flaw the rest is less than a line.
        guard whole.size == pieces.size, whole.lines == pieces.lines, whole.link == pieces.link,
            (whole.flaw == nil) == (pieces.flaw == nil)
        else { return "\(whole.lines) lines at once, \(pieces.lines) in pieces" }
        let content = SHA256.hash(UnsafeRawBufferPointer(rebasing: bytes[..<Int(whole.size)]))
        guard whole.content.hash == content else { return "the content's hash is another" }
        var split = JournalLines()
        var (lines, good) = (0, 0)
        split.add(bytes) { line, length in
            lines += 1
            if line.count > length { good = .min }
            if (try? JournalLine(line)) != nil { good += 1 }
        }
        return good >= 0 && good <= lines ? nil : "a line longer than it is"
    }

    /// A text that somebody sent: the line reads back as it, or as its beginning.
    private static func written(_ text: String) -> String? {
        var entry = JournalEntry(.held, source: "push", what: text)
        (entry.actor, entry.why, entry.request) = (text, text, text)
        let made = JournalLink.none.next(entry.outcome, time: 1) { entry.bounded.write(&$0) }
        guard made.line.count <= JournalLine.limit, made.line.last == 0x0A,
            made.line.dropLast().allSatisfy({ $0 >= 0x20 })
        else { return "no line: \(made.line)" }
        do throws(JournalFlaw) {
            let read = try JournalLine(Array(made.line.dropLast()))
            guard let what = read.text("what"), read.link == made.link else { return "it reads back without its text" }
            let isCut = text.utf8.count > 512
            let kept = isCut ? Array(what.utf8.dropLast(3)) : Array(what.utf8)
            guard isCut ? Array(text.utf8).starts(with: kept) && kept.count > 508 : kept == Array(text.utf8) else {
                return "\(text) reads back as \(what)"
            }
            return nil
        } catch {
            return "\(error)"
        }
    }
}
