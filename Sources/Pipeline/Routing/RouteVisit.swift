import Pipeline

/// For the control side: visits routes with their data-path cells.
extension RouteTableSnapshot {
    /// In how many parts the routes can be visited; each has about a hundred.
    public var partCount: Int { table.pointee.shards.count }

    /// Each route of one part with its hostname (`*.` or `.` in front of a wildcard; nil: it has none). The pointer
    /// is valid as long as this snapshot.
    public func visit(part: Int, _ body: (UnsafePointer<Route>, _ hostname: () -> String?) -> Void) {
        guard table.pointee.shards.indices.contains(part) else { return }
        let shard = table.pointee.shards[part]
        guard let first = shard.pointee.all.baseAddress else { return }
        for index in 0..<shard.pointee.count {
            let route = first + index
            body(route.asRoute) { route.pointee.hostname }
        }
    }

    /// Each route, in no particular order.
    public func visitAll(_ body: (UnsafePointer<Route>, _ hostname: () -> String?) -> Void) {
        for part in 0..<partCount { visit(part: part, body) }
    }
}

extension TableRoute {
    /// Its name as people write it, that of a raw route too; nil: it has none.
    var hostname: String? {
        guard nameLength > 0 else { return nil }
        return options.nameKind.mark + String(decoding: name, as: UTF8.self)
    }
}
