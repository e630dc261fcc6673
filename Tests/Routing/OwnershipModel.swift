import PipelineRouting

/// R4, R5 and R8 as plainly as they can be said: who stands in whose way, and what follows. No index, no counter.
struct OwnershipModel {
    enum State { case open, isIn, out }

    var entries: [TestHostname]
    var routes: [TestRoute]
    /// What was served before, by id; who had which name by an entry.
    var last: [String: TestRoute]
    var lastOwners: [String: String]

    /// Everybody waits for those in the way: in once they are all out, out once one is in.
    private static func solve(_ inTheWay: [[Int]]) -> [State] {
        var states = inTheWay.map { _ in State.open }
        while true {
            let before = states
            for index in states.indices where states[index] == .open {
                if inTheWay[index].contains(where: { states[$0] == .isIn }) {
                    states[index] = .out
                } else if inTheWay[index].allSatisfy({ states[$0] == .out }) {
                    states[index] = .isIn
                }
            }
            if states == before { return states }
        }
    }

    // MARK: Entries

    private func hadEntry(_ entry: TestHostname) -> Bool {
        lastOwners[entry.hostname] == entry.env
            || last.values.contains { $0.hostname == entry.hostname && $0.env == entry.env }
    }
    private func isEarlier(_ one: TestHostname, than other: TestHostname) -> Bool {
        (one.claimed ?? Int.max) < (other.claimed ?? Int.max)
    }

    /// An entry for each pair, the earlier if there are two.
    private var pairs: [TestHostname] {
        var found: [TestHostname] = []
        for entry in entries.sorted(by: { isEarlier($0, than: $1) })
        where !found.contains(where: { $0.hostname == entry.hostname && $0.env == entry.env }) {
            found.append(entry)
        }
        return found
    }

    func solveEntries() -> [(entry: TestHostname, state: State)] {
        let pairs = pairs
        let states = OwnershipModel.solve(
            pairs.map { entry in
                pairs.indices.filter { index in
                    let other = pairs[index]
                    guard other.env != entry.env, PatternModel.clash(other.hostname, entry.hostname),
                        !isEarlier(entry, than: other)
                    else { return false }
                    return isEarlier(other, than: entry) || hadEntry(other) || !hadEntry(entry)
                }
            })
        return zip(pairs, states).map { ($0, $1) }
    }

    private enum Standing { case free, owned, another, contested }

    private func standing(_ route: TestRoute, _ solved: [(entry: TestHostname, state: State)]) -> Standing {
        guard let name = route.hostname else { return .free }
        if solved.contains(where: { $0.state == .isIn && $0.entry.hostname == name && $0.entry.env == route.env }) {
            return .owned
        }
        let clashing = solved.filter { PatternModel.clash($0.entry.hostname, name) }
        if clashing.contains(where: { $0.state == .isIn && $0.entry.env != route.env }) { return .another }
        let isContested = clashing.contains {
            $0.state == .open && ($0.entry.hostname == name || $0.entry.env != route.env)
        }
        return isContested ? .contested : .free
    }

    // MARK: Routes

    private func samePort(_ one: TestRoute, _ other: TestRoute) -> Bool {
        one.port == other.port && (one.raw || other.raw)
    }
    private func clash(_ one: TestRoute, _ other: TestRoute) -> Bool {
        if samePort(one, other) { return true }
        guard let name = one.hostname, let theirs = other.hostname else { return false }
        if one.env != other.env { return PatternModel.clash(name, theirs) }
        return !one.raw && !other.raw && name == theirs && one.port == other.port
    }

    func solve() -> [String: TestRoute] {
        let solved = solveEntries()
        let standings = routes.map { standing($0, solved) }
        let nodes = routes.indices.filter { standings[$0] != .another }
        let hadName = routes.indices.map { index in
            standings[index] == .owned
                || last.values.contains { $0.hostname == routes[index].hostname && $0.env == routes[index].env }
        }
        let hadPort = routes.map { route in
            last.values.contains { $0.port == route.port && $0.env == route.env && $0.raw == route.raw }
        }
        let states = OwnershipModel.solve(
            nodes.map { mine in
                nodes.indices.filter { other in
                    blocks(nodes[other], mine, hadName: hadName, hadPort: hadPort)
                        || (nodes[other] == mine && standings[mine] == .contested)
                }
            })
        var served: [String: TestRoute] = [:]
        for (node, state) in zip(nodes, states) where state == .isIn { served[routes[node].id] = plain(routes[node]) }
        // What a refused change would replace stays where nobody else is.
        let changed = last.values.filter { old in
            routes.contains { $0.id == old.id && plain($0) != plain(old) && served[$0.id] == nil }
        }
        for old in changed.sorted(by: { $0.id < $1.id }) {
            let standing = standing(old, solved)
            guard standing == .free || standing == .owned, served.values.allSatisfy({ !clash(old, $0) }) else {
                continue
            }
            served[old.id] = plain(old)
        }
        return served
    }

    private func plain(_ route: TestRoute) -> TestRoute {
        TestRoute(id: route.id, env: route.env, hostname: route.hostname, port: route.port, raw: route.raw)
    }

    private func blocks(_ other: Int, _ mine: Int, hadName: [Bool], hadPort: [Bool]) -> Bool {
        let (one, two) = (routes[mine], routes[other])
        guard other != mine, clash(one, two) else { return false }
        guard one.env != two.env else { return two.id < one.id }
        if samePort(one, two), hadPort[other] || !hadPort[mine] { return true }
        guard let name = one.hostname, let theirs = two.hostname, PatternModel.clash(name, theirs) else {
            return false
        }
        return hadName[other] || !hadName[mine]
    }
}
