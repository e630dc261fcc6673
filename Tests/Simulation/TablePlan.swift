import Pipeline

/// What one table says of the only route there is: whether it is there, which it is, whose, and of which backends.
struct TablePlan: CustomStringConvertible {
    /// How many owners, and how many routes of one name after another.
    static let kinds = 2

    var isThere = true
    var owner = 0
    var cell = 0
    /// Candidates of every connection that are the route's now.
    /// Its connections may wait, if they may at all.
    var hasQueue = true
    var members = Array(0..<BackendCandidates.capacity)

    init(_ scenario: Scenario, isFirst: Bool, _ random: inout SeededRandom) {
        guard scenario.movesRoutes else { return }
        isThere = isFirst || !random.chance(10)
        owner = random.below(TablePlan.kinds)
        cell = random.below(TablePlan.kinds)
        members = members.filter { _ in random.chance(70) }
        if scenario.queue != nil { hasQueue = isFirst || random.chance(85) }
    }

    /// Whether a connection of that route and owner may go to the candidate.
    func allows(_ route: (cell: Int, owner: Int)?, _ candidate: Int) -> Bool {
        isThere && route?.cell == cell && route?.owner == owner && members.contains(candidate)
    }

    var description: String { isThere ? "route \(cell) of \(owner), backends \(members)" : "no route" }
}

/// A route table of one route. One that was released is spoiled: a look into it is a failure, a pointer out of it a crash.
struct TableOfOne {
    private(set) var route: Route
    let group: UnsafePointer<BackendGroup>
    let isThere: Bool
    private(set) var isReleased = false
    private let world: Unmanaged<World>

    init(route: Route, group: UnsafePointer<BackendGroup>, isThere: Bool, world: World) {
        self.route = route
        self.group = group
        self.isThere = isThere
        self.world = .passUnretained(world)
    }

    mutating func spoil() {
        isReleased = true
        withUnsafeMutableBytes(of: &route) { for i in $0.indices { $0[i] = 0xEE } }
    }

    func look() -> Bool {
        if isReleased { world.takeUnretainedValue().fail("S16: something is looked up in a table that was released") }
        return isThere && !isReleased
    }
}

enum OneRoute: RouteLookup {
    static func named(
        _ name: UnsafeBufferPointer<UInt8>, at destination: DestinationAddress, in table: UnsafeRawPointer
    ) -> FoundRoute? { sole(at: destination, in: table) }

    static func sole(at destination: DestinationAddress, in table: UnsafeRawPointer) -> FoundRoute? {
        let one = table.assumingMemoryBound(to: TableOfOne.self)
        guard one.pointee.look() else { return nil }
        return FoundRoute(one.pointee.route, one.pointee.group)
    }
}
