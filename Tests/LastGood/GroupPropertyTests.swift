import Pipeline
import PipelineRouting
import Testing

@testable import PipelineLastGood

/// Updates in groups do what they do one by one (ADR 0112).
@Suite("R5, R22, R23: groups of updates")
struct GroupPropertyTests {
    private let histories = LastGoodPropertyTests()

    /// What is kept of how objects are applied, for both alike.
    private func applied(_ keeper: Keeper) -> [String] {
        var list: [String] = []
        keeper.state?.forEachApplied { kind, id, record in
            list.append("\(kind) \(String(decoding: id, as: UTF8.self)) \(Array(record))")
        }
        return list
    }

    @Test(
        "a random history in groups gives the table, and what is kept, as one by one; and so do starts",
        arguments: 0..<60)
    func history(seed: UInt64) throws {
        var random = SplitMix64(seed: seed &* 977 &+ 3)
        let (folder, other) = (Folder(), Folder())
        let clock = TestClock()
        let grouped = try Keeper(folder.state) { clock.drive($0) }
        let single = try Keeper(other.state) { clock.drive($0) }
        var world = World()
        for id in LastGoodPropertyTests.envs { world.set(.env, id, histories.envText(id, &random)) }
        for step in 0..<12 {
            clock.pass(UInt32.random(in: 0...25, using: &random))
            var texts: [String] = []
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                histories.change(&world, &random)
                texts.append(histories.one(in: 6, &random) ? world.document : world.change)
                world.told()
                // In the way of nobody: it stands on what is not applied.
                if histories.one(in: 4, &random) { texts.append(stale(world)) }
            }
            let reports = try grouped.takeGroup(texts)
            for (text, report) in zip(texts, reports) {
                let one = try? single.take(text)
                #expect((one == nil) == (report == nil), "seed \(seed), step \(step): \(text)")
                #expect(one?.problems.list.map(\.description) == report?.problems.list.map(\.description))
                #expect(one?.added == report?.added && one?.removed == report?.removed && one?.kept == report?.kept)
            }
            let run: Comment = "seed \(seed), step \(step): \(texts)"
            guard histories.served(grouped.routing) == histories.served(single.routing),
                applied(grouped) == applied(single), grouped.state?.last == single.state?.last,
                grouped.state?.position.number == single.state?.position.number
            else {
                #expect(histories.served(grouped.routing) == histories.served(single.routing), run)
                #expect(applied(grouped) == applied(single), run)
                #expect(grouped.state?.last == single.state?.last, run)
                return
            }
            guard histories.one(in: 3, &random) else { continue }
            try grouped.restart()
            try single.restart()
            #expect(histories.served(grouped.routing) == histories.served(single.routing), run)
        }
    }

    private func stale(_ world: World) -> String {
        "{\"format\":\"pipelined.change/1\",\"revision\":\(world.revision),\"base\":\(world.revision + 7),"
            + "\"delete\":{\"routes\":[\"r0\"]}}"
    }

    @Test("killed before a group is applied, a start has all of it that was made durable", arguments: 0..<20)
    func killed(seed: UInt64) throws {
        var random = SplitMix64(seed: seed &* 31 &+ 1)
        let folder = Folder()
        let keeper = try Keeper(folder.state)
        var world = World()
        for id in LastGoodPropertyTests.envs { world.set(.env, id, histories.envText(id, &random)) }
        try keeper.take(world.document)
        world.told()
        for _ in 0..<5 {
            var texts: [String] = []
            for _ in 0..<4 {
                histories.change(&world, &random)
                texts.append(world.change)
                world.told()
            }
            _ = try keeper.takeGroup(texts, applies: false)
            try keeper.restart()
            #expect(keeper.state?.last?.revision == UInt64(world.revision))
            for kind in StateKind.allCases {
                #expect(keeper.state?.count(kind) == (world.objects[kind] ?? [:]).count, "seed \(seed): \(kind)")
            }
        }
    }

    @Test("R22, R29: in a group the base, the order of revisions and the guard are those of the update before")
    func judged() throws {
        let folder = Folder()
        let keeper = try Keeper(folder.state)
        let change = { (revision: Int, base: Int, what: String) -> String in
            "{\"format\":\"pipelined.change/1\",\"revision\":\(revision),\"base\":\(base),\(what)}"
        }
        let org = { (id: String) -> String in "\"put\":{\"orgs\":[{\"org_id\":\"\(id)\",\"suspended\":false}]}" }
        let hostnames = (0..<30).map { "{\"hostname\":\"n\($0).example.com\",\"env_id\":\"e\",\"claimed\":1}" }
        try keeper.take(
            "{\"format\":\"pipelined.state/1\",\"revision\":1,\"envs\":[],\"instances\":[],\"routes\":[],\"hostnames\":["
                + hostnames.joined(separator: ",") + "]}")
        let gone = { (numbers: Range<Int>) -> String in
            "\"delete\":{\"hostnames\":[\(numbers.map { "\"n\($0).example.com\"" }.joined(separator: ","))]}"
        }
        let reports = try keeper.takeGroup(
            [
                change(2, 1, org("a")),
                // Two with one base: the first wins.
                change(3, 2, org("b")), change(3, 2, org("c")),
                // By itself it takes a third, behind the next a half of what is left.
                change(4, 3, gone(0..<10)), change(5, 4, gone(10..<21)), change(5, 4, gone(10..<20)),
                change(4, 5, org("d")), change(6, 5, org("e")),
            ], UpdateOptions())
        #expect(reports.map { $0 != nil } == [true, true, false, true, false, true, false, true])
        #expect(keeper.state?.count(.hostname) == 10 && keeper.state?.count(.org) == 3)
        #expect(keeper.state?.last?.revision == 6)
    }

    @Test("what was prepared and not handed over is forgotten")
    func forgotten() throws {
        let folder = Folder()
        let keeper = try Keeper(folder.state)
        let text = Array("{\"format\":\"pipelined.change/1\",\"put\":{\"orgs\":[{\"org_id\":\"a\"}]}}".utf8)
        try text.withUnsafeBufferPointer { bytes in
            let update = try #require(StateUpdate.read(bytes, as: .either).update)
            let state = try #require(keeper.state)
            let group = try state.makeGroup()
            try group.add(try state.prepare(update, from: "push", now: 1, behind: group))
            #expect(group.last != nil && state.last == nil && state.count(.org) == 0)
        }
        try keeper.take("{\"format\":\"pipelined.change/1\",\"put\":{\"orgs\":[{\"org_id\":\"b\"}]}}")
        try keeper.restart()
        #expect(keeper.state?.count(.org) == 1)
    }
}
