import Pipeline

/// R8: only where a raw route is, or wants to be, do others at the port matter.
extension ChangeClosure {
    /// Finds who waits at the ports of those that are decided about. True: that has reached more.
    mutating func lookAtPorts() -> Bool {
        scope.namedElsewhere = [:]
        let before = (scope.entries.count, scope.routes.count, ports.count)
        for port in ports { look(at: port) }
        return before != (scope.entries.count, scope.routes.count, ports.count)
    }

    private mutating func look(at port: UInt16) {
        let sole = state.portUses.sole(port)
        let isRaw = sole.map { state.isRaw($0) } ?? false
        var envs = Set(change.routes.values.joined().filter { $0.port == port && $0.isRaw }.map(\.env))
        guard isRaw || !envs.isEmpty || state.unserved.hasRaw(at: port) else { return }
        for id in state.unserved.ids(at: port) {
            add(route: id)
            for claim in state.unserved.routes[id]?.claims ?? [] where claim.isRaw && claim.port == port {
                envs.insert(claim.env)
            }
        }
        if isRaw, let sole {
            add(entry: sole, .full)
        } else if state.portUses.isUsed(port) {
            lookAtNamed(port, envs)
        }
    }

    /// Routes by name that nothing reaches keep the port from raw routes of other envs. Within one env a lower id goes
    /// first: a raw route may take the port from all of its own.
    private mutating func lookAtNamed(_ port: UInt16, _ raw: Set<UInt32>) {
        var elsewhere = ApplyScope.Named()
        var own: [UInt32] = []
        var waiting: [UInt32] = []
        state.snapshot.forEachTableRoute { route in
            let entry = route.pointee.entry
            guard route.pointee.port == port, !seenEntries.contains(entry) else { return }
            // A version that stays only because the new one is refused gives way to anybody.
            guard state.unserved.routes.isEmpty || state.unserved.routes[state.routeID(route)] == nil else {
                waiting.append(entry)
                return
            }
            let env = state.env(of: route)
            elsewhere.envs.add(env)
            elsewhere.sample = (env, entry)
            if raw.contains(env) { own.append(entry) }
        }
        for entry in waiting { add(entry: entry, .full) }
        guard let sample = elsewhere.sample else { return }
        if !elsewhere.envs.hasOther(than: sample.env), raw.contains(sample.env) {
            for entry in own { add(entry: entry, .full) }
        } else {
            scope.namedElsewhere[port] = elsewhere
        }
    }
}
