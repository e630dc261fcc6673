extension RouteTableSnapshot {
    /// The ports of raw routes, each once, ascending: what `expose` ranges have to open.
    package var rawPorts: [UInt16] {
        var ports: Set<UInt16> = []
        for shard in table.pointee.shards {
            for route in shard.pointee.all where route.options.contains(.raw) { ports.insert(route.route.port) }
        }
        return ports.sorted()
    }
}
