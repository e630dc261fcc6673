import Glibc
import Pipeline
import TestSupport
import Testing

@testable import PipelineLastGood
@testable import PipelineNode
@testable import PipelineState

@Suite("R22, R23: updates on their way through a node")
struct UpdateQueueTests {
    private func change(_ revision: Int, base: Int? = nil, org: String) -> String {
        "{\"format\":\"pipelined.change/1\",\"revision\":\(revision),"
            + (base.map { "\"base\":\($0)," } ?? "")
            + "\"put\":{\"orgs\":[{\"org_id\":\"\(org)\",\"suspended\":false}]}}"
    }
    private static let hostnames =
        "{\"format\":\"pipelined.state/1\",\"revision\":1,\"envs\":[],\"instances\":[],\"routes\":[],\"hostnames\":["
        + "{\"hostname\":\"n.example.com\",\"env_id\":\"e\",\"claimed\":1}]}"
    private static let emptied =
        "{\"format\":\"pipelined.change/1\",\"revision\":9,\"delete\":{\"hostnames\":[\"n.example.com\"]}}"

    @Test("what comes while the disk is busy goes together: one sync, one publication, an answer for each in order")
    func together() throws {
        let site = try GroupSite()
        try site.push(Self.hostnames)
        try site.answered(1)
        let (syncs, generation) = (site.disk.syncs, site.node.fleet.snapshots.newest)
        site.shut()
        try site.push(change(2, base: 1, org: "a"))
        site.turn()
        try site.push(change(3, base: 2, org: "b"))
        // Two with one base: the first that came has it.
        try site.push(change(4, base: 3, org: "c"))
        try site.push(change(4, base: 3, org: "d"))
        // R29, in the middle: it is held, and those behind it wait, unless they stand on something else.
        try site.push(Self.emptied)
        try site.push(change(5, base: 4, org: "e"))
        try site.push(change(10, base: 9, org: "e"))
        site.turn()
        #expect(site.answers.count == 1 && site.kept?.count(.org) == 0 && site.kept?.last?.revision == 1)
        #expect(site.held.isEmpty && site.node.desired?.storeProblem == nil)
        site.open()
        try site.answered(8)
        #expect(site.outcomes(2...8) == ["applied", "applied", "applied", "refused", "held", "refused", "held"])
        #expect(site.order == [1, 2, 3, 4, 5, 6, 7, 8])
        #expect(site.answers[2]?.revision == 2 && site.answers[4]?.revision == 4 && site.answers[8]?.revision == 4)
        #expect(site.answers[5]?.message.contains("stands on revision 3, but revision 4 is applied") ?? false)
        #expect(site.disk.syncs == syncs + 2 && site.node.fleet.snapshots.newest == generation + 2)
        #expect(site.kept?.count(.org) == 3 && site.kept?.count(.hostname) == 1)
        #expect(try site.found() == (3, 4))
        #expect(site.held.head != nil && site.held.waiting == 1)
    }

    @Test(
        "R23: a group whose sync fails is written anew elsewhere; if that fails too, it is refused whole, and nothing changed"
    )
    func failed() throws {
        let site = try GroupSite()
        try site.push(change(1, org: "a"))
        try site.answered(1)
        site.disk.syncing = { _ in
            site.disk.syncing = { _ in 0 }
            return -EIO
        }
        try site.push(change(2, org: "b"))
        try site.answered(2)
        #expect(site.outcomes(2...2) == ["applied"] && site.kept?.count(.org) == 2)
        let generation = site.node.fleet.snapshots.newest
        site.disk.syncing = { _ in -EIO }
        site.disk.making = { -EIO }
        try site.push(change(1, org: "before"))
        try site.push(change(3, base: 2, org: "c"))
        try site.push(change(4, base: 7, org: "d"))
        try site.push(change(4, base: 3, org: "e"))
        try site.answered(6)
        #expect(site.outcomes(3...6) == ["refused", "refused", "refused", "refused"])
        // What stood on nothing that failed says why it is refused by itself; the others, that they may come again.
        #expect(site.answers[3]?.message.contains("revision 1, but 2 is applied") ?? false)
        for number in 4...6 {
            let message = site.answers[number]?.message ?? ""
            #expect(message.contains("EIO") && message.contains("then send it again"), "\(message)")
            #expect(site.answers[number]?.revision == 2)
        }
        #expect(site.kept?.count(.org) == 2 && site.kept?.last?.revision == 2)
        #expect(site.node.fleet.snapshots.newest == generation)
        site.disk.syncing = { _ in 0 }
        site.disk.making = { 0 }
        #expect(try site.found().revision == 2)
        try site.push(change(3, base: 2, org: "c"))
        try site.answered(7)
        #expect(site.outcomes(7...7) == ["applied"])
        #expect(try site.found() == (3, 3))
    }

    @Test("R26: a reload comes behind the pushes before it, and before those behind it")
    func reloads() throws {
        let site = try GroupSite()
        site.shut()
        try site.push(change(1, org: "a"))
        site.turn()
        try site.push(change(2, org: "b"))
        var at: [UInt64?] = []
        for _ in 0..<2 {
            site.node.afterUpdates {
                at.append(site.node.desired?.last?.revision)
                let refusal = site.node.reload(by: "test", nil, ReloadOptions(), ServiceManager { _ in nil })
                #expect(refusal == nil, "\(String(describing: refusal))")
            }
        }
        try site.push(change(3, org: "c"))
        site.turn()
        #expect(at.isEmpty && site.answers.isEmpty)
        site.open()
        try site.answered(3)
        #expect(at == [2, 2] && site.outcomes(1...3) == ["applied", "applied", "applied"])
        // With nothing on its way it is done at once.
        site.node.afterUpdates { at.append(7) }
        #expect(at == [2, 2, 7])
    }

    @Test("at the end what waits is refused at once, and what the disk has is answered when it is done")
    func ends() throws {
        let site = try GroupSite()
        site.shut()
        try site.push(change(1, org: "a"))
        site.turn()
        try site.push(change(2, org: "b"))
        #expect(!site.node.isEnding)
        site.node.updates?.close(.stopping)
        // A node that starts beside it may take over already.
        #expect(site.node.isEnding && !site.node.isStopping)
        #expect(site.outcomes(1...2) == ["none", "refused"] && site.node.stateDoor.pushRefusal != nil)
        try site.push(change(3, org: "c"))
        #expect(site.outcomes(3...3) == ["refused"] && site.node.updates?.isBusy ?? false)
        site.open()
        try site.answered(3)
        #expect(site.outcomes(1...1) == ["applied"] && !(site.node.updates?.isBusy ?? true))
        site.node.endUpdates()
        #expect(site.node.desired == nil && site.node.abandoned == nil)
        #expect(try site.found() == (1, 1))
    }

    @Test("at the end a disk that stands still leaves it unknown: that is the answer, and the store is not let go of")
    func abandoned() throws {
        let site = try GroupSite()
        site.shut()
        try site.push(change(1, org: "a"))
        site.turn()
        var hasReloaded = false
        site.node.afterUpdates { hasReloaded = site.node.isStopping }
        site.node.updates?.close(.stopping)
        site.node.endUpdates()
        #expect(site.outcomes(1...1) == ["refused"] && hasReloaded)
        #expect(site.answers[1]?.message.contains("is not known") ?? false)
        #expect(site.node.desired == nil && site.node.abandoned != nil)
        site.open()
    }

    @Test("R27: so many wait, and the newest is refused with what to do; then there is room again")
    func bounds() throws {
        let site = try GroupSite()
        site.shut()
        try site.push(change(1, org: "first"))
        site.turn()
        for number in 0...UpdateQueue.mostWaiting { try site.push(change(2, org: "o\(number % 7)")) }
        let last = UpdateQueue.mostWaiting + 2
        #expect(site.outcomes(last...last) == ["refused"] && site.answers.count == 1)
        #expect(site.answers[last]?.message.hasSuffix("wait for the disk already; send it again later") ?? false)
        site.open()
        try site.answered(last)
        #expect(site.answers.values.filter { $0.outcome == .applied }.count == last - 1)
        try site.push(change(3, org: "p"))
        try site.answered(last + 1)
        #expect(site.kept?.count(.org) == 9)
    }
}
