import Pipeline
import PipelineFlows
import PipelineLedger
import PipelineText

/// Something about an instance that an operator may want to act upon.
struct Hint: Equatable {
    enum Kind: String, CaseIterable {
        case fanOut = "fan_out"
        case smtp
        case portScan = "port_scan"
        case volume
    }

    enum State: String {
        case started, continues, ended
    }

    let kind: Kind
    let state: State
    /// See ``InstanceIdentity/number``.
    let instance: UInt32
    let source: IPAddress
    let figures: Figures
    /// The most that ``Figures/value`` was since it started.
    let peak: UInt64
    /// Since it started.
    let lasted: TimeSpan

    struct Figures: Equatable {
        /// Of what is counted: destinations, connections, (destination, port), bytes.
        var value: UInt64
        /// From where on there is a hint.
        var bound: UInt64
        var window: TimeSpan
        /// There were more than ``value``.
        var isAtBound = false
        /// Of what was counted, what came to nothing.
        var refused: UInt64 = 0
        var bytesOut: UInt64 = 0
        var bytesIn: UInt64 = 0
        /// Bytes in a window that are usual for the instance.
        var usual: UInt64 = 0
        /// The last one that counted.
        var example: Endpoint?
    }
}

/// A hint as a line for people and programs.
struct HintText {
    let hint: Hint
    let names: FlowNames
    /// The node's admin socket; nil: none.
    let adminSocket: String?
    /// All that its instance was given, of both families.
    var addresses: [IPAddress] = []

    var message: String {
        let more = hint.figures.isAtBound ? "at least " : ""
        let count = more + "\(hint.figures.value)"
        let window = plainDuration(hint.figures.window.nanoseconds / 1_000_000_000)
        guard hint.state != .ended else {
            let lasted = plainDuration(hint.lasted.nanoseconds / 1_000_000_000)
            return "instance \(who): \(what) is over, after \(lasted)"
        }
        let head = "instance \(who) \(hint.state == .continues ? "still " : "")"
        switch hint.kind {
        case .fanOut: return head + "goes to many new destinations: \(count) within \(window)"
        case .smtp: return head + "makes many connections to mail ports: \(count) within \(window)"
        case .portScan:
            return head + "tries many destinations and ports that refuse or are refused: \(count) within \(window)"
        case .volume:
            return head + "moves more than is usual for it: \(plainBytes(Int64(clamping: hint.figures.value))) within "
                + "\(window), usually \(plainBytes(Int64(clamping: hint.figures.usual)))"
        }
    }

    /// `i_7 of acme/shop/prod`.
    private var who: String {
        names.owner.isUnknown ? names.instance : "\(names.instance) of \(names.owner.path)"
    }

    private var what: String {
        switch hint.kind {
        case .fanOut: "going to many new destinations"
        case .smtp: "making many connections to mail ports"
        case .portScan: "trying many destinations and ports that refuse or are refused"
        case .volume: "moving more than usual"
        }
    }

    func write(_ line: inout JSONLine) {
        line.field("kind", hint.kind.rawValue)
        line.field("state", hint.state.rawValue)
        line.field("instance", names.instance)
        line.field("env", names.env)
        line.field("app", names.app)
        line.field("org", names.org)
        line.field("source", "\(hint.source)")
        line.list("addresses", addresses.isEmpty ? [hint.source] : addresses) { $0.string("\($1)") }
        writeFigures(&line)
        line.field("window_s", hint.figures.window.nanoseconds / 1_000_000_000)
        if hint.figures.isAtBound { line.field("at_least", true) }
        if let example = hint.figures.example { line.field("example", "\(example)") }
        if hint.state != .started { line.field("lasted_s", hint.lasted.nanoseconds / 1_000_000_000) }
        line.field("look", look)
    }

    private func writeFigures(_ line: inout JSONLine) {
        let figures = hint.figures
        switch hint.kind {
        case .fanOut: line.field("new_destinations", figures.value)
        case .smtp:
            line.field("connections", figures.value)
            line.field("refused", figures.refused)
        case .portScan:
            line.field("targets", figures.value)
            line.field("refused", figures.refused)
        case .volume:
            line.field("bytes", figures.value)
            line.field("bytes_out", figures.bytesOut)
            line.field("bytes_in", figures.bytesIn)
            line.field("usual_bytes", figures.usual)
        }
        line.field("more_than", figures.bound)
        if hint.state != .started { line.field("peak", hint.peak) }
    }

    /// What to run to see more.
    var look: String {
        // What a stage refused is no flow: only the log of connections has it.
        guard hint.kind != .portScan, let adminSocket else { return lookInLog }
        var words = "pipelined top"
        if adminSocket != NodeSettings.usualAdminSocket { words += " --admin \(HintText.shellWord(adminSocket))" }
        words += " --by destination"
        if !names.owner.isUnknown { words += " --env \(HintText.shellWord(names.owner.path))" }
        words += " --instance \(HintText.shellWord(names.instance))"
        switch hint.kind {
        case .smtp: return words + (hint.figures.example.map { " --port \($0.port)" } ?? "") + " --sort connections"
        case .fanOut: return words + " --sort connections"
        default: return words
        }
    }

    private var lookInLog: String {
        let fields = [("o", names.org), ("a", names.app), ("e", names.env), ("i", names.instance)]
        let arguments = fields.map { "--arg \($0) \(HintText.shellWord(HintText.logged($1)))" }
        return "journalctl -u pipelined -o cat --since -10min | jq -c \(arguments.joined(separator: " ")) "
            + "'select(.event == \"connection\" and [.org, .app, .env, .instance] == [$o, $a, $e, $i]) "
            + "| {destination, reason}'"
    }

    /// As the log has it, which cuts what is too long for a record.
    private static func logged(_ name: String) -> String {
        var name = name
        return name.withUTF8 { bytes in
            var text = ConnectionRecord().instance
            text.set(bytes)
            return text.isCut ? text.string + "…" : text.string
        }
    }

    /// As a shell takes it for one word: names may have any visible ASCII.
    static func shellWord(_ text: String) -> String {
        let isPlain = { (c: UInt8) in
            (c | 0x20 >= 0x61 && c | 0x20 <= 0x7A) || (c >= 0x30 && c <= 0x39) || "-._:/@%+,".utf8.contains(c)
        }
        guard text.isEmpty || !text.utf8.allSatisfy(isPlain) else { return text }
        return "'" + text.replacing("'", with: "'\\''") + "'"
    }
}
