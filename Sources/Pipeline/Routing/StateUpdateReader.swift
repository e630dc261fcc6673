import Pipeline

extension StateUpdate {
    /// The most bytes that are read: places are numbers of 32 bits.
    public static let longest = 1 << 30

    /// Of bytes that live as long as the update does.
    public static func read(
        copying bytes: [UInt8], as accepts: Acceptance, seed: HashSeed = .random()
    ) -> (update: StateUpdate?, problems: RouteProblems) {
        let kept = KeptBytes(bytes)
        return read(UnsafeBufferPointer(kept.memory), keptBy: kept, as: accepts, seed: seed)
    }

    private final class KeptBytes {
        let memory: UnsafeMutableBufferPointer<UInt8>
        init(_ bytes: [UInt8]) {
            memory = .allocate(capacity: bytes.count)
            _ = memory.initialize(from: bytes)
        }
        deinit { memory.deallocate() }
    }

    /// Splits a document or a change. Never traps, whatever `bytes` hold.
    ///
    /// What is outside of objects is judged as ``StateDocument/parse(_:seed:)`` does. An object is kept whatever is in
    /// it, as long as it has an id; one without is rejected, with its place.
    /// - Parameters:
    ///   - bytes: what `owner` keeps, or the caller, as long as the update is used.
    ///   - knows: the words of `needs` that its objects will be judged by.
    /// - Returns: nil, with exactly one fatal problem last, if nothing of it can be used.
    public static func read(
        _ bytes: UnsafeBufferPointer<UInt8>, keptBy owner: AnyObject? = nil, as accepts: Acceptance,
        knows: Set<String> = StateWords.known, seed: HashSeed = .random()
    ) -> (update: StateUpdate?, problems: RouteProblems) {
        var builder = UpdateBuilder(StateTexts(bytes: bytes, owner: owner), accepts)
        guard bytes.count <= longest else {
            builder.fatal(
                "it has more than \(longest) bytes", remedy: "send it as changes", origin: .file(line: 1, column: 1))
            return (nil, builder.header.problems)
        }
        let isChange: Bool
        switch StateHeader.form(of: bytes, accepts, seed: seed) {
        case .wrong(let problem):
            builder.header.problems.add(problem)
            return (nil, builder.header.problems)
        case .document: isChange = false
        case .change: isChange = true
        }
        var reader = JSONReader(bytes, seed: seed)
        do throws(JSONError) {
            if isChange {
                try builder.readChange(&reader, knows: knows)
            } else {
                try builder.readDocument(&reader, knows: knows)
            }
            try reader.end()
            if isChange { builder.requireContent() } else { builder.requireFields() }
        } catch {
            builder.refuse(error)
        }
        return builder.finish(isChange ? .change(base: builder.header.base) : .document)
    }
}

/// Notes where objects are, one after the other.
private struct UpdateBuilder: StateReading {
    var header: StateHeader
    private let source: StateTexts
    private var puts: [StateEntry] = []
    private var deletes: [StateEntry] = []
    /// Of the object that is read.
    private var ids: [ID] = []
    /// Why the object that is read has no id yet.
    private var fault: ObjectDraft.Fault?

    /// An id's place.
    private struct ID {
        let offset: UInt32
        let length: UInt8
        let isElsewhere: Bool
    }

    /// How many ids of its own an object is kept under: the first ones and the last.
    private static let idsLimit = 4

    init(_ source: StateTexts, _ accepts: StateUpdate.Acceptance) {
        self.source = source
        // More than most objects have; what is not used is never touched.
        puts.reserveCapacity(source.bytes.count / 128)
        header = StateHeader(accepts: accepts)
    }

    // MARK: A change

    mutating func readChange(_ reader: inout JSONReader, knows: Set<String>) throws(JSONError) {
        try reader.object(StateHeader.changeKeys) { reader, field throws(JSONError) in
            guard let field else { return try reader.skip() }
            if try readField(&reader, field, StateHeader.changeKeys, knows) { return }
            switch field {
            case 5: header.base = try readNumber(&reader, "base")
            case 6:
                try readPart(&reader, "put") { builder, reader, kind throws(JSONError) in
                    try builder.readList(&reader, kind)
                }
            default:
                try readPart(&reader, "delete") { builder, reader, kind throws(JSONError) in
                    try builder.readDeletes(&reader, kind)
                }
            }
        }
        noteFaults()
    }

    /// `put` or `delete`: an object of lists.
    private mutating func readPart(
        _ reader: inout JSONReader, _ name: String,
        _ list: (inout UpdateBuilder, inout JSONReader, StateKind) throws(JSONError) -> Void
    ) throws(JSONError) {
        let kind = try reader.kind()
        guard kind == .object else {
            let origin = Origin.file(line: reader.line, column: reader.column)
            try reader.skip()
            fatal("\"\(name)\" is \(kind.name)", remedy: "write an object of lists", origin: origin)
            return
        }
        try reader.object(StateKind.lists) { reader, field throws(JSONError) in
            if let field { return try list(&self, &reader, StateKind.allCases[field]) }
            _ = try reader.kind()
            let origin = Origin.file(line: reader.line, column: reader.column)
            try reader.skip()
            header.problems.add(
                RouteProblem(
                    .warning, .document, origin: origin, "\"\(name)\" has a list of no kind that this version knows",
                    remedy: "write \(StateKind.allCases.map(\.list).joined(separator: ", ")); it was passed over"))
        }
    }

    /// A misspelt `put` must not pass for a change of nothing.
    mutating func requireContent() {
        guard !header.seen.contains("put"), !header.seen.contains("delete") else { return }
        fatal(
            "neither \"put\" nor \"delete\" is there", remedy: "write \"put\": {} if nothing changes",
            origin: .file(line: 1, column: 1))
    }

    private mutating func readDeletes(_ reader: inout JSONReader, _ kind: StateKind) throws(JSONError) {
        guard try isArray(&reader, kind, of: "ids") else { return }
        reader.toleratesFlaws = true
        defer { reader.toleratesFlaws = false }
        try reader.array { reader throws(JSONError) in
            let place = Place(line: reader.line, column: reader.column)
            (ids, fault) = ([], nil)
            try readID(&reader, kind, isAlone: true)
            _ = reader.takeFlaw()
            guard let id = ids.first else { return rejectObject(kind, place) }
            deletes.append(entry(kind, id, text: 0..<0))
        }
    }

    // MARK: Objects

    mutating func readObject(_ reader: inout JSONReader, _ kind: StateKind) throws(JSONError) {
        let place = Place(line: reader.line, column: reader.column)
        ids.removeAll(keepingCapacity: true)
        fault = nil
        let (before, line, lineStart) = (reader.position, reader.line, reader.lineStart)
        if let flat = JSONFlat.object(&reader, kind.idKey) {
            judge(Bytes(rebasing: reader.bytes[flat.value]), kind, place)
            if let id = ids.first { return puts.append(entry(kind, id, text: flat.text)) }
            // Once more, for the place of what is wrong.
            fault = nil
            (reader.position, reader.line, reader.lineStart) = (before, line, lineStart)
        }
        let text = try reader.rawObject(kind.idKey) { reader throws(JSONError) in
            try readID(&reader, kind, isAlone: false)
        }
        _ = reader.takeFlaw()
        guard !ids.isEmpty else { return rejectObject(kind, place) }
        for id in ids { puts.append(entry(kind, id, text: text)) }
    }

    private func entry(_ kind: StateKind, _ id: ID, text: Range<Int>) -> StateEntry {
        let whole = StateEntry(
            prefix: 0, idOffset: id.offset, textOffset: UInt32(clamping: text.lowerBound),
            textLength: UInt32(clamping: text.count), idLength: id.length, kind: kind, isElsewhere: id.isElsewhere,
            isAmbiguous: ids.count > 1)
        var prefix: UInt64 = 0
        let bytes = source.id(whole)
        for index in 0..<8 { prefix = prefix &<< 8 | UInt64(index < bytes.count ? bytes[index] : 0) }
        return StateEntry(
            prefix: prefix, idOffset: whole.idOffset, textOffset: whole.textOffset, textLength: whole.textLength,
            idLength: whole.idLength, kind: kind, isElsewhere: whole.isElsewhere, isAmbiguous: whole.isAmbiguous)
    }

    private mutating func rejectObject(_ kind: StateKind, _ place: Place) {
        header.hasUnusable = true
        let missing = ObjectDraft.Fault(
            field: kind.idField, place: place, problem: "is missing", remedy: "add it")
        header.problems.add((fault ?? missing).problem(.rejected, kind.object, id: nil, source: .state))
    }

    /// - Parameter isAlone: it stands in a list of ids, not in an object.
    private mutating func readID(
        _ reader: inout JSONReader, _ kind: StateKind, isAlone: Bool
    ) throws(JSONError) {
        let found = try reader.kind()
        guard found == .string else {
            let place = Place(line: reader.line, column: reader.column)
            try reader.skim()
            if isAlone || kind != .hostname || found != .null {
                note(kind, place, "is \(found.name)", "write a string")
            }
            return
        }
        let value = try reader.string()
        let place = Place(line: reader.line, column: reader.column)
        if reader.isLong { return note(kind, place, JSONReader.longString, "shorten it") }
        judge(value, kind, place)
    }

    /// Notes an id, or why it is none.
    private mutating func judge(_ value: Bytes, _ kind: StateKind, _ place: Place) {
        guard kind == .hostname else {
            if let fault = ObjectDraft.nameFault(value) { return note(kind, place, fault.problem, fault.remedy) }
            return add(value)
        }
        do throws(HostnameError) {
            let pattern = try HostPattern(value)
            let mark = pattern.mark.utf8.count
            let isCanonical = pattern.name.withBytes { sameBytes($0, Bytes(rebasing: value.dropFirst(mark))) }
            if isCanonical { return add(value) }
            let name = Array(pattern.mark.utf8) + pattern.name.withBytes { Array($0) }
            name.withUnsafeBufferPointer { add($0) }
        } catch {
            note(kind, place, error.problem, error.remedy)
        }
    }

    private mutating func note(_ kind: StateKind, _ place: Place, _ problem: String, _ remedy: String) {
        guard fault == nil else { return }
        fault = ObjectDraft.Fault(field: kind.idField, place: place, problem: problem, remedy: remedy)
    }

    private mutating func add(_ id: Bytes) {
        guard let made = place(id) else { return }
        if ids.count == UpdateBuilder.idsLimit { ids[UpdateBuilder.idsLimit - 1] = made } else { ids.append(made) }
    }

    /// Where it stands in the source as it is, else in the arena.
    private func place(_ id: Bytes) -> ID? {
        guard let length = UInt8(exactly: id.count), let start = id.baseAddress,
            let base = source.bytes.baseAddress
        else { return nil }
        if start >= base, start < base + source.bytes.count {
            return ID(offset: UInt32(clamping: start - base), length: length, isElsewhere: false)
        }
        return source.arena.append(id).map { ID(offset: $0.offset, length: length, isElsewhere: true) }
    }

    // MARK: The end

    mutating func finish(_ form: StateUpdate.Form) -> (update: StateUpdate?, problems: RouteProblems) {
        guard !header.problems.hasFatal else { return (nil, header.problems) }
        let source = source
        puts.sort { source.isBefore($0, $1) }
        deletes.sort { source.isBefore($0, $1) }
        var single: [StateEntry] = []
        for entry in deletes where !(single.last.map { source.isSameID($0, entry) } ?? false) { single.append(entry) }
        if let both = firstCommon(puts, single) {
            let id = String(decoding: source.id(both), as: UTF8.self)
            fatal(
                "\(both.kind.object.rawValue) \"\(id)\" is put and deleted in one change",
                remedy: "say which; the whole change was ignored", origin: .file(line: 1, column: 1))
            return (nil, header.problems)
        }
        return (StateUpdate(form, header, puts: puts, deleted: single, source), header.problems)
    }

    private func firstCommon(_ puts: [StateEntry], _ deletes: [StateEntry]) -> StateEntry? {
        var next = 0
        for deleted in deletes {
            while next < puts.count, source.isIDBefore(puts[next], deleted) { next += 1 }
            guard next < puts.count else { return nil }
            if source.isSameID(puts[next], deleted) { return deleted }
        }
        return nil
    }
}
