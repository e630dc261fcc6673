/// A block of the config, or a line that works like one: `limit NAME { … }`, `export ipfix …`. Only its filter knows
/// its meaning.
public struct BlockKind: Hashable, Sendable {
    public let keyword: String
    public init(_ keyword: String) { self.keyword = keyword }
}

/// A compiled block: one object, shared by all stages that name it. The filter knows its class. The data path must read
/// it without reference counting; the program keeps it alive.
public protocol ConfigBlock: AnyObject, Sendable {
    var name: String { get }
    /// True if it needs the record of every ended connection.
    var wantsConnectionRecords: Bool { get }
}

extension ConfigBlock {
    public var wantsConnectionRecords: Bool { false }
}

/// A block that consists of settings, described by one table.
public protocol SettingsBlock: ConfigBlock {
    associatedtype Values: Sendable
    static var lines: [Setting<Values>] { get }
    /// The defaults of all optional lines.
    static var initial: Values { get }
    var values: Values { get }
    /// Checks the lines in combination.
    static func make(_ values: Values, _ context: BlockContext) -> BlockOutcome
}

/// The context in which a block is built.
public struct BlockContext: Sendable {
    /// Empty for a line, and for a block without a name.
    public let name: String
    /// The same block in the running program, if there is one: its memory may be taken over.
    public let running: (any ConfigBlock)?
    /// Names of the settings that the block contains (``SettingLine/name``).
    public let said: Set<String>
    public init(name: String, running: (any ConfigBlock)? = nil, said: Set<String> = []) {
        self.name = name
        self.running = running
        self.said = said
    }
}

/// A diagnostic about a block, at one of its lines or at its name.
public struct BlockRemark: Sendable {
    public enum Severity: Sendable { case error, warning, note }
    public let severity: Severity
    /// The name of the setting whose line it is about; nil: the block's name.
    public let setting: String?
    public let message: String
    public let expected: String?
    public let help: String?
    public init(
        _ severity: Severity, at setting: String? = nil, _ message: String, expected: String? = nil, help: String? = nil
    ) {
        self.severity = severity
        self.setting = setting
        self.message = message
        self.expected = expected
        self.help = help
    }
}

/// The result of building a block.
public struct BlockOutcome: Sendable {
    /// Nil: no block results. A block with errors still exists, so that its uses are not reported too.
    public var block: (any ConfigBlock)?
    public var remarks: [BlockRemark]
    public init(_ block: (any ConfigBlock)?, _ remarks: [BlockRemark] = []) {
        self.block = block
        self.remarks = remarks
    }
}

/// A list block under construction: one member a word, or a line of a file.
public protocol MemberList: Sendable {
    /// - Parameter isDistinct: duplicates are reported. Those of files are not, since lists overlap.
    init(isDistinct: Bool)
    var count: Int { get }
    /// - Parameter text: without comment and blanks around it.
    /// - Returns: false for a duplicate, if those are reported. - Throws: if it is not a member.
    mutating func add(_ text: UnsafeBufferPointer<UInt8>) throws(ValueProblem) -> Bool
    /// Called after the last member.
    func block(_ name: String) -> any ConfigBlock
}

/// A kind of block: its syntax and its builder.
public struct BlockDescriptor: Sendable {
    public enum Shape: Sendable {
        /// `limit NAME { SETTING … }`.
        case named
        /// `alerts { SETTING … }`, at most once.
        case single
        /// `export ipfix …`: a single setting as a top-level line; at most `limit` of them, with a remedy for more.
        case line(limit: Int, remedy: String)
        /// The same as a line of the `node` block, at most once.
        case nodeLine
        /// `set NAME { MEMBER … }` or `set NAME file PATH`.
        case list(Members)
    }

    /// What a list holds.
    public struct Members: Sendable {
        /// Words for messages: `prefixes`, `prefix`, `address`.
        public let plural: String
        public let singular: String
        /// The noun for an empty list's message.
        public let contained: String
        /// True: `set NAME { … }` as well as a file.
        public let mayStandInConfig: Bool
        /// The block is a ``NamedSet``: stages write `@NAME`.
        public let makesSets: Bool
        public init(
            _ singular: String, _ plural: String, contained: String, mayStandInConfig: Bool = true,
            makesSets: Bool = false
        ) {
            self.singular = singular
            self.plural = plural
            self.contained = contained
            self.mayStandInConfig = mayStandInConfig
            self.makesSets = makesSets
        }
    }

    public let kind: BlockKind
    public let shape: Shape
    /// In messages: `health block`.
    public let what: String
    public let summary: String
    /// Help for an unused block, from its name. Nil: it needs no user.
    public let use: (@Sendable (String) -> String)?
    public let lines: [SettingLine]
    let begin: @Sendable () -> any BlockDraft
    let shown: @Sendable (any ConfigBlock) -> [String]
    /// By ``lines``: the part that a running node keeps (``Setting/kept``).
    let kept: @Sendable ((any ConfigBlock)?) -> [String?]
    /// By ``lines``: the text of the default; nil: there is none.
    public let defaults: [String?]
    /// Of a ``Shape/single``: the default without the block, given the stages' capabilities.
    let absent: @Sendable (StageCapabilities) -> (any ConfigBlock)?
    let memberList: (@Sendable (_ isDistinct: Bool) -> any MemberList)?

    /// The former keyword: accepted for one minor version, with a note.
    public let formerly: String?

    public var keyword: String { kind.keyword }

    /// A block or line that is made of settings.
    /// - Parameters:
    ///   - absent: of a ``Shape/single``: the default without the block, given the stages' capabilities.
    public init<Block: SettingsBlock>(
        _ keyword: String, _ shape: Shape, what: String? = nil, formerly: String? = nil, of block: Block.Type,
        _ summary: String,
        use: (@Sendable (String) -> String)? = nil,
        absent: @escaping @Sendable (StageCapabilities) -> (any ConfigBlock)? = { _ in nil }
    ) {
        self.kind = BlockKind(keyword)
        self.shape = shape
        self.what = what ?? keyword
        self.formerly = formerly
        self.summary = summary
        self.use = use
        self.absent = absent
        self.memberList = nil
        lines = Block.lines.map(\.line)
        defaults = Block.lines.map { $0.text(Block.initial) }
        begin = { SettingsDraft<Block>() }
        kept = { any in
            let block = any as? Block
            return Block.lines.map { setting in block.flatMap { setting.kept?($0.values) } }
        }
        shown = { any in
            guard let block = any as? Block else { return [] }
            return Block.lines.compactMap { setting in
                setting.text(block.values).map { "\(setting.line.name) \($0)" }
            }
        }
    }

    /// A list.
    public init<List: MemberList>(
        _ keyword: String, _ members: Members, what: String? = nil, of list: List.Type, _ summary: String,
        use: @escaping @Sendable (String) -> String, shown: @escaping @Sendable (any ConfigBlock) -> [String]
    ) {
        self.kind = BlockKind(keyword)
        self.shape = .list(members)
        self.what = what ?? keyword
        self.formerly = nil
        self.summary = summary
        self.use = use
        self.shown = shown
        self.absent = { _ in nil }
        lines = []
        defaults = []
        kept = { _ in [] }
        begin = { EmptyDraft() }
        memberList = { List(isDistinct: $0) }
    }
}

extension BlockDescriptor {
    /// Makes a draft that takes the block's lines.
    public func draft() -> any BlockDraft { begin() }
    /// An empty list; nil: it is a block of settings.
    public func list(isDistinct: Bool) -> (any MemberList)? { memberList?(isDistinct) }
    /// The block's lines for `check --print`, one per entry.
    public func lines(of block: any ConfigBlock) -> [String] { shown(block) }
    public func block(where capabilities: StageCapabilities) -> (any ConfigBlock)? { absent(capabilities) }
    /// The changed settings that need a restart, as `connections 1 -> 2`.
    /// - Parameter old: of this kind; so is `new`. Nil: there is none.
    public func unchangeable(from old: (any ConfigBlock)?, to new: (any ConfigBlock)?) -> [String] {
        let before = kept(old)
        let after = kept(new)
        return lines.indices.filter { before[$0] != after[$0] }.map { index in
            "\(lines[index].name) \(before[index] ?? "none") -> \(after[index] ?? "none")"
        }
    }
}

/// A block of settings under construction.
public protocol BlockDraft {
    /// - Parameter setting: index into ``BlockDescriptor/lines``.
    mutating func apply(_ setting: Int, _ clause: Clause) throws(ValueProblem)
    func make(_ context: BlockContext) -> BlockOutcome
}

private struct SettingsDraft<Block: SettingsBlock>: BlockDraft {
    var values = Block.initial

    mutating func apply(_ setting: Int, _ clause: Clause) throws(ValueProblem) {
        guard Block.lines.indices.contains(setting) else { return }
        try Block.lines[setting].apply(&values, clause)
    }

    func make(_ context: BlockContext) -> BlockOutcome { Block.make(values, context) }
}

/// For blocks with members instead of settings.
private struct EmptyDraft: BlockDraft {
    mutating func apply(_ setting: Int, _ clause: Clause) throws(ValueProblem) {}
    func make(_ context: BlockContext) -> BlockOutcome { BlockOutcome(nil) }
}

/// The compiled blocks of a config, each kind in source order.
public struct BlockTable: Sendable {
    private var order: [BlockKind: [any ConfigBlock]] = [:]
    private var named: [BlockKind: [String: any ConfigBlock]] = [:]

    public init() {}

    public mutating func add(_ block: any ConfigBlock, _ kind: BlockKind) {
        order[kind, default: []].append(block)
        named[kind, default: [:]][block.name] = block
    }

    public func all(_ kind: BlockKind) -> [any ConfigBlock] { order[kind] ?? [] }
    public func find(_ kind: BlockKind, _ name: String) -> (any ConfigBlock)? { named[kind]?[name] }
    public func names(_ kind: BlockKind) -> [String] { (named[kind] ?? [:]).keys.sorted() }

    /// All blocks of one class, of any kind.
    public func all<Block: ConfigBlock>(of type: Block.Type) -> [Block] {
        order.values.lazy.flatMap { $0 }.compactMap { $0 as? Block }
    }
    /// The only block of its class, where at most one is allowed.
    public func only<Block: ConfigBlock>(_ type: Block.Type) -> Block? { all(of: type).first }
    /// A set by its name, without the `@`.
    public func set(_ name: String) -> AddressSet? {
        for blocks in named.values { if let set = blocks[name] as? NamedSet { return set.set } }
        return nil
    }
    public var wantsConnectionRecords: Bool {
        order.values.contains { $0.contains(where: \.wantsConnectionRecords) }
    }
}

/// A config as ``Filter/review(_:)`` sees it.
public struct ConfigReview: Sendable {
    /// The union of its stages' capabilities.
    public let capabilities: StageCapabilities
    public let blocks: BlockTable
    public init(capabilities: StageCapabilities, blocks: BlockTable) {
        self.capabilities = capabilities
        self.blocks = blocks
    }
}

extension [any Filter.Type] {
    /// The blocks of all filters, each keyword once, in the catalog's order.
    public var blocks: [BlockDescriptor] {
        var seen: Set<BlockKind> = []
        return flatMap { $0.descriptor.blocks }.filter { seen.insert($0.kind).inserted }
    }
}

/// A diagnostic about the config as a whole, with its place.
public struct ConfigRemark: Sendable {
    public enum Place: Sendable {
        /// The first stage with this capability.
        case stage(StageCapabilities)
        /// The first block of this kind.
        case block(BlockKind)
    }
    public let remark: BlockRemark
    public let place: Place
    public init(_ severity: BlockRemark.Severity, at place: Place, _ message: String, help: String? = nil) {
        self.remark = BlockRemark(severity, message, help: help)
        self.place = place
    }
}

/// Members for `check --print`: their number, and the first few.
public func membersText(_ members: [String], of count: Int) -> String {
    let rest = count > members.count ? " and \(count - members.count) more" : ""
    return "\(count): " + members.joined(separator: " ") + rest
}
/// The most members that are shown.
public let shownMembers = 16
