import Glibc
import Pipeline
import TestSupport
import Testing

@testable import PipelineLastGood
@testable import PipelineNode
@testable import PipelineState

@Suite("R29: a held update, and what waits behind it, among updates on their way")
struct HeldQueueTests {
    private static let hostnames =
        "{\"format\":\"pipelined.state/1\",\"revision\":1,\"envs\":[],\"instances\":[],\"routes\":[],\"hostnames\":["
        + "{\"hostname\":\"n.example.com\",\"env_id\":\"e\",\"claimed\":1}]}"
    private static let emptied =
        "{\"format\":\"pipelined.change/1\",\"revision\":9,\"delete\":{\"hostnames\":[\"n.example.com\"]}}"

    private func change(_ revision: Int, base: Int? = nil, org: String, isSuspended: Bool = false) -> String {
        "{\"format\":\"pipelined.change/1\",\"revision\":\(revision),"
            + (base.map { "\"base\":\($0)," } ?? "")
            + "\"put\":{\"orgs\":[{\"org_id\":\"\(org)\",\"suspended\":\(isSuspended)}]}}"
    }

    /// A site where the second push is held, and its id.
    private func held() throws -> (site: GroupSite, id: String) {
        let site = try GroupSite()
        try site.push(Self.hostnames)
        try site.push(Self.emptied)
        try site.answered(2)
        #expect(site.outcomes(1...2) == ["applied", "held"])
        return (site, try site.held.head.unwrap("what is held").id)
    }

    @Test("what waits is answered once what it takes away is durable and in force, and the rest of it is not")
    func waits() throws {
        let (site, id) = try held()
        let generation = site.node.fleet.snapshots.newest
        site.shut()
        try site.push(change(10, base: 9, org: "a", isSuspended: true))
        try site.push(change(11, base: 10, org: "b"))
        site.turn()
        #expect(site.answers.count == 2 && site.kept?.count(.org) == 0 && site.held.waiting == 0)
        site.open()
        try site.answered(4)
        #expect(site.outcomes(3...4) == ["held", "held"] && site.answers[3]?.outcome == .held(id: id))
        #expect(site.answers[3]?.message.contains("1 objects are not ready any more, or suspended; 1 wait") ?? false)
        #expect(site.node.fleet.snapshots.newest == generation + 1 && site.node.routing.suspended.orgs == ["a"])
        #expect(site.kept?.count(.org) == 1 && site.held.waiting == 2)
        #expect(try site.found() == (1, 1))
    }

    @Test("a confirmation keeps its place among pushes: those before it wait, those behind it come after all of them")
    func confirmed() throws {
        let (site, id) = try held()
        site.shut()
        try site.push(change(10, base: 9, org: "a", isSuspended: true))
        site.turn()
        try site.push(change(11, base: 10, org: "b"))
        #expect(try site.confirm(id) == 5)
        #expect(try site.discard(id) == 6)
        try site.push(change(12, base: 11, org: "c"))
        site.open()
        try site.answered(7)
        #expect(site.outcomes(3...7) == ["held", "held", "applied", "refused", "applied"])
        #expect(site.order == Array(1...7) && site.held.isEmpty)
        #expect(site.answers[5]?.message.contains("2 that waited behind it follow") ?? false)
        #expect(site.answers[6]?.message.contains("nothing is held: \(id) is not") ?? false)
        #expect(site.answers[7]?.revision == 12)
        #expect(site.kept?.count(.org) == 3 && site.kept?.count(.hostname) == 0)
        #expect(try site.found() == (3, 12))
    }

    @Test("those that follow go one a turn of the loop, whether they are taken or refused, before what came later")
    func follow() throws {
        let (site, id) = try held()
        for revision in 10...13 { try site.push(change(revision, base: revision - 1, org: "o\(revision)")) }
        try site.answered(6)
        #expect(try site.discard(id) == 7)
        try site.push(change(2, base: 1, org: "later"))
        // Each stands on what was dropped, or on the one before it.
        var waiting = 4
        try awaitUntil("all that waited had its turn") {
            site.turn()
            #expect(waiting - site.held.waiting <= 1)
            #expect(site.answers[8] == nil || site.held.isEmpty)
            waiting = site.held.waiting
            return site.held.isEmpty
        }
        try site.answered(8)
        #expect(site.outcomes(7...8) == ["discarded", "applied"])
        #expect(site.kept?.count(.org) == 1 && site.kept?.last?.revision == 2)
    }

    @Test("R23: a group that can't be made durable leaves what is held and waits as it was, but for what takes away")
    func failed() throws {
        let (site, id) = try held()
        try site.push(change(10, org: "a"))
        try site.answered(3)
        let before = site.held
        site.fail(EIO)
        try site.push(change(11, base: 10, org: "b", isSuspended: true))
        #expect(try site.discard(id) == 5)
        try site.answered(5)
        #expect(site.outcomes(4...5) == ["in part", "refused"] && site.answers[5]?.message.contains("EIO") ?? false)
        #expect(site.held.head == before.head && site.held.waiting == 1)
        #expect(site.kept?.count(.org) == 1 && site.node.routing.suspended.orgs == ["b"])
        #expect(try site.found() == (0, 1))
        // What was decided stays so, and what follows is tried again, before what comes later.
        #expect(try site.discard(id) == 6)
        try site.answered(6)
        try site.push(change(12, org: "c"))
        try site.answered(7)
        #expect(site.outcomes(6...7) == ["discarded", "refused"] && site.held.isReleasing)
        #expect(site.answers[7]?.message.contains("1 updates that waited are being applied") ?? false)
        site.fail(nil)
        try awaitUntil("what waited is in force") {
            site.turn()
            return site.held.isEmpty
        }
        #expect(site.kept?.last?.revision == 10 && site.kept?.count(.org) == 2)
        #expect(try site.found() == (2, 10))
    }

    @Test("R23: a push that is held before the first change of a group that fails stays held, as it was told")
    func heldInFailed() throws {
        let site = try GroupSite()
        try site.push(Self.hostnames)
        try site.answered(1)
        site.fail(EIO)
        try site.push(Self.emptied)
        try site.push(change(10, base: 9, org: "a"))
        try site.push(change(11, base: 10, org: "a", isSuspended: true))
        try site.answered(4)
        #expect(site.outcomes(2...4) == ["held", "held", "in part"])
        #expect(site.answers[2]?.outcome == site.held.head.map { .held(id: $0.id) } && site.held.waiting == 1)
        #expect(site.kept?.count(.org) == 1 && site.kept?.changesInMemory ?? 0 > 0)
    }

    @Test("at the end what is held and waits comes to nothing, and what it took away is kept")
    func ended() throws {
        let (site, id) = try held()
        try site.push(change(10, base: 9, org: "a", isSuspended: true))
        try site.answered(3)
        site.shut()
        #expect(try site.confirm(id) == 4)
        site.turn()
        site.node.updates?.close(.stopping)
        site.open()
        try site.answered(4)
        // What was on its way is in force; nothing is released from here on.
        #expect(site.outcomes(4...4) == ["applied"])
        site.node.endUpdates()
        #expect(site.node.desired == nil)
        #expect(try site.found().orgs == 1)
    }
}
