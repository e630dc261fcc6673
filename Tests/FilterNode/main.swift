// A daemon with a filter that no config should have, for CanaryTests: `slow for 20ms` takes that long about each connection,
// and its worker with it.
import FilterCatalog
import Glibc
import Pipeline
import PipelinedCommand

enum SlowFilter: Filter {
    static let descriptor = FilterDescriptor(
        keyword: "slow", summary: "takes its time",
        clauses: [
            ClauseSpec(
                "for", [.word("for"), .duration(name: "time", .zero...(.seconds(1)))], required: true,
                summary: "how long")
        ],
        reasons: [ReasonSpec("never", .node, "Never.")])

    static func settings(_ directive: Directive) throws(SettingsError) -> TimeSpan {
        directive.duration("for") ?? .zero
    }

    static func evaluate(
        _ settings: TimeSpan, _ state: inout Void, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        usleep(UInt32(clamping: settings.nanoseconds / 1000))
        return .next
    }

    static func explain(_ settings: TimeSpan, _ view: ConnectionView, _ verdict: Verdict) -> String { "it waits" }
}

PipelinedCommand.main(filters: .standard + [SlowFilter.self])
