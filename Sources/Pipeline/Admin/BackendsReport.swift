import CLinux
import Pipeline
import PipelineHealth
import PipelineRouting
import PipelineText

/// The `backends` of a running node: each address once, with this node's knowledge of it (R12, R18). Made in batches,
/// since a million routes may lead to them.
///
/// Threading: the control thread.
final class BackendsReport {
    /// The most names of instances and routes shown per address; the counts are complete.
    private static let shown = 100
    /// Up to this many are sorted by address.
    private static let sortedLimit = 10_000

    /// The common data of routes with one set of backends.
    private struct Sum {
        var routes: [FrozenText] = []
        var count = RouteCount()
        /// The owners of those routes.
        var owners: [UnsafePointer<RouteOwner>] = []
        var hasProxy = false
    }

    private enum Standing: String {
        /// In the set of a route.
        case ready
        /// Its instance is draining: old connections have a grace period.
        case draining
        /// No route leads to it any more, but old connections remain.
        case gone
    }

    private struct Figures {
        var active: UInt64
        var connects: UInt64
        var failures: UInt64
        var failuresInARow: UInt64
        var rejections: UInt64

        init(_ cell: UnsafePointer<BackendCell>) {
            active = UInt64(cell.pointee.active.current)
            connects = cell.pointee.connects.load(ordering: .relaxed)
            failures = cell.pointee.failures.load(ordering: .relaxed)
            failuresInARow = UInt64(cell.pointee.failuresInARow.load(ordering: .relaxed))
            rejections = cell.pointee.proxyRejections.load(ordering: .relaxed)
        }
    }

    private struct Row {
        let address: Endpoint
        /// Nil: no table keeps it, and ``kept`` is how it was.
        let cell: UnsafePointer<BackendCell>?
        let kept: Figures
        var standing = Standing.ready
        var weight: UInt16 = 0
        /// The limits of the routes that lead there: `.max` where one has none; nil: none does.
        var limits: ClosedRange<UInt32>?
        var priority: UInt8 = 0
        var instances: [String] = []
        /// The `backends` blocks that have it.
        var groups: [String] = []
        /// Where connections wait for it, and for others.
        var queues: Set<UnsafePointer<WaitQueue>> = []
        var sum = Sum()
        var queued: UInt64 { queues.reduce(0) { $0 + UInt64($1.pointee.waiting.current) } }

        /// - Parameter limit: 0: none.
        mutating func add(limit: UInt32) {
            let limit = limit == 0 ? .max : limit
            limits = min(limits?.lowerBound ?? limit, limit)...max(limits?.upperBound ?? limit, limit)
        }

        /// `100`, or `50-100` where routes differ; `none`.
        var limitText: String {
            guard let limits else { return "" }
            let text = { (limit: UInt32) in limit == .max ? "none" : "\(limit)" }
            let (least, most) = (text(limits.lowerBound), text(limits.upperBound))
            return least == most ? least : "\(least)-\(most)"
        }
    }

    /// Keeps the cells alive.
    private let table: RouteTableSnapshot
    private var walk: RouteWalk
    private var sums: [UnsafePointer<BackendGroup>: Sum] = [:]
    private var groups: [(key: UnsafePointer<BackendGroup>, value: Sum)]?
    private var nextGroup = 0
    private let filter: ReportFilter
    private var owners: OwnerFilter
    private var nextRow = 0
    private var fitting: [Row] = []
    private var places: [UnsafePointer<BackendCell>: Int] = [:]
    private var rows: [Row] = []
    private let leaving: [Row]
    private var hasLeaving = false

    /// - Parameter leaving: what connections go on to, see ``RoutingState/leavingBackends``.
    init(
        _ table: RouteTableSnapshot, leaving: [(cell: UnsafePointer<BackendCell>, isDraining: Bool)] = [],
        _ filter: ReportFilter = ReportFilter()
    ) {
        (self.table, self.filter) = (table, filter)
        walk = RouteWalk(table)
        owners = OwnerFilter(filter)
        // As they are now: nothing keeps them until the report is done.
        self.leaving = leaving.map { cell, isDraining in
            Row(
                address: cell.pointee.endpoint, cell: nil, kept: Figures(cell),
                standing: isDraining ? .draining : .gone)
        }
    }

    func response(isText: Bool) -> AdminResponse {
        AdminResponse(preparing: { until in
            guard self.advance(until: until) else { return nil }
            let all = BatchedRows(rows: self.rows)
            guard isText else {
                return all.json(head: "{\"count\":\(self.rows.count),\"backends\":[", tail: "]}\n", self.json)
            }
            let first = BatchedRows(rows: Array(self.rows.prefix(BackendsReport.sortedLimit)))
            let rest = self.rows.count - first.rows.count
            let note = rest > 0 ? "\(rest) more backends are not shown: --json has all of them\n" : ""
            return first.text(BackendsReport.head, note: note, self.cells)
        })
    }

    // MARK: Collecting

    /// Goes on until about that instant. True: ``rows`` are there.
    private func advance(until end: Instant) -> Bool {
        if groups == nil {
            guard walk.advance(until: end, { route, _ in self.add(route) }) else { return false }
            groups = Array(sums)
            sums = [:]
        }
        guard let groups else { return false }
        while nextGroup < groups.count {
            add(groups[nextGroup].key, groups[nextGroup].value)
            nextGroup += 1
            if Instant(nanoseconds: cl_now()) >= end { return false }
        }
        if !hasLeaving { addLeaving() }
        hasLeaving = true
        return choose(until: end)
    }

    /// Leaves the rows that fit.
    private func choose(until end: Instant) -> Bool {
        guard filter.state != nil || filter.text != nil else { return true }
        while nextRow < rows.count {
            if fits(rows[nextRow]) { fitting.append(rows[nextRow]) }
            nextRow += 1
            if nextRow % 64 == 0, Instant(nanoseconds: cl_now()) >= end { return false }
        }
        rows = fitting
        return true
    }

    private func fits(_ row: Row) -> Bool {
        if let state = filter.state, state != self.state(row) { return false }
        guard filter.text != nil else { return true }
        return filter.fits(
            [row.address.description] + row.instances + row.groups + row.sum.routes.map(\.string)
                + envs(row).map(\.path))
    }

    private func state(_ row: Row) -> ReportFilter.State {
        switch row.standing {
        case .draining: .draining
        case .gone: .gone
        case .ready: isEligible(row) ? .up : .down
        }
    }

    private func isEligible(_ row: Row) -> Bool {
        row.weight > 0 && row.cell?.pointee.isEligible(at: Instant(nanoseconds: cl_now())) ?? false
    }

    private func add(_ route: FoundRoute) {
        let (group, owner) = (route.group, route.pointee.owner)
        guard owners.fits(owner) else { return }
        var sum = sums.removeValue(forKey: group) ?? Sum()
        if sum.count.add(route.pointee), sum.routes.count < BackendsReport.shown { sum.routes.append(route.pointee.id) }
        if sum.owners.count < BackendsReport.shown, !sum.owners.contains(owner) { sum.owners.append(owner) }
        if route.pointee.flags.contains(.proxyHeader) { sum.hasProxy = true }
        sums[group] = sum
    }

    private func add(_ group: UnsafePointer<BackendGroup>, _ sum: Sum) {
        for backend in group.pointee.backends.buffer {
            let place = places[backend.cell] ?? rows.count
            if place == rows.count {
                places[backend.cell] = place
                rows.append(
                    Row(
                        address: backend.address.endpoint, cell: backend.cell, kept: Figures(backend.cell),
                        weight: backend.weight, priority: backend.priority))
            }
            rows[place].add(limit: backend.maxConnections)
            rows[place].weight = max(rows[place].weight, backend.weight)
            rows[place].priority = min(rows[place].priority, backend.priority)
            rows[place].sum.count.add(sum.count)
            rows[place].sum.hasProxy = rows[place].sum.hasProxy || sum.hasProxy
            // A route of several groups has one id, whose address is the same.
            for id in sum.routes
            where rows[place].sum.routes.count < BackendsReport.shown
                && !rows[place].sum.routes.contains(where: { $0.buffer.baseAddress == id.buffer.baseAddress })
            {
                rows[place].sum.routes.append(id)
            }
            for owner in sum.owners
            where rows[place].sum.owners.count < BackendsReport.shown && !rows[place].sum.owners.contains(owner) {
                rows[place].sum.owners.append(owner)
            }
            let name = group.pointee.cell.pointee.name
            if !name.buffer.isEmpty, rows[place].groups.count < BackendsReport.shown,
                !rows[place].groups.contains(name.string)
            {
                rows[place].groups.append(name.string)
            }
            if let queue = group.pointee.policy?.pointee.groupQueue { rows[place].queues.insert(queue.queue) }
            guard rows[place].instances.count < BackendsReport.shown else { continue }
            let instance = backend.instance.string
            if !rows[place].instances.contains(instance) { rows[place].instances.append(instance) }
        }
    }

    private func addLeaving() {
        // Whose they were is not known any more.
        if !leaving.isEmpty, filter.owner == nil {
            var known = Set(rows.map(\.address))
            rows += leaving.filter { known.insert($0.address).inserted }
        }
        guard rows.count <= BackendsReport.sortedLimit else { return }
        rows.sort { ($0.address.address, $0.address.port) < ($1.address.address, $1.address.port) }
    }

    // MARK: Rows

    private func figures(_ row: Row) -> Figures { row.cell.map { Figures($0) } ?? row.kept }

    private func verdict(_ row: Row) -> ProxyVerdict {
        guard let cell = row.cell, row.sum.hasProxy else { return .off }
        return ProxyVerdict(cell)
    }

    private func ejectedFor(_ row: Row) -> UInt64 {
        guard let cell = row.cell else { return 0 }
        let until = Instant(nanoseconds: cell.pointee.ejectedUntil.load(ordering: .relaxed))
        return until.since(Instant(nanoseconds: cl_now())).milliseconds
    }

    private func envs(_ row: Row) -> [EnvName] { Set(row.sum.owners.map { $0.pointee.name }).sorted() }

    private func probe(_ row: Row) -> String {
        guard let cell = row.cell else { return "unknown" }
        switch BackendCell.Probe(rawValue: cell.pointee.probe.load(ordering: .relaxed)) {
        case .up?: return "up"
        case .down?: return "down"
        case .unknown?, nil: return "unknown"
        }
    }

    /// Nil: all of its share.
    private func agentPercent(_ row: Row) -> UInt8? {
        let percent = row.cell?.pointee.agentPercent.load(ordering: .relaxed) ?? 100
        return percent == 100 ? nil : percent
    }

    /// `up`, or `up 50%` of what its agent wants.
    private func probeText(_ row: Row) -> String {
        guard let percent = agentPercent(row) else { return probe(row) }
        return probe(row) + (percent == 0 ? " drain" : " \(percent)%")
    }

    private func json(_ row: Row) -> [UInt8] {
        let figures = figures(row)
        var line = JSONLine()
        line.open()
        line.field("address", row.address.description)
        line.field("status", row.standing.rawValue)
        line.list("instances", row.instances) { $0.string($1) }
        line.list("groups", row.groups.sorted()) { $0.string($1) }
        line.list("envs", envs(row))
        line.list("routes", row.sum.routes.map(\.string).sorted()) { $0.string($1) }
        line.field("routes_count", row.sum.count.total)
        line.field("eligible", isEligible(row))
        line.field("active", figures.active)
        if let limits = row.limits, limits.lowerBound < .max {
            line.field("max_connections", UInt64(limits.lowerBound))
            // Routes differ: the highest, or null where one has no limit.
            if limits.lowerBound < limits.upperBound {
                line.field("max_connections_highest", limits.upperBound == .max ? nil : Int(limits.upperBound))
            }
        }
        if !row.queues.isEmpty { line.field("queued", row.queued) }
        line.field("connects", figures.connects)
        line.field("failures", figures.failures)
        line.field("failures_in_a_row", figures.failuresInARow)
        line.field("ejected_for_ms", ejectedFor(row))
        line.field("probe", probe(row))
        if let percent = agentPercent(row) { line.field("agent_percent", UInt64(percent)) }
        line.field("weight", UInt64(row.weight))
        line.field("priority", UInt64(row.priority))
        line.field("proxy", verdict(row).rawValue)
        line.field("proxy_rejections", figures.rejections)
        line.close()
        return line.bytes
    }

    private static let head = [
        "BACKEND", "STATUS", "INSTANCE", "OWNER", "-ROUTES", "-WEIGHT", "PRIORITY", "-ACTIVE", "-MAX", "-CONNECTS",
        "-FAILURES", "PROBE", "EJECTED", "PROXY",
    ]

    private func cells(_ row: Row) -> [String] {
        let (figures, envs, ejected) = (figures(row), envs(row), ejectedFor(row))
        let more = row.instances.count > 1 ? " +\(row.instances.count - 1)" : ""
        let others = envs.count > 1 ? " +\(envs.count - 1)" : ""
        return [
            row.address.description, row.standing.rawValue, (row.instances.first ?? "") + more,
            (envs.first?.path ?? "") + others, "\(row.sum.count.total)",
            row.cell != nil && row.weight == 0 ? "0 (none)" : "\(row.weight)",
            row.priority == BackendSpec.backupPriority ? "backup" : "\(row.priority)",
            row.queued > 0 ? "\(figures.active) +\(row.queued) queued" : "\(figures.active)",
            row.limitText, "\(figures.connects)", "\(figures.failures)", probeText(row),
            ejected > 0 ? "\(ejected)ms" : "no",
            verdict(row).rawValue,
        ]
    }
}
