import Pipeline
import PipelineWire

/// SMTP (RFC 3207) and IMAP (RFC 9051 §6.2.1): the server speaks first, and a client says a few lines before it asks for
/// TLS. It says one at a time: nothing here is offered that lets it say more.
extension StartTLSFilter {
    /// What the client has said so far.
    struct Dialogue: BitwiseCopyable {
        var hasGreeted = false
        var commands = 0
        var bytes = 0
    }

    /// R27: of one client, before TLS.
    static let lineLimit = 512
    static let commandLimit = 20
    static let dialogueLimit = 2048

    static func answerMail(_ settings: Settings, _ view: ConnectionView, _ effects: Effects) -> Verdict {
        let stream = stream(view)
        guard !view.facts.isUpgraded, !(view.isDryRun && isHello(stream)) else { return pass(effects) }
        let dialogue = effects.kept { Dialogue() }
        guard dialogue.pointee.hasGreeted else {
            guard stream.isEmpty || view.isDryRun else { return refuse(.pipelined) }
            guard view.input == .open else { return refuse(view.input == .ended ? .closed : .timeout) }
            dialogue.pointee.hasGreeted = true
            greet(settings, effects)
            return .needBytes(view.facts.consumed + 1)
        }
        switch TextLine.first(of: stream, limit: lineLimit) {
        case .incomplete:
            switch view.input {
            case .open: return .needBytes(view.bytes.count + 1)
            case .ended: return refuse(.closed)
            case .timedOut: return refuse(.timeout)
            case .full: return refuse(.malformed)
            }
        case .tooLong, .binary: return refuse(.malformed)
        case .whole(let content, let length):
            // CVE-2011-0411: they could be of somebody who saw the command pass.
            guard length == stream.count else { return refuse(.pipelined) }
            dialogue.pointee.commands += 1
            dialogue.pointee.bytes += length
            guard dialogue.pointee.commands <= commandLimit, dialogue.pointee.bytes <= dialogueLimit else {
                return refuse(.noTLS)
            }
            return answer(settings, UnsafeBufferPointer(rebasing: stream[..<content]), length, view, effects)
        }
    }

    /// A ClientHello, which `explain` has in place of all that comes before it.
    private static func isHello(_ stream: UnsafeBufferPointer<UInt8>) -> Bool { stream.first == 22 }

    private static func greet(_ settings: Settings, _ effects: Effects) {
        guard settings.opening == .smtp else {
            return effects.say("* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready\r\n")
        }
        effects.say("220 ")
        effects.say(settings.name.buffer)
        effects.say(" ESMTP\r\n")
    }

    private static func answer(
        _ settings: Settings, _ line: UnsafeBufferPointer<UInt8>, _ length: Int, _ view: ConnectionView,
        _ effects: Effects
    ) -> Verdict {
        let next = settings.opening == .smtp ? smtp(settings, line, effects) : imap(line, effects)
        switch next {
        case .leave: return refuse(.closed)
        case .upgrade: effects.upgradeBackend(within: settings.backendTimeout)
        case .more: break
        }
        return take(length, view, effects)
    }

    private enum Next {
        case more, upgrade, leave
    }

    private static func smtp(_ settings: Settings, _ line: UnsafeBufferPointer<UInt8>, _ effects: Effects) -> Next {
        switch SMTPCommand(line) {
        case .startTLS:
            effects.say("220 2.0.0 Ready to start TLS\r\n")
            return .upgrade
        case .quit:
            effects.say("221 2.0.0 Bye\r\n")
            return .leave
        case .ehlo:
            effects.say("250-")
            effects.say(settings.name.buffer)
            effects.say("\r\n250 STARTTLS\r\n")
        case .helo:
            effects.say("250 ")
            effects.say(settings.name.buffer)
            effects.say("\r\n")
        case .noop, .reset: effects.say("250 2.0.0 OK\r\n")
        case .startTLSWithParameter: effects.say("501 5.5.4 Syntax error (no parameters allowed)\r\n")
        case .other: effects.say("530 5.7.0 Must issue a STARTTLS command first\r\n")
        }
        return .more
    }

    private static func imap(_ line: UnsafeBufferPointer<UInt8>, _ effects: Effects) -> Next {
        guard let command = IMAPCommand(line) else {
            effects.say("* BAD a tag and a command, please\r\n")
            return .more
        }
        let tag = UnsafeBufferPointer(rebasing: line[..<command.tag])
        if command.verb == .capability { effects.say("* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\n") }
        if command.verb == .logout { effects.say("* BYE\r\n") }
        effects.say(tag)
        switch command.verb {
        case .startTLS:
            effects.say(" OK begin TLS now\r\n")
            return .upgrade
        case .logout:
            effects.say(" OK bye\r\n")
            return .leave
        case .capability, .noop: effects.say(" OK done\r\n")
        case .login: effects.say(" NO [PRIVACYREQUIRED] STARTTLS first\r\n")
        case .other: effects.say(" BAD STARTTLS first\r\n")
        }
        return .more
    }
}

/// The backend's half.
extension StartTLSFilter {
    struct SMTPAsking: BitwiseCopyable {
        /// Replies so far: its greeting, that to EHLO, that to STARTTLS.
        var replies = 0
        var reply = SMTPReply()
    }

    static func askSMTP(
        _ settings: Settings, _ answer: UnsafeBufferPointer<UInt8>, _ effects: Effects
    ) -> UpgradeStep {
        let asking = effects.kept { SMTPAsking() }
        for (index, byte) in answer.enumerated() {
            switch asking.pointee.reply.read(byte) {
            case .incomplete: continue
            case .malformed: return refuseBackend(.backendMalformed)
            case .complete(let code):
                // Nothing can be due behind a reply before the next command.
                guard index == answer.count - 1 else { return refuseBackend(.backendMalformed) }
                asking.pointee.reply = SMTPReply()
                asking.pointee.replies += 1
                return goOn(settings, asking.pointee.replies, code, effects)
            }
        }
        return .more
    }

    private static func goOn(_ settings: Settings, _ reply: Int, _ code: Int, _ effects: Effects) -> UpgradeStep {
        guard code == (reply == 2 ? 250 : 220) else { return refuseBackend(.backendRefused) }
        switch reply {
        case 1:
            effects.say("EHLO ")
            effects.say(settings.name.buffer)
            effects.say("\r\n")
            return .more
        case 2:
            effects.say("STARTTLS\r\n")
            return .more
        default: return .done
        }
    }

    static func askIMAP(_ answer: UnsafeBufferPointer<UInt8>, _ effects: Effects) -> UpgradeStep {
        let answers = effects.kept { IMAPAnswers() }
        for (index, byte) in answer.enumerated() {
            let isLast = index == answer.count - 1
            switch answers.pointee.read(byte) {
            case .incomplete: continue
            case .greeted where isLast:
                effects.say(IMAPAnswers.command)
                return .more
            case .willing where isLast: return .done
            case .unwilling: return refuseBackend(.backendRefused)
            case .greeted, .willing, .malformed: return refuseBackend(.backendMalformed)
            }
        }
        return .more
    }
}
