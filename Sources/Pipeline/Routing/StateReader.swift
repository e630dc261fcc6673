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
        do throws(JSONError) {
            try builder.readDocument(&reader)
            try reader.end()
            builder.requireLists()
        } catch {
            builder.fatal(
                error.text, remedy: "make it valid JSON; the whole document was ignored",
                origin: .file(line: error.line, column: error.column))
        }
        return (builder.problems.hasFatal ? nil : builder.document, builder.problems)
    }

    public static func parse(
        _ text: String, seed: HashSeed = .random()
    ) -> (document: StateDocument?, problems: RouteProblems) {
        Array(text.utf8).withUnsafeBufferPointer { parse($0, seed: seed) }
    }
}

/// Fills a document, object by object.
struct StateBuilder {
    private(set) var document: StateDocument
    private(set) var problems = RouteProblems()
    var hasPlaces = true
    /// Numbers of the document's fields that were there.
    private var seen: Set<Int> = []

    init(source: StateDocument.Source, seed: HashSeed) {
        document = StateDocument(source: source, seed: seed)
    }

    mutating func fatal(_ problem: String, remedy: String, origin: Origin?) {
        guard !problems.hasFatal else { return }
        problems.add(RouteProblem(.fatal, .document, origin: origin, problem, remedy: remedy))
    }

    // MARK: The document

    private static let documentKeys = JSONKeys([
        "format", "revision", "actor", "envs", "instances", "routes", "hostnames",
    ])
    private static let optionalKeys: Set = [1, 2, 6]

    mutating func readDocument(_ reader: inout JSONReader) throws(JSONError) {
        guard try reader.kind() == .object else { throw reader.expected("an object with a \"format\"") }
        let whole = Place(line: reader.line, column: reader.column)
        var header = ObjectDraft(.document, at: whole)
        try reader.object(StateBuilder.documentKeys) { reader, field throws(JSONError) in
            if let field { seen.insert(field) }
            switch field {
            case 0: try readFormat(&reader)
            case 1: try readRevision(&reader)
            case 2:
                let actor = try header.text(&reader, "actor", optional: true, into: document.text)
                document.actor = actor.map { document.text.string($0) } ?? ""
            case 3: try list(&reader, "envs") { builder, reader throws(JSONError) in try builder.readEnv(&reader) }
            case 4:
                try list(&reader, "instances") { builder, reader throws(JSONError) in
                    try builder.readInstance(&reader)
                }
            case 5: try list(&reader, "routes") { builder, reader throws(JSONError) in try builder.readRoute(&reader) }
            case 6:
                try list(&reader, "hostnames") { builder, reader throws(JSONError) in
                    try builder.readHostname(&reader)
                }
            default: try reader.skip()
            }
        }
        for fault in header.faults {
            problems.add(fault.problem(.warning, .document, id: nil, source: .state))
        }
    }

    /// A missing list is more likely a mistake than an order to remove every route.
    mutating func requireLists() {
        for (field, name) in StateBuilder.documentKeys.names.enumerated()
        where !StateBuilder.optionalKeys.contains(field) && !seen.contains(field) {
            let remedy =
                field == 0
                ? "add \"format\": \"\(StateDocument.format)\""
                : "write \"\(name)\": [] if there "
                    + "are none"
            fatal("\"\(name)\" is missing", remedy: remedy, origin: .file(line: 1, column: 1))
        }
    }

    private mutating func readFormat(_ reader: inout JSONReader) throws(JSONError) {
        let kind = try reader.kind()
        let origin = Origin.file(line: reader.line, column: reader.column)
        guard kind == .string else {
            try reader.skip()
            fatal("\"format\" is \(kind.name)", remedy: "write \"\(StateDocument.format)\"", origin: origin)
            return
        }
        let given = String(decoding: try reader.string(), as: UTF8.self)
        guard given == StateDocument.format || given.hasPrefix(StateDocument.format + ".") else {
            fatal(
                "the format \"\(given.prefix(64))\" is not supported by this version",
                remedy: "write \"\(StateDocument.format)\", or use a version that reads the other", origin: origin)
            return
        }
    }

    /// Nothing, null or a whole number: what can't be compared with the one before can't be taken for newer, either.
    private mutating func readRevision(_ reader: inout JSONReader) throws(JSONError) {
        let kind = try reader.kind()
        let origin = Origin.file(line: reader.line, column: reader.column)
        let remedy = "write a whole number of 0 to \(UInt64.max), or leave it out"
        guard kind == .number else {
            try reader.skip()
            if kind != .null { fatal("\"revision\" is \(kind.name)", remedy: remedy, origin: origin) }
            return
        }
        document.revision = try reader.number()
        if document.revision == nil {
            fatal("\"revision\" is negative, too large or not a whole number", remedy: remedy, origin: origin)
        }
    }

    /// An array of objects; anything else in place of it makes the document unusable, anything else in it is one
    /// quarantined object.
    private mutating func list(
        _ reader: inout JSONReader, _ name: String,
        _ body: (inout StateBuilder, inout JSONReader) throws(JSONError) -> Void
    ) throws(JSONError) {
        let kind = try reader.kind()
        guard kind == .array else {
            let origin = Origin.file(line: reader.line, column: reader.column)
            try reader.skip()
            fatal("\"\(name)\" is \(kind.name)", remedy: "write an array of objects", origin: origin)
            return
        }
        // What is wrong with one object is that object's (R24).
        reader.toleratesFlaws = true
        defer { reader.toleratesFlaws = false }
        try reader.array { reader throws(JSONError) in
            let kind = try reader.kind()
            guard kind == .object else {
                let origin = Origin.file(line: reader.line, column: reader.column)
                try reader.skip()
                _ = reader.takeFlaw()
                document.hasUnusable = true
                let object = RouteProblem.Object(rawValue: String(name.dropLast())) ?? .document
                problems.add(
                    RouteProblem(
                        .rejected, object, origin: origin, "is \(kind.name)", remedy: "write an object"))
                return
            }
            try body(&self, &reader)
        }
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
            problems.add(fault.problem(.rejected, draft.object, id: name, source: document.source))
        }
        return false
    }

    mutating func append(_ env: EnvObject) { document.envs.append(env) }
    mutating func append(_ instance: InstanceObject) { document.instances.append(instance) }
    mutating func append(_ route: RouteObject) { document.routes.append(route) }
    mutating func append(_ hostname: HostnameObject) { document.hostnames.append(hostname) }
    mutating func noteMismatch(_ id: TextRef) { document.mismatched.insert(document.text.string(id)) }
    mutating func append(backends: BackendList) -> UInt32 {
        document.backendLists.append(backends)
        return UInt32(clamping: document.backendLists.count)
    }
    mutating func add(_ problem: RouteProblem) { problems.add(problem) }
}
