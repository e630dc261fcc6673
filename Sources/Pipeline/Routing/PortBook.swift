/// Ports that raw routes claim, with all routes there (R8). Within one env a lower id goes first.
struct PortBook {
    /// One kind of route of an env at a port.
    struct Side {
        /// Routes that aren't out.
        var alive: UInt32 = 0
        /// The env had such a route at the port before.
        var isSecure = false
    }

    /// The routes of one env at a port.
    struct Slot {
        let env: UInt32
        let port: Int
        /// By id.
        var members: [UInt32] = []
        var raw = Side()
        var named = Side()
        /// Positions: of the first that isn't out, the first raw one, and the first that is in.
        var first = 0
        var firstRaw = 0
        var firstIn = Int.max
        var rawIn = Int.max
    }

    struct Port {
        var slots: [Int] = []
        /// Envs with routes that aren't out; of those, envs that had such before.
        var raw: UInt32 = 0
        var secureRaw: UInt32 = 0
        var named: UInt32 = 0
        var secureNamed: UInt32 = 0
        var rawIn = EnvMark.none
        var namedIn = EnvMark.none
    }

    private(set) var ports: [Port] = []
    var slots: [Slot] = []
    private var numbers: [UInt16: Int] = [:]
    private var slotNumbers: [UInt64: Int] = [:]

    var isEmpty: Bool { ports.isEmpty }

    mutating func open(_ port: UInt16) {
        guard numbers[port] == nil else { return }
        numbers[port] = ports.count
        ports.append(Port())
    }

    /// Routes by name that nobody decides about are at the port.
    mutating func occupy(_ port: UInt16, _ envs: EnvMark) {
        if let number = numbers[port] { ports[number].namedIn = envs }
    }

    /// The env's slot at the port, with the node in it; nil: the port has no raw route.
    mutating func join(_ port: UInt16, _ env: UInt32, _ node: UInt32) -> UInt32? {
        guard let number = numbers[port] else { return nil }
        let key = UInt64(number) << 32 | UInt64(env)
        let slot = slotNumbers[key] ?? slots.count
        if slot == slots.count {
            slotNumbers[key] = slot
            ports[number].slots.append(slot)
            slots.append(Slot(env: env, port: number))
        }
        slots[slot].members.append(node)
        return UInt32(slot)
    }

    func find(_ port: UInt16, _ env: UInt32) -> Int? {
        numbers[port].flatMap { slotNumbers[UInt64($0) << 32 | UInt64(env)] }
    }

    mutating func sort(_ isBefore: (UInt32, UInt32) -> Bool) {
        for slot in slots.indices where slots[slot].members.count > 1 { slots[slot].members.sort(by: isBefore) }
    }

    mutating func count(_ slot: Int, isRaw: Bool) {
        let port = slots[slot].port
        if isRaw {
            slots[slot].raw.alive += 1
            guard slots[slot].raw.alive == 1 else { return }
            ports[port].raw += 1
            if slots[slot].raw.isSecure { ports[port].secureRaw += 1 }
        } else {
            slots[slot].named.alive += 1
            guard slots[slot].named.alive == 1 else { return }
            ports[port].named += 1
            if slots[slot].named.isSecure { ports[port].secureNamed += 1 }
        }
    }

    /// Advances past members that block nothing within the env.
    mutating func advance(_ slot: Int, _ nodes: [Claims.Node]) {
        func isInTheWay(_ position: Int) -> Bool {
            let node = nodes[Int(slots[slot].members[position])]
            return (node.state == .open || node.state == .isIn) && !node.isVoid
        }
        let count = slots[slot].members.count
        var (first, firstRaw) = (slots[slot].first, slots[slot].firstRaw)
        while first < count, !isInTheWay(first) { first += 1 }
        while firstRaw < count, !(isInTheWay(firstRaw) && nodes[Int(slots[slot].members[firstRaw])].isRaw) {
            firstRaw += 1
        }
        slots[slot].first = first
        slots[slot].firstRaw = firstRaw
    }

    func verdict(_ node: Claims.Node) -> Claims.Verdict {
        let slot = slots[Int(node.slot)]
        let port = ports[slot.port]
        let position = Int(node.position)
        if port.rawIn.hasOther(than: node.env) || slot.rawIn < position { return .blocked }
        if node.isRaw {
            if port.namedIn.hasOther(than: node.env) || slot.firstIn < position { return .blocked }
            let others = slot.raw.isSecure ? secureOthers(slot, port) : allOthers(slot, port)
            return others == 0 && slot.first >= position ? .clear : .unclear
        }
        let others =
            slot.named.isSecure
            ? port.secureRaw - (slot.raw.isSecure && slot.raw.alive > 0 ? 1 : 0)
            : port.raw - (slot.raw.alive > 0 ? 1 : 0)
        return others == 0 && slot.firstRaw >= position ? .clear : .unclear
    }

    private func secureOthers(_ slot: Slot, _ port: Port) -> UInt32 {
        port.secureRaw - 1 + port.secureNamed - (slot.named.isSecure && slot.named.alive > 0 ? 1 : 0)
    }
    private func allOthers(_ slot: Slot, _ port: Port) -> UInt32 {
        port.raw - 1 + port.named - (slot.named.alive > 0 ? 1 : 0)
    }

    /// True if a route that is in has the port, in a way that leaves no room for this one.
    func isTaken(_ node: Claims.Node) -> Bool {
        let slot = slots[Int(node.slot)]
        let port = ports[slot.port]
        return !port.rawIn.isNone || (node.isRaw && !port.namedIn.isNone)
    }

    // MARK: Decisions

    /// - Returns: nodes to look at again.
    mutating func setIn(_ node: Claims.Node, _ nodes: [Claims.Node]) -> [UInt32] {
        let (number, position) = (Int(node.slot), Int(node.position))
        let port = slots[number].port
        let isFirst = slots[number].firstIn == Int.max
        slots[number].firstIn = min(slots[number].firstIn, position)
        if node.isRaw {
            slots[number].rawIn = min(slots[number].rawIn, position)
            ports[port].rawIn.add(node.env)
            return open(port, nodes) { _ in true }
        }
        if ports[port].namedIn.add(node.env) { return open(port, nodes, \.isRaw) }
        return isFirst ? slots[number].members.filter { nodes[Int($0)].state == .open && nodes[Int($0)].isRaw } : []
    }

    /// - Returns: nodes to look at again.
    mutating func setOut(_ node: Claims.Node, _ nodes: [Claims.Node]) -> [UInt32] {
        let number = Int(node.slot)
        let port = slots[number].port
        var woken = leave(number, node, nodes)
        let isLast: Bool
        let isSecure = node.isRaw ? slots[number].raw.isSecure : slots[number].named.isSecure
        if node.isRaw {
            slots[number].raw.alive -= 1
            isLast = slots[number].raw.alive == 0
            if isLast {
                ports[port].raw -= 1
                if slots[number].raw.isSecure { ports[port].secureRaw -= 1 }
            }
        } else {
            slots[number].named.alive -= 1
            isLast = slots[number].named.alive == 0
            if isLast {
                ports[port].named -= 1
                if slots[number].named.isSecure { ports[port].secureNamed -= 1 }
            }
        }
        guard isLast else { return woken }
        let left = ports[port]
        // As with names: only when few are left can a way have become free.
        let (all, secure) = node.isRaw ? (left.raw, left.secureRaw) : (left.named, left.secureNamed)
        if all <= 1 || (isSecure && secure <= 1) {
            woken += open(port, nodes) { $0.isRaw || node.isRaw }
        }
        return woken
    }

    /// Those whose turn within the env it is when `node` is out.
    private mutating func leave(_ number: Int, _ node: Claims.Node, _ nodes: [Claims.Node]) -> [UInt32] {
        let before = slots[number]
        let position = Int(node.position)
        guard position == before.first || position == before.firstRaw else { return [] }
        advance(number, nodes)
        var woken: [UInt32] = []
        let (first, firstRaw) = (slots[number].first, slots[number].firstRaw)
        if first != before.first, first < before.members.count { woken.append(before.members[first]) }
        if firstRaw != before.firstRaw {
            let end = min(firstRaw + 1, before.members.count)
            woken += before.members[min(position + 1, end)..<end].filter { nodes[Int($0)].state == .open }
        }
        return woken
    }

    private func open(_ port: Int, _ nodes: [Claims.Node], _ isMeant: (Claims.Node) -> Bool) -> [UInt32] {
        ports[port].slots.flatMap { slots[$0].members }
            .filter { nodes[Int($0)].state == .open && isMeant(nodes[Int($0)]) }
    }
}
