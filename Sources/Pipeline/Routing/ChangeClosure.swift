import Pipeline

/// Finds what a change can make a difference to: the objects that it puts and deletes, who asks for the same names, for
/// wildcards over or under them, for the same raw ports and addresses, and what belongs to an env that comes or goes.
///
/// Two routes of different envs are in each other's way only if one can be reached from the other like this; so whoever
/// is not found stays as he is (ADR 0103). In a state without rejected claims that is hardly more than the change itself.
struct ChangeClosure {
    /// Why a name is looked at.
    enum Reach {
        /// Who has it matters to others; he himself keeps it.
        case boundary
        /// Whoever has it may lose it.
        case full
    }

    let state: RoutingState
    let change: ReadChange
    var scope = ApplyScope()
    /// Not all can be found: the documents have to be applied whole.
    var isTooWide = false
    /// Envs that come, go or are renamed.
    var changedEnvs: Set<UInt32> = []
    var ownersOfEntriesMayChange = false

    private(set) var seenEntries: Set<UInt32> = []
    private var reached: [NameKey: Reach] = [:]
    private var names: [NameKey] = []
    /// Ports of routes that are decided about.
    var ports: Set<UInt16> = []

    init(_ state: RoutingState, _ change: ReadChange) {
        self.state = state
        self.change = change
    }

    mutating func find() {
        isTooWide = state.unserved.isFull
        ownersOfEntriesMayChange = !change.hostnames.isEmpty
        findEnvs()
        for id in change.routes.keys { add(route: id) }
        for id in state.unsettled { add(route: id) }
        for name in change.hostnames { reach(name, .full) }
        repeat {
            while !isTooWide, let name = names.popLast() { look(at: name) }
        } while !isTooWide && lookAtPorts()
        findInstances()
    }

    // MARK: Routes

    mutating func add(route id: String, _ why: Reach = .full) {
        guard scope.routes.insert(id).inserted else { return }
        if state.unserved.routes[id]?.source == .config { isTooWide = true }
        for claim in change.routes[id] ?? state.unserved.routes[id]?.claims ?? [] {
            if let name = claim.name { reach(name, why) }
            ports.insert(claim.port)
        }
        for claim in change.routes[id] == nil ? [] : state.unserved.routes[id]?.claims ?? [] {
            if let name = claim.name { reach(name, why) }
            ports.insert(claim.port)
        }
        if let entry = state.entry(of: id) { add(entry: entry, why) }
    }

    mutating func add(entry: UInt32, _ why: Reach) {
        guard let current = state.store.entry(entry).pointee.current, seenEntries.insert(entry).inserted else { return }
        scope.entries.append(entry)
        if let name = current.nameKey { reach(name, why) }
        ports.insert(current.pointee.port)
        if state.store.entry(entry).pointee.source == .state { add(route: state.routeID(current), why) }
    }

    // MARK: Names

    mutating func reach(_ name: NameKey, _ why: Reach) {
        if let known = reached[name], known == .full || why == .boundary { return }
        reached[name] = why
        names.append(name)
    }

    private mutating func look(at name: NameKey) {
        let why = reached[name] ?? .boundary
        scope.hostnames.insert(name)
        for entry in state.entries(named: name) { add(entry: entry, why) }
        for id in state.unserved.ids(named: name) { add(route: id, why) }
        for pattern in name.patternsAbove where isAsked(pattern) { reach(pattern, .boundary) }
        if name.kind == .wildcard || name.kind == .suffix, mayChange(name) { lookBelow(name) }
    }

    private func isAsked(_ name: NameKey) -> Bool {
        reached[name] != nil || !state.unserved.ids(named: name).isEmpty || state.hasEntries(named: name)
            || !name.withBytes { state.hostnames.find($0, name.kind) }.isEmpty
    }

    /// False: whoever has this wildcard keeps it, so nobody under it gets or loses anything by it.
    private func mayChange(_ pattern: NameKey) -> Bool {
        reached[pattern] == .full || ownersOfEntriesMayChange || !state.unserved.ids(named: pattern).isEmpty
            || pattern.withBytes { state.hostnames.find($0, pattern.kind) }.contains { !$0.isOwner }
    }

    /// Names under a wildcard, but for those of its only claimant.
    private mutating func lookBelow(_ pattern: NameKey) {
        let sole = soleClaimant(pattern)
        var found: [NameKey] = []
        state.snapshot.forEachTableRoute { route in
            guard route.pointee.nameLength > 0, state.env(of: route) != sole else { return }
            if pattern.isAbove(route.name, route.pointee.options.nameKind), let name = route.nameKey {
                found.append(name)
            }
        }
        state.hostnames.visit { entry in
            let bytes = state.hostnames.bytes(entry)
            if entry.env != sole, pattern.isAbove(bytes, entry.kind) { found.append(NameKey(bytes, entry.kind)) }
        }
        for name in state.unserved.names where name.withBytes({ pattern.isAbove($0, name.kind) }) { found.append(name) }
        for name in found { reach(name, .full) }
    }

    /// The only env that has or wants the wildcard, before or after; nil: there are several.
    private func soleClaimant(_ pattern: NameKey) -> UInt32? {
        var mark = EnvMark.none
        var one: UInt32?
        func note(_ env: UInt32) {
            mark.add(env)
            one = env
        }
        for entry in state.entries(named: pattern) { note(state.env(of: entry)) }
        for id in state.unserved.ids(named: pattern) {
            for claim in state.unserved.routes[id]?.claims ?? [] where claim.name == pattern { note(claim.env) }
        }
        for claim in change.routes.values.joined() where claim.name == pattern { note(claim.env) }
        for env in change.hostnameEnvs[pattern] ?? [] { note(env) }
        for entry in pattern.withBytes({ state.hostnames.find($0, pattern.kind) }) { note(entry.env) }
        return one.flatMap { mark.hasOther(than: $0) ? nil : $0 }
    }
}
