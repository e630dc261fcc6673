import Pipeline
import PipelineFlows
import PipelineLedger
import PipelineText

/// An alert: a traffic finding about an instance that may need action.
struct Alert: Equatable {
    enum Kind: String, CaseIterable {
        case fanOut = "fan_out"
        case smtp
        case portScan = "port_scan"
        case volume
    }

    enum Status: String {
        case started, continues, ended
    }

    let kind: Kind
    let status: Status
    /// See ``InstanceIdentity/number``.
    let instance: UInt32
    let source: IPAddress
    let figures: Figures
    /// The maximum of ``Figures/value`` since it started.
    let peak: UInt64
    /// Since it started.
    let lasted: TimeSpan

    struct Figures: Equatable {
        /// The counted value: destinations, connections, (destination, port), bytes.
        var value: UInt64
        /// The alert threshold.
        var bound: UInt64
        var window: TimeSpan
        /// There were more than ``value``.
        var isAtBound = false
        /// The failed part of the count.
        var refused: UInt64 = 0
        var bytesOut: UInt64 = 0
        var bytesIn: UInt64 = 0
        /// The instance's usual bytes in a window.
        var usual: UInt64 = 0
        /// The last counted example.
        var example: Endpoint?
    }
}

/// An alert as a log line.
struct AlertText {
    let alert: Alert
    let names: FlowNames
    /// The node's admin socket; nil: none.
    let adminSocket: String?
    /// All addresses of its instance.
    var addresses: [IPAddress] = []

    var message: String {
        let more = alert.figures.isAtBound ? "at least " : ""
        let count = more + "\(alert.figures.value)"
        let window = plainDuration(alert.figures.window.nanoseconds / 1_000_000_000)
        guard alert.status != .ended else {
            let lasted = plainDuration(alert.lasted.nanoseconds / 1_000_000_000)
            return "instance \(who): \(what) is over, after \(lasted)"
        }
        let head = "instance \(who) \(alert.status == .continues ? "still " : "")"
        switch alert.kind {
        case .fanOut: return head + "connects to many new destinations: \(count) within \(window)"
        case .smtp: return head + "makes many connections to mail ports: \(count) within \(window)"
        case .portScan:
            return head + "tries many destinations and ports that refuse it or are denied: \(count) within \(window)"
        case .volume:
            return head + "transfers more than usual: \(plainBytes(Int64(clamping: alert.figures.value))) within "
                + "\(window), usually \(plainBytes(Int64(clamping: alert.figures.usual)))"
        }
    }

    /// `i_7 of acme/shop/prod`.
    private var who: String {
        names.owner.isUnknown ? names.instance : "\(names.instance) of \(names.owner.path)"
    }

    private var what: String {
        switch alert.kind {
        case .fanOut: "connecting to many new destinations"
        case .smtp: "making many connections to mail ports"
        case .portScan: "trying many destinations and ports that refuse it or are denied"
        case .volume: "transferring more than usual"
        }
    }

    func write(_ line: inout JSONLine) {
        line.field("kind", alert.kind.rawValue)
        line.field("status", alert.status.rawValue)
        line.field("instance", names.instance)
        line.field("env", names.env)
        line.field("app", names.app)
        line.field("org", names.org)
        line.field("source", "\(alert.source)")
        line.list("addresses", addresses.isEmpty ? [alert.source] : addresses) { $0.string("\($1)") }
        writeFigures(&line)
        line.field("window_s", alert.figures.window.nanoseconds / 1_000_000_000)
        if alert.figures.isAtBound { line.field("at_least", true) }
        if let example = alert.figures.example { line.field("example", "\(example)") }
        if alert.status != .started { line.field("lasted_s", alert.lasted.nanoseconds / 1_000_000_000) }
        line.field("investigate", look)
    }

    private func writeFigures(_ line: inout JSONLine) {
        let figures = alert.figures
        switch alert.kind {
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
            line.field("baseline_bytes", figures.usual)
        }
        line.field("threshold", figures.bound)
        if alert.status != .started { line.field("peak", alert.peak) }
    }

    /// What to run to see more.
    var look: String {
        // Connections refused by a stage are not flows: only the connection log has them.
        guard alert.kind != .portScan, let adminSocket else { return lookInLog }
        var words = "pipelined top"
        if adminSocket != NodeSettings.usualAdminSocket { words += " --admin \(AlertText.shellWord(adminSocket))" }
        words += " --by destination"
        if !names.owner.isUnknown { words += " --env \(AlertText.shellWord(names.owner.path))" }
        words += " --instance \(AlertText.shellWord(names.instance))"
        switch alert.kind {
        case .smtp: return words + (alert.figures.example.map { " --port \($0.port)" } ?? "") + " --sort connections"
        case .fanOut: return words + " --sort connections"
        default: return words
        }
    }

    private var lookInLog: String {
        let fields = [("o", names.org), ("a", names.app), ("e", names.env), ("i", names.instance)]
        let arguments = fields.map { "--arg \($0) \(AlertText.shellWord(AlertText.logged($1)))" }
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
            c.isASCIILetterOrDigit || "-._:/@%+,".utf8.contains(c)
        }
        guard text.isEmpty || !text.utf8.allSatisfy(isPlain) else { return text }
        return "'" + text.replacing("'", with: "'\\''") + "'"
    }
}
