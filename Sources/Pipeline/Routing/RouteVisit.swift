import Pipeline

extension RouteTableSnapshot {
    /// Calls `body` with every route, in no particular order. What it gets is valid as long as this snapshot.
    ///
    /// Threading: the control side.
    package func forEachRoute(_ body: (Route) -> Void) {
        for shard in table.pointee.shards {
            for entry in shard.pointee.all { body(entry.route) }
        }
    }
}
