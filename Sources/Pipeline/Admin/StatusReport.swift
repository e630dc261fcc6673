import CLinux
import Pipeline
import PipelineAlerts
import PipelineIntercept
import PipelineNode
import PipelineResolve
import PipelineRouting
import PipelineRuntime
import PipelineText

/// The `status` of a running node.
struct StatusReport {
    private let node: RunningNode

    init(_ node: RunningNode) { self.node = node }

    func response(isText: Bool) -> AdminResponse {
        isText ? AdminResponse.text(text) : AdminResponse(json)
    }

    private var uptime: UInt64 { Instant(nanoseconds: cl_now()).since(node.startedAt).nanoseconds / 1_000_000_000 }
    private var status: String { node.isEnding ? "draining" : "serving" }

    /// What was counted at least once, by name.
    private func counts(_ count: (ReasonCode) -> UInt64) -> [(name: String, count: UInt64)] {
        (0..<node.program.reasons.count).map { ReasonCode(rawValue: UInt16($0)) }.map { ($0, count($0)) }
            .filter { $0.1 > 0 }
            .map { (node.program.reasons.text($0.0), $0.1) }
    }
    /// Problems of desired state, and shortages of the node.
    private var problems: [String] {
        node.problems + (DesiredStateReport(node)?.problems ?? []) + (RoutesWatchReport(node)?.problems ?? [])
            + StatusReport.unapplied(node.awaitingStart)
            + CooldownReport(node.routing).problems + shortages + CanaryStatus(node).problems
            + node.interceptionProblems + node.sources.problems
            + [node.flows.problem, node.names.problem].compactMap { $0 } + NameRows.problems(node.names.statuses)
            + LogReport(node.writer).problems + [JournalReport(node.journal)?.problem].compactMap { $0 }
    }

    /// Changed settings that need a restart.
    static func unapplied(_ settings: [String]) -> [String] {
        settings.isEmpty
            ? [] : ["settings of `node` that need a restart to take effect: " + settings.joined(separator: ", ")]
    }

    private var shortages: [String] {
        var texts: [String] = []
        if node.shortages.memory.isShort {
            texts.append(
                "memory is short: new connections are refused (`limits.memory`), established ones are not "
                    + "affected")
        }
        let down = node.watch.routesDown
        if down > 0 {
            texts.append(
                "\(down) \(down == 1 ? "route has" : "routes have") lost every backend: see `pipelined routes`, and "
                    + "`pipelined backends`")
        }
        return texts
    }
    private var ended: [(name: String, count: UInt64)] { counts(node.fleet.total(ended:)) }
    private var shadowed: [(name: String, count: UInt64)] { counts(node.fleet.total(shadowed:)) }

    // MARK: JSON

    private var json: [UInt8] {
        var line = JSONLine()
        line.open()
        line.field("node", node.program.node.name)
        line.field("version", Version.text)
        line.field("pid", Int(cl_process_id()))
        line.field("status", status)
        line.field("uptime_s", uptime)
        line.field("config", node.configPath)
        line.list("config_files", node.configFiles) { $0.string($1) }
        if let revision = node.revision { line.field("revision", revision) } else { line.nullField("revision") }
        line.field("routes", node.routeCount)
        line.field("generation", node.fleet.snapshots.newest)
        line.key("memory")
        line.open()
        line.field("used", node.shortages.memory.reading.used)
        line.field("bound", node.shortages.memory.bound(node.program.node.memory))
        line.close()
        line.field("tables_in_memory", node.fleet.snapshots.count)
        line.field("programs_in_memory", node.fleet.snapshots.programCount)
        line.field("pinned", node.pinned)
        writeReload(&line)
        CanaryStatus(node).write(&line)
        line.list("problems", problems) { $0.string($1) }
        StatusReport.write(&line, node.interception?.report ?? .off)
        line.list("workers", node.fleet.workers, StatusReport.write)
        line.list("listeners", node.listeners.kept, write)
        if let store = node.store { line.field("listeners_kept", store.count) }
        line.list("reasons", ended, StatusReport.write)
        line.list("shadowed", shadowed, StatusReport.write)
        LogReport(node.writer).write(&line)
        JournalReport(node.journal)?.write(&line)
        DesiredStateReport(node)?.write(&line)
        SuspensionReport(node.routing).write(&line)
        CooldownReport(node.routing).write(&line)
        RoutesWatchReport(node)?.write(&line)
        if let alerts = node.flowWatch.counts { StatusReport.write(&line, alerts) }
        line.list("names", node.names.statuses, StatusReport.write)
        if node.program.capabilities.contains(.refusesUnreachable) { writeUnreachable(&line) }
        node.flows.counts.write(&line)
        line.close()
        line.newline()
        return line.bytes
    }

    private func writeReload(_ line: inout JSONLine) {
        guard let reload = node.lastReload else { return line.nullField("last_reload") }
        line.key("last_reload")
        line.open()
        line.key("time")
        line.timestamp(reload.at)
        line.field("by", reload.by)
        line.field("outcome", reload.refusal == nil ? "reloaded" : "refused")
        line.field("message", reload.refusal)
        line.close()
    }

    private static func write(_ line: inout JSONLine, _ name: NameStatus) { NameRows.write(&line, name) }

    private static func write(_ line: inout JSONLine, _ worker: WorkerThread) {
        line.open()
        line.field("worker", worker.index)
        line.field("generation", worker.mailbox.appliedGeneration)
        for metric in WorkerCounters.Metric.allCases {
            line.field(name: metric.name, worker.counters.pointee.read(metric))
        }
        line.close()
    }

    private func write(_ line: inout JSONLine, _ kept: ListenerKeeper.Kept) {
        line.open()
        line.field("address", kept.bound.description)
        line.field("hint", kept.planned.spec.kindName)
        line.field("pipeline", pipeline(kept))
        line.field("origin", kept.planned.origin.name)
        line.fields(kept.planned.origin.env)
        if let interface = kept.planned.spec.options.interface { line.field("interface", interface) }
        if kept.planned.spec.options.multipath { line.field("multipath", kept.isMultipath) }
        line.field("status", kept.degradation == nil ? "open" : "degraded")
        line.field("queue_drops", StatusReport.drops(kept))
        if let degradation = kept.degradation {
            line.field("why", degradation.error.description)
            line.field(
                "degraded_s", Instant(nanoseconds: cl_now()).since(degradation.since).nanoseconds / 1_000_000_000)
        }
        line.close()
    }

    /// Connections dropped by full accept queues, over all workers' sockets.
    private static func drops(_ kept: ListenerKeeper.Kept) -> UInt64 {
        kept.sockets.reduce(0) { $0 + UInt64(cl_listen_drops($1.number)) }
    }

    private static func write(_ line: inout JSONLine, _ counted: (name: String, count: UInt64)) {
        line.open()
        line.field("reason", counted.name)
        line.field("count", counted.count)
        line.close()
    }

    private static func write(_ line: inout JSONLine, _ alerts: FlowWatch.Counts) {
        line.key("alerts")
        line.open()
        line.list("kinds", alerts.kinds) { line, kind in
            line.open()
            line.field("kind", kind.name)
            line.field("started", kind.begun)
            line.field("active", kind.active)
            line.close()
        }
        line.field("instances", alerts.instances)
        line.field("records_unwatched", alerts.unwatched)
        line.field("refusals_dropped", alerts.dropped)
        line.close()
    }

    private func writeUnreachable(_ line: inout JSONLine) {
        let counts = node.unreachable.counts
        line.key("unreachable")
        line.open()
        line.field("added", counts.added)
        line.field("dropped", counts.dropped)
        line.field("answered", counts.answered)
        line.field("off", node.unreachable.problem)
        line.close()
    }

    private static func write(_ line: inout JSONLine, _ report: InterceptionReport) {
        guard report.mode != .off else { return line.nullField("interception") }
        line.key("interception")
        line.open()
        line.field("rules", report.mode.rawValue)
        line.field("status", report.status.rawValue)
        line.list("missing", report.faults) { $0.string($1) }
        line.list("warnings", report.warnings) { $0.string($1) }
        line.close()
    }

    private func pipeline(_ kept: ListenerKeeper.Kept) -> String {
        let chains = (kept.planned.canary == .alone ? node.canary?.program ?? node.program : node.program).chains
        return kept.planned.spec.chain < chains.count ? chains[kept.planned.spec.chain].name : "?"
    }

    // MARK: Text

    private var text: String {
        var text = "\(node.program.node.name): \(status), up \(plainDuration(uptime)), \(Version.text), pid "
        text += "\(cl_process_id())\n"
        text += "config \(node.configPath)"
        if let revision = node.revision { text += ", state revision \(revision)" }
        text += ", \(node.routeCount) routes, generation \(node.fleet.snapshots.newest) "
        text += "(\(node.fleet.snapshots.programCount) programs in use)\n"
        let included = node.configFiles.dropFirst()
        if !included.isEmpty {
            let rest = included.count > shownMembers ? " and \(included.count - shownMembers) more" : ""
            text += "includes \(included.prefix(shownMembers).joined(separator: " "))\(rest)\n"
        }
        if let reload = node.lastReload {
            text += "last reload \(Timestamp.text(reload.at)) by \(reload.by): "
            text += (reload.refusal.map { "refused: \($0)" } ?? "done") + "\n"
        }
        text += SuspensionReport(node.routing).text
        text += CanaryStatus(node).text
        text += RoutesWatchReport(node)?.text ?? ""
        for problem in problems { text += "problem: \(problem)\n" }
        for warning in node.interception?.report.warnings ?? [] { text += "warning: \(warning)\n" }
        text += "\n" + workersText + "\n" + listenersText
        text += countsText("REASON", ended) + countsText("SHADOWED", shadowed) + alertsText
        return text + namesText + node.flows.counts.text
    }

    private var workersText: String {
        var table = TextTable([
            "-WORKER", "-GENERATION", "-ACTIVE", "-ACCEPTED", "-SNIFFING", "-QUEUED", "-CONNECTS", "-RETRIES",
            "-TO BACKEND",
            "-TO CLIENT",
        ])
        for worker in node.fleet.workers {
            let metrics: [WorkerCounters.Metric] = [
                .active, .accepted, .sniffing, .queued, .connectAttempts, .connectRetries, .bytesToUpstream,
                .bytesToClient,
            ]
            table.add(
                ["\(worker.index)", "\(worker.mailbox.appliedGeneration)"]
                    + metrics.map { "\(worker.counters.pointee.read($0))" })
        }
        return table.text
    }

    private var listenersText: String {
        var table = TextTable(["LISTENER", "HINT", "PIPELINE", "FOR", "-QUEUE DROPS", "STATUS"])
        for run in EndpointRuns.runs(node.listeners.kept, StatusReport.areOneRow) {
            guard let first = run.first, let last = run.last else { continue }
            let interface = first.planned.spec.options.interface.map { " \($0)" } ?? ""
            table.add([
                EndpointRuns.text(first.bound, last.bound) + interface, first.planned.spec.kindName, pipeline(first),
                first.planned.origin.env?.path ?? first.planned.origin.name,
                "\(run.reduce(0) { $0 + StatusReport.drops($1) })",
                first.degradation.map { "degraded: \($0.error)" } ?? "open",
            ])
        }
        return table.text
    }

    /// Ports of a range in the same state.
    private static func areOneRow(_ one: ListenerKeeper.Kept, _ next: ListenerKeeper.Kept) -> Bool {
        one.bound.isNext(to: next.bound) && one.planned.origin == .listen && next.planned.origin == .listen
            && one.planned.spec.line == next.planned.spec.line
            && one.degradation?.error.error == next.degradation?.error.error
    }

    /// Only kinds that occurred: most nodes have none.
    private var alertsText: String {
        guard let alerts = node.flowWatch.counts, alerts.kinds.contains(where: { $0.begun > 0 }) else { return "" }
        var table = TextTable(["ALERT", "-STARTED", "-ACTIVE"])
        for kind in alerts.kinds where kind.begun > 0 { table.add([kind.name, "\(kind.begun)", "\(kind.active)"]) }
        return "\n" + table.text
    }

    private var namesText: String { NameRows.text(node.names.statuses) }

    private func countsText(_ name: String, _ counted: [(name: String, count: UInt64)]) -> String {
        guard !counted.isEmpty else { return "" }
        var table = TextTable([name, "-COUNT"])
        for (name, count) in counted { table.add([name, "\(count)"]) }
        return "\n" + table.text
    }
}

extension PlannedListener.Origin {
    package var name: String {
        switch self {
        case .listen: "listen"
        case .expose: "expose"
        case .dedicated: "dedicated_ipv4"
        }
    }
    package var env: EnvName? {
        if case .dedicated(let env) = self { return env }
        return nil
    }
}

package enum Version {
    package static let text = "pipelined 0.1.0"
}
