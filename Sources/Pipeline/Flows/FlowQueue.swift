import Glibc
import Pipeline
import Synchronization

/// A queue of flow records from one writer to the control side: a bounded lock-free ring, one writer, one reader.
///
/// Threading: ``push(_:)`` and ``origin`` by the writer that claimed the queue, the rest by the reader. Ownership: the
/// ``FlowQueues``.
public struct FlowQueue: ~Copyable {
    private let memory: UnsafeMutablePointer<FlowRecord>
    private let ring: Ring<FlowRecord>
    /// Overflow of this queue has not been read yet; it has lower sequence numbers than new records.
    private let paused = Atomic<Bool>(false)
    /// Keys that were aggregated for lack of room, see ``FlowTable``.
    private let aggregated = Atomic<UInt64>(0)
    /// The origin of every record of this queue.
    public let origin: UInt16
    /// The writer's; it continues when the queue is claimed again.
    private var sequence: UInt64 = 0

    /// - Parameter capacity: a power of two.
    /// - Returns: nil if the system has no memory for it.
    init?(origin: UInt16, capacity: Int) {
        guard let memory = malloc(capacity * MemoryLayout<FlowRecord>.stride) else { return nil }
        self.origin = origin
        self.memory = memory.bindMemory(to: FlowRecord.self, capacity: capacity)
        ring = Ring(self.memory, capacity: capacity)
    }

    deinit { free(memory) }

    func pause() { paused.store(true, ordering: .relaxed) }
    func resume() { paused.store(false, ordering: .releasing) }
    var isPaused: Bool { paused.load(ordering: .relaxed) }

    /// The writer's side: numbers the record and pushes it. False if the ring is full: the writer keeps the record, and
    /// no number is used.
    public mutating func push(_ record: FlowRecord) -> Bool {
        guard !paused.load(ordering: .acquiring) else { return false }
        guard ring.push(next(record)) else { return false }
        sequence &+= 1
        return true
    }

    /// The writer's side: numbers a record that does not go through the ring.
    mutating func number(_ record: FlowRecord) -> FlowRecord {
        defer { sequence &+= 1 }
        return next(record)
    }

    /// The record with the next number.
    private func next(_ record: FlowRecord) -> FlowRecord {
        var numbered = record
        numbered.origin = origin
        numbered.sequence = sequence &+ 1
        return numbered
    }

    /// The writer's side.
    public func noteAggregated(_ count: UInt64) {
        aggregated.store(aggregated.load(ordering: .relaxed) &+ count, ordering: .relaxed)
    }
    var aggregatedKeys: UInt64 { aggregated.load(ordering: .relaxed) }

    /// The reader's side: the oldest record, or nil.
    func pop() -> FlowRecord? { ring.pop() }
}
