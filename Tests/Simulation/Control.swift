import Pipeline
import PipelineRuntime

/// Control's side of the mailbox.
final class Control {
    private let orders: [(at: UInt64, order: Scenario.Order)]
    private var done = 0
    /// Memory was short at some time.
    private(set) var wasShort = false
    /// When it last wanted something.
    private(set) var lastAt: UInt64 = 0
    let library: SnapshotLibrary
    private(set) var drains: [Drain] = []

    init(_ scenario: Scenario) {
        orders = scenario.orders
        library = SnapshotLibrary(scenario)
    }

    var nextAt: UInt64 { done < orders.count ? orders[done].at : .max }

    /// Does what is due. True if the worker should be woken.
    func act(_ world: World) -> Bool {
        library.collect(world)
        guard nextAt <= world.clock else { return false }
        lastAt = world.clock
        let order = orders[done].order
        done += 1
        switch order {
        case .update: break
        case .drain: if world.mailbox.order == .run { world.mailbox.setOrder(.drain) }
        case .stop: world.mailbox.setOrder(.stop)
        case .memory:
            world.mailbox.setShortOfMemory(!world.mailbox.isShortOfMemory)
            wasShort = true
        case .removeListener: dropListener(world)
        case .replaceListener: if dropListener(world) { addListener(world) }
        case .drainBackend:
            let cell = world.backendCells.baseAddress.unsafelyUnwrapped + world.random.below(world.backendCells.count)
            add(.backend(UnsafePointer(cell)), .instanceDrained, world)
        case .drainRoute:
            let cell = library.cell(world.random.below(TablePlan.kinds))
            add(.route(cell), .routeRemoved, world)
        case .suspend:
            let number = UInt32(world.random.below(TablePlan.kinds))
            let what = world.random.chance(50) ? Drain.Target.env(number) : .org(number)
            drains.append(Drain(what, deadline: Instant(nanoseconds: 0), reason: .suspended))
        }
        if order != .drain, order != .stop, order != .memory {
            let update = library.publish(world, drains)
            world.mailbox.publish(update)
        }
        world.note("control: \(order)")
        return true
    }

    private func add(_ what: Drain.Target, _ reason: RuntimeReason, _ world: World) {
        let deadline = Instant(nanoseconds: world.clock + UInt64(world.random.below(60_000_000)))
        drains.append(Drain(what, deadline: deadline, reason: reason))
    }

    /// A listener goes, once the worker is known to have it. False if there is none.
    @discardableResult private func dropListener(_ world: World) -> Bool {
        let owned = world.listeners.indices.filter {
            world.listeners[$0].isDocumented && world.listeners[$0].isOpen
                && world.mailbox.appliedGeneration >= world.listeners[$0].generation
        }
        guard !owned.isEmpty else { return false }
        dropped = world.random.pick(owned)
        world.listeners[dropped].isDocumented = false
        return true
    }
    private var dropped = 0

    private func addListener(_ world: World) {
        var listener = World.Listener(
            descriptor: world.controlDescriptor(world.listeners.count), place: world.listeners[dropped].place)
        listener.generation = library.nextGeneration
        world.listeners.append(listener)
    }

    /// Nothing will ever happen again: time to end.
    func orderEnd(_ world: World) {
        world.checkQuiescence()
        library.check(world)
        world.note("nothing moves any more")
        switch world.mailbox.order {
        case .run: world.mailbox.setOrder(world.random.chance(50) ? .drain : .stop)
        case .drain: world.mailbox.setOrder(.stop)
        case .stop, .kill: world.fail("the worker sleeps on after it was told to stop")
        }
    }

    func firstSnapshot(_ world: World) -> UnsafePointer<Snapshot> { library.make(world) }
    func finish() { library.free() }

    // MARK: Drains

    var hasDrains: Bool { !drains.isEmpty }

    func isDrained(_ target: Drain.Target, at clock: UInt64) -> Bool {
        drains.contains { $0.what == target && $0.deadline.nanoseconds <= clock }
    }

    /// Whether the connection ended on something that was to be ended by now.
    func hasDrained(_ reason: RuntimeReason, _ connection: Connection, _ world: World) -> Bool {
        drains.contains { $0.reason == reason && $0.deadline.nanoseconds <= world.clock }
    }

    /// [S23] Nobody stays on what is drained beyond its deadline, and no sleep goes past it.
    func checkDrains(_ world: World, wakes: UInt64) {
        guard hasDrains else { return }
        for drain in drains where world.mailbox.appliedGeneration >= library.generation(of: drain) {
            let deadline = drain.deadline.nanoseconds
            let onIt = world.connections.filter { connection in
                guard connection.isLive, connection.upstream?.isOpen == true else { return false }
                switch drain.what {
                case .backend(let cell):
                    return cell == world.backendCells.baseAddress.unsafelyUnwrapped + connection.candidate
                case .route(let cell): return connection.route.map { cell == library.cell($0.cell) } ?? false
                case .env(let number), .org(let number):
                    return connection.route.map { number == UInt32($0.owner) } ?? false
                }
            }
            guard let first = onIt.first else { continue }
            if deadline < world.clock { world.fail("S23: #\(first.index) is still on what was drained") }
            if deadline &+ 1000 < wakes { world.fail("S23: the worker sleeps past the end of #\(first.index)") }
        }
    }
}
