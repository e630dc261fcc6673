import Pipeline
import Synchronization
import Testing

@testable import PipelineRuntime

@Suite("Log ring, mailbox and snapshots", .serialized)
struct RingAndSnapshotTests {
    @Test("R27: a full ring drops the newest, keeps the rest in order, and takes more when there is room")
    func ring() {
        let ring = RecordRing(capacity: 4)
        func push(_ serial: UInt64) -> Bool {
            var record = ConnectionRecord()
            record.serial = serial
            return ring.push(record)
        }
        for serial in UInt64(0)..<4 { holds(push(serial)) }
        holds(!push(99))
        holds(ring.pop()?.serial == 0)
        holds(push(4))
        for serial in UInt64(1)...4 { holds(ring.pop()?.serial == serial) }
        holds(ring.pop() == nil)
        for serial in UInt64(0)..<1000 {
            holds(push(serial))
            holds(ring.pop()?.serial == serial)
        }
    }

    @Test("orders only grow as they are compared")
    func orders() {
        holds(WorkerOrder.run < .drain)
        holds(WorkerOrder.drain < .stop)
    }

    @Test("R26: a snapshot is kept while a connection runs on it, and not a moment longer")
    func generations() {
        let library = Library()
        var table = SnapshotTable(first: library.make(program: 0))
        let old = table.began()
        holds(table.adopt(library.make(program: 0)))
        let new = table.began()
        holds(old != new)
        holds(table[old].pointee.snapshot.pointee.generation == 1)
        holds(table.oldestGeneration == 1)
        table.ended(old)
        holds(table.oldestGeneration == 2)
        table.ended(new)
        holds(table.oldestGeneration == 2, "the current one stays without connections")
    }

    @Test("stages keep their state across snapshots of one program, and lose it with the program's last connection")
    func states() {
        let library = Library()
        CountingStage.alive.withLock { $0 = 0 }
        do {
            var table = SnapshotTable(first: library.make(program: 0))
            let first = table.began()
            holds(CountingStage.alive.withLock { $0 } == 1)
            holds(table.adopt(library.make(program: 0)))
            holds(CountingStage.alive.withLock { $0 } == 1)
            holds(table[first].pointee.states == table[table.current].pointee.states)
            holds(table.adopt(library.make(program: 1)))
            holds(CountingStage.alive.withLock { $0 } == 2)
            table.ended(first)
            holds(CountingStage.alive.withLock { $0 } == 1)
        }
        holds(CountingStage.alive.withLock { $0 } == 0)
    }

    @Test("R27: with every place taken by old connections a snapshot waits, and is adopted when one ends")
    func full() {
        let library = Library()
        var table = SnapshotTable(first: library.make(program: 0))
        var began = [table.began()]
        for _ in 1..<SnapshotTable.capacity {
            holds(table.adopt(library.make(program: 0)))
            began.append(table.began())
        }
        let late = library.make(program: 0)
        holds(!table.adopt(late))
        table.ended(began[5])
        holds(table.adopt(late))
        holds(table[table.current].pointee.snapshot == late)
        // The place of a retired entry was reused; the others are untouched.
        holds(table[began[4]].pointee.snapshot.pointee.generation == 5)
    }
}

private enum CountingStage: Filter {
    static let alive = Mutex(0)
    final class State {
        init() { CountingStage.alive.withLock { $0 += 1 } }
        deinit { CountingStage.alive.withLock { $0 -= 1 } }
    }
    static var descriptor: FilterDescriptor { FilterDescriptor(keyword: "counting", summary: "") }
    static func settings(_ directive: Directive) throws(SettingsError) -> Int { 0 }
    static func makeState(_ settings: Int) -> State { State() }
    static func evaluate(_ settings: Int, _ state: inout State, _ view: ConnectionView, _ effects: Effects) -> Verdict {
        .next
    }
    static func explain(_ settings: Int, _ view: ConnectionView, _ verdict: Verdict) -> String { "" }
}

private enum NoRoutes: RouteLookup {
    static func named(
        _ name: UnsafeBufferPointer<UInt8>, at destination: DestinationAddress, in table: UnsafeRawPointer
    ) -> UnsafePointer<Route>? { nil }
    static func sole(at destination: DestinationAddress, in table: UnsafeRawPointer) -> UnsafePointer<Route>? { nil }
}

/// Snapshots of two programs, kept until the test is over.
private final class Library {
    private let programs: [Program]
    private let table = UnsafeMutableRawPointer.allocate(byteCount: 1, alignment: 1)
    private var snapshots: [UnsafeMutablePointer<Snapshot>] = []

    init() {
        programs = (0..<2).map { _ in
            let stage = Stage.bind(
                CountingStage.self, settings: 0, reasonBase: 64, stateIndex: 0, shadow: false, source: "", line: 1)
            return Program(
                node: NodeSettings(), chains: [Chain(name: "test", stages: [stage])], listeners: [], exposes: [],
                catalog: [CountingStage.self])
        }
    }
    deinit {
        for snapshot in snapshots { snapshot.deallocate() }
        table.deallocate()
    }

    func make(program: Int) -> UnsafePointer<Snapshot> {
        let memory = UnsafeMutablePointer<Snapshot>.allocate(capacity: 1)
        memory.initialize(
            to: Snapshot(
                program: programs[program], routes: RouteTableHandle(NoRoutes.self, table: UnsafeRawPointer(table)),
                generation: UInt64(snapshots.count + 1)))
        snapshots.append(memory)
        return UnsafePointer(memory)
    }
}
