import Pipeline
import PipelineFlows

/// `account`: adds each ended connection and its bytes to the totals of its route. `account every 5s`: also records
/// flows (who sent how much to whom) of open connections (R21).
public enum AccountFilter: Filter {
    public struct Settings: Sendable {
        /// The interval of flow records, with a margin; nil: flows are not recorded.
        public let every: TimeSpan?
        public init(every: TimeSpan? = nil) { self.every = every }
    }

    /// The worker's flow counters, and the node's flow queues, which live as long as its workers.
    public struct WorkerState {
        var flows: UnsafeMutablePointer<WorkerFlows>?
        let queues: Unmanaged<FlowQueues>?
    }

    /// The most records that an iteration moves to the ring.
    private static let drainBatch = 1024

    public static let descriptor = FilterDescriptor(
        keyword: "account",
        summary: "counts connections and bytes by route and by flow",
        needs: [.route], reads: [.client],
        clauses: [
            ClauseSpec(
                "every", [.word("every"), .duration(name: "interval", .seconds(1)...(.seconds(60)))],
                summary: "records the flows of open connections this often (R21)")
        ], blocks: [LedgerBlock.block, ConntrackBlock.block, AlertsBlock.block, ExportBlock.block],
        foreignWords: .foreignWords(["option contstats": ForeignWord("account every 5s")]))

    public static func settings(_ directive: Directive) throws(SettingsError) -> Settings {
        Settings(every: directive.duration("every"))
    }

    /// Flows are recorded with or without a route. Route totals alone need a route, or, on egress nodes without routes,
    /// a sender.
    public static func facts(_ settings: Settings) -> StageFacts {
        settings.every == nil
            ? StageFacts(needs: descriptor.needs, instead: [.route: .identity])
            : StageFacts(reads: descriptor.reads, capabilities: .recordsFlows)
    }

    /// Warns about flows without a ledger, and about alerts without flows.
    public static func review(_ config: ConfigReview) -> [ConfigRemark] {
        var remarks: [ConfigRemark] = []
        let records = config.capabilities.contains(.recordsFlows)
        if records, config.blocks.only(LedgerBlock.self) == nil {
            remarks.append(
                ConfigRemark(
                    .note, at: .stage(.recordsFlows), "flows are recorded, but no `ledger` stores them",
                    help: "write `ledger /var/lib/pipelined/ledger.db` in the `node` block"))
        }
        if !records, let alerts = config.blocks.only(AlertsBlock.self)?.values,
            alerts.fanOut != nil || alerts.volume != nil
        {
            remarks.append(
                ConfigRemark(
                    .note, at: .block(AlertsBlock.block.kind),
                    "no pipeline records flows: `fan_out` and `volume` see nothing",
                    help: "write `account every 5s` in a pipeline"))
        }
        return remarks
    }

    public static func makeState(_ settings: Settings) -> WorkerState { WorkerState(flows: nil, queues: nil) }

    public static func makeState(_ settings: Settings, _ context: StageContext) -> WorkerState {
        guard settings.every != nil, let worker = context.worker, let queues = context.services.find(FlowQueues.self),
            let flows = queues.flows(of: worker)
        else { return makeState(settings) }
        flows.pointee.users += 1
        return WorkerState(flows: flows, queues: .passUnretained(queues))
    }

    public static func prepare(_ settings: Settings, workers: Int, _ services: Services) -> Bool {
        guard settings.every != nil else { return true }
        guard let queues = services.find(FlowQueues.self) else { return false }
        return (0..<workers).allSatisfy { queues.flows(of: $0) != nil }
    }

    public static func evaluate(
        _ settings: Settings, _ state: inout WorkerState, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict { .next }

    public static func settle(_ settings: Settings, _ state: inout WorkerState, _ totals: ConnectionTotals) {
        grow(&state, totals)
        guard let cell = totals.route else { return }
        cell.pointee.connections.wrappingAdd(1, ordering: .relaxed)
        cell.pointee.bytesToUpstream.wrappingAdd(totals.bytesToUpstream, ordering: .relaxed)
        cell.pointee.bytesToClient.wrappingAdd(totals.bytesToClient, ordering: .relaxed)
    }

    public static func explain(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        let flow = settings.every == nil ? nil : "its bytes are recorded for \(view.facts.client.endpoint.address)"
        let route = view.facts.route.map {
            "connections and bytes count for route \($0.pointee.id.string) when they end"
        }
        let parts = [flow, route].compactMap { $0 }
        return parts.isEmpty ? "no route to count for" : parts.joined(separator: "; ")
    }
}

// MARK: Flows

extension AccountFilter {
    /// A quarter of the interval is left for the way through the ring to disk, so that `every 5s` keeps R21's bound of
    /// 5 s.
    public static func progressInterval(_ settings: Settings) -> TimeSpan? {
        settings.every.map { TimeSpan(nanoseconds: $0.nanoseconds / 4 * 3) }
    }

    public static func progress(_ settings: Settings, _ state: inout WorkerState, _ totals: ConnectionTotals) {
        grow(&state, totals)
    }

    public static func flush(_ settings: Settings, _ state: inout WorkerState, isLast: Bool) -> FlushOutcome {
        guard let flows = state.flows else { return .done }
        if isLast {
            handOver(flows, state.queues)
            return .done
        }
        let hasRoom = flows.pointee.table.drain(into: flows.pointee.queue, limit: drainBatch)
        if flows.pointee.table.count == 0 { return .done }
        return hasRoom ? .more : .waits
    }

    /// The last worker memory that uses the flows hands over everything, since no other may follow.
    public static func disposeState(_ state: inout WorkerState) {
        guard let flows = state.flows else { return }
        state.flows = nil
        flows.pointee.users -= 1
        if flows.pointee.users == 0 { handOver(flows, state.queues) }
    }

    private static func handOver(_ flows: UnsafeMutablePointer<WorkerFlows>, _ queues: Unmanaged<FlowQueues>?) {
        let rest = flows.pointee.table.takeAll()
        queues?._withUnsafeGuaranteedRef { $0.hand(over: rest, from: flows.pointee.queue) }
    }

    private static func grow(_ state: inout WorkerState, _ totals: ConnectionTotals) {
        guard let flows = state.flows else { return }
        let begun = totals.at > totals.duration.nanoseconds ? totals.at - totals.duration.nanoseconds : 0
        let growth = FlowTable.Growth(
            connections: totals.isReported ? 0 : 1,
            bytesOut: totals.bytesToUpstream &- totals.reported.bytesToUpstream,
            bytesIn: totals.bytesToClient &- totals.reported.bytesToClient,
            firstSeen: totals.isReported ? totals.at : begun, lastSeen: totals.at)
        guard growth.connections > 0 || growth.bytesOut > 0 || growth.bytesIn > 0 else { return }
        if !flows.pointee.table.add(key(totals), growth) { flows.pointee.queue.pointee.noteAggregated(1) }
    }

    /// The relay carries only TCP (6).
    static func key(_ totals: ConnectionTotals) -> FlowKey {
        let isKnown = totals.instance != InstanceIdentity.unknown
        return FlowKey(
            instance: totals.instance, source: isKnown ? totals.source : totals.client.endpoint.address,
            destination: totals.destination.endpoint.address,
            port: totals.destination.endpoint.port, proto: 6)
    }
}
