import CLinux
import Pipeline
import PipelineNode
import PipelineText

/// What `status` says of a canary (R29): the one that runs, or that the config file's program was rolled back.
struct CanaryStatus {
    private let node: RunningNode
    private let now = Instant(nanoseconds: cl_now())
    /// Reasons that are shown of a side.
    private static let shown = 5

    init(_ node: RunningNode) { self.node = node }

    var problems: [String] {
        node.rolledBack.map { ["\($0.text); since \(Timestamp.text($0.at))"] } ?? []
    }

    func write(_ line: inout JSONLine) {
        if let canary = node.canary {
            line.key("canary")
            line.open()
            line.key("since")
            line.timestamp(canary.since)
            line.field("percent", canary.settings.percent)
            line.field("by", canary.settings.unit.rawValue)
            line.field("for_s", canary.settings.time.milliseconds / 1000)
            line.field("left_s", canary.ends.since(now).milliseconds / 1000)
            line.key("evidence")
            line.open()
            CanaryReport.write(&line, canary.tally)
            line.close()
            for side in CanarySide.allCases {
                line.list(side == .canary ? "canary_failures" : "others_failures", canary.failures(side)) {
                    $0.open()
                    $0.field("reason", $1.name)
                    $0.field("count", $1.count)
                    $0.close()
                }
            }
            line.close()
        } else {
            line.nullField("canary")
        }
        guard let rolledBack = node.rolledBack else { return line.nullField("rolled_back") }
        line.key("rolled_back")
        line.open()
        line.key("time")
        line.timestamp(rolledBack.at)
        line.field("by", rolledBack.by)
        line.field("why", rolledBack.why)
        line.close()
    }

    var text: String {
        guard let canary = node.canary else { return "" }
        let left = plainDuration(canary.ends.since(now).milliseconds / 1000)
        let head =
            "canary: the new program has \(canary.settings.text) since \(Timestamp.text(canary.since)), everywhere in "
            + "\(left)\n"
        let tally = canary.tally
        var table = TextTable([
            "CANARY", "-CONNECTIONS", "-RELAYED", "-REFUSED", "-NOT CONNECTED", "-LEFT", "-BROKEN", "-UNANSWERED",
            "-TYPICAL TIME",
        ])
        for side in CanarySide.allCases {
            let kinds: [CanaryEvidence.Kind] = [
                .begun, .relayed, .refused, .notConnected, .left, .broken, .unanswered,
            ]
            table.add(
                [side == .canary ? "new" : "current"] + kinds.map { "\(tally.total($0, side))" }
                    + [tally.typicalTime(side).map { "\($0.nanoseconds / 1000) µs" } ?? "-"])
        }
        let failures = canary.failures(.canary).prefix(CanaryStatus.shown)
        let reasons = failures.map { "\($0.name) \($0.count)" }.joined(separator: ", ")
        return head + table.text + (reasons.isEmpty ? "" : "failed on the new program: \(reasons)\n")
    }
}
