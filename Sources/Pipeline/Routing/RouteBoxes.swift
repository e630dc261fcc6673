import Pipeline

/// The control side's notes of one claim of a route to a name or port, for as long as a table or a connection refers to it.
/// Its id and its counters are beside it, in the ``EntryTable``: the id is the claim's; the claims of a config file's route
/// count in a ``RouteCellBox``, which has the route's.
///
/// Zero bytes are an entry of a mapped table that nobody has asked for: see ``RouteStore/entry(_:)``.
struct RouteEntry {
    /// Nil: its own cell. Set before the first table has it.
    var shared: UnsafeMutablePointer<RouteCellBox>?
    /// Where the newest table has it; nil: not there yet, or no more.
    var current: UnsafePointer<TableRoute>?
    /// How many shards hold it.
    var references: UInt32 = 0
    /// Its place in the list of its group's routes; ``none`` ends it.
    var nextInGroup = RouteEntry.none
    var previousInGroup = RouteEntry.none
    /// Index + 1 of the version that the running apply's documents have; 0: none. While free: the next free entry.
    var candidate: UInt32 = 0
    var place = Place(line: 0, column: 0)
    var source = StateDocument.Source.state
    /// The running apply serves it, in some version.
    var isServed = false
    /// Known by id: not removed.
    var isLive = true
    /// In the list of free entries.
    var isFree = false
    /// Only connections refer to it now.
    var isPinned = false
    /// Its id's text is its own; else the store's.
    let ownsID: Bool
    /// It is one of its group's in the mapped table, and in no list.
    var isInRange = false
    private(set) var isMade = true

    init(ownsID: Bool) { self.ownsID = ownsID }

    static let none = UInt32.max
}

/// The backends of a group, with the references of the routes that point to them.
struct BackendBox {
    /// First: routes point to it.
    let group: BackendGroup
    var references: Int
}

/// What outlives tables under a key, with its references. Connections pin it by a count of its own.
protocol SharedBox: ~Copyable {
    associatedtype Key: Hashable
    var key: Key { get }
    var references: Int { get set }
    /// Only connections refer to it now.
    var isPinned: Bool { get set }
}

/// What is known of one backend address, with the references of the groups that have it.
struct BackendCellBox: SharedBox, ~Copyable {
    /// First: backends point to it.
    let cell: BackendCell
    var references = 0
    var isPinned = false
    var key: Endpoint { cell.endpoint }
    init(_ endpoint: Endpoint) { cell = BackendCell(endpoint) }
}

/// The counters of a config file's route, whose names and ports are entries of their own, with the references of those.
struct RouteCellBox: SharedBox, ~Copyable {
    /// First: routes point to it.
    let cell: RouteCell
    private let id: CountedText
    let key: RouteCellKey
    var references = 0
    var isPinned = false
    init(_ key: RouteCellKey) {
        id = CountedText(key.id)
        cell = RouteCell(id: id, isShared: true)
        self.key = key
    }
    deinit { id.deallocate() }
}

/// A route that changes its owner is another one.
struct RouteCellKey: Hashable {
    let id: String
    let env: UInt32
}

/// What the routes of a group share across tables, with the references of its ``BackendBox``es.
struct GroupCellBox: SharedBox, ~Copyable {
    /// First: groups point to it.
    let cell: GroupCell
    let key: TurnKey
    var references = 0
    var isPinned = false
    init(_ key: TurnKey, name: String, cursor: UInt64) {
        cell = GroupCell(name: name.isEmpty ? .empty : FrozenText(name), cursor: cursor)
        self.key = key
    }
    deinit { cell.name.deallocate() }
}

/// The owner of an env's routes, with the references of those.
struct OwnerBox: ~Copyable {
    /// First: routes point to it.
    let owner: RouteOwner
    var references = 1
    init(org: String, app: String, env: String, _ tenant: TenantNumbers) {
        owner = RouteOwner(org: FrozenText(org), app: FrozenText(app), env: FrozenText(env), tenant: tenant)
    }
    deinit { owner.deallocateTexts() }
}
