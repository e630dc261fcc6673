import Pipeline

extension StateDocument {
    /// The `format` that we read; any minor version of its major is taken.
    public static let format = "pipelined.state/1"
    /// Ids and names: this many visible ASCII characters, so that a log line or a terminal shows them as they are.
    public static let longestID = 128

    /// Reads a state document (docs/STATE.md). Never traps, whatever `bytes` hold.
    ///
    /// - Parameters:
    ///   - seed: keys the hashes over names in it; the routing state's own.
    ///   - hasPlaces: false: nobody wrote these bytes, so no place in them means anything.
    /// - Returns: the document, and what is wrong in it. Nil, with exactly one fatal problem last, if it can't be used
    ///   as a whole: no JSON, an unknown format, a list missing. One bad object only quarantines itself (R24).
    public static func parse(
        _ bytes: UnsafeBufferPointer<UInt8>, seed: HashSeed = .random(), hasPlaces: Bool = true
    ) -> (document: StateDocument?, problems: RouteProblems) {
        var reader = JSONReader(bytes, seed: seed)
        var builder = StateBuilder(source: .state, seed: seed)
        builder.hasPlaces = hasPlaces
        if case .wrong(let problem) = StateHeader.form(of: bytes, .document, seed: seed) {
            builder.add(problem)
            return (nil, builder.problems)
        }
        do throws(JSONError) {
            try builder.readDocument(&reader)
            try reader.end()
            builder.requireFields()
        } catch {
            builder.refuse(error)
        }
        return (builder.problems.hasFatal ? nil : builder.finished(), builder.problems)
    }

    public static func parse(
        _ text: String, seed: HashSeed = .random()
    ) -> (document: StateDocument?, problems: RouteProblems) {
        Array(text.utf8).withUnsafeBufferPointer { parse($0, seed: seed) }
    }
}

/// Fills a document, object by object.
struct StateBuilder: StateReading {
    private(set) var document: StateDocument
    var hasPlaces = true
    /// False: nothing is read by ``FlatRoute`` and ``FlatInstance``. For tests, which compare.
    var isFlat = true
    var header = StateHeader(accepts: .document)
    /// What routes of desired state say of their own.
    private var ownLists: [BackendList: UInt32] = [:]

    init(source: StateDocument.Source, seed: HashSeed) {
        document = StateDocument(source: source, seed: seed)
    }

    var problems: RouteProblems { header.problems }

    /// The document, with what stands outside of its lists.
    func finished() -> StateDocument {
        var document = document
        document.revision = header.revision
        document.actor = header.actor
        document.hasUnusable = document.hasUnusable || header.hasUnusable
        return document
    }

    /// Quarantines the object of `draft` if it has faults or lacks a required field; true if it is fine.
    /// - Parameter otherIDs: that it gives itself as well; of an object that is read by ``ObjectDraft/id`` they are known.
    mutating func accept(
        _ draft: ObjectDraft, id: TextRef?, otherIDs: [TextRef] = [], required: [(name: String, isThere: Bool)]
    ) -> Bool {
        var draft = draft
        for field in required where !field.isThere && !draft.faults.contains(where: { $0.field == field.name }) {
            draft.faults.append(
                ObjectDraft.Fault(field: field.name, place: draft.place, problem: "is missing", remedy: "add it"))
        }
        guard !draft.faults.isEmpty else { return true }
        document.hasUnusable = true
        let name = id.map { document.text.string($0) }
        for id in [id].compactMap({ $0 }) + draft.otherIDs + otherIDs {
            document.quarantined[draft.object, default: []].insert(document.text.string(id))
        }
        for fault in draft.faults {
            header.problems.add(fault.problem(.rejected, draft.object, id: name, source: document.source))
        }
        return false
    }

    mutating func append(_ org: OrgObject) { document.orgs.append(org) }
    mutating func append(_ env: EnvObject) { document.envs.append(env) }
    mutating func append(_ instance: InstanceObject) { document.instances.append(instance) }
    mutating func append(_ route: RouteObject) { document.routes.append(route) }
    mutating func append(_ hostname: HostnameObject) { document.hostnames.append(hostname) }
    mutating func noteMismatch(_ id: TextRef) { document.mismatched.insert(document.text.string(id)) }
    mutating func append(backends: BackendList) -> UInt32 {
        document.backendLists.append(backends)
        return UInt32(clamping: document.backendLists.count)
    }
    mutating func append(own list: BackendList) -> UInt32 {
        if let known = ownLists[list] { return known }
        let number = append(backends: list)
        ownLists[list] = number
        return number
    }
    mutating func add(_ problem: RouteProblem) { header.problems.add(problem) }
}
