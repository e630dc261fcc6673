import CLinux
import Foundation
import Glibc
import Pipeline
import PipelineFlows
import PipelineRouting
import TestSupport
import Testing

@testable import PipelineLastGood
@testable import PipelineNode
@testable import PipelineState

/// A node whose loop is the test's own, and so is its disk.
final class GroupSite {
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
        // What is refused because a worker got no processor in time is not what these tests are about.
        node.patience = 20_000
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

    func discard(_ id: String) throws -> Int {
        try begin { node.stateDoor.discard(id, StatePush(peer: nil, isOlder: false), answer: $0) }
    }

    /// What is held, and what waits behind it.
    var held: HeldUpdates { node.desired?.held ?? HeldUpdates() }

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
            case .discarded?: "discarded"
            case .partly(let isDurable)?: isDurable ? "in part, durable" : "in part"
            case .refused?: "refused"
            case nil: "none"
            }
        }
    }

    /// From here on the disk takes nothing, or takes everything.
    func fail(_ error: Int32?) {
        let answer = error.map { -$0 } ?? 0
        // An error of a sync says nothing of what was written.
        disk.syncing = { _ in answer }
        disk.making = { answer }
        disk.writing = { error == EIO ? 0 : answer }
    }

    /// What a start would serve, were the process killed now.
    func restored() throws -> RoutingState {
        let kept = LastGood(GateDisk.directory, try StateStore.open(disk.place, seed: LastGood.secret).store)
        let routing = RoutingState(seed: kept.seed)
        _ = kept.restore(routing)
        return routing
    }

    /// What a start would find, were the process killed now.
    func found() throws -> (orgs: Int, revision: UInt64?) {
        let kept = LastGood(GateDisk.directory, try StateStore.open(disk.place, seed: LastGood.secret).store)
        return (kept.count(.org), kept.last?.revision)
    }
}
