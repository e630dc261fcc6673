import Pipeline

/// One object while its fields are read. A field of the wrong type is noted and skipped, so that all faults of an
/// object are reported at once, with its id.
struct ObjectDraft {
    struct Fault {
        /// Nil: the object as a whole.
        let field: String?
        let place: Place
        let problem: String
        let remedy: String

        func problem(
            _ severity: RouteProblem.Severity, _ object: RouteProblem.Object, id: String?,
            source: StateDocument.Source
        ) -> RouteProblem {
            RouteProblem(
                severity, object, id: id, field: field, origin: place.origin(source), problem, remedy: remedy)
        }
    }

    let object: RouteProblem.Object
    let place: Place
    var faults: [Fault] = []
    /// Further ids of an object with several: it is ambiguous, so the last good version of each stays.
    private(set) var otherIDs: [TextRef] = []

    init(_ object: RouteProblem.Object, at place: Place) {
        self.object = object
        self.place = place
    }

    mutating func fault(_ reader: JSONReader, _ field: String, _ problem: String, remedy: String) {
        let place = Place(line: reader.line, column: reader.column)
        faults.append(Fault(field: field, place: place, problem: problem, remedy: remedy))
    }

    /// At the object's end: what is wrong with it as a whole.
    mutating func takeFlaw(of reader: inout JSONReader) {
        guard let flaw = reader.takeFlaw() else { return }
        faults.append(Fault(field: nil, place: flaw.place, problem: flaw.problem, remedy: flaw.remedy))
    }

    mutating func id(
        _ reader: inout JSONReader, _ field: StaticString, into arena: TextArena, _ id: inout TextRef?
    ) throws(JSONError) {
        if let id { otherIDs.append(id) }
        id = try text(&reader, field, into: arena) ?? id
    }

    /// A string; nil if it is longer than the reader gives, which is noted.
    private mutating func string(
        _ reader: inout JSONReader, _ field: StaticString
    ) throws(JSONError) -> Bytes? {
        let value = try reader.string()
        guard reader.isLong else { return value }
        fault(reader, "\(field)", JSONReader.longString, remedy: "shorten it")
        return nil
    }

    /// True if a value of `wanted` comes next; else it is skipped, and noted unless null is allowed.
    @inline(__always) private mutating func has(
        _ wanted: JSONKind, _ reader: inout JSONReader, _ field: StaticString, optional: Bool
    ) throws(JSONError) -> Bool {
        let kind = try reader.kind()
        if kind == wanted { return true }
        if !(optional && kind == .null) {
            fault(reader, "\(field)", "is \(kind.name)", remedy: "write \(wanted.name)\(optional ? " or null" : "")")
        }
        try reader.skip()
        return false
    }

    /// Text of 1...``StateDocument/longestID`` visible ASCII characters.
    private mutating func name(
        _ reader: inout JSONReader, _ field: StaticString, optional: Bool
    ) throws(JSONError) -> Bytes? {
        guard try has(.string, &reader, field, optional: optional), let value = try string(&reader, field)
        else { return nil }
        if let fault = ObjectDraft.nameFault(value) {
            self.fault(reader, "\(field)", fault.problem, remedy: fault.remedy)
            return nil
        }
        return value
    }

    /// Why `value` is not a valid id or name; nil if it is.
    static func nameFault(_ value: Bytes) -> (problem: String, remedy: String)? {
        if value.isEmpty { return ("is empty", "give it a name") }
        if value.count > StateDocument.longestID {
            return ("has \(value.count) bytes", "use at most \(StateDocument.longestID)")
        }
        for byte in value where byte <= 0x20 || byte >= 0x7F {
            return ("has characters that are not visible ASCII", "use letters, digits and punctuation")
        }
        return nil
    }

    mutating func text(
        _ reader: inout JSONReader, _ field: StaticString, optional: Bool = false, into arena: TextArena
    ) throws(JSONError) -> TextRef? {
        guard let value = try name(&reader, field, optional: optional) else { return nil }
        return arena.append(value)
    }

    mutating func symbol(
        _ reader: inout JSONReader, _ field: StaticString, in table: SymbolTable
    ) throws(JSONError) -> UInt32? {
        guard let value = try name(&reader, field, optional: false) else { return nil }
        return table.intern(value)
    }

    mutating func integer(
        _ reader: inout JSONReader, _ field: StaticString, _ range: ClosedRange<UInt64>, optional: Bool = false
    ) throws(JSONError) -> UInt64? {
        guard try has(.number, &reader, field, optional: optional) else { return nil }
        guard let value = try reader.number(), range.contains(value) else {
            fault(
                reader, "\(field)", "is out of range or not a whole number",
                remedy: "write a whole number of \(range.lowerBound) to \(range.upperBound)")
            return nil
        }
        return value
    }

    mutating func port(_ reader: inout JSONReader, _ field: StaticString) throws(JSONError) -> UInt16? {
        try integer(&reader, field, 1...65535).map { UInt16(truncatingIfNeeded: $0) }
    }

    mutating func bool(_ reader: inout JSONReader, _ field: StaticString) throws(JSONError) -> Bool? {
        guard try has(.bool, &reader, field, optional: false) else { return nil }
        return try reader.bool()
    }

    /// One of some words. Nil for any other, which is noted.
    mutating func choice<Choice: CaseIterable>(
        _ reader: inout JSONReader, _ field: StaticString, _ name: (Choice) -> String
    ) throws(JSONError) -> Choice? {
        guard try has(.string, &reader, field, optional: false), let bytes = try string(&reader, field)
        else { return nil }
        let value = String(decoding: bytes, as: UTF8.self)
        if let found = Choice.allCases.first(where: { name($0) == value }) { return found }
        let names = Choice.allCases.map { "\"\(name($0))\"" }.joined(separator: ", ")
        fault(reader, "\(field)", "\"\(value.prefix(64))\" is unknown", remedy: "write one of \(names)")
        return nil
    }

    /// An address of one family.
    mutating func address(
        _ reader: inout JSONReader, _ field: StaticString, v4: Bool, optional: Bool
    ) throws(JSONError) -> IPAddress? {
        guard try has(.string, &reader, field, optional: optional), let value = try string(&reader, field)
        else { return nil }
        guard let address = IPAddress(ascii: value), address.isIPv4 == v4, !address.isUnspecified else {
            fault(
                reader, "\(field)", "is not an IPv\(v4 ? 4 : 6) address",
                remedy: "write one such as \(v4 ? "192.0.2.1" : "fd00::10")")
            return nil
        }
        return address
    }

    /// A hostname in canonical form without its mark, and its kind.
    mutating func hostname(
        _ reader: inout JSONReader, _ field: StaticString, into arena: TextArena
    ) throws(JSONError) -> (name: TextRef, kind: KeyKind)? {
        guard try has(.string, &reader, field, optional: true), let value = try string(&reader, field)
        else { return nil }
        do throws(HostnameError) {
            let pattern = try HostPattern(value)
            guard let name = pattern.name.withBytes({ arena.append($0) }) else { return nil }
            return (name, pattern.kind)
        } catch {
            fault(reader, "\(field)", error.problem, remedy: error.remedy)
            return nil
        }
    }
}
