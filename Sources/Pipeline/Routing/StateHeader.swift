import Pipeline

/// What documents and changes have outside of their lists, and what is wrong in them.
struct StateHeader {
    let accepts: StateUpdate.Acceptance
    var problems = RouteProblems()
    var revision: UInt64?
    /// Of a change: the revision that it stands on.
    var base: UInt64?
    var actor = ""
    var request = ""
    var needs: [String] = []
    /// Something in a list was no usable object.
    var hasUnusable = false
    /// Names of the fields that were there.
    var seen: Set<String> = []
    var draft = ObjectDraft(.document, at: Place(line: 1, column: 1))

    init(accepts: StateUpdate.Acceptance) { self.accepts = accepts }

    static let changeFormat = "pipelined.change/1"
    /// How many words `needs` may have.
    static let needsLimit = 64

    static let documentKeys = JSONKeys(
        ["format", "revision", "actor", "request", "needs"] + StateKind.lists.names)
    static let changeKeys = JSONKeys([
        "format", "revision", "actor", "request", "needs", "base", "put", "delete",
    ])
}

/// Who reads a document: its lists are whatever the reader makes of them.
protocol StateReading {
    var header: StateHeader { get set }
    /// Reads the object of a list that comes next. What is wrong with it is its own (R24).
    mutating func readObject(_ reader: inout JSONReader, _ kind: StateKind) throws(JSONError)
}

extension StateReading {
    mutating func fatal(_ problem: String, remedy: String, origin: Origin?) {
        guard !header.problems.hasFatal else { return }
        header.problems.add(RouteProblem(.fatal, .document, origin: origin, problem, remedy: remedy))
    }

    mutating func refuse(_ error: JSONError) {
        fatal(
            error.text, remedy: "make it valid JSON; the whole document was ignored",
            origin: .file(line: error.line, column: error.column))
    }

    // MARK: A document

    mutating func readDocument(
        _ reader: inout JSONReader, knows: Set<String> = StateWords.known
    ) throws(JSONError) {
        guard try reader.kind() == .object else { throw reader.expected("an object with a \"format\"") }
        try reader.object(StateHeader.documentKeys) { reader, field throws(JSONError) in
            guard let field else { return try reader.skip() }
            if try readField(&reader, field, StateHeader.documentKeys, knows) { return }
            let kind = StateKind.allCases[field - StateHeader.headerFields]
            try readList(&reader, kind)
        }
        noteFaults()
    }

    /// A missing list is more likely a mistake than an order to remove every route.
    mutating func requireFields() {
        for name in ["format"] + [StateKind.env, .instance, .route].map(\.list) where !header.seen.contains(name) {
            let remedy =
                name == "format"
                ? "add \"format\": \"\(header.accepts == .change ? StateHeader.changeFormat : StateDocument.format)\""
                : "write \"\(name)\": [] if there are none"
            fatal("\"\(name)\" is missing", remedy: remedy, origin: .file(line: 1, column: 1))
        }
    }

    // MARK: What both forms have

    /// True if `field` is one that both forms have; it has been read.
    mutating func readField(
        _ reader: inout JSONReader, _ field: Int, _ keys: JSONKeys, _ knows: Set<String>
    ) throws(JSONError) -> Bool {
        let name = keys.names[field]
        header.seen.insert("\(name)")
        switch field {
        case 0: try readFormat(&reader)
        case 1: header.revision = try readNumber(&reader, "revision")
        case 2: header.actor = try readName(&reader, "actor")
        case 3: header.request = try readName(&reader, "request")
        case 4: try readNeeds(&reader, knows)
        default: return false
        }
        return true
    }

    /// At the end: `actor` and `request` are for people. Without them, it is the same document.
    mutating func noteFaults() {
        for fault in header.draft.faults {
            header.problems.add(fault.problem(.warning, .document, id: nil, source: .state))
        }
    }

    private mutating func readName(_ reader: inout JSONReader, _ field: StaticString) throws(JSONError) -> String {
        let arena = TextArena()
        return try header.draft.text(&reader, field, optional: true, into: arena).map { arena.string($0) } ?? ""
    }

    private mutating func readFormat(_ reader: inout JSONReader) throws(JSONError) {
        let kind = try reader.kind()
        let origin = Origin.file(line: reader.line, column: reader.column)
        let accepts = header.accepts
        let wanted =
            switch accepts {
            case .document: "\"\(StateDocument.format)\""
            case .change: "\"\(StateHeader.changeFormat)\""
            case .either: "\"\(StateDocument.format)\" or \"\(StateHeader.changeFormat)\""
            }
        guard kind == .string else {
            try reader.skip()
            fatal("\"format\" is \(kind.name)", remedy: "write \(wanted)", origin: origin)
            return
        }
        let given = String(decoding: try reader.string(), as: UTF8.self)
        guard ![StateHeader.changeFormat, StateDocument.format].contains(where: { StateHeader.isFormat(given, $0) })
        else { return }
        fatal(
            "the format \"\(given.prefix(64))\" is not supported by this version",
            remedy: "write \(wanted), or use a version that reads the other", origin: origin)
    }

    /// Nothing, null or a whole number: what can't be compared with the one before can't be taken for newer, either.
    mutating func readNumber(_ reader: inout JSONReader, _ name: String) throws(JSONError) -> UInt64? {
        let kind = try reader.kind()
        let origin = Origin.file(line: reader.line, column: reader.column)
        let remedy = "write a whole number of 0 to \(UInt64.max), or leave it out"
        guard kind == .number else {
            try reader.skip()
            if kind != .null { fatal("\"\(name)\" is \(kind.name)", remedy: remedy, origin: origin) }
            return nil
        }
        let number = try reader.number()
        if number == nil {
            fatal("\"\(name)\" is negative, too large or not a whole number", remedy: remedy, origin: origin)
        }
        return number
    }

    /// Words without which the rest would be misread: an unknown one refuses the whole.
    private mutating func readNeeds(_ reader: inout JSONReader, _ knows: Set<String>) throws(JSONError) {
        let kind = try reader.kind()
        let origin = Origin.file(line: reader.line, column: reader.column)
        let remedy = "write an array of names of fields, or leave it out"
        guard kind == .array else {
            try reader.skip()
            if kind != .null { fatal("\"needs\" is \(kind.name)", remedy: remedy, origin: origin) }
            return
        }
        var unknown: [String] = []
        var count = 0
        try reader.array { reader throws(JSONError) in
            let kind = try reader.kind()
            guard kind == .string else {
                fatal("a word of \"needs\" is \(kind.name)", remedy: remedy, origin: origin)
                return try reader.skip()
            }
            let word = String(decoding: try reader.string(), as: UTF8.self)
            count += 1
            guard count <= StateHeader.needsLimit else { return }
            if knows.contains(word) { header.needs.append(word) } else { unknown.append("\"\(word.prefix(64))\"") }
        }
        if count > StateHeader.needsLimit {
            fatal("\"needs\" has \(count) words", remedy: "write at most \(StateHeader.needsLimit)", origin: origin)
        } else if !unknown.isEmpty {
            fatal(
                "it needs \(unknown.prefix(8).joined(separator: ", ")), which this version does not know",
                remedy: "use a version that does; the whole was ignored", origin: origin)
        }
    }

    // MARK: Lists

    /// An array of objects; anything else in place of it makes the document unusable, anything else in it is one
    /// quarantined object.
    mutating func readList(_ reader: inout JSONReader, _ kind: StateKind) throws(JSONError) {
        guard try isArray(&reader, kind, of: "objects") else { return }
        // What is wrong with one object is that object's (R24).
        reader.toleratesFlaws = true
        defer { reader.toleratesFlaws = false }
        try reader.array { reader throws(JSONError) in try readElement(&reader, kind) }
    }

    private mutating func readElement(_ reader: inout JSONReader, _ kind: StateKind) throws(JSONError) {
        let found = try reader.kind()
        guard found == .object else {
            let origin = Origin.file(line: reader.line, column: reader.column)
            try reader.skip()
            _ = reader.takeFlaw()
            header.hasUnusable = true
            header.problems.add(
                RouteProblem(.rejected, kind.object, origin: origin, "is \(found.name)", remedy: "write an object"))
            return
        }
        try readObject(&reader, kind)
    }

    /// What stands in a list, without its brackets: one object, or several with commas between.
    mutating func readElements(_ reader: inout JSONReader, _ kind: StateKind) throws(JSONError) {
        reader.toleratesFlaws = true
        defer { reader.toleratesFlaws = false }
        // As deep as in a document.
        reader.depth = 2
        repeat {
            try readElement(&reader, kind)
            reader.skipSpace()
        } while reader.take(0x2C)
        try reader.end()
    }

    /// True if an array comes next; anything else is skipped, and refuses the whole.
    mutating func isArray(
        _ reader: inout JSONReader, _ kind: StateKind, of what: String
    ) throws(JSONError) -> Bool {
        let found = try reader.kind()
        if found == .array { return true }
        let origin = Origin.file(line: reader.line, column: reader.column)
        try reader.skip()
        fatal("\"\(kind.list)\" is \(found.name)", remedy: "write an array of \(what)", origin: origin)
        return false
    }
}

extension StateHeader {
    /// How many fields both forms have, in front of the others of their keys.
    static let headerFields = 5

    /// Any minor version of a major is taken.
    static func isFormat(_ given: String, _ format: String) -> Bool {
        given == format || given.hasPrefix(format + ".")
    }

    /// What bytes are, by their `format`, wherever it stands.
    enum Form {
        case document, change
        /// Not what is accepted.
        case wrong(RouteProblem)
    }

    /// One of no known format, or of none, is read as a document, which says so.
    static func form(of bytes: Bytes, _ accepts: StateUpdate.Acceptance, seed: HashSeed) -> Form {
        var reader = JSONReader(bytes, seed: seed)
        guard let given = reader.find("format") else { return .document }
        let origin = Origin.file(line: reader.line, column: reader.column)
        func wrong(_ problem: String, _ remedy: String) -> Form {
            .wrong(RouteProblem(.fatal, .document, origin: origin, problem, remedy: remedy))
        }
        if isFormat(given, changeFormat) {
            guard accepts == .document else { return .change }
            return wrong(
                "this is a change (\"\(changeFormat)\"), and a whole document is wanted here",
                "give the change to `pipelined apply`")
        }
        guard accepts == .change, isFormat(given, StateDocument.format) else { return .document }
        return wrong(
            "this is a whole document (\"\(StateDocument.format)\"), and a change is wanted here",
            "give the document to `pipelined apply`, which takes both")
    }
}
