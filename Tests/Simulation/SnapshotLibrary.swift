import Pipeline
import PipelineRuntime

/// The snapshots, tables and programs that control has made. What the worker says it is done with is spoiled, so that any
/// use of it after that fails; memory is freed at the end.
final class SnapshotLibrary {
    private struct Entry {
        let snapshot: UnsafeMutablePointer<Snapshot>
        let table: UnsafeMutablePointer<TableOfOne>
        let plan: TablePlan
        let group: UnsafeMutablePointer<BackendGroup>
        let update: UnsafeMutablePointer<WorkerUpdate>
        var isReleased = false
        /// What a spoiled group was.
        private var kept: BackendGroup?

        init(
            _ snapshot: UnsafeMutablePointer<Snapshot>, _ table: UnsafeMutablePointer<TableOfOne>, _ plan: TablePlan,
            _ group: UnsafeMutablePointer<BackendGroup>, _ update: UnsafeMutablePointer<WorkerUpdate>
        ) {
            (self.snapshot, self.table, self.plan, self.group, self.update) = (snapshot, table, plan, group, update)
        }

        /// Lookups copy the route, but not its group.
        mutating func spoilGroup() {
            kept = group.pointee
            UnsafeMutableRawBufferPointer(start: group, count: MemoryLayout<BackendGroup>.size)
                .initializeMemory(as: UInt8.self, repeating: 0xEE)
        }

        var wholeGroup: BackendGroup { kept ?? group.pointee }
    }

    private struct ProgramEntry {
        let program: Program
        let mark: ProgramMark
        var last: UInt64
    }

    static let text = FrozenText("simulated")
    private static let id = CountedText("simulated")
    /// Whose routes are, and which routes there are: a route may go, come back as another one, and change its owner.
    private let owners: UnsafeMutableBufferPointer<RouteOwner>
    private let cells: UnsafeMutableBufferPointer<RouteCell>
    private let turns = UnsafeMutablePointer<GroupCell>.allocate(capacity: 1)
    let queue: SharedQueue?
    private let scenario: Scenario
    private var entries: [Entry] = []
    private var programs: [ProgramEntry] = []
    /// Of ``programs``: that of new connections, and one beside it.
    private var current: Int?
    private var canary: Int?
    private let evidence = UnsafeMutablePointer<CanaryEvidence>.allocate(capacity: 1)
    private var chance: SplitMix64

    init(_ scenario: Scenario) {
        self.scenario = scenario
        chance = SplitMix64(seed: scenario.seed ^ 0xCA5A)
        evidence.initialize(to: CanaryEvidence(workers: 1, reasons: simulatedReasons.count))
        queue = scenario.queue.map { SharedQueue($0, hasRival: scenario.hasRival) }
        owners = .allocate(capacity: TablePlan.kinds)
        cells = .allocate(capacity: TablePlan.kinds)
        turns.initialize(to: GroupCell())
        for i in 0..<TablePlan.kinds {
            let text = SnapshotLibrary.text
            (owners.baseAddress.unsafelyUnwrapped + i).initialize(
                to: RouteOwner(
                    org: text, app: text, env: text, tenant: TenantNumbers(env: UInt32(i), org: UInt32(i))))
            (cells.baseAddress.unsafelyUnwrapped + i).initialize(to: RouteCell(id: SnapshotLibrary.id))
        }
    }

    func cell(_ index: Int) -> UnsafePointer<RouteCell> {
        UnsafePointer(cells.baseAddress.unsafelyUnwrapped + index)
    }
    func owner(_ index: Int) -> UnsafePointer<RouteOwner> {
        UnsafePointer(owners.baseAddress.unsafelyUnwrapped + index)
    }

    // MARK: Making

    func make(_ world: World, _ drains: [Drain] = []) -> UnsafePointer<Snapshot> {
        let generation = nextGeneration
        let plan = TablePlan(scenario, isFirst: entries.isEmpty, &world.random)
        let program = program(world, generation)
        let members = plan.members.map { candidate in
            Backend(
                address: BackendAddress(Endpoint(.unspecified, UInt16(candidate))), instance: SnapshotLibrary.text,
                cell: UnsafePointer(world.backendCells.baseAddress.unsafelyUnwrapped + candidate))
        }
        let group = UnsafeMutablePointer<BackendGroup>.allocate(capacity: 1)
        group.initialize(
            to: BackendGroup(
                backends: FrozenArray(members), cell: turns,
                policy: plan.hasQueue ? queue.map { UnsafePointer($0.policy) } : nil))
        let table = UnsafeMutablePointer<TableOfOne>.allocate(capacity: 1)
        let route = Route(
            owner: owner(plan.owner), slot: 0, cell: cell(plan.cell), port: UInt16(generation), flags: [])
        table.initialize(to: TableOfOne(route: route, group: group, isThere: plan.isThere, world: world))
        let snapshot = UnsafeMutablePointer<Snapshot>.allocate(capacity: 1)
        snapshot.initialize(
            to: Snapshot(
                program: program, routes: RouteTableHandle(OneRoute.self, table: UnsafeRawPointer(table)),
                generation: generation, canary: share()))
        let update = UnsafeMutablePointer<WorkerUpdate>.allocate(capacity: 1)
        update.initialize(
            to: WorkerUpdate(
                snapshot: UnsafePointer(snapshot), listeners: FrozenArray(world.workerListeners),
                drains: FrozenArray(drains)))
        entries.append(Entry(snapshot, table, plan, group, update))
        world.note("table \(generation): \(plan)")
        return UnsafePointer(snapshot)
    }

    private func program(_ world: World, _ generation: UInt64) -> Program {
        if scenario.hasCanaries { decideAboutCanary(world) }
        let hasMoved = canary == nil && scenario.changesProgram && !scenario.hasCanaries
        let index = hasMoved ? add(world) : current ?? add(world)
        current = index
        programs[index].last = generation
        if let canary { programs[canary].last = generation }
        return programs[index].program
    }

    private func add(_ world: World) -> Int {
        let mark = ProgramMark()
        programs.append(ProgramEntry(program: SnapshotLibrary.program(world, mark), mark: mark, last: 0))
        return programs.count - 1
    }

    /// One begins, goes on, is rolled back, goes everywhere, or makes room for another one.
    private func decideAboutCanary(_ world: World) {
        guard current != nil else { return }
        switch chance.next() % 5 {
        case 0: break
        case 1: canary = nil
        case 2: (current, canary) = (canary ?? current, nil)
        default: canary = add(world)
        }
    }

    private func share() -> CanaryShare? {
        canary.map {
            CanaryShare(
                program: programs[$0].program, CanarySettings(percent: 50, time: .seconds(1), unit: .connection),
                seed: HashSeed(scenario.seed, 1), evidence: UnsafePointer(evidence))
        }
    }

    var nextGeneration: UInt64 { UInt64(entries.count + 1) }
    func generation(of drain: Drain) -> UInt64 {
        entries.first {
            $0.update.pointee.drains.buffer.contains { $0.what == drain.what && $0.deadline == drain.deadline }
        }?
        .snapshot.pointee.generation ?? .max
    }

    func publish(_ world: World, _ drains: [Drain]) -> UnsafePointer<WorkerUpdate> {
        _ = make(world, drains)
        return UnsafePointer(entries[entries.count - 1].update)
    }

    /// What the worker may look up in now: mostly one table; two while it takes one up.
    func current(_ world: World) -> [TablePlan] {
        entries[max(0, Int(world.mailbox.appliedGeneration) - 1)...].map(\.plan)
    }

    // MARK: Releasing

    /// Spoils what the worker has passed.
    func collect(_ world: World) {
        let applied = world.mailbox.appliedGeneration
        guard !scenario.looksUpOld else { return }
        for i in entries.indices where !entries[i].isReleased && UInt64(i + 1) < applied {
            entries[i].isReleased = true
            entries[i].table.pointee.spoil()
            entries[i].spoilGroup()
            world.note("table \(i + 1) is released")
        }
        for entry in programs where entry.last < applied && entry.program.users.current == 0 {
            entry.mark.isReleased = true
        }
    }

    /// [S16] A program is held by the worker exactly while connections run on it, or the next ones would.
    func check(_ world: World) {
        for entry in programs {
            let isNeeded =
                entry.last >= world.mailbox.appliedGeneration
                || world.connections.contains { $0.isLive && $0.program === entry.mark }
            if (entry.program.users.current > 0) != isNeeded, entry.last <= world.mailbox.appliedGeneration {
                world.fail("S16: a program is \(isNeeded ? "needed and not held" : "held and not needed")")
            }
        }
    }

    /// [S28] What connections pin is counted once each, while they live.
    func checkPins(_ world: World) {
        let live = world.connections.filter(\.isLive)
        for i in 0..<TablePlan.kinds {
            let (cells, owners) = (live.count { $0.route?.cell == i }, live.count { $0.route?.owner == i })
            if Int(cell(i).pointee.users.current) != cells {
                world.fail("S28: \(cells) connections pin route \(i), \(cell(i).pointee.users.current) are counted")
            }
            if Int(owner(i).pointee.users.current) != owners {
                world.fail("S28: \(owners) connections pin owner \(i), \(owner(i).pointee.users.current) are counted")
            }
        }
    }

    func free() {
        for entry in entries {
            entry.snapshot.deallocate()
            entry.update.pointee.deallocate()
            entry.update.deallocate()
            entry.table.deinitialize(count: 1).deallocate()
            entry.wholeGroup.deallocate()
            entry.group.deinitialize(count: 1).deallocate()
        }
        entries = []
        programs = []
        owners.deinitialize().deallocate()
        cells.deinitialize().deallocate()
        turns.deinitialize(count: 1).deallocate()
        evidence.deinitialize(count: 1).deallocate()
    }

    private static func program(_ world: World, _ mark: ProgramMark) -> Program {
        var states = 0
        let chains = world.scenario.chains.enumerated().map { index, plan in
            var stages: [Stage] = []
            func add<F: SimulatedStage>(_ filter: F.Type, _ catalogIndex: Int, shadow: Bool = false) {
                let base = simulatedReasons.bases[catalogIndex]
                let settings = StageSettings(
                    world: world, stage: stages.count, chain: plan, reasonBase: base, program: mark)
                stages.append(
                    .bind(
                        filter, settings: settings, reasonBase: base, stateIndex: states, shadow: shadow, source: "",
                        line: ConfigLine(stages.count)))
                states += 1
            }
            add(DoorStage.self, 0, shadow: plan.shadows)
            if plan.choosesEarly { add(BackendStage.self, 3) }
            if plan.inspects, plan.inspectsFirst { add(InspectStage.self, 2) }
            if plan.limit == .between { add(LimitStage.self, 6) }
            if plan.peeks { add(PeekStage.self, 1) }
            if plan.inspects, !plan.inspectsFirst { add(InspectStage.self, 2) }
            if plan.limit == .below { add(LimitStage.self, 6) }
            if !plan.choosesEarly { add(BackendStage.self, 3) }
            if plan.writesPrelude { add(PreludeStage.self, 4) }
            if plan.limit == .last { add(LimitStage.self, 6) }
            add(AccountStage.self, 5)
            return Chain(name: "chain \(index)", stages: stages)
        }
        return Program(
            node: world.scenario.settings, chains: chains, listeners: [], exposes: [], catalog: simulatedCatalog)
    }
}

/// Whether a program may still be run.
final class ProgramMark {
    var isReleased = false
}
