/// A block of the config, or a line that is like one: `limit NAME { … }`, `export ipfix …`. Which filter it belongs to
/// nobody else needs to know.
public struct BlockKind: Hashable, Sendable {
    public let keyword: String
    public init(_ keyword: String) { self.keyword = keyword }
}

/// A compiled block. One object a block, shared by all stages that name it; a filter knows the class that its kind has.
/// What the data path reads of it must be reachable without reference counting; the program keeps it alive.
public protocol ConfigBlock: AnyObject, Sendable {
    var name: String { get }
    /// Workers must hand over the record of every connection that ends.
    var wantsConnectionRecords: Bool { get }
}

extension ConfigBlock {
    public var wantsConnectionRecords: Bool { false }
}

/// A block that is made of settings, by one table of them.
public protocol SettingsBlock: ConfigBlock {
    associatedtype Values: Sendable
    static var lines: [Setting<Values>] { get }
    /// With the defaults of all lines that may be left out.
    static var initial: Values { get }
    var values: Values { get }
    /// Judges what the lines say together.
    static func make(_ values: Values, _ context: BlockContext) -> BlockOutcome
}

/// What is known of a block where it is made.
public struct BlockContext: Sendable {
    /// Of a line, or a block without a name, empty.
    public let name: String
    /// The block of this kind and name in the program that runs, if there is one: what it keeps may be taken over.
    public let running: (any ConfigBlock)?
    /// Names of the settings that the block says (``SettingLine/name``).
    public let said: Set<String>
    public init(name: String, running: (any ConfigBlock)? = nil, said: Set<String> = []) {
        self.name = name
        self.running = running
        self.said = said
    }
}

/// Something to say of a block, at one of its lines or at its name.
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

/// What became of a block.
public struct BlockOutcome: Sendable {
    /// Nil: there is none, by what was said. A block with errors is there all the same, so that uses of it are right.
    public var block: (any ConfigBlock)?
    public var remarks: [BlockRemark]
    public init(_ block: (any ConfigBlock)?, _ remarks: [BlockRemark] = []) {
        self.block = block
        self.remarks = remarks
    }
}

/// A block of members, one a word or one a line of a file, on its way.
public protocol MemberList: Sendable {
    /// - Parameter isDistinct: members that are there already are to be told of. Files hold many, and overlap: theirs are not.
    init(isDistinct: Bool)
    var count: Int { get }
    /// - Parameter text: without comment and blanks around it.
    /// - Returns: false if it is there already, as far as that is to be told.
    /// - Throws: if it is no member.
    mutating func add(_ text: UnsafeBufferPointer<UInt8>) throws(ValueProblem) -> Bool
    /// Once all are there.
    func block(_ name: String) -> any ConfigBlock
}

/// How a kind of block is written and made.
public struct BlockDescriptor: Sendable {
    public enum Shape: Sendable {
        /// `limit NAME { SETTING … }`.
        case named
        /// `alerts { SETTING … }`, at most once.
        case single
        /// `export ipfix …`: one setting, and that its only line, outside of blocks; at most so many of them, and what to do
        /// instead of more.
        case line(limit: Int, remedy: String)
        /// The same as a line of the `node` block, at most once.
        case nodeLine
        /// `set NAME { MEMBER … }` or `set NAME file PATH`.
        case list(Members)
    }

    /// What a list holds.
    public struct Members: Sendable {
        /// In messages: `prefixes`, `prefix`, `address`.
        public let plural: String
        public let singular: String
        /// What an empty list does not contain.
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
    /// How to use it, from its name: what is said of one that nothing uses. Nil: it needs no user.
    public let use: (@Sendable (String) -> String)?
    public let lines: [SettingLine]
    let begin: @Sendable () -> any BlockDraft
    let shown: @Sendable (any ConfigBlock) -> [String]
    /// By ``lines``: what a running node keeps (``Setting/kept``).
    let kept: @Sendable ((any ConfigBlock)?) -> [String?]
    /// By ``lines``: what holds where the line is not there, as it would say it; nil: nothing does.
    public let defaults: [String?]
    /// Of a ``Shape/single``: what holds without it, by what the program's stages can do.
    let absent: @Sendable (StageCapabilities) -> (any ConfigBlock)?
    let memberList: (@Sendable (_ isDistinct: Bool) -> any MemberList)?

    /// What it was called before: taken for one minor version, with a note.
    public let formerly: String?

    public var keyword: String { kind.keyword }

    /// A block or line that is made of settings.
    /// - Parameters:
    ///   - absent: of a ``Shape/single``: what holds where the config has none, by what its stages can do.
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
    /// A draft, to be given the block's lines.
    public func draft() -> any BlockDraft { begin() }
    /// An empty list; nil: it is a block of settings.
    public func list(isDistinct: Bool) -> (any MemberList)? { memberList?(isDistinct) }
    /// What `check --print` says of it, a line an entry: each is a line of the block.
    public func lines(of block: any ConfigBlock) -> [String] { shown(block) }
    public func block(where capabilities: StageCapabilities) -> (any ConfigBlock)? { absent(capabilities) }
    /// The settings in which `new` says something else than `old` and which a running node keeps, as `connections 1 -> 2`.
    /// - Parameter old: of this kind; so is `new`. Nil: there is none.
    public func unchangeable(from old: (any ConfigBlock)?, to new: (any ConfigBlock)?) -> [String] {
        let before = kept(old)
        let after = kept(new)
        return lines.indices.filter { before[$0] != after[$0] }.map { index in
            "\(lines[index].name) \(before[index] ?? "none") -> \(after[index] ?? "none")"
        }
    }
}

/// A block of settings on its way.
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

/// Of what has members, and no settings.
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

    /// All of one class, whatever their kind is called.
    public func all<Block: ConfigBlock>(of type: Block.Type) -> [Block] {
        order.values.lazy.flatMap { $0 }.compactMap { $0 as? Block }
    }
    /// The only one of its class, where at most one can be.
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
    /// What its stages can do, together.
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

/// Something to say of a config as a whole, where it belongs.
public struct ConfigRemark: Sendable {
    public enum Place: Sendable {
        /// The first stage that can do this.
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

/// Members as `check --print` shows them: how many, and the first of them.
public func membersText(_ members: [String], of count: Int) -> String {
    let rest = count > members.count ? " and \(count - members.count) more" : ""
    return "\(count): " + members.joined(separator: " ") + rest
}
/// At most so many members of a list are shown.
public let shownMembers = 16
