import CLinux
import FilterCatalog
import Foundation
import Pipeline
import PipelineFlows
import PipelineRuntime
import Testing

@testable import PipelineNode
@testable import PipelineText

@Suite("Starting a node: all listeners or none, and why not")
struct StartTests {
    private func spec(_ endpoint: String) throws -> ListenerSpec {
        ListenerSpec(endpoint: try #require(Endpoint(endpoint)), hint: .tcpRaw, chain: 0, line: 1)
    }

    @Test("a taken port and an absent address are both reported, with what to do, and nothing stays open")
    func failures() throws {
        let holder = try ListenerSocket.open(try spec("127.0.0.1:0"), settings: NodeSettings(), reusePort: false)
        let taken = holder.endpoint
        let free = try spec("127.0.0.1:0")
        let keeper = ListenerKeeper(workers: 2, settings: NodeSettings(), room: 100)
        let plan = [free, try spec(taken.description), try spec("192.0.2.77:1")].map { PlannedListener($0, .listen) }
        let (staged, failures) = keeper.openRequired(plan)
        holder.close()
        #expect(staged.isEmpty)
        try #require(failures.count == 2)
        #expect(failures[0].description.hasPrefix("can't listen on \(taken): the port is taken"))
        #expect(failures[0].description.contains("ss -ltnp"))
        #expect(failures[1].description.hasPrefix("can't listen on 192.0.2.77:1: this node does not have the address"))
    }

    @Test("every worker gets its own socket on the same port, also where the kernel chose it")
    func reusePort() throws {
        let keeper = ListenerKeeper(workers: 3, settings: NodeSettings(), room: 100)
        let plan = [try spec("127.0.0.1:0"), try spec("[::1]:0")].map { PlannedListener($0, .listen) }
        let (staged, failures) = keeper.openRequired(plan)
        #expect(failures.isEmpty)
        let change = keeper.apply(plan, staged, now: Instant(nanoseconds: 0))
        #expect(change.opened == plan && change.degraded.isEmpty)
        let all = (0..<3).map(keeper.listeners)
        for listeners in all { #expect(listeners.map(\.bound) == keeper.openEndpoints) }
        #expect(Set(all.joined().map(\.descriptor)).count == 6)
        #expect(keeper.openEndpoints.allSatisfy { $0.port != 0 })
        keeper.closeAll()
    }

    @Test("a whole node starts, and ends when it is told to, with its log written")
    func startAndStop() throws {
        let node = try #require(Fixture.load(Fixture.pipelines).node)
        let ready = LoadedNode(
            program: node.program, routing: node.routing,
            listeners: [try spec("127.0.0.1:0"), try spec("[::1]:0")].map { PlannedListener($0, .listen) },
            revision: nil)
        let null = open("/dev/null", O_WRONLY | O_CLOEXEC)
        defer { close(null) }
        let writer = try #require(LogWriter.start(out: null, error: null).writer)
        defer { writer.finish(patience: 60_000) }
        let (running, failures) = RunningNode.start(
            ready, config: "edge.pipeline", writer: writer, queues: FlowQueues())
        #expect(failures.isEmpty)
        let started = try #require(running).fleet
        #expect(started.workers.count == 1)
        #expect(!started.hasEnded)
        started.order(.drain)
        #expect(started.finish(patience: 60_000))
        #expect(started.hasEnded)
        #expect(started.total(.accepted) == 0)
    }

    @Test("workers go with their node, and so before its programs, however long its log goes on")
    func workersGo() throws {
        let null = open("/dev/null", O_WRONLY | O_CLOEXEC)
        defer { close(null) }
        let writer = try #require(LogWriter.start(out: null, error: null).writer)
        defer { writer.finish(patience: 60_000) }
        weak var worker: WorkerThread?
        do {
            let node = try #require(Fixture.load(Fixture.pipelines).node)
            let ready = LoadedNode(
                program: node.program, routing: node.routing,
                listeners: [PlannedListener(try spec("127.0.0.1:0"), .listen)], revision: nil)
            let started = RunningNode.start(ready, config: "edge.pipeline", writer: writer, queues: FlowQueues()).node
            let fleet = try #require(started).fleet
            worker = fleet.workers.first
            fleet.order(.drain)
            #expect(fleet.finish(patience: 60_000))
        }
        #expect(worker == nil)
    }

    @Test("R27: connections are capped by the descriptors that there are, and a node that could hold none is refused")
    func budget() throws {
        let roomy = try #require(DescriptorBudget(limit: 1 << 20, workers: 2, listeners: 3, maxConnections: 65536))
        #expect(roomy.connectionsPerWorker == 65536 && roomy.pipesPerWorker == 1024 && !roomy.isCapped)
        let tight = try #require(DescriptorBudget(limit: 1024, workers: 2, listeners: 3, maxConnections: 65536))
        #expect(tight.isCapped)
        let used = 96 + 2 * (3 + 4) + 2 * 3 + 2 * 2 * (tight.connectionsPerWorker + tight.pipesPerWorker)
        #expect(used <= 1024)
        #expect(tight.connectionsPerWorker > 190)
        // With a table for each worker, what one has is not taken from the others.
        let apart = try #require(
            DescriptorBudget(limit: 1024, workers: 8, listeners: 3, maxConnections: 65536, areShared: false))
        #expect(3 + 4 + 2 * (apart.connectionsPerWorker + apart.pipesPerWorker) <= 1024)
        #expect(apart.connectionsPerWorker > 400)
        #expect(DescriptorBudget(limit: 1024, workers: 300, listeners: 1, maxConnections: 1, areShared: false) == nil)
        #expect(DescriptorBudget(limit: 100, workers: 2, listeners: 3, maxConnections: 65536) == nil)
        #expect(DescriptorBudget(limit: 256, workers: 1, listeners: 1, maxConnections: 1) != nil)
    }

    @Test("control messages are one JSON line each")
    func controlLines() {
        let line = ControlLog.line("draining", "a \"second\"\nsignal", time: 0) { $0.field("connections", UInt64(3)) }
        #expect(
            String(decoding: line, as: UTF8.self) == """
                {"time":"1970-01-01T00:00:00.000Z","event":"draining","message":"a \\"second\\"\\nsignal",\
                "connections":3}

                """)
    }

    @Test("systemd is told by a datagram to the socket that it names, and by nothing if it names none")
    func notify() throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("notify-\(UUID().uuidString)").path
        let receiver = try #require(DatagramReceiver(path))
        ServiceManager { $0 == "NOTIFY_SOCKET" ? path : nil }.ready("serving on 3 addresses")
        #expect(receiver.next() == "READY=1\nSTATUS=serving on 3 addresses")
        ServiceManager { $0 == "NOTIFY_SOCKET" ? path : nil }.stopping()
        #expect(receiver.next() == "STOPPING=1")
        ServiceManager { _ in nil }.stopping()
        ServiceManager { _ in "/nonexistent/socket" }.stopping()
    }
}
