import PipelineWire

/// What must hold of any bytes whatever that come before TLS, from a mail client or a mail server. For the tests beside it
/// and for Fuzz/run.
enum MailProperties {
    /// Nil, or what is wrong.
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        lineViolation(bytes) ?? replyViolation(bytes) ?? answersViolation(bytes)
    }

    private static func lineViolation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        let final = TextLine.first(of: bytes, limit: 512)
        for count in 0...min(bytes.count, 520) {
            let verdict = TextLine.first(of: UnsafeBufferPointer(rebasing: bytes[..<count]), limit: 512)
            if verdict != .incomplete, verdict != final { return "a line is \(verdict) at \(count), and \(final)" }
        }
        guard case .whole(let content, let length) = final else { return nil }
        guard content < length, length <= min(bytes.count, 512), bytes[length - 1] == 10 else { return "\(final)" }
        let line = UnsafeBufferPointer(rebasing: bytes[..<content])
        if line.contains(where: { $0 < 32 && $0 != 9 || $0 == 127 }) { return "control characters in a line" }
        let text = String(decoding: line, as: UTF8.self).uppercased()
        if case .startTLS = SMTPCommand(line), text.filter({ $0 != " " }) != "STARTTLS" { return "\(text) is STARTTLS" }
        if let command = IMAPCommand(line) {
            if command.tag < 1 || command.tag > 64 || line[command.tag] != 32 { return "a tag of \(command.tag)" }
            if command.verb == .startTLS, !text.hasSuffix(" STARTTLS") { return "\(text) is STARTTLS" }
        }
        return nil
    }

    /// A second reading, by lines.
    private static func replyViolation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        var reply = SMTPReply()
        for (index, byte) in bytes.enumerated() {
            switch reply.read(byte) {
            case .incomplete: continue
            case .malformed: return nil
            case .complete(let code):
                let lines = bytes[...index].split(separator: 10, omittingEmptySubsequences: true)
                    .map { $0.last == 13 ? $0.dropLast() : $0 }
                for (number, line) in lines.enumerated() {
                    let start = String(decoding: line.prefix(3), as: UTF8.self)
                    let mark = line.dropFirst(3).first
                    let isLast = number == lines.count - 1
                    if Int(start) != code || (isLast ? mark != 32 && mark != nil : mark != 45) {
                        return "line \(number) of a reply \(code): \(start) \(mark ?? 0)"
                    }
                }
                return lines.count > SMTPReply.linesLimit ? "\(lines.count) lines" : nil
            }
        }
        return nil
    }

    private static func answersViolation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        var answers = IMAPAnswers()
        var hasGreeted = false
        for (index, byte) in bytes.enumerated() {
            let line = { String(decoding: bytes[...index].split(separator: 10).last ?? [], as: UTF8.self) }
            switch answers.read(byte) {
            case .incomplete: continue
            case .malformed, .unwilling: return nil
            case .greeted:
                if hasGreeted || byte != 10 { return "greeted twice, or within a line" }
                hasGreeted = true
            case .willing:
                guard hasGreeted, byte == 10, line().uppercased().hasPrefix("A OK") else { return "willing: \(line())" }
                return nil
            }
        }
        return bytes.count > IMAPAnswers.limit ? "\(bytes.count) bytes are read" : nil
    }
}

/// The same of LDAP.
enum DirectoryProperties {
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        let final = LDAPMessage.look(at: bytes)
        for count in 0..<bytes.count {
            let verdict = LDAPMessage.look(at: UnsafeBufferPointer(rebasing: bytes[..<count]))
            if case .incomplete(let needs) = verdict {
                if needs <= count || needs > LDAPMessage.limit { return "needs \(needs) at \(count)" }
            } else if verdict != final {
                return "\(verdict) at \(count), and \(final)"
            }
        }
        if case .startTLS(let id, let length) = final {
            guard length <= bytes.count, id <= 0x7FFF_FFFF else { return "\(final) of \(bytes.count)" }
            let name = Array("1.3.6.1.4.1.1466.20037".utf8)
            guard bytes[..<length].suffix(name.count).elementsEqual(name) else { return "another operation" }
        }
        return answerViolation(bytes)
    }

    private static func answerViolation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        let final = LDAPAnswer.look(at: bytes)
        for count in 0..<bytes.count {
            let verdict = LDAPAnswer.look(at: UnsafeBufferPointer(rebasing: bytes[..<count]))
            // More than the answer is no answer.
            if verdict != .incomplete, final != .malformed { return "\(verdict) at \(count), and \(final)" }
        }
        return nil
    }
}
