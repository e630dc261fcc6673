import Pipeline
import Testing

@testable import PipelineRuntime

@Suite("R29: a program that takes a share beside the current one")
struct CanaryProgramTests {
    @Test("both stay without connections, and each goes with its last one once it is over")
    func lifetimes() {
        let library = CanaryLibrary(programs: 3)
        var table = ProgramTable(first: library.make(0))
        holds(table.canary == Flow.none)
        let before = table.began()
        table.apply(library.make(0, canary: 1))
        holds(table.canary != Flow.none)
        holds(library.users == [1, 1, 0])
        _ = table.began()
        let onCanary = table.moveToCanary()
        holds(onCanary == table.canary && table.undecidedOnOlder == 0)
        table.ended(before)
        holds(library.users == [1, 1, 0], "the current one stays")
        // Another one takes its place: what runs on the first goes on.
        table.apply(library.make(0, canary: 2))
        holds(library.users == [1, 1, 1] && table.undecidedOnOlder == 1)
        table.decided(onCanary)
        holds(table.undecidedOnOlder == 0)
        table.ended(onCanary)
        holds(library.users == [1, 0, 1])
        // Rolled back.
        table.apply(library.make(0))
        holds(library.users == [1, 0, 0] && table.canary == Flow.none)
    }

    @Test("it goes everywhere: it keeps its connections, and the one before goes with its last")
    func everywhere() {
        let library = CanaryLibrary(programs: 2)
        var table = ProgramTable(first: library.make(0))
        table.apply(library.make(0, canary: 1))
        let old = table.began()
        _ = table.began()
        let new = table.moveToCanary()
        table.decided(new)
        table.apply(library.make(1))
        holds(table.current == new && table.canary == Flow.none)
        holds(library.users == [1, 1] && table.undecidedOnOlder == 1)
        table.decided(old)
        table.ended(old)
        holds(library.users == [0, 1])
        table.ended(new)
        holds(library.users == [0, 1])
    }

    @Test("a share of clients, the same ones each time, others for another canary; or of connections by port")
    func shares() {
        let library = CanaryLibrary(programs: 2)
        let peers = (0..<20_000).map { Endpoint(IPAddress(v4: 0x0A00_0000 | UInt32($0)), UInt16(1000 + $0 % 7)) }
        for percent in [1, 10, 50] {
            let share = library.share(1, CanarySettings(percent: percent, time: .seconds(1)), seed: 1)
            let other = library.share(1, CanarySettings(percent: percent, time: .seconds(1)), seed: 2)
            let picked = peers.map { share.place(of: $0).side == .canary }
            let count = picked.count { $0 }
            holds((percent * 130...percent * 270).contains(count), "\(percent) %: \(count)")
            holds(peers.map { share.place(of: Endpoint($0.address, 9)).side == .canary } == picked)
            holds(peers.map { other.place(of: $0).side == .canary } != picked)
        }
        let network = (0..<100).map { Endpoint(IPAddress(high: 5, low: UInt64($0)), 1) }
        let one = library.share(1, CanarySettings(percent: 50, time: .seconds(1)), seed: 1)
        holds(Set(network.map { one.place(of: $0).bucket }).count == 1, "a /64 is one client")
        let balancer = (1...2000).map { Endpoint(IPAddress(v4: 1), UInt16($0)) }
        let each = library.share(1, CanarySettings(percent: 50, time: .seconds(1), unit: .connection), seed: 1)
        let count = balancer.count { each.place(of: $0).side == .canary }
        holds((850...1150).contains(count), "\(count)")
        holds(Set(balancer.map { each.place(of: $0).bucket }).count == CanaryEvidence.buckets)
    }
}

private enum NoRoutes: RouteLookup {
    static func named(
        _ name: UnsafeBufferPointer<UInt8>, at destination: DestinationAddress, in table: UnsafeRawPointer
    ) -> FoundRoute? { nil }
    static func sole(at destination: DestinationAddress, in table: UnsafeRawPointer) -> FoundRoute? { nil }
}

private final class CanaryLibrary {
    private let programs: [Program]
    private let table = UnsafeMutableRawPointer.allocate(byteCount: 1, alignment: 1)
    private let evidence = UnsafeMutablePointer<CanaryEvidence>.allocate(capacity: 1)
    private var snapshots: [UnsafeMutablePointer<Snapshot>] = []

    init(programs count: Int) {
        evidence.initialize(to: CanaryEvidence(workers: 1, reasons: 64))
        programs = (0..<count).map { _ in
            Program(
                node: NodeSettings(), chains: [Chain(name: "test", stages: [])], listeners: [], exposes: [],
                catalog: [])
        }
    }
    deinit {
        for snapshot in snapshots { snapshot.deallocate() }
        table.deallocate()
        evidence.deinitialize(count: 1).deallocate()
    }

    var users: [UInt32] { programs.map { $0.users.current } }

    func share(_ program: Int, _ settings: CanarySettings, seed: UInt64) -> CanaryShare {
        CanaryShare(
            program: programs[program], settings, seed: HashSeed(seed, ~seed), evidence: UnsafePointer(evidence))
    }

    func make(_ program: Int, canary: Int? = nil) -> UnsafePointer<Snapshot> {
        let memory = UnsafeMutablePointer<Snapshot>.allocate(capacity: 1)
        let settings = CanarySettings(percent: 50, time: .seconds(60))
        memory.initialize(
            to: Snapshot(
                program: programs[program], routes: RouteTableHandle(NoRoutes.self, table: UnsafeRawPointer(table)),
                generation: UInt64(snapshots.count + 1), canary: canary.map { share($0, settings, seed: 1) }))
        snapshots.append(memory)
        return UnsafePointer(memory)
    }
}
