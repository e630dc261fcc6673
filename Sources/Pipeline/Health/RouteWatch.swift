import CLinux
import Pipeline
import PipelineRouting
import PipelineText

/// Logs when routes lose their last usable backend, and when they get one again; and when they go over to a later priority,
/// and back. Checks once a second, in batches:
/// routes that share a set of backends are checked once.
///
/// Threading: the control thread.
package struct RouteWatch {
    private static let interval = TimeSpan.seconds(1)
    /// Of one iteration of the control loop.
    private static let batchTime = TimeSpan.milliseconds(5)
    /// Between batches.
    private static let pause = TimeSpan.milliseconds(20)

    private struct Watched {
        let group: UnsafePointer<BackendGroup>
        var routes = RouteSample()
        /// Identifies the set across tables: its first route and that route's owner, with its name.
        var lead: (id: FrozenText, owner: UnsafePointer<RouteOwner>)
        /// Of the lead, once all routes are known; 0: not yet.
        var key: UInt64 = 0
    }

    private enum Phase {
        case idle
        case collecting(RouteWalk)
        case looking(next: Int)
    }

    private var phase = Phase.idle
    private var isStale = true
    /// Keeps what ``watched`` points to; released once there is a newer one and no walk is in progress.
    private var table: RouteTableSnapshot?
    private var places: [UnsafePointer<BackendGroup>: Int] = [:]
    private var watched: [Watched] = []
    /// Sets with a usable backend at the last check, and those that have lost it since, by lead.
    private var up: Set<UInt64> = []
    private var down: Set<UInt64> = []
    /// Sets whose first priority has no usable backend, but a later one has.
    private var onBackup: Set<UInt64> = []
    /// Of the check in progress.
    private var seen: Set<UInt64> = []
    /// Routes that lost their last backend, by the last check.
    package private(set) var routesDown = 0
    /// By the check in progress.
    private var counted = 0
    private var budget = LineBudget()
    private let seed = HashSeed.random()
    /// Nil: there are no routes.
    package private(set) var nextLook: Instant?

    package init() {}

    package mutating func routesChanged() {
        isStale = true
        if case .collecting = phase {} else { forget() }
        nextLook = nextLook ?? Instant(nanoseconds: 0)
    }

    private mutating func forget() {
        phase = .idle
        (table, watched, places, seen) = (nil, [], [:], [])
        counted = 0
    }

    /// Does a batch of what is due.
    package mutating func look(_ newest: RouteTableSnapshot, _ now: Instant, _ log: ControlLog) {
        guard let due = nextLook, due <= now else { return }
        let end = Instant(nanoseconds: cl_now()) + RouteWatch.batchTime
        nextLook = now + RouteWatch.pause
        if case .idle = phase { begin(newest) }
        if case .collecting(var walk) = phase {
            phase = .idle
            let isDone = walk.advance(until: end) { route, _ in collect(route) }
            phase = isDone ? .looking(next: 0) : .collecting(walk)
            if isDone { places = [:] }
        }
        if case .looking(let next) = phase { look(from: next, until: end, now, log) }
    }

    private mutating func begin(_ newest: RouteTableSnapshot) {
        if isStale {
            forget()
            isStale = false
            table = newest
            phase = .collecting(RouteWalk(newest))
        } else {
            phase = .looking(next: 0)
        }
    }

    private mutating func collect(_ route: UnsafePointer<Route>) {
        let (group, id, owner) = (route.pointee.group, route.pointee.id, route.pointee.owner)
        let place = places[group] ?? watched.count
        if place == watched.count {
            places[group] = place
            watched.append(Watched(group: group, lead: (id, owner)))
        }
        watched[place].routes.add(route.pointee)
        if id.buffer.lexicographicallyPrecedes(watched[place].lead.id.buffer) { watched[place].lead = (id, owner) }
    }

    private mutating func look(from first: Int, until end: Instant, _ now: Instant, _ log: ControlLog) {
        var next = first
        while next < watched.count {
            if watched[next].key == 0 { watched[next].key = key(watched[next]) }
            judge(watched[next], now, log)
            next += 1
            if next % 16 == 0, Instant(nanoseconds: cl_now()) >= end { break }
        }
        guard next == watched.count else {
            phase = .looking(next: next)
            return
        }
        // Sets without a route are forgotten.
        up.formIntersection(seen)
        down.formIntersection(seen)
        onBackup.formIntersection(seen)
        seen = []
        (routesDown, counted) = (counted, 0)
        phase = .idle
        nextLook = watched.isEmpty ? nil : now + RouteWatch.interval
        // The table has changed meanwhile.
        if isStale {
            forget()
            nextLook = now + RouteWatch.pause
        }
    }

    private mutating func judge(_ one: Watched, _ now: Instant, _ log: ControlLog) {
        let key = one.key
        seen.insert(key)
        let usable = one.group.pointee.usable(at: now)
        if usable > 0 {
            up.insert(key)
            if down.remove(key) != nil { say("routes_up", nil, one, usable, now, log) }
        } else if up.remove(key) != nil {
            down.insert(key)
            let isEmpty = one.group.pointee.backends.count == 0
            say(
                "routes_down",
                isEmpty
                    ? "no instance is ready: new connections to these routes are refused"
                    : "every backend is down, ejected or of weight 0: new connections to these routes are refused, "
                        + "unless `panic use_all` is set", one, usable, now, log)
        }
        if down.contains(key) { counted += one.routes.count }
        judgePriority(one, usable, now, log)
    }

    private mutating func judgePriority(_ one: Watched, _ usable: Int, _ now: Instant, _ log: ControlLog) {
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
                usable, now, log)
        } else if index == 0, onBackup.remove(one.key) != nil {
            say("routes_on_primary", nil, one, usable, now, log)
        }
    }

    private func key(_ one: Watched) -> UInt64 {
        let owner = one.lead.owner.pointee.name.path
        // A route file leads to several sets by one route.
        let name = one.group.pointee.cell.pointee.name.buffer
        let text = Array(one.lead.id.buffer) + [0] + Array(owner.utf8) + [0] + Array(name)
        return text.withUnsafeBufferPointer { max(1, SipHash.hash($0, seed: seed)) }
    }

    private mutating func say(
        _ event: String, _ message: String?, _ one: Watched, _ usable: Int, _ now: Instant, _ log: ControlLog
    ) {
        guard let omitted = budget.take(now) else { return }
        log.say(event, message) { line in
            line.list("envs", one.routes.envs)
            line.list("routes", one.routes.ids) { $0.string($1) }
            if one.routes.count > one.routes.ids.count { line.field("route_count", one.routes.count) }
            let group = one.group.pointee.cell.pointee.name
            if !group.buffer.isEmpty { line.field("group", group.string) }
            line.field("backends", one.group.pointee.backends.count)
            line.field("backends_eligible", usable)
            if omitted > 0 { line.field("suppressed", omitted) }
        }
    }
}
