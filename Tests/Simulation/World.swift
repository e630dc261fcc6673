import Pipeline
import PipelineRuntime

/// The machine and the network around one worker: a clock, a descriptor table, sockets, pipes, peers and control, all
/// moved by one seed. Everything that must hold while it runs is checked here; the first thing that doesn't is kept.
final class World: @unchecked Sendable {
    enum Object {
        case socket(Socket)
        case idle(Spare)
        case listener(Int)
        case pipeRead(Pipe)
        case pipeWrite(Pipe)
    }

    final class Pipe {
        var pieces: [(source: Socket, start: Int, count: Int)] = []
        var count = 0
        let capacity: Int
        init(capacity: Int) { self.capacity = capacity }
    }

    struct Listener {
        var descriptor: Int
        var queue: [Int] = []
        /// 0 or 1: its endpoint and its chain.
        let place: Int
        var isOpen = true
        /// The worker has a descriptor of its own for it.
        var isTaken = false
        /// Control still wants it.
        var isDocumented = true
        /// The update that brought it.
        var generation: UInt64 = 1
        var key: EventKey?
    }

    let scenario: Scenario
    var random: SeededRandom
    var clock = Scenario.start
    var connections: [Connection] = []
    var listeners: [Listener] = []
    var table: [Object?] = []
    let mailbox = Mailbox(wakeDescriptor: .none)
    let control: Control
    var stats = Statistics()
    /// Stage states that the worker has made and not freed.
    var statesAlive = 0
    /// Three a connection.
    let backends: UnsafeMutableBufferPointer<Backend>
    /// One a candidate, shared by every connection.
    let backendCells: UnsafeMutableBufferPointer<BackendCell>
    let shared: SharedThings
    /// Nil: the kernel chooses where connections come from.
    let sources: SourcePool?
    /// The limit of the sleep that the worker has asked for.
    var wakes: UInt64 = .max

    private(set) var failure: String?
    var tracing = false
    private(set) var trace: [String] = []

    /// The connection that the worker deals with: the last one that stages were asked about, that connected, or that
    /// gave an upstream socket back. Its next connect is this one's.
    var actor = 0
    /// Since the worker was last refused an accept for good: its listeners wait, and are not watched.
    var isStarved = false
    var starved: [Int: [UInt64]] = [:]
    /// Calls since the last wait, and those among them that changed something.
    var calls = 0
    var effects = 0
    /// Bytes that were taken from sockets since then, and from whom once they were a turn's share.
    var turnTaken = 0
    var takenAfterShare: [Int: Int] = [:]
    var idleTurns = 0
    /// Waits in a row with a limit and without a connection.
    var idleWaits = 0
    /// Waits in a row after all of the worker's deadlines have passed.
    var quietWaits = 0
    /// When a call last changed something, or something happened.
    var lastEffect = Scenario.start

    init(_ scenario: Scenario) {
        self.scenario = scenario
        random = SeededRandom(seed: scenario.seed ^ 0xABCD_EF01)
        control = Control(scenario)
        for (index, plan) in scenario.connections.enumerated() {
            connections.append(Connection(index: index, plan: plan, random: &random))
        }
        backends = .allocate(capacity: connections.count * BackendCandidates.capacity)
        backendCells = .allocate(capacity: BackendCandidates.capacity)
        for i in backendCells.indices {
            (backendCells.baseAddress.unsafelyUnwrapped + i)
                .initialize(to: BackendCell(Connection.backend(i).endpoint))
        }
        shared = SharedThings(scenario)
        sources = SourcePool(seed: scenario.seed)
        for i in backends.indices {
            let candidate = i % BackendCandidates.capacity
            let cell = backendCells.baseAddress.unsafelyUnwrapped + candidate
            backends.initializeElement(
                at: i,
                to: Backend(
                    address: Connection.backend(candidate), instance: SnapshotLibrary.text, cell: cell,
                    maxConnections: scenario.backendLimits[candidate]))
        }
        for place in scenario.chains.indices {
            listeners.append(Listener(descriptor: controlDescriptor(listeners.count), place: place))
        }
    }

    deinit {
        backends.deinitialize()
        backends.deallocate()
        backendCells.deinitialize()
        backendCells.deallocate()
    }

    /// The connection's backends that are the route's by this table.
    func candidates(_ connection: Connection, _ plan: TablePlan, except tried: TriedBackends) -> BackendCandidates {
        var candidates = BackendCandidates()
        connection.choice = []
        guard let first = backends.baseAddress else { return candidates }
        for i in connection.plan.candidates.indices where plan.members.contains(i) {
            let backend = UnsafePointer(first + connection.index * BackendCandidates.capacity + i)
            guard !tried.contains(backend.pointee.address.endpoint) else { continue }
            candidates.append(backend)
            connection.choice.append(i)
        }
        return candidates
    }

    func fail(_ what: @autoclosure () -> String) {
        guard failure == nil else { return }
        failure = what()
        note("FAILED: \(failure ?? "")")
    }

    func note(_ line: @autoclosure () -> String) {
        guard tracing else { return }
        let time = (clock - Scenario.start) / 1000
        trace.append("\(time / 1000).\(String(time % 1000 + 1000).dropFirst()) ms  \(line())")
    }

    // MARK: Descriptors

    /// Without listeners: there is always room for them (R27).
    var openDescriptors: Int {
        table.reduce(0) {
            if case .listener? = $1 { return $0 }
            return $0 + ($1 == nil ? 0 : 1)
        }
    }

    /// The lowest free number, as POSIX has it; nil at the limit.
    func allocate(_ object: Object) -> Int? {
        for number in 0..<scenario.descriptors + listeners.count {
            if number == table.count { table.append(nil) }
            if table[number] == nil {
                table[number] = object
                return number
            }
        }
        return nil
    }

    /// Control's descriptor of a listener, which is in no table of the worker's.
    func controlDescriptor(_ listener: Int) -> Int { 1_000_000 + listener }

    var hasFreeDescriptor: Bool { openDescriptors < scenario.descriptors }

    func object(_ descriptor: Descriptor, _ call: String) -> Object? {
        calls += 1
        if calls > 100_000 { fail("the worker makes calls without end in one turn (\(call))") }
        let number = Int(descriptor.number)
        guard number >= 0, number < table.count, let object = table[number] else {
            fail("\(call) on descriptor \(number), which is not open")
            return nil
        }
        interleave()
        return object
    }

    func socket(_ descriptor: Descriptor, _ call: String) -> Socket? {
        guard let object = object(descriptor, call) else { return nil }
        guard case .socket(let socket) = object else {
            fail("\(call) on descriptor \(descriptor.number), which is no socket")
            return nil
        }
        return socket
    }

    // MARK: Peers

    func peer(of socket: Socket) -> Peer? {
        socket.side == .client ? connections[socket.connection].clientPeer : connections[socket.connection].server
    }

    /// Something has happened to a socket: its peer may have something to do.
    func nudge(_ socket: Socket) {
        guard let peer = peer(of: socket), peer.socket === socket, peer.wakeAt == .max, peer.canAct else { return }
        peer.wakeAt = clock + UInt64(random.below(peer.plan.pause))
    }

    /// The world does not stand still while the worker is at work.
    private func interleave() {
        guard scenario.interleaving > 0, random.chance(scenario.interleaving) else { return }
        let connection = connections[random.below(connections.count)]
        let peer = random.chance(50) ? connection.clientPeer : (connection.server ?? connection.clientPeer)
        if connection.state != .coming, peer.wakeAt < clock + 100_000 { step(peer) }
    }

    func step(_ peer: Peer) {
        let socket = peer.socket
        if let word = peer.step(&random) {
            note("\(socket.side) of #\(socket.connection) \(word)")
            socket.heardAt = clock
        }
        if socket.isSilent, socket.silentSince == nil { socket.silentSince = clock }
        if socket.isDead, socket.diedAt == nil { socket.diedAt = clock }
        peer.wakeAt = peer.canAct ? clock + UInt64(random.below(peer.plan.pause)) : .max
    }

    /// Everything that is due at this moment.
    func runDue() {
        for connection in connections {
            if connection.state == .coming, connection.plan.arrives <= clock { arrive(connection) }
            guard connection.state != .coming else { continue }
            if connection.clientPeer.wakeAt <= clock { step(connection.clientPeer) }
            guard let server = connection.server, server.wakeAt <= clock else { continue }
            if server.socket.isConnecting { finishConnect(connection, server) } else { step(server) }
        }
    }

    func nextMoment() -> UInt64 {
        var next = control.nextAt
        for connection in connections {
            if connection.state == .coming {
                next = min(next, connection.plan.arrives)
            } else {
                next = min(next, connection.clientPeer.wakeAt, connection.server?.wakeAt ?? .max)
            }
        }
        return next
    }

    private func arrive(_ connection: Connection) {
        let open = listeners.indices.filter { listeners[$0].place == connection.plan.listener && listeners[$0].isOpen }
        guard let listener = open.isEmpty ? nil : random.pick(open) else {
            connection.state = .dropped
            return
        }
        connection.state = .queued
        listeners[listener].queue.append(connection.index)
        note("client #\(connection.index) connects")
        connection.clientPeer.wakeAt = clock
    }

    private func finishConnect(_ connection: Connection, _ server: Peer) {
        let socket = server.socket
        switch connection.plan.candidates[connection.candidate] {
        case .refused: failConnect(connection, socket, ErrorNumber.connectionRefused)
        case .unreachable: failConnect(connection, socket, ErrorNumber.hostUnreachable)
        case .resetAfterAccept: failConnect(connection, socket, ErrorNumber.connectionReset)
        default:
            socket.isConnecting = false
            socket.heardAt = clock
            socket.hasEdge = true
            note("backend of #\(connection.index) accepts")
            server.wakeAt = clock + UInt64(random.below(server.plan.pause))
            // Often its first bytes are there before the worker has looked.
            if random.chance(30) { step(server) }
        }
    }

    private func failConnect(_ connection: Connection, _ socket: Socket, _ error: Int32) {
        note("backend of #\(connection.index) fails with \(error)")
        socket.die(error)
        socket.diedAt = clock
        connection.server?.wakeAt = .max
    }
}

/// What a run has met, so that a test can tell that the simulation goes everywhere.
struct Statistics {
    var turns = 0
    var accepted = 0
    var connects = 0
    var bytes = 0
    var pipes = 0
    var splices = 0
    /// Writes from a pipe that were to be followed by more.
    var pieces = 0
    /// Accepts for which not even a descriptor to refuse with was left.
    var starved = 0
    /// Reads that left the bytes where they were.
    var peeks = 0
    var largestTurn = 0
    var reused = 0
    /// Reads into a pipe that failed for want of memory.
    var unspliced = 0
    /// By candidate: attempts that this node has failed.
    var ownFailures: [Int: UInt64] = [:]
    var attempts: [Int: UInt64] = [:]
    var reasons: [UInt16: Int] = [:]
    /// Connections that have waited in a queue, and were connected.
    var servedFromQueue = 0
    /// Connections whose backends were ready to begin TLS behind an opening.
    var upgraded = 0

    mutating func add(_ other: Statistics) {
        turns += other.turns
        accepted += other.accepted
        connects += other.connects
        bytes += other.bytes
        pipes += other.pipes
        splices += other.splices
        pieces += other.pieces
        starved += other.starved
        peeks += other.peeks
        largestTurn = max(largestTurn, other.largestTurn)
        reused += other.reused
        unspliced += other.unspliced
        servedFromQueue += other.servedFromQueue
        upgraded += other.upgraded
        reasons.merge(other.reasons, uniquingKeysWith: +)
    }
}
