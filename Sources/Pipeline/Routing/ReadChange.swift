import Pipeline

/// Ids of objects that a change puts or deletes, by kind.
public struct TouchedObjects: Sendable {
    public private(set) var ids: [StateKind: Set<[UInt8]>] = [:]

    public init() {}

    /// - Parameter id: of an entry of `hostnames` its canonical name, with the mark of a wildcard.
    public mutating func insert(_ kind: StateKind, _ id: some Sequence<UInt8>) {
        ids[kind, default: []].insert(Array(id))
    }

    func strings(_ kind: StateKind) -> [String] { (ids[kind] ?? []).map { String(decoding: $0, as: UTF8.self) } }
}

/// What a change asks for: its objects, read, but not yet judged against others. Of an id that it deletes, or whose
/// object can't be read, it has nothing.
struct ReadChange {
    struct Env {
        let identity: EnvName
        let ipv4: IPAddress?
    }
    struct Instance {
        let address: IPAddress
        let status: InstanceStatus
        let isHere: Bool
    }

    /// By id, each object that has it.
    private(set) var routes: [String: [UnservedRoutes.Claim]] = [:]
    private(set) var orgs: Set<String> = []
    private(set) var envs: [UInt32: [Env]] = [:]
    private(set) var instances: [String: [Instance]] = [:]
    private(set) var hostnames: Set<NameKey> = []
    private(set) var hostnameEnvs: [NameKey: [UInt32]] = [:]

    init(_ touched: TouchedObjects, _ objects: some DesiredObjects, _ state: RoutingState) {
        for id in touched.strings(.route) { routes[id] = [] }
        for id in touched.strings(.instance) { instances[id] = [] }
        orgs = Set(touched.strings(.org))
        for id in touched.strings(.env) { if let env = state.symbols.intern(id) { envs[env] = [] } }
        hostnames = Set(touched.strings(.hostname).map { NameKey($0) })
        guard let document = StateDocument.some(touched.ids, of: objects, seed: state.seed).document else { return }
        let env = { (symbol: UInt32) in state.symbols.intern(document.symbols.bytes(symbol)) ?? RouteEntry.none }
        for object in document.routes {
            routes[document.string(object.id), default: []].append(document.claim(object, env: env(object.env)))
        }
        for object in document.envs {
            let identity = EnvName(
                org: document.string(object.org), app: document.string(object.app), env: document.string(object.name))
            envs[env(object.env), default: []].append(Env(identity: identity, ipv4: object.ipv4))
        }
        for object in document.instances {
            let isHere = !state.nodeName.isEmpty && document.string(object.node) == state.nodeName
            instances[document.string(object.id), default: []].append(
                Instance(address: object.address, status: object.status, isHere: isHere))
        }
        for object in document.hostnames {
            hostnameEnvs[NameKey(document.hostname(object)), default: []].append(env(object.env))
        }
    }
}

extension SymbolTable {
    func intern(_ name: String) -> UInt32? {
        var name = name
        return name.withUTF8 { intern($0) }
    }
}

extension StateDocument {
    /// A document of some objects, as they were written.
    static func some(
        _ ids: [StateKind: Set<[UInt8]>], of objects: some DesiredObjects, seed: HashSeed
    ) -> (document: StateDocument?, problems: RouteProblems) {
        document(seed) { add in
            for kind in StateKind.allCases { forEach(ids[kind] ?? [], kind, objects, add) }
        }
    }

    /// A document of all objects of these kinds, and of some objects.
    static func all(
        _ kinds: [StateKind], and ids: [StateKind: Set<[UInt8]>], of objects: some DesiredObjects, seed: HashSeed
    ) -> (document: StateDocument?, problems: RouteProblems) {
        document(seed) { add in
            for kind in StateKind.allCases {
                if kinds.contains(kind) { objects.forEach(kind) { add(kind, $1) } }
                forEach(ids[kind] ?? [], kind, objects, add)
            }
        }
    }

    /// In order: what is said, and which numbers symbols get, is the same on every node.
    private static func forEach(
        _ ids: Set<[UInt8]>, _ kind: StateKind, _ objects: some DesiredObjects,
        _ add: (StateKind, UnsafeRawBufferPointer) -> Void
    ) {
        for id in ids.sorted(by: { $0.lexicographicallyPrecedes($1) }) {
            if let object = id.withUnsafeBufferPointer({ objects.text(kind, $0) }) { add(kind, object) }
        }
    }

    /// A document of all objects.
    static func all(
        _ kinds: [StateKind] = StateKind.allCases, of objects: some DesiredObjects, seed: HashSeed
    ) -> (document: StateDocument?, problems: RouteProblems) {
        document(seed) { add in
            for kind in kinds { objects.forEach(kind) { add(kind, $1) } }
        }
    }

    /// A document of what is in one text: an object, or several joined by commas.
    static func one(_ kind: StateKind, _ text: UnsafeRawBufferPointer, seed: HashSeed) -> StateDocument? {
        document(seed) { add in add(kind, text) }.document
    }

    /// Each text is read where it is: what a document of them would be, without a copy of them all.
    private static func document(
        _ seed: HashSeed, _ fill: ((StateKind, UnsafeRawBufferPointer) -> Void) -> Void
    ) -> (document: StateDocument?, problems: RouteProblems) {
        var reader = JSONReader(Bytes(start: nil, count: 0), seed: seed)
        var builder = StateBuilder(source: .state, seed: seed)
        builder.hasPlaces = false
        fill { kind, text in
            guard !builder.problems.hasFatal else { return }
            do throws(JSONError) {
                reader.begin(text.assumingMemoryBound(to: UInt8.self))
                try builder.readElements(&reader, kind)
            } catch {
                builder.refuse(error)
            }
        }
        return (builder.problems.hasFatal ? nil : builder.finished(), builder.problems)
    }
}
