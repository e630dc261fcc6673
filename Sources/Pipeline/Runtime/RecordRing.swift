import Pipeline
import Synchronization

/// Ended connections on their way to the log: one worker writes, one thread reads, nobody waits. When it is full the
/// newest record is dropped, and counted by the writer (R27). Refused connections have half of it, so that a flood of
/// them costs no relayed one its line.
package final class RecordRing: @unchecked Sendable {
    private let records: UnsafeMutableBufferPointer<ConnectionRecord>
    private let written = Atomic<Int>(0)
    private let read = Atomic<Int>(0)

    /// - Parameter capacity: how many records wait at most; a power of two, 2 at least.
    package init(capacity: Int = 2048) {
        precondition(capacity > 1 && capacity & (capacity - 1) == 0)
        records = .allocate(capacity: capacity)
    }

    deinit { records.deallocate() }

    /// The worker's side. False if the reader is too far behind.
    package func push(_ record: ConnectionRecord) -> Bool {
        let head = written.load(ordering: .relaxed)
        let room = record.isRelayed ? records.count : records.count / 2
        guard head &- read.load(ordering: .acquiring) < room else { return false }
        (records.baseAddress.unsafelyUnwrapped + (head & (records.count - 1))).initialize(to: record)
        written.store(head &+ 1, ordering: .releasing)
        return true
    }

    /// The reader's side: the oldest record, or nil.
    package func pop() -> ConnectionRecord? {
        let tail = read.load(ordering: .relaxed)
        guard tail != written.load(ordering: .acquiring) else { return nil }
        let record = records[tail & (records.count - 1)]
        read.store(tail &+ 1, ordering: .releasing)
        return record
    }
}
