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

/// The ports that routes of the table listen on, kept from one apply to the next.
struct PortUses {
    private struct Use {
        var count: UInt32 = 0
        /// All entries + 1, combined: the entry itself where there is one.
        var mix: UInt32 = 0

        mutating func add(_ entry: UInt32) {
            count += 1
            mix ^= entry &+ 1
        }
    }
    private var uses: [UInt16: Use] = [:]
    private var wildcards = 0
    /// Routes that ask for more than a name.
    private(set) var conditional = 0
    /// How many suffixes have how many labels.
    private var suffixes: [Int: Int] = [:]

    var patterns: NamePatterns {
        NamePatterns(
            hasWildcards: wildcards > 0, suffixes: suffixes.keys.reduce(into: LabelCounts()) { $0.insert($1) })
    }

    var count: Int { uses.count }
    func isUsed(_ port: UInt16) -> Bool { uses[port] != nil }
    /// The only route at a port.
    func sole(_ port: UInt16) -> UInt32? { uses[port].flatMap { $0.count == 1 ? $0.mix &- 1 : nil } }

    mutating func add(
        _ entry: UInt32, port: UInt16, _ options: RouteOptions, _ name: Bytes, isConditional: Bool
    ) {
        if isConditional { conditional += 1 }
        uses[port, default: Use()].add(entry)
        switch KeyKind(options) {
        case .wildcard: wildcards += 1
        case .suffix: suffixes[LabelCounts.of(name), default: 0] += 1
        case .exact, .raw, .client: break
        }
    }

    mutating func remove(
        _ entry: UInt32, port: UInt16, _ options: RouteOptions, _ name: Bytes, isConditional: Bool
    ) {
        if isConditional { conditional -= 1 }
        uses[port]?.count -= 1
        uses[port]?.mix ^= entry &+ 1
        if uses[port]?.count == 0 { uses[port] = nil }
        switch KeyKind(options) {
        case .wildcard: wildcards -= 1
        case .suffix:
            let labels = LabelCounts.of(name)
            let left = (suffixes[labels] ?? 1) - 1
            suffixes[labels] = left > 0 ? left : nil
        case .exact, .raw, .client: break
        }
    }

    /// Takes what a mapped table has at a port: names without a wildcard.
    mutating func adopt(_ port: UInt16, count: UInt32, mix: UInt32) {
        uses[port, default: Use()].count += count
        uses[port]?.mix ^= mix
    }

    /// Each port in use; the route's entry where there is only one.
    func visit(_ body: (_ port: UInt16, _ sole: UInt32?) -> Void) {
        for (port, use) in uses { body(port, use.count == 1 ? use.mix &- 1 : nil) }
    }
}
