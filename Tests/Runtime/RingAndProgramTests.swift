import Pipeline
import Synchronization
import Testing

@testable import PipelineRuntime

@Suite("Log ring, mailbox and programs", .serialized)
struct RingAndProgramTests {
    @Test("R27: a full ring drops the newest, keeps the rest in order, and takes more when there is room")
    func ring() {
        let ring = RecordRing(capacity: 4)
        func push(_ serial: UInt64) -> Bool {
            var record = ConnectionRecord()
            record.serial = serial
            record.isRelayed = true
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

    @Test("R27: refused connections have half of a ring: a relayed one still has room behind a flood of them")
    func refusedHaveHalf() {
        let ring = RecordRing(capacity: 4)
        func push(_ serial: UInt64, isRelayed: Bool) -> Bool {
            var record = ConnectionRecord()
            record.serial = serial
            record.isRelayed = isRelayed
            return ring.push(record)
        }
        holds(push(0, isRelayed: false) && push(1, isRelayed: false))
        holds(!push(2, isRelayed: false))
        holds(push(3, isRelayed: true) && push(4, isRelayed: true))
        holds(!push(5, isRelayed: true))
        for serial in [UInt64(0), 1, 3, 4] { holds(ring.pop()?.serial == serial) }
        holds(push(6, isRelayed: false))
    }

    @Test("orders only grow as they are compared")
    func orders() {
        holds(WorkerOrder.run < .drain)
        holds(WorkerOrder.drain < .stop)
    }

    @Test("R26: a program is kept while a connection runs on it, and not a moment longer, in whatever order they end")
    func programs() {
        let library = Library(programs: 3)
        var table = ProgramTable(first: library.make(program: 0))
        let first = table.began()
        table.apply(library.make(program: 1))
        let second = table.began()
        table.apply(library.make(program: 2))
        holds(first != second && second != table.current)
        holds(library.users == [1, 1, 1])
        table.ended(second)
        holds(library.users == [1, 0, 1], "the later of two old ones goes first")
        table.ended(first)
        holds(library.users == [0, 0, 1], "the current one stays without connections")
        table.apply(library.make(program: 2))
        holds(library.users == [0, 0, 1], "a new table on the same program is nothing new")
    }

    @Test("connections whose stages have not decided are counted, those of older programs apart")
    func undecided() {
        let library = Library(programs: 2)
        var table = ProgramTable(first: library.make(program: 0))
        let (silent, quick) = (table.began(), table.began())
        table.decided(quick)
        holds(table.undecidedOnOlder == 0)
        table.apply(library.make(program: 1))
        holds(table.undecidedOnOlder == 1)
        table.decided(silent)
        holds(table.undecidedOnOlder == 0)
        table.ended(silent)
        table.ended(quick)
        let new = table.began()
        holds(table.undecidedOnOlder == 0)
        table.decided(new)
        table.ended(new)
        holds(library.users == [0, 1])
    }

    @Test("stages keep their state across tables of one program, and lose it with the program's last connection")
    func states() {
        let library = Library(programs: 2)
        CountingStage.alive.withLock { $0 = 0 }
        do {
            var table = ProgramTable(first: library.make(program: 0))
            let first = table.began()
            holds(CountingStage.alive.withLock { $0 } == 1)
            table.apply(library.make(program: 0))
            holds(CountingStage.alive.withLock { $0 } == 1)
            table.apply(library.make(program: 1))
            holds(CountingStage.alive.withLock { $0 } == 2)
            table.ended(first)
            holds(CountingStage.alive.withLock { $0 } == 1)
        }
        holds(CountingStage.alive.withLock { $0 } == 0)
    }

    @Test("R26: a thousand old programs with a connection each refuse no change")
    func many() {
        let library = Library(programs: 1001)
        var table = ProgramTable(first: library.make(program: 0))
        var began = [table.began()]
        for program in 1...1000 {
            table.apply(library.make(program: program))
            began.append(table.began())
        }
        holds(library.users.allSatisfy { $0 == 1 })
        for place in stride(from: 1, to: 1000, by: 2) { table.ended(began[place]) }
        for (program, users) in library.users.enumerated() { holds(users == (program % 2 == 0 ? 1 : 0)) }
        // Places of programs that are gone are used again; the others are untouched.
        let late = library.make(program: 1)
        table.apply(late)
        holds(table.current < 1001)
        holds(table[began[4]].pointee.program.toOpaque() == library.program(4).toOpaque())
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
    ) -> FoundRoute? { nil }
    static func sole(at destination: DestinationAddress, in table: UnsafeRawPointer) -> FoundRoute? { nil }
}

/// Snapshots of a few programs, kept until the test is over.
private final class Library {
    private let programs: [Program]
    private let table = UnsafeMutableRawPointer.allocate(byteCount: 1, alignment: 1)
    private var snapshots: [UnsafeMutablePointer<Snapshot>] = []

    init(programs count: Int) {
        programs = (0..<count).map { _ in
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

    /// How many workers hold each program.
    var users: [UInt32] { programs.map { $0.users.current } }
    func program(_ index: Int) -> Unmanaged<Program> { .passUnretained(programs[index]) }

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
