import Pipeline
import PipelineRuntime

/// One run of one seed.
struct Simulation {
    let seed: UInt64
    let failure: String?
    let trace: [String]
    let statistics: Statistics

    /// What to print when it failed.
    var report: String {
        "seed \(seed): \(failure ?? "fine"). Replay it alone with a trace: SIMULATION_SEED=\(seed) swift test --filter"
            + " SimulationTests"
    }

    static func run(seed: UInt64, tracing: Bool = false) -> Simulation {
        run(Scenario(seed: seed), tracing: tracing) { FakeKernel(world: $0) }
    }

    static func run<K: Kernel>(_ scenario: Scenario, tracing: Bool = false, kernel: (World) -> K) -> Simulation {
        let world = World(scenario)
        world.tracing = tracing
        let counters = UnsafeMutablePointer<WorkerCounters>.allocate(capacity: 1)
        counters.initialize(to: WorkerCounters(reasons: simulatedReasons.count))
        let ring = RecordRing(capacity: 64)
        drive(world, kernel(world), counters, ring)
        while let record = ring.pop() { world.ended(record) }
        if world.failure == nil { world.checkEnd(counters) }
        world.control.finish()
        counters.deinitialize(count: 1)
        counters.deallocate()
        return Simulation(
            seed: scenario.seed, failure: world.failure, trace: world.trace, statistics: world.stats)
    }

    /// A worker's whole life. When it returns the worker is gone, and with it its stages' states.
    private static func drive<K: Kernel>(
        _ world: World, _ kernel: K, _ counters: UnsafeMutablePointer<WorkerCounters>, _ ring: RecordRing
    ) {
        let scenario = world.scenario
        guard
            var worker = Worker(
                kernel: kernel, settings: scenario.settings, limits: scenario.limits, index: 1,
                listeners: world.workerListeners,
                snapshot: world.control.firstSnapshot(world), counters: UnsafePointer(counters), ring: ring,
                mailbox: world.mailbox)
        else { return world.fail("no memory for a worker") }
        var turns = 0
        while world.failure == nil, worker.iterate() {
            while let record = ring.pop() { world.ended(record) }
            turns += 1
            // Rounds of accounts, and looks after peers, are turns too, as long as a slow peer reads.
            if turns > 300_000 { world.fail("S7: the worker never ends") }
        }
        guard world.failure == nil else { return }
        if worker.coalescing != 0 { world.fail("S27: \(worker.coalescing) closed streams still coalesce") }
        // The loop has ended: this only gives back what a worker keeps for itself.
        worker.run()
        if !world.mailbox.hasEnded { world.fail("S12: the worker has ended and does not say so") }
    }
}

extension World {
    /// The listeners as the worker is told of them.
    var workerListeners: [WorkerListener] {
        listeners.filter { $0.isOpen && $0.isDocumented }.map { listener in
            let index = listener.place
            let address: IPAddress = index == 0 ? IPAddress(high: 0x2001_0DB8 << 32, low: 0xFFFF) : .unspecified
            let endpoint = Endpoint(address, 443)
            return WorkerListener(
                descriptor: Descriptor(Int32(listener.descriptor)),
                spec: ListenerSpec(endpoint: endpoint, hint: .tlsPassthrough, chain: index, line: 1), bound: endpoint,
                index: UInt16(index), canary: .share(chain: index, hint: .tlsPassthrough))
        }
    }
}
