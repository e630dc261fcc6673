import Synchronization

/// Where the flow records of a node come together: a lane for each worker that accounts, one for conntrack, and one
/// reader. Events never come here. The supervisor makes a node's, and lends it to stages (``Services``).
///
/// Threading: ``claim(_:)`` and ``release(_:rest:)`` by any thread, ``drain(into:limit:)`` by one.
public final class FlowSink: Sendable {
    /// The origin of what conntrack counted.
    public static let conntrack = UInt16.max

    private struct Lanes: @unchecked Sendable {
        var all: [UnsafeMutablePointer<FlowLane>] = []
        var free: [UnsafeMutablePointer<FlowLane>] = []
        var flows: [Int: UnsafeMutablePointer<WorkerFlows>] = [:]
        /// Of writers that ended with more than their ring had room for, in the order of each one's sequence.
        var rest: [FlowRecord] = []
        /// How often some of that was counted together.
        var foldings = 0

        /// Such a lane waits: what it writes next would overtake what is to come before.
        func hasRest(of lane: UnsafeMutablePointer<FlowLane>) -> Bool {
            rest.contains { $0.origin == lane.pointee.origin }
        }
    }

    private let lanes = Mutex(Lanes())
    private let capacity: Int
    private let mostRest: Int

    /// - Parameters:
    ///   - capacity: records that a lane holds at most; a power of two.
    ///   - mostRest: records that wait outside of rings at most; what is more is counted together (R27).
    public init(capacity: Int = 32768, mostRest: Int = 1 << 18) {
        self.capacity = capacity
        self.mostRest = mostRest
    }

    deinit {
        lanes.withLock { lanes in
            for flows in lanes.flows.values {
                flows.pointee.table.deallocate()
                flows.deinitialize(count: 1)
                flows.deallocate()
            }
            for lane in lanes.all {
                lane.deinitialize(count: 1)
                lane.deallocate()
            }
        }
    }

    /// A lane that nobody else writes to. Valid until it is given back, and as long as the sink.
    /// - Returns: nil when all origins are taken, or there is no memory for it.
    public func claim(_ origin: UInt16? = nil) -> UnsafeMutablePointer<FlowLane>? {
        lanes.withLock { lanes in
            let isFit = { (lane: UnsafeMutablePointer<FlowLane>) in
                origin.map { $0 == lane.pointee.origin }
                    ?? (lane.pointee.origin != FlowSink.conntrack && !lanes.hasRest(of: lane))
            }
            if let place = lanes.free.lastIndex(where: isFit) { return lanes.free.remove(at: place) }
            if let origin, lanes.all.contains(where: { $0.pointee.origin == origin }) { return nil }
            guard lanes.all.count < Int(FlowSink.conntrack) else { return nil }
            let number = origin ?? UInt16(truncatingIfNeeded: lanes.all.count)
            guard let made = FlowLane(origin: number, capacity: capacity) else { return nil }
            let lane = UnsafeMutablePointer<FlowLane>.allocate(capacity: 1)
            lane.initialize(to: made)
            lanes.all.append(lane)
            return lane
        }
    }

    /// Gives a lane back. Its sequence goes on with the next who claims it.
    /// - Parameter rest: what the writer still has; nothing of it is lost.
    public func release(_ lane: UnsafeMutablePointer<FlowLane>, rest: [FlowRecord]) {
        hand(over: rest, from: lane)
        lanes.withLock { $0.free.append(lane) }
    }

    func madeFlows(of worker: Int) -> UnsafeMutablePointer<WorkerFlows>? { lanes.withLock { $0.flows[worker] } }
    func keep(_ flows: UnsafeMutablePointer<WorkerFlows>, of worker: Int) {
        lanes.withLock { $0.flows[worker] = flows }
    }

    /// Takes what a writer that ends can't put into its ring. Not for events: it waits and allocates.
    public func hand(over rest: [FlowRecord], from lane: UnsafeMutablePointer<FlowLane>) {
        guard !rest.isEmpty else { return }
        let numbered = rest.map { lane.pointee.number($0) }
        // What comes later waits until the reader has this.
        lane.pointee.hold()
        lanes.withLock { lanes in
            lanes.rest.append(contentsOf: numbered)
            guard lanes.rest.count > mostRest else { return }
            let before = lanes.rest.count
            lanes.rest = FlowSink.folded(lanes.rest) { $0.withoutDestination }
            if lanes.rest.count > mostRest { lanes.rest = FlowSink.folded(lanes.rest) { $0.withoutInstance } }
            lanes.foldings += 1
            lane.pointee.noteFolded(UInt64(before - lanes.rest.count))
        }
    }

    /// Records of one origin whose keys are then the same, as one: with the highest of their numbers, so that a reader that
    /// has had none of them takes it.
    private static func folded(_ records: [FlowRecord], by shorter: (FlowKey) -> FlowKey) -> [FlowRecord] {
        var sums: [UInt16: [FlowKey: FlowRecord]] = [:]
        for record in records {
            var sum = record
            sum.key = shorter(record.key)
            if let before = sums[record.origin]?[sum.key] { sum.add(before) }
            sums[record.origin, default: [:]][sum.key] = sum
        }
        return sums.values.flatMap(\.values).sorted { $0.sequence < $1.sequence }
    }

    /// Appends what is there, at most `limit` records, in the order of each lane's sequence.
    public func drain(into records: inout [FlowRecord], limit: Int) {
        let (all, rest, foldings) = lanes.withLock { lanes in (lanes.all, lanes.rest.count, lanes.foldings) }
        var room = limit
        for lane in all {
            while room > 0, let record = lane.pointee.pop() {
                records.append(record)
                room -= 1
            }
        }
        // After the rings: what is handed over has the higher numbers of its lane.
        guard room > 0, rest > 0 else { return }
        lanes.withLock { lanes in
            // What was counted together meanwhile may have higher numbers than what a ring got meanwhile.
            guard lanes.foldings == foldings else { return }
            let count = min(rest, room)
            records.append(contentsOf: lanes.rest.prefix(count))
            lanes.rest.removeFirst(count)
            for lane in lanes.all where lane.pointee.isHeld && !lanes.hasRest(of: lane) { lane.pointee.letGo() }
        }
    }

    /// Keys that were counted together with others, because a table had no room for them (R27).
    public var foldedKeys: UInt64 {
        lanes.withLock { lanes in lanes.all.reduce(0) { $0 &+ $1.pointee.foldedKeys } }
    }
}

extension FlowKey {
    /// As ``FlowTable`` shortens it when it is full.
    fileprivate var withoutDestination: FlowKey {
        FlowKey(instance: instance, source: source, destination: .unspecified, port: 0, proto: proto)
    }
    fileprivate var withoutInstance: FlowKey {
        FlowKey(instance: .max, source: .unspecified, destination: .unspecified, port: 0, proto: proto)
    }
}

extension FlowRecord {
    /// Growth of the same flow from before.
    fileprivate mutating func add(_ before: FlowRecord) {
        connections &+= before.connections
        bytesOut &+= before.bytesOut
        bytesIn &+= before.bytesIn
        firstSeen = min(firstSeen, before.firstSeen)
        lastSeen = max(lastSeen, before.lastSeen)
        sequence = max(sequence, before.sequence)
    }
}
