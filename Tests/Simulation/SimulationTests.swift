import Foundation
import Pipeline
import PipelineRuntime
import Testing

@Suite("A worker on a seeded kernel (docs/INVARIANTS.md, S1–S38)")
struct SimulationTests {
    private static func number(_ name: String) -> UInt64? {
        ProcessInfo.processInfo.environment[name].flatMap { UInt64($0) }
    }
    static let usualSeeds = 3000
    static let seeds = number("SIMULATION_SEEDS") ?? UInt64(usualSeeds)
    static let first = number("SIMULATION_FIRST") ?? 0
    static let replay = number("SIMULATION_SEED")
    static let parts: UInt64 = 8

    @Test("S1–S38 hold for every seed", .enabled(if: replay == nil), arguments: 0..<parts)
    func everySeed(part: UInt64) {
        var total = Statistics()
        var failures = 0
        var seed = SimulationTests.first + part
        while seed < SimulationTests.first + SimulationTests.seeds, failures < 3 {
            let run = Simulation.run(seed: seed)
            total.add(run.statistics)
            if run.failure != nil {
                failures += 1
                Issue.record("\(run.report)")
            }
            seed += SimulationTests.parts
        }
    }

    @Test("one seed, with its trace", .enabled(if: replay != nil))
    func oneSeed() {
        guard let seed = SimulationTests.replay else { return }
        let run = Simulation.run(seed: seed, tracing: true)
        print(run.trace.joined(separator: "\n"))
        print(run.report)
        #expect(run.failure == nil)
    }

    @Test(
        "seeds that have found something hold",
        arguments: [
            UInt64(9_112_267),  // S30: a reset client's bytes stood in its own queue, since no block was to be had
            9_120_175,  // S6: an inspection that had no block to read into waited for the second byte
            9_111_215,  // S33: "another network has more who wait", of networks that an inspection had named anew
            60_096_017,  // S34: three times without a descriptor in 90 ms, and each time somebody was accepted between
        ])
    func found(seed: UInt64) {
        let run = Simulation.run(seed: seed)
        #expect(run.failure == nil, "\(run.report)")
    }

    @Test("S36: however many streams have much to move, what is new is looked at within an iteration's share")
    func crowds() {
        var total = Statistics()
        for seed in UInt64(0)..<400 {
            var scenario = Scenario(seed: seed)
            scenario.makeCrowd()
            let run = Simulation.run(scenario) { FakeKernel(world: $0) }
            #expect(run.failure == nil, "\(run.report)")
            total.add(run.statistics)
        }
        #expect(total.largestTurn > 1 << 18, "no turn has moved its share")
    }

    @Test("S38: what a stage says comes whole and first, and a backend gets nothing else before it is ready")
    func openings() {
        var total = Statistics()
        for seed in UInt64(0)..<800 {
            var scenario = Scenario(seed: seed)
            scenario.makeUpgrades()
            let run = Simulation.run(scenario) { FakeKernel(world: $0) }
            #expect(run.failure == nil, "\(run.report)")
            total.add(run.statistics)
        }
        #expect(total.upgraded > 50, "too few have begun TLS behind an opening")
        for reason in [RuntimeReason.upgradeTimeout, .upgradeClosed] {
            #expect(total.reasons[reason.rawValue, default: 0] > 0, "no seed ends as \(reason)")
        }
    }

    @Test("S17: a seed is one run: twice the same, to the last call")
    func determinism() {
        for seed in UInt64(0)..<20 {
            let once = Simulation.run(seed: seed, tracing: true)
            let again = Simulation.run(seed: seed, tracing: true)
            #expect(once.trace == again.trace)
        }
    }

    @Test("the seeds go everywhere: splices, retries, limits, every end that a peer can cause")
    func coverage() {
        var total = Statistics()
        for seed in UInt64(0)..<1200 { total.add(Simulation.run(seed: seed).statistics) }
        #expect(total.splices > 100)
        #expect(total.pieces > 50)
        #expect(total.reused > 100)
        #expect(total.starved > 10)
        #expect(total.peeks > 100, "S35: flows went on without a block")
        #expect(total.unspliced > 0)
        #expect(total.connects > total.accepted / 2)
        let expected: [RuntimeReason] = [
            .closedByClient, .closedByUpstream, .resetByClient, .resetByUpstream, .clientTimedOut, .upstreamTimedOut,
            .halfCloseTimeoutClient, .halfCloseTimeoutUpstream, .connectRefused, .connectTimeout, .connectUnreachable,
            .tooManyConnections, .noSniffBuffer, .noDescriptor, .noPort, .drainDeadline, .noBackend,
            .proxyRejected, .instanceDrained, .routeRemoved, .backendsFull, .routeChanged, .unrouted, .memoryShort,
            .abandoned, .kernelMemory,
            .connectForbidden, .idleTimeout, .queueAbandoned, .noSource, .crowdedOut, .suspended,
        ]
        for reason in expected where total.reasons[reason.rawValue, default: 0] == 0 {
            Issue.record("no seed ends as \(reason)")
        }
        let ends = simulatedReasons.bases[3]
        for reason in ends...ends + 2 where total.reasons[reason, default: 0] == 0 {
            Issue.record("no seed ends as \(simulatedReasons.text(ReasonCode(rawValue: reason)))")
        }
        #expect(total.servedFromQueue > 30, "S37: too few have waited and were served")
    }
}
