import PipelineWire

/// What must hold of what reads backends' replies to a PROXY header, whatever they are: the finding is the same however the
/// reply is cut, a final one stays, and a second reader, over whole lines, finds the same. For the tests beside it and for
/// Fuzz/run.
///
/// An input is a byte and a reply. The byte's low bits say what was sent behind the header; the others, after how many bytes
/// of the reply it was, where that was not at once.
enum ReplyProperties {
    private static let kinds: [HeaderReply.Sent] = [.nothing, .hello, .bytes, .bytes]

    /// Nil, or what is wrong.
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        guard let how = bytes.first else { return nil }
        let reply = Array(bytes.dropFirst())
        let sent = kinds[Int(how & 3)]
        let silent = how & 3 == 3 ? Int(how >> 2) : 0
        let whole = read(reply, sent, silent: silent, step: max(1, reply.count))
        if case .failure(let problem) = whole { return problem.text }
        guard case .success(let finding) = whole else { return nil }
        for step in [1, 3, 7] {
            switch read(reply, sent, silent: silent, step: step) {
            case .failure(let problem): return problem.text
            case .success(let cut) where cut != finding: return "\(finding), in pieces of \(step) \(cut)"
            case .success: break
            }
        }
        guard silent == 0 else { return nil }
        let reference = ReferenceReply.finding(reply, sent)
        return reference == finding ? nil : "\(finding) behind \(sent), where a second reader finds \(reference)"
    }

    private struct Problem: Error { let text: String }

    private static func read(
        _ reply: [UInt8], _ sent: HeaderReply.Sent, silent: Int, step: Int
    ) -> Result<HeaderReply.Finding, Problem> {
        var reader = HeaderReply()
        var known = HeaderReply.Finding.undecided
        var rest = reply[...]
        while !rest.isEmpty {
            // The client has said nothing until so many bytes have come.
            let isSilent = reply.count - rest.count < silent
            let piece = rest.prefix(isSilent ? min(step, silent - (reply.count - rest.count)) : step)
            let found = Array(piece).withUnsafeBytes { reader.read($0, behind: isSilent ? .nothing : sent) }
            if isFinal(known), found != known { return .failure(Problem(text: "\(known) has become \(found)")) }
            if known == .greeted, found == .undecided { return .failure(Problem(text: "a greeting was forgotten")) }
            if found != reader.finding { return .failure(Problem(text: "says \(found), and keeps \(reader.finding)")) }
            known = found
            rest = rest.dropFirst(piece.count)
        }
        let ended: HeaderReply.Finding = isFinal(known) ? known : reply.isEmpty ? .rejected : .unclear
        if reader.ended != ended { return .failure(Problem(text: "\(known), and at the end \(reader.ended)")) }
        return .success(known)
    }

    private static func isFinal(_ finding: HeaderReply.Finding) -> Bool { finding != .undecided && finding != .greeted }
}

/// The same over whole lines as strings.
private enum ReferenceReply {
    static func finding(_ reply: [UInt8], _ sent: HeaderReply.Sent) -> HeaderReply.Finding {
        let head = Array(reply.prefix(HeaderReply.limit))
        let early = record(head, sent) ?? lines(head, sent)
        guard reply.count > head.count, early == .undecided || early == .greeted, sent != .nothing else { return early }
        return sent == .bytes ? .taken : .unclear
    }

    /// TLS; nil: it is none.
    private static func record(_ head: [UInt8], _ sent: HeaderReply.Sent) -> HeaderReply.Finding? {
        guard let first = head.first, first == 0x15 || first == 0x16 else { return nil }
        guard head.count > 1 else { return .undecided }
        guard head[1] == 3 else { return nil }
        if first == 0x16 {
            guard head.count > 5 else { return .undecided }
            return sent == .bytes || (sent == .hello && head[5] == 2) ? .taken : .unclear
        }
        if head.count > 3, head[3] != 0 { return .unclear }
        if head.count > 4, head[4] != 2 { return .unclear }
        guard head.count > 6 else { return .undecided }
        if sent == .nothing { return .rejected }
        if head[5] == 1, head[6] != 0 { return .taken }
        if [49, 71, 86, 109, 110, 112, 115, 116, 120].contains(head[6]) { return .taken }
        return [10, 20, 22, 47, 50, 70].contains(head[6]) ? .rejected : .unclear
    }

    private static let complaints = [
        "500", "501", "502", "503", "-ERR", "ERROR", "BAD ", "* BAD", "Invalid SSH", "HTTP/1.0 400", "HTTP/1.1 400",
    ]
    private static let greetings = ["+OK", "SSH-", "* OK", "* PREAUTH"]

    private static func lines(_ head: [UInt8], _ sent: HeaderReply.Sent) -> HeaderReply.Finding {
        let all = head.split(separator: 0x0A, omittingEmptySubsequences: false)
        var (hasGreeted, continues) = (false, false)
        for (number, bytes) in all.enumerated() {
            let isWhole = number < all.count - 1
            let (isFirst, line) = (number == 0, String(decoding: bytes.map { $0 < 0x80 ? $0 : 0x7F }, as: UTF8.self))
            let open: HeaderReply.Finding = hasGreeted ? .greeted : .undecided
            if complaints.contains(where: line.hasPrefix) { return .rejected }
            if line.hasPrefix("HTTP/1.") {
                let isLong = complaints.contains { $0.hasPrefix(line) }
                if isLong, !isWhole { return open }
                return sent == .bytes ? .taken : .unclear
            }
            let digits = line.utf8.prefix(3)
            let isCode = digits.count == 3 && digits.allSatisfy { $0 >= 0x30 && $0 <= 0x39 }
            if line.hasPrefix("* BYE") || (isCode && (line.hasPrefix("221") || "45".contains(line.prefix(1)))) {
                return isFirst || sent != .nothing ? .unclear : .rejected
            }
            if greetings.contains(where: line.hasPrefix) {
                if isFirst, isWhole { hasGreeted = true }
                if !isFirst, sent != .nothing { return sent == .bytes ? .taken : .unclear }
                continue
            }
            if isCode, isFirst || continues || line.hasPrefix("220") {
                let known = line.utf8.dropFirst(3).first ?? (isWhole ? 0x0A : nil)
                guard let separator = known else { return open }
                if separator == 0x2D { continues = true }
                if [0x20, 0x0D, 0x0A].contains(separator) { continues = false }
                if [0x2D, 0x20, 0x0D, 0x0A].contains(separator) {
                    if isFirst, isWhole { hasGreeted = true }
                    continue
                }
            } else if !isWhole, mayBecomeWord(line) {
                return open
            }
            if !isFirst, continues || bytes.isEmpty || bytes.first == 0x0D { continue }
            if sent != .nothing { return sent == .bytes ? .taken : .unclear }
        }
        return hasGreeted ? .greeted : .undecided
    }

    /// Whether a line that begins so may begin with a word that means something; the empty one may.
    private static func mayBecomeWord(_ line: String) -> Bool {
        let isNumber = line.utf8.count < 3 && line.utf8.allSatisfy { $0 >= 0x30 && $0 <= 0x39 }
        return isNumber || (complaints + greetings + ["* BYE", "HTTP/1."]).contains { $0.hasPrefix(line) }
    }
}
