import Pipeline

/// Decides which routes are served: the rules between routes, R4, R5 and R8.
///
/// Routes are nodes of a graph. Two that can't both be served block each other, or one blocks the other if a rule ranks
/// it first (it had the name or port before; within one env, a lower id). A route is *in* once everything that blocks
/// it is out, and *out* once something that blocks it is in. Routes that remain undecided conflict with each other: the
/// owner is unknown, and none is served. A route that is out blocks nothing, and the order of the input does not
/// matter.
///
/// Cost: each name, port and route is visited a bounded number of times.
final class Claims {
    /// The most routes that one name can have, at ports or for ALPN protocols there (R27): they share a hash, so this bounds
    /// lookups.
    static let portsPerName = 64
    static let none = UInt32.max

    struct Node {
        enum State: UInt8 { case open, isIn, out, waiting }
        enum Cause: UInt8 { case other, samePort, tooManyPorts }
        let env: UInt32
        let entry: UInt32
        /// The version it is of; ``Claims/none``: what is applied.
        let version: UInt32
        /// ``none``: it has no name.
        var group = Claims.none
        /// ``none``: its port has no raw route.
        var slot = Claims.none
        /// Among the members of its slot.
        var position: UInt32 = 0
        /// The next one of its group.
        var next = Claims.none
        let port: UInt16
        var state: State
        var cause = Cause.other
        let isRaw: Bool
        /// It can't be served in any case, but may belong to the owner, so it still blocks others.
        let isVoid: Bool
        /// The table has it like this.
        let isApplied: Bool
    }

    /// The routes of an env with one name.
    struct Group {
        let name: UInt32
        let env: UInt32
        /// The next env's with this name.
        var next: UInt32
        var first = Claims.none
        /// Routes that aren't out.
        var alive: UInt32 = 0
        /// The env had the name before, or has it by an entry.
        var isSecure = false
        var isIn = false
    }

    let book: NameBook
    /// By id, which is how routes of one env are ranked.
    let idOrder: (UInt32, UInt32) -> Bool
    /// The ALPN protocol that a route asks for; empty: any, or none. Asked only where one name has several routes.
    let alpn: (Node) -> Bytes
    var nodes: [Node] = []
    var groups: [Group] = []
    /// All but the first groups of each name.
    private var laterGroups: [UInt64: UInt32] = [:]
    var ports = PortBook()
    var queue: [UInt32] = []
    /// See ``ApplyScope``.
    var namedElsewhere: [UInt16: ApplyScope.Named] = [:]
    /// For waiting nodes: the node of the version that replaces them.
    private(set) var successors: [UInt32: UInt32] = [:]

    init(
        _ book: NameBook, idOrder: @escaping (_ entry: UInt32, _ other: UInt32) -> Bool,
        alpn: @escaping (Node) -> Bytes
    ) {
        self.book = book
        self.idOrder = idOrder
        self.alpn = alpn
    }

    /// Of two routes with one name: both would take some connection (R8).
    func isSamePlace(_ one: Node, _ other: Node) -> Bool {
        one.port == other.port && sameBytes(alpn(one), alpn(other))
    }

    // MARK: Claims

    func reserve(_ count: Int) {
        nodes.reserveCapacity(count)
        groups.reserveCapacity(count)
        book.reserve(count)
    }

    /// - Parameters:
    ///   - name: ``NameBook/none``: none.
    ///   - successor: of what is applied, the node of the version that replaces it if it can be served; nil: none.
    /// - Returns: the node's number.
    @discardableResult func add(_ node: Node, name: UInt32, successor: UInt32? = nil) -> UInt32 {
        var node = node
        let number = UInt32(nodes.count)
        if let successor { successors[number] = successor }
        if name != NameBook.none {
            node.group = makeGroup(name, node.env)
            let group = Int(node.group)
            node.next = groups[group].first
            groups[group].first = number
            if node.isApplied { groups[group].isSecure = true }
        }
        nodes.append(node)
        return number
    }

    /// The last table had the name for this env.
    func had(name: UInt32, _ env: UInt32) { groups[Int(makeGroup(name, env))].isSecure = true }

    func had(port: UInt16, _ env: UInt32, isRaw: Bool) {
        guard let slot = ports.find(port, env) else { return }
        if isRaw { ports.slots[slot].raw.isSecure = true } else { ports.slots[slot].named.isSecure = true }
    }

    func group(_ name: UInt32, _ env: UInt32) -> UInt32? {
        let head = book.names[Int(name)].groups
        guard head != NameBook.none else { return nil }
        if groups[Int(head)].env == env { return head }
        return laterGroups[UInt64(name) << 32 | UInt64(env)]
    }

    private func makeGroup(_ name: UInt32, _ env: UInt32) -> UInt32 {
        if let known = group(name, env) { return known }
        let number = UInt32(groups.count)
        let head = book.names[Int(name)].groups
        var group = Group(name: name, env: env, next: Claims.none)
        if head == NameBook.none {
            book.names[Int(name)].groups = number
        } else {
            // The first stays the first: it is found without a look into the dictionary.
            group.next = groups[Int(head)].next
            groups[Int(head)].next = number
            laterGroups[UInt64(name) << 32 | UInt64(env)] = number
        }
        groups.append(group)
        return number
    }

    /// After all nodes: finds routes that share a port with a raw route. Previous port owners are added after this.
    func linkPorts() {
        for node in nodes where node.isRaw { ports.open(node.port) }
        for (port, named) in namedElsewhere { ports.occupy(port, named.envs) }
        guard !ports.isEmpty else { return }
        for index in nodes.indices {
            guard let slot = ports.join(nodes[index].port, nodes[index].env, UInt32(index)) else { continue }
            nodes[index].slot = slot
            if nodes[index].isApplied { had(port: nodes[index].port, nodes[index].env, isRaw: nodes[index].isRaw) }
        }
        ports.sort { [self] in idOrder(nodes[Int($0)].entry, nodes[Int($1)].entry) }
        for slot in ports.slots {
            for (position, member) in slot.members.enumerated() { nodes[Int(member)].position = UInt32(position) }
        }
    }

    // MARK: Deciding

    func solve() {
        leaveOutTwins()
        admitAlone()
        for index in nodes.indices where nodes[index].state == .open {
            let group = nodes[index].group
            if group != Claims.none {
                let standing = book.standing(groups[Int(group)].name, nodes[index].env)
                if standing == .another {
                    nodes[index].state = .out
                    continue
                }
                if standing == .owned { groups[Int(group)].isSecure = true }
            }
        }
        for index in nodes.indices where nodes[index].state == .open { count(index) }
        for slot in ports.slots.indices { ports.advance(slot, nodes) }
        for index in nodes.indices where nodes[index].state == .open { examine(UInt32(index)) }
        while let next = queue.popLast() { examine(next) }
        settleWaiting()
    }

    /// R8, R27: of one env's routes with one name, one a port and ALPN protocol, and not too many; lower ids first. Their
    /// conflicts with others are the same, so this can be decided first.
    private func leaveOutTwins() {
        for group in groups where group.first != Claims.none && nodes[Int(group.first)].next != Claims.none {
            var members: [UInt32] = []
            forEach(group) { number in
                let node = nodes[Int(number)]
                if !node.isRaw, !node.isVoid, node.state == .open { members.append(number) }
            }
            guard members.count > 1 else { continue }
            members.sort { idOrder(nodes[Int($0)].entry, nodes[Int($1)].entry) }
            var seen: Set<Place> = []
            for member in members {
                let place = Place(port: nodes[Int(member)].port, alpn: Array(alpn(nodes[Int(member)])))
                if seen.contains(place) {
                    leaveOut(member, .samePort)
                } else if seen.count >= Claims.portsPerName {
                    leaveOut(member, .tooManyPorts)
                } else {
                    seen.insert(place)
                }
            }
        }
    }

    private struct Place: Hashable {
        let port: UInt16
        let alpn: [UInt8]
    }

    /// Most routes have a name without competitors: they are in without counting.
    private func admitAlone() {
        nodes.withUnsafeMutableBufferPointer { nodes in
            for index in nodes.indices where nodes[index].state == .open {
                let node = nodes[index]
                guard node.group != Claims.none, node.slot == Claims.none, !node.isVoid else { continue }
                let name = groups[Int(node.group)].name
                guard book.isAlone(name, node.env), groups[Int(book.names[Int(name)].groups)].next == Claims.none else {
                    continue
                }
                nodes[index].state = .isIn
                groups[Int(node.group)].isIn = true
                book.names[Int(name)].taken = node.env
            }
        }
    }

    private func leaveOut(_ number: UInt32, _ cause: Node.Cause) {
        nodes[Int(number)].state = .out
        nodes[Int(number)].cause = cause
    }

    func forEach(_ group: Group, _ body: (UInt32) -> Void) {
        var member = group.first
        while member != Claims.none {
            body(member)
            member = nodes[Int(member)].next
        }
    }

    /// Counts a node as a candidate.
    private func count(_ index: Int) {
        let node = nodes[index]
        if node.slot != Claims.none { ports.count(Int(node.slot), isRaw: node.isRaw) }
        guard node.group != Claims.none else { return }
        groups[Int(node.group)].alive += 1
        let group = groups[Int(node.group)]
        guard group.alive == 1 else { return }
        let name = Int(group.name)
        book.names[name].alive += 1
        if group.isSecure { book.names[name].secure += 1 }
        for below in book.sumsAbove(group.name) { count(below, group) }
    }

    private func count(_ below: Int, _ group: Group) {
        var counts = book.belows[below].counts[group.env] ?? NameBook.Below.Count()
        counts.alive += 1
        if counts.alive == 1 { book.belows[below].alive += 1 }
        if group.isSecure {
            counts.secure += 1
            if counts.secure == 1 { book.belows[below].secure += 1 }
        }
        book.belows[below].counts[group.env] = counts
    }

    private func examine(_ number: UInt32) {
        let node = nodes[Int(number)]
        guard node.state == .open else { return }
        let (name, port) = (nameVerdict(node), portVerdict(node))
        if name == .blocked || port == .blocked {
            setOut(number)
        } else if name == .clear, port == .clear, !node.isVoid {
            setIn(number)
        }
    }

    enum Verdict { case clear, unclear, blocked }

    private func nameVerdict(_ node: Node) -> Verdict {
        guard node.group != Claims.none else { return .clear }
        let group = groups[Int(node.group)]
        let name = book.names[Int(group.name)]
        let standing = book.standing(group.name, group.env)
        if standing == .another { return .blocked }
        if name.taken != NameBook.none, name.taken != group.env { return .blocked }
        var others = group.isSecure ? name.secure - 1 : name.alive - 1
        for number in book.above(group.name) {
            let pattern = book.names[Int(number)]
            if pattern.taken != NameBook.none, pattern.taken != group.env { return .blocked }
            let mine = self.group(number, group.env).map { groups[Int($0)] }
            let isMineAlive = (mine?.alive ?? 0) > 0
            others +=
                group.isSecure
                ? pattern.secure - (isMineAlive && mine?.isSecure == true ? 1 : 0)
                : pattern.alive - (isMineAlive ? 1 : 0)
        }
        if name.below != NameBook.none, book.belows[Int(name.below)].alive > 0 {
            let below = book.belows[Int(name.below)]
            if below.taken.hasOther(than: group.env) { return .blocked }
            let mine = below.counts[group.env]
            others +=
                group.isSecure
                ? below.secure - ((mine?.secure ?? 0) > 0 ? 1 : 0) : below.alive - ((mine?.alive ?? 0) > 0 ? 1 : 0)
        }
        return others == 0 && standing != .contested ? .clear : .unclear
    }

    private func portVerdict(_ node: Node) -> Verdict {
        node.slot == Claims.none ? .clear : ports.verdict(node)
    }

    // MARK: Decisions

    private func setIn(_ number: UInt32) {
        nodes[Int(number)].state = .isIn
        let node = nodes[Int(number)]
        if node.slot != Claims.none { queue += ports.setIn(node, nodes) }
        guard node.group != Claims.none, !groups[Int(node.group)].isIn else { return }
        groups[Int(node.group)].isIn = true
        let group = groups[Int(node.group)]
        let name = Int(group.name)
        book.names[name].taken = group.env
        if groups[Int(book.names[name].groups)].next != Claims.none { wake(name: name) }
        for pattern in book.above(group.name)
        where book.belows[Int(book.names[Int(pattern)].below)].taken.add(group.env) {
            wake(name: Int(pattern))
        }
        wakeBelow(group.name)
    }

    private func setOut(_ number: UInt32) {
        nodes[Int(number)].state = .out
        let node = nodes[Int(number)]
        if node.slot != Claims.none { queue += ports.setOut(node, nodes) }
        guard node.group != Claims.none else { return }
        groups[Int(node.group)].alive -= 1
        let group = groups[Int(node.group)]
        guard group.alive == 0 else { return }
        let name = Int(group.name)
        book.names[name].alive -= 1
        if group.isSecure { book.names[name].secure -= 1 }
        // Only when one or none is left can a node have become unblocked, so each is visited a few times at most.
        if book.names[name].alive <= 1 || (group.isSecure && book.names[name].secure <= 1) {
            wake(name: name)
            wakeBelow(group.name)
        }
        for pattern in book.above(group.name) { uncount(Int(book.names[Int(pattern)].below), group, Int(pattern)) }
    }

    private func uncount(_ below: Int, _ group: Group, _ pattern: Int) {
        guard var counts = book.belows[below].counts[group.env] else { return }
        var isFewer = false
        counts.alive -= 1
        if counts.alive == 0 {
            book.belows[below].alive -= 1
            isFewer = book.belows[below].alive <= 1
        }
        if group.isSecure {
            counts.secure -= 1
            if counts.secure == 0 {
                book.belows[below].secure -= 1
                isFewer = isFewer || book.belows[below].secure <= 1
            }
        }
        book.belows[below].counts[group.env] = counts
        if isFewer { wake(name: pattern) }
    }

    private func wake(name: Int) {
        var group = book.names[name].groups
        while group != NameBook.none {
            forEach(groups[Int(group)]) { if nodes[Int($0)].state == .open { queue.append($0) } }
            group = groups[Int(group)].next
        }
    }

    private func wakeBelow(_ pattern: UInt32) { book.forEachBelow(pattern) { wake(name: Int($0)) } }
}
