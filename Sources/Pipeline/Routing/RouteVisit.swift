import Pipeline

/// For the control side: visits routes with their data-path cells.
extension RouteTableSnapshot {
    /// In how many parts the routes can be visited; each has about a hundred.
    public var partCount: Int { table.pointee.shards.count }

    /// Each route of one part, and what it is found by. Both are valid as long as this snapshot.
    public func visit(part: Int, _ body: (FoundRoute, RouteLabel) -> Void) {
        guard table.pointee.shards.indices.contains(part) else { return }
        table.pointee.shards[part].visit { body(table.pointee.found($0), RouteLabel(route: $0)) }
    }
}

/// What a route of a table is found by, as texts. Made when asked for: a table has a million.
public struct RouteLabel {
    let route: UnsafePointer<TableRoute>

    /// `*.` or `.` in front of a wildcard; nil: it has none.
    public var hostname: String? { route.hostname }
    /// Nil: it asks for nothing more.
    public var condition: RouteCondition? { route.condition }
}

extension UnsafePointer<TableRoute> {
    var condition: RouteCondition? {
        if pointee.alpnLength > 0 { return .alpn(String(decoding: alpn, as: UTF8.self)) }
        return pointee.options.contains(.byClient) ? ClientKey(name).map { .client($0.client) } : nil
    }

    /// Its name as people write it, that of a raw route too; nil: it has none.
    var hostname: String? {
        guard pointee.nameLength > 0, !pointee.options.contains(.byClient) else { return nil }
        return pointee.options.nameKind.mark + String(decoding: name, as: UTF8.self)
    }
}
