import Pipeline

extension RouteTableSnapshot {
    /// The ports of raw routes, each once, ascending: what `expose` ranges have to open.
    public var rawPorts: [UInt16] { ports(.tcpRaw) }

    /// The ports that routes of this kind listen on, each once, ascending. Costs what there are ports, not routes.
    public func ports(_ hint: ProtocolHint) -> [UInt16] {
        var found: [UInt16] = []
        for slot in table.pointee.ports where slot.isUsed {
            // A raw route has its port for itself (R8), so a port without a sole route has names.
            let isRaw = slot.sole?.pointee.options.contains(.raw) ?? false
            if isRaw == (hint == .tcpRaw) { found.append(slot.port) }
        }
        return found.sorted()
    }
}
