import Pipeline

/// Routes of desired state that are not served as they are desired: what they ask for, so that a change of it finds who
/// waits. Most nodes have none.
struct UnservedRoutes {
    /// One version of a route: what it asks for.
    struct Claim {
        let name: NameKey?
        let port: UInt16
        let isRaw: Bool
        let env: UInt32
    }

    struct Route {
        let source: StateDocument.Source
        var claims: [Claim]
    }

    /// Beyond so many a change is applied with everything else, as a document: its index would outgrow the table.
    static let limit = 50_000

    private(set) var routes: [String: Route] = [:]
    private var byName: [NameKey: Set<String>] = [:]
    private var byPort: [UInt16: Set<String>] = [:]
    private var byEnv: [UInt32: Set<String>] = [:]
    /// By port: how many claims of raw routes.
    private var raw: [UInt16: Int] = [:]
    /// There are more than it holds.
    private(set) var isFull = false

    var names: Dictionary<NameKey, Set<String>>.Keys { byName.keys }
    func ids(named name: NameKey) -> Set<String> { byName[name] ?? [] }
    func ids(at port: UInt16) -> Set<String> { byPort[port] ?? [] }
    func ids(of env: UInt32) -> Set<String> { byEnv[env] ?? [] }
    func hasRaw(at port: UInt16) -> Bool { raw[port] != nil }

    mutating func add(_ id: String, _ source: StateDocument.Source, _ claim: Claim) {
        guard routes[id] != nil || routes.count < UnservedRoutes.limit else {
            isFull = true
            return
        }
        routes[id, default: Route(source: source, claims: [])].claims.append(claim)
        if let name = claim.name { byName[name, default: []].insert(id) }
        byPort[claim.port, default: []].insert(id)
        byEnv[claim.env, default: []].insert(id)
        if claim.isRaw { raw[claim.port, default: 0] += 1 }
    }

    mutating func remove(_ id: String) {
        guard let route = routes.removeValue(forKey: id) else { return }
        for claim in route.claims {
            if let name = claim.name { byName.remove(id, at: name) }
            byPort.remove(id, at: claim.port)
            byEnv.remove(id, at: claim.env)
            guard claim.isRaw, let count = raw[claim.port] else { continue }
            raw[claim.port] = count > 1 ? count - 1 : nil
        }
    }
}

extension Dictionary where Value == Set<String> {
    fileprivate mutating func remove(_ id: String, at key: Key) {
        self[key]?.remove(id)
        if self[key]?.isEmpty ?? false { self[key] = nil }
    }
}
