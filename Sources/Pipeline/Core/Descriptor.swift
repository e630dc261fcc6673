/// What a filter says of itself: enough to check a directive, order a chain, print help and hold the docs page to it.
public struct FilterDescriptor: Sendable {
    /// The directive's first word: `sni`.
    public let keyword: String
    /// One line for lists.
    public let summary: String
    public let needs: Set<Fact>
    /// What it looks at wherever it stands, and what a stage that gives it may change: it must stand below such a one.
    public let reads: Set<Fact>
    /// What to write for a stage that is meant to stand above one that changes what this one reads, in the imperative.
    public let readingEarlier: [Fact: String]
    public let gives: Set<Fact>
    public let clauses: [ClauseSpec]
    /// In the order of the numbers in ``Verdict/refuse(_:)``. At most ``ReasonCode/perFilter``.
    public let reasons: [ReasonSpec]
    /// True if a wait of this stage need not always hold up later ones: where it gives nothing, it only gates the
    /// client's bytes. On a raw route it looks at them while the other direction already flows (R17).
    public let canGate: Bool

    public init(
        keyword: String, summary: String, needs: Set<Fact> = [], reads: Set<Fact> = [],
        readingEarlier: [Fact: String] = [:], gives: Set<Fact> = [], clauses: [ClauseSpec] = [],
        reasons: [ReasonSpec] = [], canGate: Bool = false
    ) {
        self.readingEarlier = readingEarlier
        self.keyword = keyword
        self.summary = summary
        self.needs = needs
        self.reads = reads
        self.gives = gives
        self.clauses = clauses
        self.reasons = reasons
        self.canGate = canGate
    }

    /// What a stage of this filter needs, reads and gives unless its directive makes a difference.
    public var facts: StageFacts { StageFacts(needs: needs, reads: reads, gives: gives) }
}

/// What one stage needs, reads and gives, as its directive has it: what the checker proves the order of a chain from.
public struct StageFacts: Sendable, Equatable {
    public var needs: Set<Fact>
    public var reads: Set<Fact>
    public var gives: Set<Fact>
    /// A need, and another fact that does as well: a limit by env counts by the route's or by the sender's.
    public var instead: [Fact: Fact]
    /// It sends connections on to where they were going: for intercepting listeners, and for no others.
    public var connectsToDestination: Bool
    /// Destinations that do not answer this host are to be refused for a while, before the relay accepts (ADR 0049).
    public var refusesUnreachable: Bool
    public init(
        needs: Set<Fact> = [], reads: Set<Fact> = [], gives: Set<Fact> = [], instead: [Fact: Fact] = [:],
        connectsToDestination: Bool = false, refusesUnreachable: Bool = false
    ) {
        self.needs = needs
        self.reads = reads
        self.gives = gives
        self.instead = instead
        self.connectsToDestination = connectsToDestination
        self.refusesUnreachable = refusesUnreachable
    }
}

/// One comma-separated part of a directive: `timeout 3s`, `deny to @platform`, `round_robin`.
public struct ClauseSpec: Sendable {
    /// One word or value of a clause, in order.
    public enum Element: Sendable {
        /// Exactly this word.
        case word(String)
        /// One of these words; the value is the word.
        case choice(name: String, [String])
        /// One of these words or nothing; the value is the word or ``ArgumentValue/absent``.
        case optional(name: String, [String])
        /// `200ms`, `3s`, `5m`, `1h`; bounds in the same units.
        case duration(name: String, ClosedRange<TimeSpan>)
        /// `8192`, `16KiB`, `1MiB`; bounds in bytes.
        case size(name: String, ClosedRange<UInt64>)
        /// `400`, `10k`, `1M`.
        case count(name: String, ClosedRange<UInt64>)
        /// `0xE0` or `224`, or nothing, at the end of a clause; the value is a ``ArgumentValue/count(_:)`` or
        /// ``ArgumentValue/absent``.
        case optionalByte(name: String, ClosedRange<UInt8>)
        /// `@name`, a prefix, or a built-in set's name.
        case set(name: String)
        /// The name of a block of the config: `limit per_client { … }`.
        case block(name: String, BlockKind)
        /// One word, quoted or not, as it stands.
        case text(name: String)
    }

    /// Names the clause in ``Directive``; unique in its filter.
    public let name: String
    public let elements: [Element]
    public let summary: String
    public let required: Bool
    public let repeats: Bool

    public init(
        _ name: String, _ elements: [Element], required: Bool = false, repeats: Bool = false, summary: String
    ) {
        self.name = name
        self.elements = elements
        self.required = required
        self.repeats = repeats
        self.summary = summary
    }
}

/// A checked value of a clause.
public enum ArgumentValue: Sendable {
    case absent
    case word(String)
    case duration(TimeSpan)
    case size(UInt64)
    case count(UInt64)
    case set(AddressSet)
    case block(any ConfigBlock)
    case text(String)
}

/// Named blocks of the config that stages refer to.
public enum BlockKind: String, Sendable, CaseIterable {
    case limit, health, names
}

/// A compiled block. One object a block, shared by all stages that name it; a filter knows the class that its kind has.
/// What the data path reads of it must be reachable without reference counting; the program keeps it alive.
public protocol ConfigBlock: AnyObject, Sendable {
    var name: String { get }
}

/// A named set of prefixes, as a directive refers to it.
public struct AddressSet: Sendable {
    /// As written: `@load_balancers`, `bogons`, `192.0.2.0/24`.
    public let name: String
    public let prefixes: [Prefix]
    public init(name: String, prefixes: [Prefix]) {
        self.name = name
        self.prefixes = prefixes
    }
}

/// A clause as written, checked against its ``ClauseSpec``. `values` has one entry per element that isn't a fixed word.
public struct Clause: Sendable {
    public let name: String
    public let values: [ArgumentValue]
    public init(name: String, values: [ArgumentValue]) {
        self.name = name
        self.values = values
    }
}

/// A stage's directive, checked clause by clause.
public struct Directive: Sendable {
    public let keyword: String
    public let clauses: [Clause]

    public init(keyword: String, clauses: [Clause]) {
        self.keyword = keyword
        self.clauses = clauses
    }

    public func first(_ name: String) -> Clause? { clauses.first { $0.name == name } }

    public func duration(_ name: String) -> TimeSpan? {
        guard case .duration(let value)? = first(name)?.values.first else { return nil }
        return value
    }
    public func size(_ name: String) -> UInt64? {
        guard case .size(let value)? = first(name)?.values.first else { return nil }
        return value
    }
    public func count(_ name: String) -> UInt64? {
        guard case .count(let value)? = first(name)?.values.first else { return nil }
        return value
    }
    public func block(_ name: String) -> (any ConfigBlock)? {
        guard case .block(let value)? = first(name)?.values.first else { return nil }
        return value
    }
    public func text(_ name: String) -> String? {
        guard case .text(let value)? = first(name)?.values.first else { return nil }
        return value
    }
    public func word(_ name: String) -> String? {
        guard case .word(let value)? = first(name)?.values.first else { return nil }
        return value
    }
}

/// A directive that fits the grammar but makes no sense: what is wrong, and what to write instead.
public struct SettingsError: Error, Equatable, Sendable {
    public let problem: String
    public let remedy: String
    /// The clause to point at; nil: the whole directive.
    public let clause: String?
    /// Which of ``Directive/clauses`` to point at, at its last word, where clauses of one name repeat.
    public let clauseIndex: Int?
    public init(_ problem: String, remedy: String, clause: String? = nil, clauseIndex: Int? = nil) {
        self.clauseIndex = clauseIndex
        self.problem = problem
        self.remedy = remedy
        self.clause = clause
    }
}
