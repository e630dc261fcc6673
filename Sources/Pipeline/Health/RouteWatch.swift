import CLinux
import Pipeline
import PipelineRouting
import PipelineText

/// Logs when routes lose their last usable backend, and when they get one again; and when they go over to a later priority,
/// and back. Checks once a second, in batches: routes that share a set of backends are checked once. It follows the table by the
/// groups that change in it.
///
/// Threading: the control thread.
package struct RouteWatch {
    private static let interval = TimeSpan.seconds(1)
    /// Of one iteration of the control loop.
    private static let batchTime = TimeSpan.milliseconds(5)
    /// Between batches.
    private static let pause = TimeSpan.milliseconds(20)

    private struct Watched {
        let number: UInt32
        /// See ``ServedGroup/identity``.
        let identity: UInt64
        let group: UnsafePointer<BackendGroup>
        let routes: Int
        /// Identifies the set across tables, and from a config to the next.
        let key: UInt64
    }

    /// By the number of the group.
    private var watched: [UInt32: Watched] = [:]
    private var keys: Set<UInt64> = []
    /// Keeps what ``watched`` points to.
    private var table: RouteTableSnapshot?
    /// Of the check in progress: numbers, and the place of the next.
    private var pass: (numbers: [UInt32], next: Int)?
    /// Sets with a usable backend at the last check, and those that have lost it since, by key.
    private var up: Set<UInt64> = []
    private var down: Set<UInt64> = []
    /// Sets whose first priority has no usable backend, but a later one has.
    private var onBackup: Set<UInt64> = []
    /// Of sets that went since the last check: one with the same key may come.
    private var gone: Set<UInt64> = []
    /// Routes that lost their last backend, by the last check.
    package private(set) var routesDown = 0
    /// By the check in progress.
    private var counted = 0
    private var budget = LineBudget()
    private let seed = HashSeed.random()
    /// Nil: there are no routes.
    package private(set) var nextLook: Instant?

    package init() {}

    // MARK: Following

    package mutating func follow(_ routing: RoutingState, _ news: TableNews) {
        // All that go first: a reload may have one come with another's key.
        for number in news.groups {
            guard let old = watched[number], routing.servedGroup(number)?.identity != old.identity else { continue }
            watched[number] = nil
            keys.remove(old.key)
            gone.insert(old.key)
        }
        let now = Instant(nanoseconds: cl_now())
        for number in news.groups { if let group = routing.servedGroup(number) { take(number, group, now) } }
        table = routing.snapshot
        if !news.groups.isEmpty || !watched.isEmpty { nextLook = nextLook ?? Instant(nanoseconds: 0) }
    }

    private mutating func take(_ number: UInt32, _ group: ServedGroup, _ now: Instant) {
        let known = watched[number]
        var key = known.map { $0.key } ?? hash(RouteWatch.lastingName(group))
        // Another set of the same name, or one that has taken a route over.
        if known == nil, keys.contains(key) { key = hash(Array("\(group.identity)".utf8)) }
        keys.insert(key)
        // It is served from here on: what it loses before the first check is lost, too.
        if gone.remove(key) == nil, known == nil, group.group.pointee.usable(at: now) > 0 { up.insert(key) }
        watched[number] = Watched(
            number: number, identity: group.identity, group: group.group, routes: RouteSample.count(group), key: key)
    }

    /// A block by its name, a list of addresses by its route: a reload may change what they have. Instances by the group: its
    /// number is theirs for as long as there are such routes.
    private static func lastingName(_ group: ServedGroup) -> [UInt8] {
        let name = group.group.pointee.cell.pointee.name.buffer
        let owner = [0] + Array(group.owner.path.utf8)
        if !name.isEmpty { return Array(name) + [1] + healthName(group.group.pointee) + owner }
        if let route = group.configRoute { return Array(route.buffer) + owner }
        return Array("\(group.identity)".utf8)
    }

    private static func healthName(_ group: BackendGroup) -> [UInt8] { Array((group.health?.pointee.name ?? "").utf8) }

    private func hash(_ text: [UInt8]) -> UInt64 {
        text.withUnsafeBufferPointer { SipHash.hash($0, seed: seed) }
    }

    // MARK: Looking

    /// Does a batch of what is due.
    package mutating func look(_ routing: RoutingState, _ now: Instant, _ log: ControlLog) {
        guard let due = nextLook, due <= now else { return }
        let end = Instant(nanoseconds: cl_now()) + RouteWatch.batchTime
        var (numbers, next) = pass ?? (Array(watched.keys), 0)
        while next < numbers.count {
            if let one = watched[numbers[next]] { judge(one, routing, now, log) }
            next += 1
            if next % 16 == 0, Instant(nanoseconds: cl_now()) >= end { break }
        }
        guard next == numbers.count else {
            pass = (numbers, next)
            nextLook = now + RouteWatch.pause
            return
        }
        pass = nil
        // Sets without a route are forgotten.
        up.subtract(gone)
        down.subtract(gone)
        onBackup.subtract(gone)
        gone = []
        (routesDown, counted) = (counted, 0)
        nextLook = watched.isEmpty ? nil : now + RouteWatch.interval
    }

    private mutating func judge(_ one: Watched, _ routing: RoutingState, _ now: Instant, _ log: ControlLog) {
        let key = one.key
        let usable = one.group.pointee.usable(at: now)
        if usable > 0 {
            up.insert(key)
            if down.remove(key) != nil { say("routes_up", nil, one, routing, now, log) }
        } else if up.remove(key) != nil {
            down.insert(key)
            let isEmpty = one.group.pointee.backends.count == 0
            say(
                "routes_down",
                isEmpty
                    ? "no instance is ready: new connections to these routes are refused"
                    : "every backend is down, ejected or of weight 0: new connections to these routes are refused, "
                        + "unless `panic use_all` is set", one, routing, now, log)
        }
        if down.contains(key) { counted += one.routes }
        judgePriority(one, routing, now, log)
    }

    private mutating func judgePriority(
        _ one: Watched, _ routing: RoutingState, _ now: Instant, _ log: ControlLog
    ) {
        let group = one.group.pointee
        guard group.tiers.count > 1 else {
            onBackup.remove(one.key)
            return
        }
        guard let index = group.tierInUse(at: now) else { return }
        if index > 0, onBackup.insert(one.key).inserted {
            say(
                "routes_on_backup",
                "no backend of \(group.tiers[0].name) is usable: new connections go to \(group.tiers[index].name)", one,
                routing, now, log)
        } else if index == 0, onBackup.remove(one.key) != nil {
            say("routes_on_primary", nil, one, routing, now, log)
        }
    }

    private mutating func say(
        _ event: String, _ message: String?, _ one: Watched, _ routing: RoutingState, _ now: Instant,
        _ log: ControlLog
    ) {
        guard let omitted = budget.take(now) else { return }
        let served = routing.servedGroup(one.number).flatMap { $0.identity == one.identity ? $0 : nil }
        let routes = served.map { RouteSample($0) } ?? RouteSample()
        log.say(event, message) { line in
            line.list("envs", routes.envs)
            line.list("routes", routes.ids) { $0.string($1) }
            if one.routes > routes.ids.count { line.field("route_count", one.routes) }
            let group = one.group.pointee.cell.pointee.name
            if !group.buffer.isEmpty { line.field("group", group.string) }
            line.field("backends", one.group.pointee.backends.count)
            line.field("backends_eligible", one.group.pointee.usable(at: now))
            if omitted > 0 { line.field("suppressed", omitted) }
        }
    }
}
