import FilterBackendSelect
import Pipeline
import TestSupport
import Testing

/// Backups and priorities, on literals: many connections through one stage.
@Suite("backend: priorities")
struct BackendPriorityTests {
    @Test(
        "a later priority is used only when none of the earlier is up; all of one priority share",
        arguments: Balance.allCases)
    func priorities(_ balance: Balance) throws {
        var bench = try BalanceBench(
            balance, count: 5, priorities: [0, 0, 1, 15, 15], clauses: [BalanceBench.health(.failFast)])
        func used() -> Set<Int> {
            var all: Set<Int> = []
            for number in 0..<60 {
                all.formUnion(bench.connect(client: IPAddress(high: 9, low: UInt64(number))).order)
            }
            return all
        }
        func set(_ index: Int, _ probe: BackendCell.Probe) {
            bench.cell(index).pointee.probe.store(probe.rawValue, ordering: .relaxed)
        }
        #expect(used() == [0, 1])
        set(0, .down)
        #expect(used() == [1])
        set(1, .down)
        #expect(used() == [2])
        set(2, .down)
        #expect(used() == [3, 4])
        set(1, .up)
        #expect(used() == [1], "back at once when a primary is")
        for index in 0..<5 { set(index, .down) }
        #expect(bench.connect().reason == "backend.no_healthy_backend upstream")
    }

    @Test("each priority has its own turns by weight, whatever the others have")
    func weightsOfPriorities() throws {
        var bench = try BalanceBench(.roundRobin, count: 4, weights: [3, 1, 1, 2], priorities: [0, 0, 15, 15])
        #expect(bench.firsts(40) == [30, 10, 0, 0])
        for index in 0..<2 { bench.cell(index).pointee.ejectedUntil.store(.max, ordering: .relaxed) }
        #expect(bench.firsts(30) == [0, 0, 10, 20])
    }

    @Test("a full priority refuses: load is no reason to use a backup")
    func fullPriority() throws {
        var bench = try BalanceBench(.roundRobin, count: 2, backendLimit: 1, priorities: [0, 15])
        bench.cell(0).pointee.active.add()
        let refused = bench.connect()
        #expect(refused.reason == "backend.backends_full upstream" && refused.order.isEmpty)
        #expect(refused.why.contains("priority 0 is up and full, and a later priority takes over only when none"))
        bench.cell(0).pointee.ejectedUntil.store(.max, ordering: .relaxed)
        #expect(bench.connect().order == [1])
    }

    @Test("R13: a connection that has tried every backend of a priority goes on to the next one")
    func triedPriority() throws {
        var bench = try BalanceBench(.roundRobin, count: 3, priorities: [0, 0, 15])
        var orders: [[Int]] = []
        for tried in [[0], [1, 0]] as [[Int]] {
            bench.run.resetFacts()
            for index in tried { bench.run.facts.tried.insert(bench.cell(index).pointee.endpoint) }
            _ = bench.run.evaluate(BackendFilter.self, bench.settings, &bench.state)
            orders.append(bench.order)
        }
        #expect(orders == [[1], [2]])
    }

    @Test("slow start is within a priority: one that starts alone gets everything, and no backup keeps a part")
    func slowStartOfPriority() throws {
        var bench = try BalanceBench(
            .roundRobin, count: 2, priorities: [0, 15],
            clauses: [Clause(name: "slow_start", values: [.duration(.seconds(30))])])
        bench.cell(0).pointee.eligibleSince.store(bench.run.now.nanoseconds, ordering: .relaxed)
        #expect(bench.firsts(50) == [50, 0])
    }

    @Test("panic: with all out, the first priority is used as if it were up")
    func panicOfPriorities() throws {
        var bench = try BalanceBench(
            .roundRobin, count: 3, priorities: [0, 0, 15], clauses: [BalanceBench.health(.useAll)])
        for index in 0..<3 { bench.cell(index).pointee.probe.store(2, ordering: .relaxed) }
        #expect(bench.firsts(10) == [5, 5, 0])
    }

    @Test("explain names the priority, and those behind it")
    func explainPriorities() throws {
        var bench = try BalanceBench(.roundRobin, count: 3, priorities: [0, 3, 15])
        bench.run.isDryRun = true
        #expect(bench.connect().why.contains("by round_robin at priority 0, before priority 3, backup: [fd00::1]:9000"))
        for index in 0..<2 { bench.cell(index).pointee.ejectedUntil.store(.max, ordering: .relaxed) }
        #expect(bench.connect().why.hasSuffix("by round_robin at backup: [fd00::3]:9000 (i-2)"))
    }
}
