import CLinux
import Pipeline
import PipelineThreads
import Synchronization

/// The journal of a node (R25): every change applied, held, rejected or rolled back, and every act of an operator.
///
/// Appending never waits for a disk: a thread of the journal's own writes what waits at once, and flushes it a moment
/// later, with what came since: a disk that syncs a line behind each change has less time for the changes. While it
/// can't (a full disk, one that stands still), entries wait in memory up to a bound; then the newest are lost, counted,
/// and named by a line of their own once it can (R27).
///
/// Threading: ``append(_:)``, ``keep(_:)`` and ``counts`` from any thread; opened and finished by one owner.
package final class Journal: @unchecked Sendable {
    package struct Counts: Sendable, Equatable {
        /// The number and the hash of the last line on disk, and its file; nil: none was written yet.
        package var last: (number: UInt64, hash: String, file: UInt64)?
        /// Entries on disk since this was opened, and lost for want of room.
        package var written: UInt64 = 0
        package var lost: UInt64 = 0
        package var waiting = 0
        /// Why it can't be written; nil: it can.
        package var fault: String?

        package static func == (a: Counts, b: Counts) -> Bool {
            a.last?.hash == b.last?.hash && a.written == b.written && a.lost == b.lost && a.waiting == b.waiting
                && a.fault == b.fault
        }
    }

    private struct Queue {
        var items: [JournalItem] = []
        /// Bytes that they take, about.
        var weight = 0
        /// Entries since the last one that found room.
        var lost: UInt64 = 0
        /// Entries that were written and are not flushed.
        var unflushed = 0
        var limits: JournalLimits
        var counts = Counts()

        init(_ limits: JournalLimits) { self.limits = limits }

        mutating func add(_ item: JournalItem) {
            items.append(item)
            weight += item.weight
        }

        mutating func add(first others: [JournalItem]) {
            items = others + items
            weight += others.reduce(0) { $0 + $1.weight }
        }

        mutating func remove(_ count: Int) {
            weight -= items.prefix(count).reduce(0) { $0 + $1.weight }
            items.removeFirst(min(count, items.count))
        }
    }

    /// What waits, at most: entries, and bytes of them.
    static let itemLimit = 16384
    static let weightLimit = 8 << 20
    private static let batch = 1024
    /// What was written is on disk so long after, at most, if the disk takes it.
    private static let flushPause = TimeSpan.milliseconds(200)
    /// More entries are not left without a flush.
    private static let mostUnflushed = 4096
    private static let shortestRetry = TimeSpan.milliseconds(100)
    private static let longestRetry = TimeSpan.seconds(1)
    private static let stackBytes = 1 << 19

    private let parent: String
    private let loop: ThreadLoop
    private let queue: Mutex<Queue>
    private let say: @Sendable (JournalNotice) -> Void
    // The thread's own.
    private var store: JournalStore?
    private var applied: JournalLimits?
    private var retryAt: Instant?
    private var backoff = Journal.shortestRetry
    private var lostBefore: UInt64 = 0
    /// Written, and not flushed; and when they are to be.
    private var unflushed: [JournalItem] = []
    private var flushAt: Instant?

    /// Starts the thread, which opens the files: what it finds there it says, and what it can't open it tries again.
    /// - Parameters:
    ///   - parent: the data directory, which has or gets a folder `journal`.
    ///   - say: called on the journal's thread; must not wait.
    /// - Throws: if the kernel gives no thread.
    package static func open(
        in parent: String, _ limits: JournalLimits, say: @escaping @Sendable (JournalNotice) -> Void
    ) throws(JournalFault) -> Journal {
        let (made, error) = ThreadLoop.make()
        guard let loop = made else { throw JournalFault("can't start the journal: eventfd: \(kernelError(error))") }
        let journal = Journal(parent, limits, loop, say)
        let failed = loop.start("journal", stackBytes: stackBytes) { journal.iterate() }
        guard failed == 0 else {
            throw JournalFault("can't start the journal: pthread_create: \(kernelError(failed))")
        }
        return journal
    }

    private init(
        _ parent: String, _ limits: JournalLimits, _ loop: ThreadLoop,
        _ say: @escaping @Sendable (JournalNotice) -> Void
    ) {
        self.parent = parent
        self.loop = loop
        self.say = say
        queue = Mutex(Queue(limits))
    }

    /// Its folder.
    package var path: String { parent + "/journal" }

    package var counts: Counts {
        queue.withLock { queue in
            var counts = queue.counts
            counts.waiting = queue.items.count + queue.unflushed
            return counts
        }
    }

    /// Keeps an act, with the time of now.
    package func append(_ entry: JournalEntry) {
        let (entry, time) = (entry.bounded, cl_wall_clock())
        let isTaken = queue.withLock { queue in
            guard queue.items.count < Journal.itemLimit, queue.weight + entry.weight <= Journal.weightLimit else {
                queue.lost += 1
                queue.counts.lost += 1
                return false
            }
            if queue.lost > 0 { queue.add(.gap(lost: queue.lost, time: time)) }
            queue.lost = 0
            queue.add(.entry(entry, time: time))
            return true
        }
        if isTaken { loop.wake() }
    }

    /// Other sizes, from the next batch on.
    package func keep(_ limits: JournalLimits) {
        queue.withLock { $0.limits = limits }
        loop.wake()
    }

    /// Writes what waits, and ends the thread.
    /// - Returns: false if that took longer, or can't be done: what still waits is lost.
    package func finish(patience: TimeSpan) -> Bool {
        loop.stop(patience: patience) && counts.waiting == 0
    }

    // MARK: The thread

    private func iterate() -> ThreadLoop.Next {
        // Read before the queue, so that what came earlier is written.
        let isLast = loop.isEnding
        if let due = retryAt, due > Instant(nanoseconds: cl_now()), !isLast { return .wait(until: due) }
        do throws(JournalFault) {
            // First: a disk that takes no more may still have what it took.
            if let due = flushAt, due <= Instant(nanoseconds: cl_now()) { try flush() }
            try writeAll()
            if isLast { try flush() }
            recovered()
        } catch {
            failed(error)
        }
        guard !isLast else {
            store = nil
            return .over
        }
        return .wait(until: [retryAt, flushAt].compactMap { $0 }.min())
    }

    private func writeAll() throws(JournalFault) {
        let limits = queue.withLock { $0.limits }
        let store = try opened(limits)
        while true {
            let items = queue.withLock { queue in
                if queue.items.isEmpty, queue.lost > 0 {
                    queue.add(.gap(lost: queue.lost, time: cl_wall_clock()))
                    queue.lost = 0
                }
                return Array(queue.items.prefix(Journal.batch))
            }
            guard !items.isEmpty else { return }
            let count = try store.write(items[...])
            guard count > 0 else {
                guard store.isUnflushed else { throw JournalFault("a line has no room in a file of \(path)") }
                try flush()
                continue
            }
            unflushed += items.prefix(count)
            queue.withLock { queue in
                queue.remove(count)
                queue.unflushed = unflushed.count
            }
            flushAt = flushAt ?? Instant(nanoseconds: cl_now()) + Journal.flushPause
            if unflushed.count >= Journal.mostUnflushed { try flush() }
        }
    }

    /// What was written counts as written. What can't be flushed waits again, before all others.
    private func flush() throws(JournalFault) {
        guard let store else { return }
        let items = unflushed
        (unflushed, flushAt) = ([], nil)
        try store.flush { what in
            queue.withLock { queue in
                queue.unflushed = 0
                if what == .takenBack { queue.add(first: items) }
            }
        }
        let last = store.last
        queue.withLock { queue in
            queue.unflushed = 0
            queue.counts.written += UInt64(items.count)
            queue.counts.last = last.map { ($0.number, $0.hash.description, $0.file) }
        }
        if let fault = store.headFault { throw fault }
    }

    private func opened(_ limits: JournalLimits) throws(JournalFault) -> JournalStore {
        let store: JournalStore
        if let open = self.store { store = open } else { store = try JournalStore(in: parent, limits, say: say) }
        self.store = store
        if applied != limits {
            store.limits = limits
            try store.prune()
            applied = limits
        }
        return store
    }

    private func failed(_ fault: JournalFault) {
        let isNews = queue.withLock { queue in
            defer { queue.counts.fault = fault.description }
            return queue.counts.fault == nil
        }
        retryAt = Instant(nanoseconds: cl_now()) + backoff
        backoff = min(Journal.longestRetry, TimeSpan(nanoseconds: backoff.nanoseconds * 2))
        guard isNews else { return }
        lostBefore = counts.lost
        say(
            JournalNotice(
                event: "journal_failed",
                message:
                    "\(fault); the node goes on; entries of the journal wait in memory, and when it is full they are "
                    + "lost and counted; the node tries again"))
    }

    private func recovered() {
        (retryAt, backoff) = (nil, Journal.shortestRetry)
        let (wasFailing, lost) = queue.withLock { queue in
            defer { queue.counts.fault = nil }
            return (queue.counts.fault != nil, queue.counts.lost)
        }
        guard wasFailing else { return }
        let missing = lost - lostBefore
        say(
            JournalNotice(
                event: "journal_recovered",
                message: "the journal \(path) is written again; \(missing) entries were lost meanwhile"
                    + (missing > 0 ? ", and a line of it says so" : "")))
    }
}

extension JournalItem {
    fileprivate var weight: Int {
        switch self {
        case .entry(let entry, _): entry.weight
        case .gap: 128
        }
    }
}
