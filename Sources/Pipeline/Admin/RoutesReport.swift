import Pipeline
import PipelineHealth
import PipelineRouting
import PipelineText

/// The `routes` of a running node, with their counters. Made in batches.
///
/// Threading: the control thread.
final class RoutesReport {
    /// Up to this many are sorted by name and shown as a table; beyond that they come in shard order.
    private static let sortedLimit = 10_000
    /// What a piece of a large table takes at most: each client that reads gets one in an iteration.
    private static let pieceTime = TimeSpan.milliseconds(2)

    private struct Row {
        let id: String
        let owner: EnvName
        let hostname: String?
        let condition: RouteCondition?
        let route: FoundRoute
    }

    /// Keeps the routes alive.
    private let table: RouteTableSnapshot
    private var walk: RouteWalk
    private var rows: [Row] = []
    private let filter: ReportFilter
    private var owners: OwnerFilter
    /// How many fit.
    private var count = 0

    init(_ table: RouteTableSnapshot, _ filter: ReportFilter = ReportFilter()) {
        (self.table, self.filter) = (table, filter)
        walk = RouteWalk(table)
        owners = OwnerFilter(filter)
    }

    func response(isText: Bool) -> AdminResponse {
        guard filter.isEmpty else { return filtered(isText: isText) }
        let hasAll = table.routeCount <= RoutesReport.sortedLimit
        guard isText || hasAll else { return parts() }
        return AdminResponse(preparing: { until in
            let isDone = self.walk.advance(until: until) { route, label in
                if self.rows.count < RoutesReport.sortedLimit { self.rows.append(RoutesReport.row(route, label)) }
            }
            guard isDone || self.rows.count >= RoutesReport.sortedLimit else { return nil }
            if hasAll { self.sort() }
            let all = BatchedRows(rows: self.rows)
            // The closures keep the table.
            guard isText else { return all.json(head: self.jsonHead, tail: "]}\n") { self.json($0) } }
            let rest = self.table.routeCount - self.rows.count
            let note = rest > 0 ? "\(rest) more routes are not shown: --json has all of them\n" : ""
            return all.text(RoutesReport.head, note: note) { self.cells($0) }
        })
    }

    private func sort() {
        rows.sort {
            ($0.hostname ?? "", $0.route.pointee.port, $0.id) < ($1.hostname ?? "", $1.route.pointee.port, $1.id)
        }
    }

    // MARK: Some of them

    private func fits(_ route: FoundRoute, _ label: RouteLabel) -> Bool {
        guard owners.fits(route.pointee.owner) else { return false }
        if let state = filter.state, state != RoutesReport.state(route) { return false }
        guard filter.text != nil else { return true }
        let group = route.group.pointee.cell.pointee.name
        return filter.fits([
            route.pointee.id.string, label.hostname ?? "", route.pointee.owner.pointee.name.path, group.string,
        ])
    }

    /// All are looked at, since nobody knows before which of them fit; then those that do are written, as JSON however
    /// many they are.
    private func filtered(isText: Bool) -> AdminResponse {
        AdminResponse(preparing: { until in
            let isDone = self.walk.advance(until: until) { route, label in
                guard self.fits(route, label) else { return }
                self.count += 1
                if self.count <= RoutesReport.sortedLimit { self.rows.append(RoutesReport.row(route, label)) }
            }
            guard isDone else { return nil }
            let hasAll = self.count == self.rows.count
            if hasAll { self.sort() }
            let all = BatchedRows(rows: self.rows)
            guard !isText else {
                let rest = self.count - self.rows.count
                let note = rest > 0 ? "\(rest) more routes are not shown: --json has all of them\n" : ""
                return all.text(RoutesReport.head, note: note) { self.cells($0) }
            }
            return hasAll ? all.json(head: self.jsonHead, tail: "]}\n") { self.json($0) } : self.parts()
        })
    }

    private static func state(_ route: FoundRoute) -> ReportFilter.State {
        if ProxyVerdict(route) == .mismatch { return .mismatch }
        if route.backends.count == 0 { return .empty }
        return eligible(route) > 0 ? .up : .down
    }

    private var jsonHead: String { "{\"count\":\(filter.isEmpty ? table.routeCount : count),\"routes\":[" }

    /// Too many to be held at once.
    private func parts() -> AdminResponse {
        var next = 0
        var isFirst = true
        return AdminResponse(Array(jsonHead.utf8)) {
            // A table's parts are small: some together make a piece.
            var bytes: [UInt8] = []
            let end = Instant(nanoseconds: Clock.now) + RoutesReport.pieceTime
            while next < self.table.partCount, bytes.count < 65536, Instant(nanoseconds: Clock.now) < end {
                self.table.visit(part: next) { route, label in
                    guard self.filter.isEmpty || self.fits(route, label) else { return }
                    if !isFirst { bytes.append(UInt8(ascii: ",")) }
                    isFirst = false
                    bytes += self.json(RoutesReport.row(route, label))
                }
                next += 1
            }
            if !bytes.isEmpty || next < self.table.partCount { return bytes }
            next += 1
            return next == self.table.partCount + 1 ? Array("]}\n".utf8) : nil
        }
    }

    private static func row(_ route: FoundRoute, _ label: RouteLabel) -> Row {
        Row(
            id: route.pointee.id.string, owner: route.pointee.owner.pointee.name, hostname: label.hostname,
            condition: label.condition, route: route)
    }

    /// The priority that new connections go to, of a route with several; nil: one priority, or nothing is eligible.
    private static func tierInUse(_ route: FoundRoute) -> (tier: PriorityTier, isFirst: Bool)? {
        let group = route.group
        guard group.pointee.tiers.count > 1,
            let index = group.pointee.tierInUse(at: Instant(nanoseconds: Clock.now))
        else { return nil }
        return (group.pointee.tiers[index], index == 0)
    }

    /// `2/5`, and ` backup` while the first priority is down.
    private static func backends(_ route: FoundRoute) -> String {
        let counts = "\(eligible(route))/\(route.backends.count)"
        guard let (tier, isFirst) = tierInUse(route), !isFirst else { return counts }
        return "\(counts) \(tier.name)"
    }

    /// The number of eligible backends among the ready ones.
    private static func eligible(_ route: FoundRoute) -> Int {
        route.group.pointee.usable(at: Instant(nanoseconds: Clock.now))
    }

    /// Connections that wait in the route's own queue; nil: it has none.
    private static func queue(_ route: FoundRoute) -> (waiting: UInt64, limit: UInt64)? {
        queue(route.group.pointee.policy?.pointee.queue)
    }
    private static func queue(_ rule: QueueRule?) -> (waiting: UInt64, limit: UInt64)? {
        rule.map { (UInt64($0.queue.pointee.waiting.current), UInt64($0.limit)) }
    }

    /// Current and total connections; ended ones are counted by an `account` stage.
    private static func connections(_ route: FoundRoute) -> (active: UInt64, all: UInt64) {
        let users = UInt64(route.pointee.cell.pointee.users.current)
        let active = users - min(users, queue(route)?.waiting ?? 0)
        return (active, route.pointee.cell.pointee.connections.load(ordering: .relaxed) &+ active)
    }

    private func json(_ row: Row) -> [UInt8] {
        let (found, route) = (row.route, row.route.pointee)
        let cell = route.cell
        var line = JSONLine()
        line.open()
        line.field("id", row.id)
        line.field("owner", row.owner.path)
        line.fields(row.owner)
        line.field("hostname", row.hostname)
        line.field("port", UInt64(route.port))
        if let condition = row.condition { line.field("when", condition.text) }
        line.field("status", RoutesReport.state(found).rawValue)
        line.field("hint", (route.flags.contains(.raw) ? ProtocolHint.tcpRaw : .tlsPassthrough).name)
        line.field("balance", route.balance?.name)
        if let standing = standing(row) { line.field(standing, true) }
        let group = found.group.pointee
        if !group.cell.pointee.name.buffer.isEmpty { line.field("group", group.cell.pointee.name.string) }
        if group.maxConnections > 0 {
            line.field("group_active", UInt64(group.cell.pointee.active.current))
            line.field("group_max_connections", UInt64(group.maxConnections))
        }
        if !group.cell.pointee.name.buffer.isEmpty, let queue = RoutesReport.queue(group.policy?.pointee.groupQueue) {
            line.field("group_queued", queue.waiting)
            line.field("group_queue", queue.limit)
        }
        line.field("backends_eligible", RoutesReport.eligible(found))
        line.field("backends", found.backends.count)
        if let (tier, _) = RoutesReport.tierInUse(found) { line.field("priority_in_use", UInt64(tier.priority)) }
        let connections = RoutesReport.connections(found)
        line.field("active", connections.active)
        if route.maxConnections > 0 { line.field("max_connections", UInt64(route.maxConnections)) }
        if let queue = RoutesReport.queue(found) {
            line.field("queued", queue.waiting)
            line.field("queue", queue.limit)
        }
        line.field("connections", connections.all)
        line.field("bytes_to_backend", cell.pointee.bytesToUpstream.load(ordering: .relaxed))
        line.field("bytes_to_client", cell.pointee.bytesToClient.load(ordering: .relaxed))
        line.field("proxy", ProxyVerdict(found).rawValue)
        line.field("proxy_rejections", UInt64(cell.pointee.proxyRejections.load(ordering: .relaxed)))
        line.close()
        return line.bytes
    }

    private static let head = [
        "ROUTE", "NAME", "-PORT", "OWNER", "BALANCE", "-BACKENDS", "-ACTIVE", "-CONNECTIONS", "-TO BACKEND",
        "-TO CLIENT", "PROXY",
    ]

    private func name(_ row: Row) -> String {
        guard let condition = row.condition else { return row.hostname ?? "(raw)" }
        return (row.hostname.map { "\($0) " } ?? "") + "(\(condition.text))"
    }

    /// Why it gets no connection, whatever its backends are; nil: it does.
    private func standing(_ row: Row) -> StaticString? {
        if row.route.pointee.flags.contains(.withdrawn) { return "withdrawn" }
        return table.handle.isSuspended(row.route) ? "suspended" : nil
    }

    private func cells(_ row: Row) -> [String] {
        let (found, route) = (row.route, row.route.pointee)
        let cell = route.cell
        let rejections = cell.pointee.proxyRejections.load(ordering: .relaxed)
        let connections = RoutesReport.connections(found)
        let group = found.group.pointee.cell.pointee.name
        let limit = route.maxConnections > 0 ? "/\(route.maxConnections)" : ""
        let queued = RoutesReport.queue(found).map { $0.waiting > 0 ? " +\($0.waiting) queued" : "" } ?? ""
        let standing = standing(row).map { " \($0)" } ?? ""
        return [
            row.id, name(row), "\(route.port)", row.owner.path, route.balance?.name ?? "(stage)",
            (!group.buffer.isEmpty ? "\(group.string) " : "") + RoutesReport.backends(found) + standing,
            "\(connections.active)\(limit)\(queued)",
            "\(connections.all)",
            "\(cell.pointee.bytesToUpstream.load(ordering: .relaxed))",
            "\(cell.pointee.bytesToClient.load(ordering: .relaxed))",
            ProxyVerdict(found).rawValue + (rejections > 0 ? " (\(rejections))" : ""),
        ]
    }
}
