import Pipeline
import PipelineRouting

/// The `backends` of a running node: each address once, with what this node knows of it (R12, R18).
struct BackendsReport {
    /// Names shown of the instances and the routes of one address; the numbers are whole.
    private static let shown = 100

    private struct Row {
        let address: Endpoint
        let cell: UnsafePointer<BackendCell>
        let weight: UInt16
        let maxConnections: UInt32
        var instances: [String] = []
        var routes: [String] = []
        var routeCount = 0
        /// Whose routes those are, one for each table's owner.
        var owners: [UnsafePointer<RouteOwner>] = []
        var hasProxy = false
    }

    /// Keeps the cells alive.
    private let table: RouteTableSnapshot
    private let now: Instant
    private let rows: [Row]

    init(_ table: RouteTableSnapshot, _ now: Instant) {
        self.table = table
        self.now = now
        var rows: [UnsafePointer<BackendCell>: Row] = [:]
        table.visitAll { route, _ in
            for backend in route.pointee.backends.buffer {
                var row =
                    rows[backend.cell]
                    ?? Row(
                        address: backend.address.endpoint, cell: backend.cell, weight: backend.weight,
                        maxConnections: backend.maxConnections)
                row.routeCount += 1
                let owner = route.pointee.owner
                if row.owners.count < BackendsReport.shown, !row.owners.contains(owner) { row.owners.append(owner) }
                if row.routes.count < BackendsReport.shown { row.routes.append(route.pointee.id.string) }
                let instance = backend.instance.string
                if row.instances.count < BackendsReport.shown, !row.instances.contains(instance) {
                    row.instances.append(instance)
                }
                if route.pointee.flags.contains(.proxyV2) { row.hasProxy = true }
                rows[backend.cell] = row
            }
        }
        self.rows = rows.values.sorted { ($0.address.address, $0.address.port) < ($1.address.address, $1.address.port) }
    }

    func response(isText: Bool) -> AdminResponse {
        if isText { return AdminCommands.text(text) }
        var next = 0
        return AdminResponse(Array("{\"count\":\(rows.count),\"backends\":[".utf8)) {
            guard next <= rows.count else { return nil }
            var bytes: [UInt8] = []
            while next < rows.count, bytes.count < 65536 {
                if next > 0 { bytes.append(UInt8(ascii: ",")) }
                bytes += json(rows[next])
                next += 1
            }
            if next == rows.count {
                bytes += Array("]}\n".utf8)
                next += 1
            }
            return bytes
        }
    }

    private func verdict(_ row: Row) -> ProxyVerdict { row.hasProxy ? ProxyVerdict(row.cell) : .off }

    private func ejectedFor(_ row: Row) -> UInt64 {
        Instant(nanoseconds: row.cell.pointee.ejectedUntil.load(ordering: .relaxed)).since(now).milliseconds
    }

    private func envs(_ row: Row) -> [EnvName] { Set(row.owners.map { $0.pointee.name }).sorted() }

    private func probe(_ row: Row) -> String {
        switch BackendCell.Probe(rawValue: row.cell.pointee.probe.load(ordering: .relaxed)) {
        case .up?: "up"
        case .down?: "down"
        case .unknown?, nil: "unknown"
        }
    }

    private func json(_ row: Row) -> [UInt8] {
        let cell = row.cell
        var line = JSONLine()
        line.open()
        line.field("address", row.address.description)
        line.list("instances", row.instances) { $0.string($1) }
        line.list("envs", envs(row))
        line.list("routes", row.routes) { $0.string($1) }
        line.field("routes_count", row.routeCount)
        line.field("eligible", cell.pointee.isEligible(at: now))
        line.field("active", UInt64(cell.pointee.active.current))
        if row.maxConnections > 0 { line.field("max_connections", UInt64(row.maxConnections)) }
        line.field("connects", cell.pointee.connects.load(ordering: .relaxed))
        line.field("failures", cell.pointee.failures.load(ordering: .relaxed))
        line.field("failures_in_a_row", UInt64(cell.pointee.failuresInARow.load(ordering: .relaxed)))
        line.field("ejected_for_ms", ejectedFor(row))
        line.field("probe", probe(row))
        line.field("weight", UInt64(row.weight))
        line.field("proxy", verdict(row).rawValue)
        line.field("proxy_rejections", cell.pointee.proxyRejections.load(ordering: .relaxed))
        line.close()
        return line.bytes
    }

    private var text: String {
        var table = TextTable([
            "BACKEND", "INSTANCE", "OWNER", "-ROUTES", "-WEIGHT", "-ACTIVE", "-CONNECTS", "-FAILURES", "PROBE",
            "EJECTED",
            "PROXY",
        ])
        for row in rows {
            let cell = row.cell
            let more = row.instances.count > 1 ? " +\(row.instances.count - 1)" : ""
            let envs = envs(row)
            let others = envs.count > 1 ? " +\(envs.count - 1)" : ""
            let ejected = ejectedFor(row)
            table.add([
                row.address.description, (row.instances.first ?? "") + more,
                (envs.first?.path ?? "") + others, "\(row.routeCount)", "\(row.weight)",
                "\(cell.pointee.active.current)", "\(cell.pointee.connects.load(ordering: .relaxed))",
                "\(cell.pointee.failures.load(ordering: .relaxed))", probe(row),
                ejected > 0 ? "\(ejected)ms" : "no", verdict(row).rawValue,
            ])
        }
        return table.text
    }
}
