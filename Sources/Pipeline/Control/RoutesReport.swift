import Pipeline
import PipelineRouting

/// The `routes` of a running node, with what happens on each.
enum RoutesReport {
    /// Up to so many are sorted by name; beyond that they come in the table's order, part by part.
    private static let sortedLimit = 10_000

    private struct Row {
        let id: String
        let owner: EnvName
        let hostname: String?
        let route: UnsafePointer<Route>
    }

    static func response(_ table: RouteTableSnapshot, isText: Bool) -> AdminResponse {
        if isText { return text(table) }
        let parts = table.routeCount <= sortedLimit ? [sorted(table)] : nil
        var next = 0
        var isFirst = true
        let count = parts?.count ?? table.partCount
        return AdminResponse(Array("{\"count\":\(table.routeCount),\"routes\":[".utf8)) {
            // A table's parts are small: some together make a piece.
            var bytes: [UInt8] = []
            while next < count, bytes.count < 65536 {
                for row in parts?[next] ?? rows(table, part: next) {
                    if !isFirst { bytes.append(UInt8(ascii: ",")) }
                    isFirst = false
                    bytes += json(row)
                }
                next += 1
            }
            if !bytes.isEmpty || next < count { return bytes }
            next += 1
            return next == count + 1 ? Array("]}\n".utf8) : nil
        }
    }

    private static func rows(_ table: RouteTableSnapshot, part: Int) -> [Row] {
        var rows: [Row] = []
        table.visit(part: part) { rows.append(row($0, $1())) }
        return rows
    }

    private static func sorted(_ table: RouteTableSnapshot) -> [Row] {
        (0..<table.partCount).flatMap { rows(table, part: $0) }
            .sorted {
                ($0.hostname ?? "", $0.route.pointee.port, $0.id) < ($1.hostname ?? "", $1.route.pointee.port, $1.id)
            }
    }

    private static func row(_ route: UnsafePointer<Route>, _ hostname: String?) -> Row {
        Row(
            id: route.pointee.id.string, owner: route.pointee.owner.pointee.name, hostname: hostname, route: route)
    }

    /// Of the ready backends, how many edge-side evidence lets in (R12).
    private static func eligible(_ route: Route) -> Int {
        let now = Instant(nanoseconds: Clock.now)
        return route.backends.buffer.count { $0.cell.pointee.isEligible(at: now) }
    }

    private static func json(_ row: Row) -> [UInt8] {
        let route = row.route.pointee
        let cell = route.cell
        var line = JSONLine()
        line.open()
        line.field("id", row.id)
        line.field("owner", row.owner.path)
        line.fields(row.owner)
        line.field("hostname", row.hostname)
        line.field("port", UInt64(route.port))
        line.field("hint", (route.flags.contains(.raw) ? ProtocolHint.tcpRaw : .tlsPassthrough).name)
        line.field("balance", route.balance?.name)
        line.field("backends_eligible", eligible(route))
        line.field("backends", route.backends.count)
        line.field("active", UInt64(cell.pointee.active.current))
        if route.maxConnections > 0 { line.field("max_connections", UInt64(route.maxConnections)) }
        line.field("connections", cell.pointee.connections.load(ordering: .relaxed))
        line.field("bytes_to_backend", cell.pointee.bytesToUpstream.load(ordering: .relaxed))
        line.field("bytes_to_client", cell.pointee.bytesToClient.load(ordering: .relaxed))
        line.field("proxy", ProxyVerdict(route).rawValue)
        line.field("proxy_rejections", UInt64(cell.pointee.proxyRejections.load(ordering: .relaxed)))
        line.close()
        return line.bytes
    }

    private static func text(_ table: RouteTableSnapshot) -> AdminResponse {
        let all = table.routeCount <= sortedLimit
        var text = TextTable([
            "ROUTE", "NAME", "-PORT", "OWNER", "BALANCE", "-BACKENDS", "-ACTIVE", "-CONNECTIONS", "-TO BACKEND",
            "-TO CLIENT", "PROXY",
        ])
        let rows = all ? sorted(table) : firstRows(table)
        for row in rows { text.add(cells(row)) }
        let rest = table.routeCount - rows.count
        let note = rest > 0 ? "\(rest) more routes are not shown: --json has all of them\n" : ""
        return AdminCommands.text(text.text + note)
    }

    private static func firstRows(_ table: RouteTableSnapshot) -> [Row] {
        var rows: [Row] = []
        var part = 0
        while rows.count < sortedLimit, part < table.partCount {
            rows += self.rows(table, part: part)
            part += 1
        }
        return rows
    }

    private static func cells(_ row: Row) -> [String] {
        let route = row.route.pointee
        let cell = route.cell
        let rejections = cell.pointee.proxyRejections.load(ordering: .relaxed)
        let limit = route.maxConnections > 0 ? "/\(route.maxConnections)" : ""
        return [
            row.id, row.hostname ?? "(raw)", "\(route.port)", row.owner.path, route.balance?.name ?? "(stage)",
            "\(eligible(route))/\(route.backends.count)", "\(cell.pointee.active.current)\(limit)",
            "\(cell.pointee.connections.load(ordering: .relaxed))",
            "\(cell.pointee.bytesToUpstream.load(ordering: .relaxed))",
            "\(cell.pointee.bytesToClient.load(ordering: .relaxed))",
            ProxyVerdict(route).rawValue + (rejections > 0 ? " (\(rejections))" : ""),
        ]
    }
}
