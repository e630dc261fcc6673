/// Routes whose change is refused, and stay as they were.
extension Claims {
    /// R24: the version before a refused change stays, unless another route has its name or port now.
    func settleWaiting() {
        var waiting = nodes.indices.filter { nodes[$0].state == .waiting }
        guard !waiting.isEmpty else { return }
        waiting.sort { idOrder(nodes[$0].entry, nodes[$1].entry) }
        for index in waiting {
            guard !isReplaced(index), mayStay(nodes[index]) else {
                nodes[index].state = .out
                continue
            }
            nodes[index].state = .isIn
            let node = nodes[index]
            if node.slot != Claims.none { _ = ports.setIn(node, nodes) }
            guard node.group != Claims.none else { continue }
            groups[Int(node.group)].isIn = true
            let name = groups[Int(node.group)].name
            book.names[Int(name)].taken = node.env
            for below in book.sumsAbove(name) { book.belows[below].taken.add(node.env) }
        }
    }

    /// One id is one route: once its new version is served, the old one releases its claims.
    private func isReplaced(_ index: Int) -> Bool {
        successors[UInt32(index)].map { nodes[Int($0)].state == .isIn } ?? false
    }

    private func mayStay(_ node: Node) -> Bool {
        if node.slot != Claims.none, ports.isTaken(node) { return false }
        guard node.group != Claims.none else { return true }
        let group = groups[Int(node.group)]
        let name = book.names[Int(group.name)]
        let standing = book.standing(group.name, group.env)
        guard standing == .free || standing == .owned else { return false }
        if name.taken != NameBook.none, name.taken != node.env { return false }
        for pattern in book.above(group.name) {
            let taken = book.names[Int(pattern)].taken
            if taken != NameBook.none, taken != node.env { return false }
        }
        if name.below != NameBook.none, book.belows[Int(name.below)].taken.hasOther(than: node.env) { return false }
        guard !node.isRaw else { return true }
        var (here, all) = (0, 0)
        forEach(group) { number in
            let other = nodes[Int(number)]
            guard other.state == .isIn, !other.isRaw else { return }
            all += 1
            if isSamePlace(other, node) { here += 1 }
        }
        return here == 0 && all < Claims.portsPerName
    }
}
