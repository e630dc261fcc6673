import Pipeline

/// What this run leaves waiting, for the changes that come.
extension ApplyRun {
    /// Notes each route of the documents that is not served as they have it.
    func rememberUnserved() {
        if let scope {
            for id in scope.routes { state.unserved.remove(id) }
        } else {
            forgetUnserved()
        }
        state.unsettled = []
        for index in versions.indices where !versions[index].isSpare && !isServed(versions[index]) {
            let version = versions[index]
            let (object, document) = (object(version), document(version))
            if hasFreed, document.source == .state { state.unsettled.insert(document.string(object.id)) }
            state.unserved.add(
                document.string(object.id), document.source,
                document.claim(object, env: parts[Int(version.part)].env(object.env)))
        }
    }

    /// Those of the sources that this run has whole.
    private func forgetUnserved() {
        var kept = UnservedRoutes()
        for (id, route) in state.unserved.routes where part(of: route.source) == nil {
            for claim in route.claims { kept.add(id, route.source, claim) }
        }
        state.unserved = kept
    }

    func isServed(_ version: Version) -> Bool {
        version.isAlone || version.node != Claims.none && claims.nodes[Int(version.node)].state == .isIn
    }
}

extension StateDocument {
    /// What a route asks for.
    /// - Parameter env: its owner, as the routing state numbers it.
    func claim(_ route: RouteObject, env: UInt32) -> UnservedRoutes.Claim {
        let name = text.bytes(route.name)
        return UnservedRoutes.Claim(
            name: name.isEmpty ? nil : NameKey(name, route.options.nameKind), port: route.port, isRaw: route.isRaw,
            env: env)
    }
}
