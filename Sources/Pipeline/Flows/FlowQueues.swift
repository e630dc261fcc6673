import Synchronization

/// The flow queues of a node: one per accounting worker, one for conntrack, and one reader. The supervisor makes them
/// and lends them to stages (``Services``).
///
/// Threading: ``claim(_:)`` and ``release(_:rest:)`` by any thread, ``drain(into:limit:)`` by one.
public final class FlowQueues: Sendable {
    /// The origin of conntrack's records.
    public static let conntrack = UInt16.max

    private struct Members: @unchecked Sendable {
        var all: [UnsafeMutablePointer<FlowQueue>] = []
        var free: [UnsafeMutablePointer<FlowQueue>] = []
        var flows: [Int: UnsafeMutablePointer<WorkerFlows>] = [:]
        /// Overflow left by finished writers, in the order of each one's sequence.
        var rest: [FlowRecord] = []
        /// How many of those records were aggregated.
        var aggregations = 0

        /// The ring of such a queue waits, so that it does not overtake the overflow.
        func hasRest(of queue: UnsafeMutablePointer<FlowQueue>) -> Bool {
            rest.contains { $0.origin == queue.pointee.origin }
        }
    }

    private let queues = Mutex(Members())
    private let capacity: Int
    private let mostRest: Int

    /// - Parameters:
    ///   - capacity: records that a queue holds at most; a power of two.
    ///   - mostRest: the most overflow records; further ones are aggregated (R27).
    public init(capacity: Int = 32768, mostRest: Int = 1 << 18) {
        self.capacity = capacity
        self.mostRest = mostRest
    }

    deinit {
        queues.withLock { queues in
            for flows in queues.flows.values {
                flows.pointee.table.deallocate()
                flows.deinitialize(count: 1)
                flows.deallocate()
            }
            for queue in queues.all {
                queue.deinitialize(count: 1)
                queue.deallocate()
            }
        }
    }

    /// Claims a queue for one writer. Valid until it is released, and as long as the queues.
    /// - Returns: nil when all origins are taken, or there is no memory for it.
    public func claim(_ origin: UInt16? = nil) -> UnsafeMutablePointer<FlowQueue>? {
        queues.withLock { queues in
            let isFit = { (queue: UnsafeMutablePointer<FlowQueue>) in
                origin.map { $0 == queue.pointee.origin }
                    ?? (queue.pointee.origin != FlowQueues.conntrack && !queues.hasRest(of: queue))
            }
            if let place = queues.free.lastIndex(where: isFit) { return queues.free.remove(at: place) }
            if let origin, queues.all.contains(where: { $0.pointee.origin == origin }) { return nil }
            guard queues.all.count < Int(FlowQueues.conntrack) else { return nil }
            let number = origin ?? UInt16(truncatingIfNeeded: queues.all.count)
            guard let made = FlowQueue(origin: number, capacity: capacity) else { return nil }
            let queue = UnsafeMutablePointer<FlowQueue>.allocate(capacity: 1)
            queue.initialize(to: made)
            queues.all.append(queue)
            return queue
        }
    }

    /// Releases a queue. Its sequence continues with the next writer.
    /// - Parameter rest: the writer's remaining records, which are kept.
    public func release(_ queue: UnsafeMutablePointer<FlowQueue>, rest: [FlowRecord]) {
        hand(over: rest, from: queue)
        queues.withLock { $0.free.append(queue) }
    }

    func madeFlows(of worker: Int) -> UnsafeMutablePointer<WorkerFlows>? { queues.withLock { $0.flows[worker] } }
    func keep(_ flows: UnsafeMutablePointer<WorkerFlows>, of worker: Int) {
        queues.withLock { $0.flows[worker] = flows }
    }

    /// Takes the overflow of a finished writer. Not for the data path: it locks and allocates.
    public func hand(over rest: [FlowRecord], from queue: UnsafeMutablePointer<FlowQueue>) {
        guard !rest.isEmpty else { return }
        let numbered = rest.map { queue.pointee.number($0) }
        // Later records wait until the reader has taken these.
        queue.pointee.pause()
        queues.withLock { queues in
            queues.rest.append(contentsOf: numbered)
            guard queues.rest.count > mostRest else { return }
            let before = queues.rest.count
            queues.rest = FlowQueues.aggregated(queues.rest) { $0.withoutDestination }
            if queues.rest.count > mostRest { queues.rest = FlowQueues.aggregated(queues.rest) { $0.withoutInstance } }
            queues.aggregations += 1
            queue.pointee.noteAggregated(UInt64(before - queues.rest.count))
        }
    }

    /// Merges records of one origin whose shortened keys are equal, under their highest sequence number.
    private static func aggregated(_ records: [FlowRecord], by shorter: (FlowKey) -> FlowKey) -> [FlowRecord] {
        var sums: [UInt16: [FlowKey: FlowRecord]] = [:]
        for record in records {
            var sum = record
            sum.key = shorter(record.key)
            if let before = sums[record.origin]?[sum.key] { sum.add(before) }
            sums[record.origin, default: [:]][sum.key] = sum
        }
        return sums.values.flatMap(\.values).sorted { $0.sequence < $1.sequence }
    }

    /// Appends at most `limit` records, in the order of each queue's sequence.
    public func drain(into records: inout [FlowRecord], limit: Int) {
        let (all, rest, aggregations) = queues.withLock { queues in (queues.all, queues.rest.count, queues.aggregations)
        }
        var room = limit
        for queue in all {
            while room > 0, let record = queue.pointee.pop() {
                records.append(record)
                room -= 1
            }
        }
        // After the rings: overflow has higher numbers than its queue's ring.
        guard room > 0, rest > 0 else { return }
        queues.withLock { queues in
            // Records aggregated meanwhile may have higher numbers than those in the ring.
            guard queues.aggregations == aggregations else { return }
            let count = min(rest, room)
            records.append(contentsOf: queues.rest.prefix(count))
            queues.rest.removeFirst(count)
            for queue in queues.all where queue.pointee.isPaused && !queues.hasRest(of: queue) {
                queue.pointee.resume()
            }
        }
    }

    /// Keys that were aggregated because a table was full (R27).
    public var aggregatedKeys: UInt64 {
        queues.withLock { queues in queues.all.reduce(0) { $0 &+ $1.pointee.aggregatedKeys } }
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
