import CLinux
import Pipeline
import PipelineRouting
import PipelineRuntime
import PipelineText

/// Listeners that a start needs.
extension RunningNode {
    /// How long duplicate address detection may take at a start, and between looks.
    private static let addressPatience = TimeSpan.seconds(5)
    private static let addressPoll: Int64 = 100_000_000

    /// At boot, addresses may still be tentative: waits for those listeners.
    static func openRequired(
        _ keeper: ListenerKeeper, _ plan: [PlannedListener], _ log: ControlLog
    ) -> (staged: [ListenerKey: OpenListener], failures: [ListenError]) {
        let end = Instant(nanoseconds: cl_now()) + addressPatience
        var hasSaid = false
        while true {
            let result = keeper.openRequired(plan)
            guard !result.failures.isEmpty, result.failures.allSatisfy(\.isTentative),
                Instant(nanoseconds: cl_now()) < end
            else { return result }
            if !hasSaid {
                hasSaid = true
                log.say(
                    "address_tentative",
                    "duplicate address detection is running: waiting up to \(addressPatience.milliseconds / 1000) s "
                        + "for it"
                ) { line in
                    let addresses = Set(result.failures.map(\.endpoint.address)).sorted()
                    line.list("addresses", addresses) { $0.string($1.description) }
                }
            }
            cl_sleep(addressPoll)
        }
    }
}
