import Pipeline

/// A line of HAProxy's agent protocol (its manual, `agent-check`): words between blanks and commas, in any case. Pure.
struct AgentAnswer: Equatable, Sendable {
    /// Nil: the line says nothing of it, which is no reason to be down.
    private(set) var isUp: Bool?
    /// Of the backend's usual share of new connections; 0: it takes none. Nil: the line says nothing of it.
    private(set) var percent: UInt8?

    /// Nil: a word that the protocol does not have.
    init?(_ line: some Collection<UInt8>) {
        let text = String(decoding: line.map { $0 < 0x80 ? $0 : 0x3F }, as: UTF8.self).lowercased()
        // `#` begins a reason for people.
        let words = text.prefix { $0 != "#" }.split { " \t,".contains($0) }
        guard !words.isEmpty else { return nil }
        var isDrained = false
        for word in words {
            switch word {
            case "up", "ready": isUp = isUp ?? true
            case "down", "failed", "stopped", "fail": isUp = false
            case "drain", "maint": isDrained = true
            case _ where word.hasPrefix("maxconn:") && UInt32(word.dropFirst(8)) != nil: break
            default:
                guard word.hasSuffix("%"), let number = UInt16(word.dropLast()) else { return nil }
                percent = UInt8(clamping: min(number, 100))
            }
        }
        if isDrained { percent = 0 } else if percent == nil, isUp == true { percent = 100 }
    }

    var result: ProbeResult { isUp == false ? .notReady : .good }
}
