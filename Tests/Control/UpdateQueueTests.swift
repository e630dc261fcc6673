import CLinux
import Foundation
import Glibc
import Pipeline
import PipelineFlows
import TestSupport
import Testing

@testable import PipelineLastGood
@testable import PipelineNode
@testable import PipelineState

/// A node whose loop is the test's own, and so is its disk.
private final class GroupSite {
    let disk = GateDisk()
    let node: RunningNode
    /// By the number of the push.
    private(set) var answers: [Int: ApplyAnswer] = [:]
    private(set) var order: [Int] = []
    private var pushes = 0
    private let writer: LogWriter
    private let null: Int32
    private let folder: String
    /// A sync waits here while the gate is shut.
    let gate = DispatchSemaphore(value: 0)

    init() throws {
        let template = FileManager.default.temporaryDirectory.appendingPathComponent("pipelined-group-XXXXXX").path
        var name = Array(template.utf8CString)
        try #require(mkdtemp(&name) != nil)
        folder = String(decoding: name.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        let config = """
            node test {
                workers  1
                state    \(folder)/data
                admin    unix:\(folder)/admin.sock
            }

            pipeline raw {
                backend  round_robin
            }

            expose 127.0.0.1  ports 10000-10010  via raw
            routes push

            """
        try config.write(toFile: "\(folder)/edge.pipeline", atomically: true, encoding: .utf8)
        let place = disk.place
        let loaded = try ConfigLoader.load("\(folder)/edge.pipeline") { directory throws(StateFault) in
            LastGood(directory, try StateStore.open(place, seed: LastGood.secret).store)
        }
        null = Glibc.open("/dev/null", O_WRONLY | O_CLOEXEC)
        writer = try #require(LogWriter.start(out: null, error: null).writer)
        let started = RunningNode.start(
            try #require(loaded.node, "\(loaded.diagnosticText)"), config: "\(folder)/edge.pipeline", writer: writer,
            queues: FlowQueues())
        node = try #require(started.node, "\(started.failures)")
    }

    deinit {
        node.prober.stop()
        node.fleet.order(.drain)
        _ = node.fleet.finish(patience: 60_000)
        writer.finish(patience: 60_000)
        close(null)
        try? FileManager.default.removeItem(atPath: folder)
    }

    var kept: LastGood? { node.desired?.kept }

    /// From here on syncs wait until ``open(_:)``.
    func shut() {
        disk.syncing = { [gate] _ in
            gate.wait()
            return 0
        }
    }

    /// Lets the sync that waits go on, and those after it.
    func open() {
        disk.syncing = { _ in 0 }
        gate.signal()
    }

    @discardableResult func push(_ text: String) throws -> Int {
        let upload = try upload(text)
        return try begin { node.stateDoor.apply(upload, StatePush(peer: nil, isOlder: false), answer: $0) }
    }

    func confirm(_ id: String) throws -> Int {
        try begin { node.stateDoor.confirm(id, StatePush(peer: nil, isOlder: false), answer: $0) }
    }

    private func begin(_ body: (@escaping (ApplyAnswer) -> Void) throws -> Void) throws -> Int {
        pushes += 1
        let number = pushes
        try body { [unowned self] in
            answers[number] = $0
            order.append(number)
        }
        return number
    }

    private func upload(_ text: String) throws -> StateUpload {
        let bytes = Array(text.utf8)
        let upload = try StateUpload(length: bytes.count).unwrap("an upload")
        bytes.withUnsafeBytes { upload.append($0) }
        return upload
    }

    func turn() { node.tick(Instant(nanoseconds: cl_now())) }

    /// The loop goes on until as many pushes are answered.
    func answered(_ count: Int) throws {
        let deadline = Deadline()
        turn()
        while answers.count < count {
            guard !deadline.hasPassed else { throw Failure("\(answers.count) answers in time, not \(count)") }
            if let notice = node.updates?.notice {
                var items = [cl_poll_item(fd: notice, wants: UInt8(CL_READABLE), got: 0)]
                _ = cl_poll(&items, 1, 1_000_000_000)
            }
            turn()
        }
    }

    func outcomes(_ numbers: ClosedRange<Int>) -> [String] {
        numbers.map { number in
            switch answers[number]?.outcome {
            case .applied?: "applied"
            case .quarantined?: "quarantined"
            case .held?: "held"
            case .refused?: "refused"
            case nil: "none"
            }
        }
    }

    /// What a start would find, were the process killed now.
    func found() throws -> (orgs: Int, revision: UInt64?) {
        let kept = LastGood(GateDisk.directory, try StateStore.open(disk.place, seed: LastGood.secret).store)
        return (kept.count(.org), kept.last?.revision)
    }
}

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
        // R29, in the middle: it is held, and those behind it are not.
        try site.push(Self.emptied)
        try site.push(change(5, base: 4, org: "e"))
        site.turn()
        #expect(site.answers.count == 1 && site.kept?.count(.org) == 0 && site.kept?.last?.revision == 1)
        #expect(site.node.desired?.held == nil && site.node.desired?.storeProblem == nil)
        site.open()
        try site.answered(7)
        #expect(site.outcomes(2...7) == ["applied", "applied", "applied", "refused", "held", "applied"])
        #expect(site.order == [1, 2, 3, 4, 5, 6, 7])
        #expect(site.answers[2]?.revision == 2 && site.answers[4]?.revision == 4 && site.answers[7]?.revision == 5)
        #expect(site.answers[5]?.message.contains("stands on revision 3, but revision 4 is applied") ?? false)
        #expect(site.disk.syncs == syncs + 2 && site.node.fleet.snapshots.newest == generation + 2)
        #expect(site.kept?.count(.org) == 4 && site.kept?.count(.hostname) == 1)
        #expect(try site.found() == (4, 5))
        // As one by one: the push behind it is what is meant.
        #expect(site.node.desired?.held == nil)
    }

    @Test("R29: a held push is confirmed behind those that wait, and is not there once another came")
    func confirmed() throws {
        let site = try GroupSite()
        try site.push(Self.hostnames)
        try site.push(Self.emptied)
        try site.answered(2)
        let id = try site.node.desired.unwrap().held.unwrap("what is held").id
        site.shut()
        try site.push(change(2, org: "a"))
        site.turn()
        #expect(try site.confirm(id) == 4)
        site.open()
        try site.answered(4)
        #expect(site.outcomes(3...4) == ["applied", "refused"])
        #expect(site.answers[4]?.message.contains("\(id) is not") ?? false)
        try site.push(Self.emptied)
        try site.answered(5)
        let next = try site.node.desired.unwrap().held.unwrap("what is held").id
        #expect(next != id)
        #expect(try site.confirm(next) == 6)
        try site.answered(6)
        #expect(site.outcomes(6...6) == ["applied"] && site.kept?.count(.hostname) == 0)
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
