import Pipeline

/// A lock-free ring of ended connections: one worker writes, the log thread reads. When it is full, the newest record
/// is dropped and counted (R27). Refused connections may use half of it, so that a flood of them drops no relayed
/// connection's line.
package final class RecordRing: @unchecked Sendable {
    private let memory: UnsafeMutablePointer<ConnectionRecord>
    private let ring: Ring<ConnectionRecord>

    /// - Parameter capacity: how many records wait at most; a power of two, 2 at least.
    package init(capacity: Int = 2048) {
        precondition(capacity > 1)
        memory = .allocate(capacity: capacity)
        ring = Ring(memory, capacity: capacity)
    }

    deinit { memory.deallocate() }

    /// The worker's side. False if the reader is too far behind.
    package func push(_ record: ConnectionRecord) -> Bool {
        ring.push(record, room: record.isRelayed ? ring.capacity : ring.capacity / 2)
    }

    /// The reader's side: the oldest record, or nil.
    package func pop() -> ConnectionRecord? { ring.pop() }
}
