import Pipeline
import PipelineRuntime

/// The snapshots that control has made. One that the worker says it is done with is marked, and any use of it after
/// that is a failure; memory is freed at the end, so that such a use is seen rather than felt.
final class SnapshotLibrary {
    private struct Entry {
        let snapshot: UnsafeMutablePointer<Snapshot>
        let cell: UnsafeMutablePointer<RouteCellOfOne>
        let program: Program
        let offer: UnsafeMutablePointer<WorkerOffer>
        var isReleased = false
    }

    static let text = FrozenText("simulated")
    /// By tenant.
    nonisolated(unsafe) private static let owners: [UnsafePointer<RouteOwner>] = (0..<Scenario.tenants).map { _ in
        let memory = UnsafeMutablePointer<RouteOwner>.allocate(capacity: 1)
        memory.initialize(to: RouteOwner(org: text, app: text, env: text))
        return UnsafePointer(memory)
    }
    nonisolated(unsafe) private static let group: UnsafePointer<BackendGroup> = {
        let memory = UnsafeMutablePointer<BackendGroup>.allocate(capacity: 1)
        memory.initialize(to: BackendGroup(backends: FrozenArray([])))
        return UnsafePointer(memory)
    }()
    nonisolated(unsafe) static let cell: UnsafePointer<RouteCell> = {
        let memory = UnsafeMutablePointer<RouteCell>.allocate(capacity: 1)
        memory.initialize(to: RouteCell())
        return UnsafePointer(memory)
    }()

    private let changesProgram: Bool
    private var entries: [Entry] = []

    init(changesProgram: Bool) { self.changesProgram = changesProgram }

    func make(_ world: World, _ drains: [Drain] = []) -> UnsafePointer<Snapshot> {
        let generation = entries.count + 1
        let program = (changesProgram ? nil : entries.last?.program) ?? SnapshotLibrary.program(world)
        let route = UnsafeMutablePointer<RouteCellOfOne>.allocate(capacity: 1)
        let routes = SnapshotLibrary.owners.map {
            Route(
                id: SnapshotLibrary.text, owner: $0, group: SnapshotLibrary.group, cell: SnapshotLibrary.cell,
                port: UInt16(generation), flags: [])
        }
        route.initialize(to: RouteCellOfOne(route: routes[0], other: routes[1]))
        let snapshot = UnsafeMutablePointer<Snapshot>.allocate(capacity: 1)
        snapshot.initialize(
            to: Snapshot(
                program: program, routes: RouteTableHandle(OneRoute.self, table: UnsafeRawPointer(route)),
                generation: UInt64(generation)))
        let offer = UnsafeMutablePointer<WorkerOffer>.allocate(capacity: 1)
        offer.initialize(
            to: WorkerOffer(
                snapshot: UnsafePointer(snapshot), listeners: FrozenArray(world.workerListeners),
                drains: FrozenArray(drains)))
        entries.append(Entry(snapshot: snapshot, cell: route, program: program, offer: offer))
        return UnsafePointer(snapshot)
    }

    var nextGeneration: UInt64 { UInt64(entries.count + 1) }
    func generation(of drain: Drain) -> UInt64 {
        entries.first {
            $0.offer.pointee.drains.buffer.contains { $0.what == drain.what && $0.deadline == drain.deadline }
        }?
        .snapshot.pointee.generation ?? .max
    }

    func offer(_ world: World, _ drains: [Drain]) -> UnsafePointer<WorkerOffer> {
        _ = make(world, drains)
        return UnsafePointer(entries[entries.count - 1].offer)
    }

    /// Releases what the worker has passed.
    func collect(_ world: World) {
        let oldest = world.mailbox.oldestGeneration
        for i in entries.indices where !entries[i].isReleased && UInt64(i + 1) < oldest {
            entries[i].isReleased = true
            entries[i].cell.pointee.isReleased = true
            world.note("snapshot \(i + 1) is released")
        }
    }

    /// [S16] The oldest snapshot that is still needed is the oldest that the worker keeps.
    func check(_ world: World) {
        let needed = world.connections.filter(\.isLive).compactMap(\.generation)
        let expected = min(needed.min() ?? .max, UInt64(entries.count))
        let kept = world.mailbox.oldestGeneration
        if kept != expected { world.fail("S16: the worker keeps snapshot \(kept), and needs \(expected)") }
    }

    func free() {
        for entry in entries {
            entry.snapshot.deallocate()
            entry.offer.pointee.deallocate()
            entry.offer.deallocate()
            entry.cell.deallocate()
        }
        entries = []
    }

    private static func program(_ world: World) -> Program {
        var states = 0
        let chains = world.scenario.chains.enumerated().map { index, plan in
            var stages: [Stage] = []
            func add<F: SimulatedStage>(_ filter: F.Type, _ catalogIndex: Int, shadow: Bool = false) {
                let base = ReasonTable.base(ofFilter: catalogIndex)
                let settings = StageSettings(world: world, stage: stages.count, chain: plan, reasonBase: base)
                stages.append(
                    .bind(
                        filter, settings: settings, reasonBase: base, stateIndex: states, shadow: shadow, source: "",
                        line: stages.count))
                states += 1
            }
            add(DoorStage.self, 0, shadow: plan.shadows)
            if plan.peeks { add(PeekStage.self, 1) }
            if plan.gates { add(GateStage.self, 2) }
            add(BackendStage.self, 3)
            if plan.writesPrelude { add(PreludeStage.self, 4) }
            add(AccountStage.self, 5)
            return Chain(name: "chain \(index)", stages: stages)
        }
        return Program(
            node: world.scenario.settings, chains: chains, listeners: [], exposes: [], catalog: simulatedCatalog)
    }
}

/// A route table of one route, and one of another tenant by whatever name, that knows whether it may still be read.
struct RouteCellOfOne {
    var route: Route
    var other: Route
    var isReleased = false
}

enum OneRoute: RouteLookup {
    static func named(
        _ name: UnsafeBufferPointer<UInt8>, at destination: DestinationAddress, in table: UnsafeRawPointer
    ) -> UnsafePointer<Route>? { sole(at: destination, in: table).map { $0 + 1 } }

    static func sole(at destination: DestinationAddress, in table: UnsafeRawPointer) -> UnsafePointer<Route>? {
        let cell = table.assumingMemoryBound(to: RouteCellOfOne.self)
        guard !cell.pointee.isReleased else { return nil }
        return table.assumingMemoryBound(to: Route.self)
    }
}
