import Pipeline

/// Reports every refused claim, with the owner of what it claims.
extension ApplyRun {
    typealias Refusal = (field: String, problem: String, remedy: String)

    /// The hint for conflicts that no entry decides.
    static let forgotten = "otherwise neither has it after a restart of this node"

    func reportRefusals() {
        let bad = entries.list.filter { !$0.isKept && ($0.state == .another || $0.state == .contested) }
        for entry in bad.sorted(by: isBefore) { report(entry) }
        var refused = claims.nodes.indices.filter { index in
            let node = claims.nodes[index]
            guard node.state != .isIn, !node.isVoid else { return false }
            if node.version == Claims.none { return part(of: store.entry(node.entry).pointee.source) == nil }
            return !versions[Int(node.version)].isTwin
        }
        // Which problems are shown within the limit must not depend on the order of objects.
        refused.sort { claims.idOrder(claims.nodes[$0].entry, claims.nodes[$1].entry) }
        let reasons = RefusalReasons(self)
        for index in refused {
            let node = claims.nodes[index]
            // Texts cost; those beyond the limit would not be kept.
            guard report.problems.hasRoom else {
                problem(.rejected, .route, "", nil, nil, "", remedy: "")
                continue
            }
            let entry = store.entry(node.entry)
            let origin =
                node.version == Claims.none
                ? entry.pointee.place.origin(entry.pointee.source) : origin(versions[Int(node.version)])
            let refusal = reasons.refusal(node)
            problem(
                .rejected, .route, String(decoding: id(of: node.entry), as: UTF8.self), refusal.field, origin,
                refusal.problem, remedy: refusal.remedy)
        }
    }

    private func isBefore(_ one: HostnameEntries.Entry, _ other: HostnameEntries.Entry) -> Bool {
        if one.name == other.name { return state.owner(one.env) < state.owner(other.env) }
        return book.text(one.name) < book.text(other.name)
    }

    private func report(_ entry: HostnameEntries.Entry) {
        guard report.problems.hasRoom else {
            problem(.rejected, .hostname, "", nil, nil, "", remedy: "")
            return
        }
        let own = state.owner(entry.env)
        let others = ownerList(
            entries.clashing(entry, book, entry.state == .another ? .granted : .contested))
        problem(
            .rejected, .hostname, book.text(entry.name), nil, entry.place.origin(.state),
            entry.state == .another
                ? "belongs to \(others) (hostnames), so \(own) can't have it"
                : "is assigned to \(own) and to \(others), and neither claim is older, so neither has it",
            remedy: entry.state == .contested || entries.isUndecided(entry, book)
                ? "give each entry its own \"claimed\", or remove one of them"
                    + (entry.state == .another ? ": \(ApplyRun.forgotten)" : "")
                : "remove one of the entries")
    }
}

/// Reasons for refused routes, with the owners in conflict. Summaries that many routes share are made once.
final class RefusalReasons {
    private static let shown = 3

    /// Some envs that claim a name, the first by path; a few more than are shown, so that one can be left out.
    private struct Claimants {
        /// With each env's route of the lowest id.
        var list: [(path: String, env: UInt32, node: UInt32?)] = []
        var count = 0
    }

    private let run: ApplyRun
    var claims: Claims { run.claims }
    var book: NameBook { run.book }
    private var at: [UInt32: Claimants] = [:]
    private var below: [UInt32: Claimants] = [:]

    init(_ run: ApplyRun) { self.run = run }

    func refusal(_ node: Claims.Node) -> ApplyRun.Refusal {
        if let refusal = byClient(node) { return refusal }
        switch node.cause {
        case .samePort: return samePort(node)
        case .tooManyPorts:
            return (
                "listen_port",
                "\(node.port) is one too many: \"\(name(node))\" has routes at \(Claims.portsPerName) ports or for as many "
                    + "ALPN protocols there, which is the limit",
                "remove one of them first"
            )
        case .other: break
        }
        return byEntries(node) ?? taken(node) ?? portTaken(node) ?? unclear(node) ?? portUnclear(node)
            ?? (
                field: "route_id", problem: "conflicts with other routes that are not settled yet",
                remedy: "look at the other problems of this change"
            )
    }

    // MARK: Who

    func name(_ node: Claims.Node) -> String {
        node.group == Claims.none ? "" : book.text(claims.groups[Int(node.group)].name)
    }
    func owner(_ env: UInt32) -> String { run.state.owner(env) }

    /// `acme/shop/prod (route "rt_web")`.
    func claimant(_ env: UInt32, _ node: UInt32?) -> String {
        owner(env) + (node.map { " (route \"\(id($0))\")" } ?? "")
    }

    /// The route with the lowest id.
    private func first(_ one: UInt32?, _ other: UInt32?) -> UInt32? {
        guard let one, let other else { return one ?? other }
        return claims.idOrder(claims.nodes[Int(other)].entry, claims.nodes[Int(one)].entry) ? other : one
    }

    func first(of group: Claims.Group) -> UInt32? {
        var found: UInt32?
        claims.forEach(group) { number in
            let node = claims.nodes[Int(number)]
            if node.state == .isIn || node.state == .open { found = first(found, number) }
        }
        return found
    }

    private func id(_ node: UInt32) -> String {
        String(decoding: run.id(of: claims.nodes[Int(node)].entry), as: UTF8.self)
    }

    private func add(_ name: Int, to found: inout [UInt32: UInt32?]) {
        var number = book.names[name].groups
        while number != NameBook.none {
            let group = claims.groups[Int(number)]
            if group.alive > 0 || group.isIn {
                found[group.env] = .some(first(found[group.env] ?? nil, first(of: group)))
            }
            number = group.next
        }
    }

    private func claimants(_ found: [UInt32: UInt32?]) -> Claimants {
        let sorted = found.map { (path: owner($0.key), env: $0.key, node: $0.value) }
            .sorted { ($0.path, $0.env) < ($1.path, $1.env) }
        return Claimants(list: Array(sorted.prefix(RefusalReasons.shown + 1)), count: sorted.count)
    }

    private func claimants(at name: UInt32) -> Claimants {
        if let known = at[name] { return known }
        var found: [UInt32: UInt32?] = [:]
        add(Int(name), to: &found)
        let made = claimants(found)
        at[name] = made
        return made
    }

    private func claimants(below name: UInt32) -> Claimants {
        if let known = below[name] { return known }
        var found: [UInt32: UInt32?] = [:]
        book.forEachBelow(name) { add(Int($0), to: &found) }
        let made = claimants(found)
        below[name] = made
        return made
    }

    /// Of a name, all but `env`; nil: none.
    func others(at name: UInt32, than env: UInt32) -> String? { others(claimants(at: name), than: env) }

    /// All but `env`; nil: none.
    private func others(_ found: Claimants, than env: UInt32) -> String? {
        let list = found.list.filter { $0.env != env }.prefix(RefusalReasons.shown)
        guard !list.isEmpty else { return nil }
        let total = found.count - (found.list.contains { $0.env == env } ? 1 : 0)
        let rest = total - list.count
        return list.map { claimant($0.env, $0.node) }.joined(separator: ", ") + (rest > 0 ? " and \(rest) more" : "")
    }

    // MARK: Names

    private func samePort(_ node: Claims.Node) -> ApplyRun.Refusal {
        let alpn = String(decoding: claims.alpn(node), as: UTF8.self)
        return (
            "listen_port",
            "\(node.port) is taken: \"\(name(node))\" has the route \"\(twin(of: node))\" there already"
                + (alpn.isEmpty ? "" : " for \(alpn)"),
            "remove one of the two, or use another port"
        )
    }

    /// The id of the route of the same env that has the node's place.
    func twin(of node: Claims.Node) -> String {
        var first: UInt32?
        claims.forEach(claims.groups[Int(node.group)]) { number in
            let other = claims.nodes[Int(number)]
            guard !other.isRaw, !other.isVoid, claims.isSamePlace(other, node), other.cause != .samePort else { return }
            if let known = first, !claims.idOrder(other.entry, claims.nodes[Int(known)].entry) { return }
            first = number
        }
        return first.map { id($0) } ?? ""
    }

    private func byEntries(_ node: Claims.Node) -> ApplyRun.Refusal? {
        guard node.group != Claims.none else { return nil }
        let number = claims.groups[Int(node.group)].name
        let standing = book.standing(number, node.env)
        guard standing == .another || standing == .contested else { return nil }
        let name = book.names[Int(number)]
        let (text, own) = (self.name(node), owner(node.env))
        if name.granted != NameBook.none {
            return (
                "hostname", "\"\(text)\" belongs to \(owner(name.granted)) (hostnames), so \(own) can't have it",
                "use another name, or replace the entry of \(owner(name.granted)) by one of \(own)"
            )
        }
        let others = run.ownerList(
            run.entries.clashing(
                name: number, env: standing == .another ? node.env : nil, book,
                standing == .another ? .granted : .contested))
        if standing == .contested {
            return (
                "hostname",
                "\"\(text)\", claimed by \(own), is assigned to \(others) in hostnames, and neither claim is older, "
                    + "so neither has it",
                "give each entry its own \"claimed\", or remove one of them"
            )
        }
        let isUnderOther = book.above(number).contains { pattern in
            let granted = book.names[Int(pattern)].granted
            return granted != NameBook.none && granted != node.env
        }
        return !isUnderOther
            ? wouldTake(text, of: "\(others) (hostnames)", own)
            : isUnder(text, wildcardOf: "\(others) (hostnames)", own)
    }

    private func wouldTake(_ text: String, of others: String, _ own: String) -> ApplyRun.Refusal {
        (
            "hostname", "\"\(text)\" would cover names of \(others), so \(own) can't have it",
            "list each host instead, or remove the other owner's names first"
        )
    }

    private func isUnder(_ text: String, wildcardOf other: String, _ own: String) -> ApplyRun.Refusal {
        (
            "hostname", "\"\(text)\" is under the wildcard of \(other), so \(own) can't have it",
            "use another name, or remove the wildcard from its owner first"
        )
    }

    private func taken(_ node: Claims.Node) -> ApplyRun.Refusal? {
        guard node.group != Claims.none else { return nil }
        let number = claims.groups[Int(node.group)].name
        let name = book.names[Int(number)]
        let (text, own) = (self.name(node), owner(node.env))
        func holder(_ name: UInt32, _ env: UInt32) -> String {
            claimant(env, claims.group(name, env).flatMap { first(of: claims.groups[Int($0)]) })
        }
        if name.taken != NameBook.none, name.taken != node.env {
            return (
                "hostname", "\"\(text)\" belongs to \(holder(number, name.taken)), so \(own) can't have it",
                "use another name, or remove it from its owner first" + whileRemembered(number, name.taken)
            )
        }
        for pattern in book.above(number) {
            let taken = book.names[Int(pattern)].taken
            guard taken != NameBook.none, taken != node.env else { continue }
            var refusal = isUnder(text, wildcardOf: holder(pattern, taken), own)
            refusal.remedy += whileRemembered(pattern, taken)
            return refusal
        }
        guard name.below != NameBook.none, book.belows[Int(name.below)].taken.hasOther(than: node.env),
            let others = others(claimants(below: number), than: node.env)
        else { return nil }
        return wouldTake(text, of: others, own)
    }

    /// An owner without a `hostnames` entry keeps a name only until the node restarts; operators must know this.
    private func whileRemembered(_ name: UInt32, _ env: UInt32) -> String {
        book.names[Int(name)].granted == env ? "" : "; give the owner an entry in hostnames: " + ApplyRun.forgotten
    }

    /// Conflicting claims without a known owner.
    private func unclear(_ node: Claims.Node) -> ApplyRun.Refusal? {
        guard node.group != Claims.none else { return nil }
        let number = claims.groups[Int(node.group)].name
        let name = book.names[Int(number)]
        let (text, own) = (self.name(node), owner(node.env))
        let remedy = "add the owner to `hostnames` of the state file, or remove it from all others"
        let nobody = "and the owner is unknown, so neither has it"
        if let others = others(claimants(at: number), than: node.env) {
            return ("hostname", "\"\(text)\" is claimed by \(own) and by \(others), \(nobody)", remedy)
        }
        for pattern in book.above(number) {
            guard let others = others(claimants(at: pattern), than: node.env) else { continue }
            return (
                "hostname", "\"\(text)\" is claimed by \(own) and is under a wildcard that \(others) claims, \(nobody)",
                remedy
            )
        }
        guard name.below != NameBook.none, let others = others(claimants(below: number), than: node.env) else {
            return nil
        }
        return (
            "hostname", "\"\(text)\", claimed by \(own), would cover names that \(others) claims, \(nobody)",
            remedy
        )
    }

    // MARK: Ports

    /// Other routes at the node's port that fit, those of other envs first, with the lowest id of each.
    private func atPort(_ node: Claims.Node, isIn: Bool) -> [(env: UInt32, node: UInt32)] {
        guard node.slot != Claims.none else { return [] }
        let slot = claims.ports.slots[Int(node.slot)]
        let fits = { [claims] (number: UInt32) in
            let other = claims.nodes[Int(number)]
            return (isIn ? other.state == .isIn : other.state == .open) && (node.isRaw || other.isRaw)
        }
        var found: [(env: UInt32, node: UInt32)] = []
        for number in claims.ports.ports[slot.port].slots where number != Int(node.slot) {
            let other = claims.ports.slots[number]
            if let member = other.members.first(where: fits) { found.append((other.env, member)) }
        }
        if found.isEmpty, let member = slot.members.prefix(Int(node.position)).first(where: fits) {
            found.append((slot.env, member))
        }
        return found
    }

    private func portTaken(_ node: Claims.Node) -> ApplyRun.Refusal? {
        let others = atPort(node, isIn: true)
        let elsewhere = others.isEmpty && node.isRaw ? claims.namedElsewhere[node.port]?.sample : nil
        guard !others.isEmpty || elsewhere != nil else { return nil }
        let text = elsewhere.map { list($0) } ?? list(others)
        let isRaw = others.contains { claims.nodes[Int($0.node)].isRaw }
        return (
            "listen_port",
            isRaw
                ? "\(node.port) belongs to the raw route of \(text) alone, so \(owner(node.env)) can't have it"
                : "\(node.port) is shared by name by \(text); a raw route needs its own port, so "
                    + "\(owner(node.env)) can't have it",
            "use another port"
        )
    }

    private func portUnclear(_ node: Claims.Node) -> ApplyRun.Refusal? {
        let others = atPort(node, isIn: false)
        guard !others.isEmpty else { return nil }
        return (
            "listen_port",
            "\(node.port) is claimed by \(owner(node.env)) and by \(list(others)); a raw route needs its own port, and "
                + "the owner is unknown, so neither has it",
            "use another port for all but one"
        )
    }

    private func list(_ sample: (env: UInt32, entry: UInt32)) -> String {
        "\(owner(sample.env)) (route \"\(String(decoding: run.id(of: sample.entry), as: UTF8.self))\")"
    }

    private func list(_ others: [(env: UInt32, node: UInt32)]) -> String {
        let texts = others.map { "\(owner($0.env)) (route \"\(id($0.node))\")" }.sorted()
        let rest = texts.count - min(texts.count, RefusalReasons.shown)
        return texts.prefix(RefusalReasons.shown).joined(separator: ", ") + (rest > 0 ? " and \(rest) more" : "")
    }
}
