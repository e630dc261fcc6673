import Pipeline

/// What envs have in a state that is kept, and who is suspended in it: read, and not applied. For a node that goes back
/// behind that state, since what it took from whom holds all the same (R30, R31).
public struct KeptHoldings {
    public struct Held: Hashable, Sendable {
        public let address: IPAddress
        /// The env's path.
        public let owner: String
    }

    /// Addresses of ready instances, and dedicated ones; not those that an env waits for.
    public private(set) var addresses: Set<Held> = []
    public private(set) var suspendedEnvs: Set<String> = []
    public private(set) var suspendedOrgs: Set<String> = []

    private static let kinds: [StateKind] = [.org, .env, .instance]

    /// - Parameters: as of ``RoutingState/restore(_:_:meanwhile:)``.
    public init(_ objects: some DesiredObjects, _ applied: some AppliedObjects, seed: HashSeed) {
        let inForce = ChangedObjects(objects, KeptHoldings.view(applied))
        guard let document = StateDocument.all(KeptHoldings.kinds, of: inForce, seed: seed).document else { return }
        suspendedOrgs = Set(document.orgs.lazy.filter(\.suspended).map { document.string($0.org) })
        var paths: [UInt32: String] = [:]
        for object in document.envs {
            let id = document.symbol(object.env)
            let name = EnvName(org: document.string(object.org), app: document.string(object.app), env: id)
            paths[object.env] = name.path
            if object.suspended { suspendedEnvs.insert(id) }
            if let address = object.ipv4 { addresses.insert(Held(address: address, owner: name.path)) }
        }
        for object in document.instances where object.status == .ready {
            guard let owner = paths[object.env] else { continue }
            addresses.insert(Held(address: object.address, owner: owner))
        }
    }

    private static func view(_ applied: some AppliedObjects) -> [StateKind: [String: [UInt8]]] {
        var view: [StateKind: [String: [UInt8]]] = [:]
        applied.visit { kind, id, object in
            guard kinds.contains(kind), let text = object.inForce else { return }
            view[kind, default: [:]][String(decoding: id, as: UTF8.self)] = text
        }
        return view
    }

    /// The text of an env's object with `suspended` set; nil: it has none that can be read.
    public static func suspending(env text: UnsafeRawBufferPointer, seed: HashSeed) -> [UInt8]? {
        guard let document = StateDocument.one(.env, text, seed: seed), !document.envs.isEmpty else { return nil }
        let texts = document.envs.map { object in
            ObjectText.env(
                document.symbol(object.env), app: document.string(object.app), org: document.string(object.org),
                object.ipv4, isSuspended: true, isWithdrawn: object.withdrawn)
        }
        return Array(texts.joined(separator: [UInt8(ascii: ",")]))
    }

    public static func suspending(org id: String) -> [UInt8] { ObjectText.org(id, isSuspended: true) }
}
