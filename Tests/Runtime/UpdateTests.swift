import Pipeline
import TestSupport
import Testing

@testable import PipelineRuntime

/// What an update costs the worker that applies it.
@Suite("Applying an update", .serialized)
struct UpdateTests {
    /// Seconds of processor time that a worker with so many listeners takes for a change that touches few of them, at best of five.
    private func seconds(_ count: Int) throws -> Double {
        let desk = Desk()
        let listeners = (0..<count).map { Desk.listener($0) }
        var worker = try desk.worker(listeners)
        guard worker.iterate() else { throw NoMemory() }
        var number = 0
        return try processorSeconds {
            number += 1
            // One goes, one comes, in the middle of all.
            var changed = listeners
            changed[count / 2] = Desk.listener(count + number)
            desk.publish(changed)
            guard worker.iterate() else { throw NoMemory() }
            holds(worker.listeners.count == count)
        }
    }

    @Test("a change costs a worker with many listeners what they are many, and no more")
    func linear() throws {
        _ = try seconds(100)
        let (few, many) = try (seconds(750), seconds(6000))
        // Eight times as many: 8 if it is linear, 64 if each is looked for among all.
        #expect(many < 40 * few, "\(few) s with 750 listeners, \(many) s with 6000")
        #expect(many < 1, "\(many) s")
    }

    @Test("a listener keeps its place, and its registration, whatever comes and goes around it")
    func places() throws {
        let desk = Desk()
        var worker = try desk.worker((0..<4).map { Desk.listener($0) })
        guard worker.iterate() else { throw NoMemory() }
        holds(worker.withKernel { $0.watched } == [0, 1, 2, 3])
        desk.publish([3, 1, 7, 8, 9].map { Desk.listener($0) })
        guard worker.iterate() else { throw NoMemory() }
        // Those that stay are not watched anew; the new ones take the places that are free, and one more.
        holds(worker.withKernel { $0.watched } == [0, 1, 2, 3, 0, 2, 4])
        holds(worker.withKernel { $0.unwatched } == 2)
        holds(worker.listeners.count == 5)
        desk.publish([])
        guard worker.iterate() else { throw NoMemory() }
        holds(worker.listeners.count == 0 && worker.withKernel { $0.taken } == 0)
    }

    @Test("what a removed listener has queued goes to the one of its interface, or of all, and to no other interface's")
    func heirs() {
        let endpoint = Endpoint(.unspecified, 443)
        let listener = { (chain: Int, interface: UInt32) in
            WorkerListener(
                descriptor: Descriptor(1), spec: ListenerSpec(endpoint: endpoint, hint: .tcpRaw, chain: chain, line: 1),
                bound: endpoint, index: 0, interface: interface)
        }
        let heir = { (old: UInt32, wanted: [WorkerListener]) in
            wanted.withUnsafeBufferPointer { ListenerHeirs($0).heir(of: listener(0, old))?.chain }
        }
        #expect(heir(2, [listener(5, 0), listener(6, 2), listener(7, 3)]) == 6)
        #expect(heir(2, [listener(5, 0), listener(7, 3)]) == 5)
        #expect(heir(2, [listener(7, 3)]) == nil)
        #expect(heir(0, [listener(7, 3)]) == nil)
        let queue = listener(1, 2).queue(for: listener(5, 0))
        #expect(queue.chain == 5 && queue.interface == 2)
    }

    @Test("where a worker's own listeners are is known by address and port, and asked where one is at every address")
    func ownPlaces() {
        let host = IPAddress(high: 0x2001_0DB8 << 32, low: 1)
        let other = IPAddress(high: 0x2001_0DB8 << 32, low: 2)
        let v4 = IPAddress(v4: 0xC000_0201)
        let places = OwnPlaces([
            Endpoint(host, 443), Endpoint(.unspecified, 80), Endpoint(.unspecifiedV4, 81), Endpoint(v4, 443),
        ])
        let now = Instant(nanoseconds: 5_000_000_000)
        var kernel = QuietKernel()
        func has(_ address: IPAddress, _ port: UInt16, at now: Instant, own: Bool = true) -> Bool {
            kernel.ownsAll = own
            return places.contains(Endpoint(address, port), at: now, &kernel)
        }
        holds(has(host, 443, at: now) && has(v4, 443, at: now) && !has(other, 443, at: now) && !has(host, 444, at: now))
        holds(kernel.asked == 0)
        holds(has(host, 80, at: now) && !has(other, 80, at: now, own: false) && kernel.asked == 2)
        holds(!has(v4, 80, at: now) && has(v4, 81, at: now) && !has(host, 81, at: now) && kernel.asked == 3)
        // The answer is good for a second.
        holds(has(host, 80, at: now, own: false) && kernel.asked == 3)
        holds(!has(host, 80, at: now + .seconds(2), own: false) && kernel.asked == 4)
    }
}

/// Control's side, and all that a worker needs to be one.
private final class Desk {
    let mailbox = Mailbox(wakeDescriptor: .none)
    private let ring = RecordRing(capacity: 16)
    private let counters = UnsafeMutablePointer<WorkerCounters>.allocate(capacity: 1)
    private let table = UnsafeMutableRawPointer.allocate(byteCount: 1, alignment: 1)
    private let program = Program(
        node: NodeSettings(), chains: [Chain(name: "test", stages: [])], listeners: [], exposes: [], catalog: [])
    private var snapshots: [UnsafeMutablePointer<Snapshot>] = []
    private var updates: [UnsafeMutablePointer<WorkerUpdate>] = []

    init() { counters.initialize(to: WorkerCounters(reasons: 64)) }
    deinit {
        for update in updates {
            update.pointee.deallocate()
            update.deallocate()
        }
        for snapshot in snapshots { snapshot.deallocate() }
        table.deallocate()
        counters.deinitialize(count: 1)
        counters.deallocate()
    }

    static func listener(_ number: Int) -> WorkerListener {
        let endpoint = Endpoint(IPAddress(high: 0x2001_0DB8 << 32, low: UInt64(number)), 443)
        return WorkerListener(
            descriptor: Descriptor(Int32(1000 + number)),
            spec: ListenerSpec(endpoint: endpoint, hint: .tcpRaw, chain: 0, line: 1), bound: endpoint, index: 0)
    }

    func worker(_ listeners: [WorkerListener]) throws -> Worker<QuietKernel> {
        let worker = Worker(
            kernel: QuietKernel(), settings: NodeSettings(),
            limits: WorkerLimits(connections: 4, blocks: 4, pipes: 1, idleSockets: 0), index: 0, listeners: listeners,
            snapshot: snapshot(), counters: UnsafePointer(counters), ring: ring, mailbox: mailbox)
        guard let worker else { throw NoMemory() }
        return worker
    }

    private func snapshot() -> UnsafePointer<Snapshot> {
        let memory = UnsafeMutablePointer<Snapshot>.allocate(capacity: 1)
        memory.initialize(
            to: Snapshot(
                program: program, routes: RouteTableHandle(Nowhere.self, table: UnsafeRawPointer(table)),
                generation: UInt64(snapshots.count + 1)))
        snapshots.append(memory)
        return UnsafePointer(memory)
    }

    func publish(_ listeners: [WorkerListener]) {
        let memory = UnsafeMutablePointer<WorkerUpdate>.allocate(capacity: 1)
        memory.initialize(to: WorkerUpdate(snapshot: snapshot(), listeners: FrozenArray(listeners)))
        updates.append(memory)
        mailbox.publish(UnsafePointer(memory))
    }
}

private enum Nowhere: RouteLookup {
    static func named(
        _ name: UnsafeBufferPointer<UInt8>, at destination: DestinationAddress, in table: UnsafeRawPointer
    ) -> FoundRoute? { nil }
    static func sole(at destination: DestinationAddress, in table: UnsafeRawPointer) -> FoundRoute? { nil }
}

/// A kernel in which nobody comes and nothing happens.
private struct QuietKernel: Kernel {
    /// The places that were watched, in order; how many were unwatched, and how many listeners are taken.
    private(set) var watched: [Int] = []
    private(set) var unwatched = 0
    private(set) var taken = 0
    private var next: Int32 = 10
    /// How often it was asked whose an address is, and what it says.
    private(set) var asked = 0
    var ownsAll = false

    func now() -> Instant { Instant(nanoseconds: 5_000_000_000) }
    func wallClock() -> UInt64 { 0 }
    mutating func take(_ listener: Descriptor) -> Outcome {
        taken += 1
        next += 1
        return Outcome(Int(next))
    }
    mutating func stopListening(_ listener: Descriptor) { taken -= 1 }
    mutating func letGo(_ listener: Descriptor) { taken -= 1 }
    func accept(_ listener: Descriptor, _ accepted: inout Accepted) -> Outcome { none }
    func refuse(_ listener: Descriptor, _ peer: inout Endpoint) -> Outcome { none }
    func localAddress(_ descriptor: Descriptor) -> Endpoint? { nil }
    func originalDestination(_ descriptor: Descriptor) -> Endpoint? { nil }
    func interface(of descriptor: Descriptor) -> UInt32 { 0 }
    mutating func isOwn(_ address: IPAddress) -> Bool {
        asked += 1
        return ownsAll
    }
    func connect(_ backend: BackendAddress, _ way: UpstreamWay, on idle: Descriptor) -> Outcome { none }
    func guardAgainstDeath(_ descriptor: Descriptor) {}
    func capBuffers(_ descriptor: Descriptor) {}
    func silence(of descriptor: Descriptor) -> PeerSilence? { nil }
    func probe(_ descriptor: Descriptor, every longest: TimeSpan?) {}
    func pendingError(_ descriptor: Descriptor) -> Int32 { 0 }
    func receive(_ descriptor: Descriptor, _ buffer: UnsafeMutableRawBufferPointer) -> Outcome { none }
    func peek(_ descriptor: Descriptor, _ buffer: UnsafeMutableRawBufferPointer) -> Outcome { none }
    func discard(_ descriptor: Descriptor, _ count: Int) -> Outcome { none }
    func send(_ descriptor: Descriptor, _ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer) -> Outcome {
        none
    }
    func setLowWater(_ descriptor: Descriptor, _ bytes: Int) {}
    func splice(_ from: Descriptor, _ to: Descriptor, _ count: Int, more: Bool) -> Outcome { none }
    func pacedSegment(_ descriptor: Descriptor) -> Int? { nil }
    func makePipe(capacity: Int, writeEnd: inout Descriptor) -> Outcome { none }
    func shutdownWrite(_ descriptor: Descriptor) {}
    func close(_ descriptor: Descriptor) {}
    func closeWithReset(_ descriptor: Descriptor) {}
    func isDelivered(_ descriptor: Descriptor) -> Bool { true }
    func disconnect(_ descriptor: Descriptor) -> Bool { false }
    func watch(_ descriptor: Descriptor, _ key: EventKey) -> Outcome { Outcome(0) }
    mutating func watchLevel(_ descriptor: Descriptor, _ key: EventKey) -> Outcome {
        watched.append(key.index)
        return Outcome(0)
    }
    mutating func unwatch(_ descriptor: Descriptor) { unwatched += 1 }
    func wake(workersAt place: Int) {}
    func wait(_ events: UnsafeMutableBufferPointer<Event>, timeout: TimeSpan?) -> Int { 0 }

    private var none: Outcome { Outcome(-Int(ErrorNumber.again)) }
}
