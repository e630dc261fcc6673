import Pipeline
import PipelineRuntime

/// How a backend answers `connect`.
enum ConnectPlan {
    case atOnce
    case later(Int)
    case refusedAtOnce
    case refused(Int)
    case unreachableAtOnce
    case unreachable(Int)
    case noPort
    /// This node lacks memory, or its firewall is in the way.
    case noMemory
    case forbidden
    case silent
    case resetAfterAccept(Int)
}

/// One client, the backends that it may reach, and what the stages will think of it.
struct ConnectionPlan {
    var client: PeerPlan
    var server: PeerPlan
    var listener: Int
    var arrives: UInt64
    /// Which of a few networks the client is in.
    var network: Int
    var candidates: [ConnectPlan]
    var prelude: [UInt8]
    var consumed: Int
    var isAborted: Bool
    var isRefused: Bool
    var isRefusedWithoutBytes: Bool
    var isShadowRefused: Bool
    /// the inspecting stage waits for this many bytes of a trusted sender's, and keeps them; 0: it only inspects.
    var trusted: Int
    /// The stage that goes by its address refuses it.
    var isOverLimit: Bool
    /// What it is counted in, by stages before and after the one that waits.
    var reservations: [Int]
    /// The rates that it obeys.
    var buckets: [Int]
    /// The prelude is a PROXY header.
    var hasHeader: Bool
    /// TLS begins behind an opening that a stage answers; nil: at once.
    var upgrade: UpgradePlan?
}

/// A rate that connections share.
struct PacerPlan {
    var up: UInt64
    var down: UInt64
    var burst: UInt64
}

/// What a listener's chain is made of.
struct ChainPlan {
    var peeks: Bool
    /// 1...: how many bytes the peeking stage may look at.
    var peekBytes: Int
    var peekTimeout: TimeSpan
    /// The peeking stage asks for one byte more each time, rather than for all that it knows to need.
    var asksByteByByte: Bool
    var inspects: Bool
    /// the inspecting stage stands above the peeking one: where that waits, it waits too.
    var inspectsFirst: Bool
    var shadows: Bool
    var writesPrelude: Bool
    /// The backend is chosen before first bytes are waited for.
    var choosesEarly: Bool
    /// Where a stage stands that goes by the client's address alone.
    var limit = LimitPlace.none
    /// Some senders' first bytes say who the client is.
    var believes: Bool { inspects && !peeks }

    enum LimitPlace {
        case none
        /// Between the two stages that look at first bytes.
        case between
        case below
        case last
    }

    /// Its peeking stage answers openings.
    var upgrades = false

    var inspectStage: Int { 1 + (peeks && !inspectsFirst ? 1 : 0) + (choosesEarly ? 1 : 0) }
}

/// Everything that a run is, drawn from its seed: nothing else decides.
struct Scenario {
    enum Order { case update, drain, stop, removeListener, replaceListener, drainBackend, drainRoute, suspend, memory }

    let seed: UInt64
    var settings = NodeSettings()
    var limits = WorkerLimits(connections: 8, blocks: 8, pipes: 4, idleSockets: 0)
    var descriptors = 1024
    var chains: [ChainPlan] = []
    var connections: [ConnectionPlan] = []
    var orders: [(at: UInt64, order: Order)] = []
    var buckets: [PacerPlan] = []
    /// How often stages hear of connections that live; nil: never.
    var accounts: TimeSpan?
    /// By candidate: the most connections at once; 0: no limit.
    var backendLimits: [UInt32] = []
    var ejection: EjectionPolicy?
    /// Where connections wait for a candidate with room; nil: they are refused.
    var queue: QueueSpec?
    /// Another worker is always longer there, and never takes its turn.
    var hasRival = false
    /// A new snapshot brings a new program, and not only new routes.
    var changesProgram = false
    /// Tables differ: the route comes and goes, has another owner, other backends.
    var movesRoutes = false
    /// R14: of the seed alone, so that what other seeds have found stays what it was.
    var idleTimeout: TimeSpan {
        var random = SplitMix64(seed: seed)
        return random.next() % 8 == 0 ? .milliseconds(300) : .zero
    }
    /// New programs take a share of connections first, and go everywhere or go. Of the seed alone as well.
    var hasCanaries: Bool {
        var random = SplitMix64(seed: seed ^ 0xCA)
        return random.next() % 3 == 0
    }
    /// The node is broken: routes are looked up in the table of a connection's accept.
    var looksUpOld = false
    /// No backend takes the header that goes in front.
    var rejectsHeaders = false
    /// In percent of the calls or turns where it could happen.
    var interleaving = 0
    var pressure = 0
    var spurious = 0
    var partialSplice = 0
    /// All sockets pace what they send, in segments of so many bytes.
    var pacedSegment: Int?
    /// What pipes hold; nil: what was asked for.
    var pipes: [Int?] = [1000, 65536, nil]
    var lateness = 0
    /// How long, in nanoseconds, others have the processor between two turns.
    var busy: UInt64 = 0
    var watchFails = 0
    /// Where no descriptor is left, one can be had to refuse with.
    var hasReserve = true
    /// Of writes and splices that fail for want of memory, in a thousand.
    var shortage = 0

    static let start: UInt64 = 5_000_000_000

    init(seed: UInt64) {
        self.seed = seed
        var random = SeededRandom(seed: seed)
        settings.connectTimeout = random.chance(50) ? .seconds(2) : .milliseconds(50)
        settings.halfCloseTimeout = random.chance(50) ? .seconds(60) : .milliseconds(400)
        settings.backlog = 64
        interleaving = random.pick([0, 5, 25])
        pressure = random.pick([0, 0, 3, 20])
        spurious = random.pick([0, 5, 40])
        partialSplice = random.pick([0, 30])
        lateness = random.pick([0, 10, 50])
        watchFails = random.chance(3) ? 5 : 0
        chains = [Scenario.chain(&random, mayPeek: true), Scenario.chain(&random, mayPeek: false)]
        // Drawn apart: other seeds stay what they were.
        var apart = SeededRandom(seed: seed ^ 0x5EED_0000)
        rejectsHeaders = apart.chance(8)
        if rejectsHeaders { for index in chains.indices { chains[index].writesPrelude = true } }
        let count = rejectsHeaders ? 6 : random.pick(1...6)
        for _ in 0..<random.pick([0, 0, 1, 2]) {
            // Slow enough to wait, fast enough for a bulk stream to end.
            let rates: [UInt64] = [0, 200_000, 1_000_000, 50_000_000]
            buckets.append(
                PacerPlan(up: random.pick(rates), down: random.pick(rates), burst: random.pick([0, 5000, 200_000])))
        }
        backendLimits = (0..<BackendCandidates.capacity).map { _ in random.chance(20) ? random.pick([1, 2]) : 0 }
        if random.chance(60) {
            ejection = EjectionPolicy(after: random.pick([0, 1, 2]), base: .milliseconds(20), max: .milliseconds(100))
        }
        for _ in 0..<count { connections.append(connection(&random)) }
        if random.chance(15) { limits.connections = random.pick(1...3) }
        if random.chance(15) { limits.blocks = random.pick(1...4) }
        limits = WorkerLimits(
            connections: limits.connections, blocks: limits.blocks, pipes: 4, idleSockets: 0,
            unrouted: random.chance(25) ? random.pick(1...3) : nil)
        limits.pipes = random.pick(0...4)
        limits.crowd = random.pick([1, 2, 2, 3, 16])
        if random.chance(15) { descriptors = random.pick(3...14) }
        hasReserve = random.chance(60)
        changesProgram = random.chance(50)
        movesRoutes = random.chance(40)
        for _ in 0..<random.pick(movesRoutes ? [1, 3, 10] : [0, 0, 1, 3]) {
            orders.append((Scenario.moment(&random), .update))
        }
        if random.chance(25) {
            let changes: [Order] = [.removeListener, .replaceListener, .drainBackend, .drainRoute, .suspend]
            for _ in 0..<random.pick(1...3) { orders.append((Scenario.moment(&random), random.pick(changes))) }
        }
        if random.chance(15) { for _ in 0..<2 { orders.append((Scenario.moment(&random), .memory)) } }
        if random.chance(20) { orders.append((Scenario.moment(&random), .drain)) }
        if random.chance(10) { orders.append((Scenario.moment(&random), .stop)) }
        orders.sort { $0.at < $1.at }
        limits.idleSockets = random.pick([0, 1, 4])
        accounts = random.pick([nil, nil, .milliseconds(500), .seconds(1), .seconds(5)])
        settings.coalesce = random.pick([.zero, .milliseconds(1), .milliseconds(5)])
        pacedSegment = random.pick([nil, 1448, 20_000, 65_464])
        settings.userTimeout = random.pick([.seconds(2), .seconds(30), .seconds(120)])
        shortage = random.chance(8) ? random.pick([5, 50]) : 0
        apart = SeededRandom(seed: seed ^ 0x5EED_0037)
        drawQueue(&apart)
        if random.chance(30) { makeRush(&random) } else if random.chance(5) { makeFlood(&random) }
        apart = SeededRandom(seed: seed ^ 0x5EED_0097)
        drawUpgrades(&apart)
    }

    /// More of it than a turn may move is there at any time: a kernel's buffers are full before the worker looks.
    mutating func makeCrowd() {
        var random = SeededRandom(seed: seed)
        makeFlood(&random)
        pacedSegment = nil
        settings.coalesce = .zero
        busy = 2_000_000
        for i in connections.indices {
            for side in [\ConnectionPlan.client, \ConnectionPlan.server] {
                connections[i][keyPath: side].chunk = 1_000_000
                connections[i][keyPath: side].pause = 1
            }
        }
    }

    /// Bulk on every connection at the same time, and pipes for all of it: streams that gather beside each other.
    private mutating func makeFlood(_ random: inout SeededRandom) {
        limits.pipes = 2 * connections.count
        pipes = [nil]
        buckets = []
        settings.coalesce = random.pick([.milliseconds(1), .milliseconds(5)])
        for i in connections.indices {
            connections[i].client.pour(&random)
            connections[i].server.pour(&random)
            connections[i].buckets = []
            connections[i].arrives = Scenario.start + UInt64(random.below(1_000_000))
        }
    }

    /// Short connections, one after the other, that end by reset: those whose upstream sockets are used again.
    private mutating func makeRush(_ random: inout SeededRandom) {
        limits.idleSockets = 4
        for i in connections.indices {
            if !connections[i].candidates.isEmpty, random.chance(70) { connections[i].candidates[0] = .atOnce }
            connections[i].client.bytes = min(connections[i].client.bytes, 2000)
            connections[i].server.bytes = min(connections[i].server.bytes, 2000)
            connections[i].client.start = .atOnce
            connections[i].server.start = .atOnce
            connections[i].client.ending = .resetAfterReading(random.below(connections[i].server.bytes + 1))
            connections[i].client.reads = true
            connections[i].server.pause = 10_000
            connections[i].arrives = Scenario.start + UInt64(random.below(20_000_000))
        }
    }

    private static func moment(_ random: inout SeededRandom) -> UInt64 { start + UInt64(random.below(80_000_000)) }

    private static func chain(_ random: inout SeededRandom, mayPeek: Bool) -> ChainPlan {
        var chain = ChainPlan(
            peeks: mayPeek && random.chance(80), peekBytes: random.pick([5, 64, 600, 8192, 65536]),
            peekTimeout: random.pick([.milliseconds(20), .milliseconds(200), .seconds(3)]),
            asksByteByByte: random.chance(30), inspects: random.chance(mayPeek ? 30 : 50), inspectsFirst: false,
            shadows: random.chance(20), writesPrelude: random.chance(50),
            choosesEarly: random.chance(30))
        if chain.peeks, chain.inspects { chain.inspectsFirst = random.chance(60) }
        chain.limit = random.pick([.none, chain.inspectsFirst ? .between : .below, .below, .last])
        return chain
    }

    private func connection(_ random: inout SeededRandom) -> ConnectionPlan {
        let listener = random.below(2)
        let chain = chains[listener]
        let kind = random.below(10)
        let hasHeader = rejectsHeaders || (chain.writesPrelude && random.chance(50))
        let head: [UInt8] =
            switch kind {
            case 0: FirstBytes.http
            case 1: FirstBytes.proxyV1
            case 2, 3: []
            default: FirstBytes.clientHello(name: "app.example.com", size: random.pick([0, 0, 300, 1800, 9000]))
            }
        var client = peer(&random, head: head)
        var server = peer(
            &random, head: !hasHeader ? [] : rejectsHeaders ? FirstBytes.rejection : FirstBytes.answer(&random))
        server.bytes = max(server.bytes, server.stream.head.count)
        if kind == 2 { client.bytes = 0 } else if random.chance(85) { client.bytes = max(client.bytes, head.count) }
        if random.chance(3) { client.urgent = random.below(client.bytes + 1) }
        switch random.below(6) {
        case 0: client.start = .afterReading(min(server.bytes, 1 + random.below(64)))
        case 1, 2: server.start = .afterReading(1 + random.below(max(1, client.bytes)))
        case 3: server.start = .afterFin
        default: break
        }
        let prelude = chain.writesPrelude ? 1 + random.below(random.chance(20) ? Prelude.capacity : 60) : 0
        return ConnectionPlan(
            client: client, server: server, listener: listener,
            arrives: Scenario.moment(&random), network: random.below(Connection.networks),
            candidates: (0..<random.pick([0, 1, 1, 1, 2, 3, 3])).map { _ in Scenario.connect(&random) },
            prelude: (0..<prelude).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 0xE0) },
            consumed: chain.peeks && random.chance(15) ? random.below(40) : 0, isAborted: random.chance(3),
            isRefused: random.chance(5), isRefusedWithoutBytes: random.chance(50), isShadowRefused: random.chance(50),
            trusted: chain.believes && random.chance(30) ? 1 + random.below(20) : 0,
            isOverLimit: chain.limit != .none && random.chance(5),
            reservations: (0..<random.below(3)).map { _ in random.below(World.reservationCount) },
            buckets: buckets.indices.filter { _ in random.chance(60) }, hasHeader: hasHeader)
    }

    private func peer(_ random: inout SeededRandom, head: [UInt8]) -> PeerPlan {
        let isBulk = random.chance(7)
        let bytes =
            isBulk ? random.pick(400_000...2_500_000) : random.size(upTo: random.pick([100, 4000, 60_000, 150_000]))
        var plan = PeerPlan(stream: ByteStream(head: head, offset: random.below(60_000)), bytes: bytes)
        plan.finWithLastByte = random.chance(40)
        plan.chunk = isBulk ? random.pick([100_000, 400_000]) : random.pick([1, 7, 200, 1460, 16384, 65536, 100_000])
        // Byte by byte only as far as it teaches something.
        plan.chunk = max(plan.chunk, bytes / 60)
        plan.readChunk = max(random.pick([1, 500, 65536, 1_000_000]), bytes / 20)
        plan.pause = random.pick([1000, 100_000, 1_000_000, 30_000_000])
        plan.reads = !random.chance(3)
        switch random.below(21) {
        case 20: plan.ending = .fallSilent(random.below(bytes + 1))
        case 0...9: plan.ending = .finish
        case 10...12: plan.ending = .finishLast
        case 13, 14: plan.ending = .leave
        case 15, 16: plan.ending = .resetAfterSending(random.below(bytes + 1))
        case 17: plan.ending = .resetAfterReading(random.below(3000))
        case 18: plan.ending = .vanish(random.below(bytes + 1))
        default: plan.ending = .stay
        }
        return plan
    }

    private static func connect(_ random: inout SeededRandom) -> ConnectPlan {
        switch random.below(16) {
        case 0...4: .atOnce
        case 5...9: .later(random.below(20_000_000))
        case 10: .refusedAtOnce
        case 11: .refused(random.below(5_000_000))
        case 12: random.chance(50) ? .unreachableAtOnce : .unreachable(random.below(5_000_000))
        case 13: random.pick([.noPort, .noPort, .noMemory, .forbidden])
        case 14: .silent
        default: .resetAfterAccept(random.below(5_000_000))
        }
    }

    /// Kernel buffers of one socket: roomy for those who move much, so that streams splice, tight otherwise.
    static func buffer(_ random: inout SeededRandom, bytes: Int) -> Int {
        let size = random.pick([1, 100, 3000, 20_000, 80_000, 200_000])
        return bytes >= 400_000 && random.chance(70) ? 1 << 20 : max(size, bytes / 40)
    }
}

extension PeerPlan {
    /// Sends a lot, from the start and in large pieces, to the end.
    fileprivate mutating func pour(_ random: inout SeededRandom) {
        bytes = random.pick(1_000_000...3_000_000)
        chunk = random.pick([100_000, 400_000])
        readChunk = random.pick([200_000, 1_000_000])
        pause = random.pick([1000, 100_000])
        reads = true
        start = .atOnce
        ending = random.chance(80) ? .finish : .resetAfterSending(random.below(bytes))
    }
}
