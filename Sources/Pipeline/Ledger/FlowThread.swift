import CLinux
import FilterEgressAccounting
import Pipeline
import PipelineFlows
import PipelineThreads
import Synchronization

/// An open ledger without a writer yet. It is handed to one ``FlowThread``.
package struct OpenedLedger: @unchecked Sendable {
    fileprivate let store: LedgerStore

    /// An operator is present to read the error, so a file that is not a ledger is not set aside.
    package init(_ settings: LedgerSettings, say: @escaping @Sendable (LedgerEvent) -> Void) throws(LedgerProblem) {
        store = try LedgerStore(settings, replacesDamaged: false, say: say)
    }
}

/// Takes flow records from the queues once a second and writes them to the ledger, in one transaction. While the ledger
/// can't be written, records wait here, then in the rings, then in the workers' tables: detail may be lost, sums are
/// not.
///
/// Threading: made, and stopped once, by its owner.
package final class FlowThread: @unchecked Sendable {
    private static let stackBytes = 1 << 20
    private static let period = TimeSpan.seconds(1)
    /// The records of a batch, and the most that wait here.
    private static let batchLimit = 65536

    private let queues: FlowQueues
    private let identity: LedgerStore.Identity
    private let alsoTo: ([FlowRecord]) -> Void
    private let eachTick: () -> Void
    private let loop: ThreadLoop
    private var settings: LedgerSettings?
    private let say: (LedgerEvent) -> Void
    private var store: LedgerStore?
    /// When opening is tried again; seconds since 1970.
    private var opensAt: Int64 = 0
    private static let openAgainAfter: Int64 = 30
    private var pending: [FlowRecord] = []
    private let wishes = Mutex(Wishes())
    private let written = Atomic<UInt64>(0)
    private let waiting = Atomic<Int>(0)
    private let writtenAt = Atomic<UInt64>(0)

    /// The ledger for the next iteration on.
    private struct Wish: @unchecked Sendable {
        let settings: LedgerSettings?
        /// The opened ledger; nil: none, or the current one.
        let store: LedgerStore?
    }
    private struct Wishes {
        var next: Wish?
        var given = 0
        var done = 0
    }

    /// Records that are in the ledger.
    package var recordsWritten: UInt64 { written.load(ordering: .relaxed) }
    /// Records taken but not in the ledger yet; they grow while it can't be written.
    package var recordsWaiting: Int { waiting.load(ordering: .relaxed) }
    /// When records were last written: nanoseconds since 1970, 0 for never.
    package var lastWrite: UInt64 { writtenAt.load(ordering: .relaxed) }

    private init(
        _ settings: LedgerSettings?, _ store: LedgerStore?, _ queues: FlowQueues, _ loop: ThreadLoop,
        identity: @escaping LedgerStore.Identity, alsoTo: @escaping ([FlowRecord]) -> Void,
        eachTick: @escaping () -> Void, say: @escaping (LedgerEvent) -> Void
    ) {
        self.settings = settings
        self.store = store
        self.say = say
        self.queues = queues
        self.loop = loop
        self.identity = identity
        self.alsoTo = alsoTo
        self.eachTick = eachTick
    }

    /// Starts the thread. The closures are called on it.
    /// - Parameters:
    ///   - settings: nil: no ledger; records only go to `alsoTo`.
    ///   - opened: if it is open already.
    ///   - queues: the source of records; the thread retains it.
    ///   - identity: resolves a record's source.
    ///   - alsoTo: gets every record once, soon; must not wait.
    ///   - eachTick: called once a second, after that second's records; must not wait.
    package static func start(
        _ settings: LedgerSettings?, _ opened: OpenedLedger? = nil, queues: FlowQueues,
        identity: @escaping @Sendable (UInt32, IPAddress) -> FlowNames,
        alsoTo: @escaping @Sendable ([FlowRecord]) -> Void = { _ in },
        eachTick: @escaping @Sendable () -> Void = {}, say: @escaping @Sendable (LedgerEvent) -> Void
    ) throws(LedgerProblem) -> FlowThread {
        let (loop, error) = ThreadLoop.make()
        guard let loop else { throw LedgerProblem("can't start the ledger: eventfd: \(kernelError(error))") }
        let thread = FlowThread(
            settings, opened?.store, queues, loop, identity: identity, alsoTo: alsoTo, eachTick: eachTick, say: say)
        let failed = loop.start("flows", stackBytes: stackBytes) { thread.iterate() }
        guard failed == 0 else {
            throw LedgerProblem("can't start the ledger: pthread_create: \(kernelError(failed))")
        }
        return thread
    }

    private func iterate() -> ThreadLoop.Next {
        // Read before the rings, so that earlier records are written.
        let isLast = loop.isEnding
        var isMore = true
        while isMore {
            isMore = takeRecords()
            waiting.store(pending.count, ordering: .relaxed)
        }
        eachTick()
        takeWish()
        guard !isLast else {
            store = nil
            return .over
        }
        return .wait(until: Instant(nanoseconds: cl_now()) + FlowThread.period)
    }

    /// True if there may be more to do immediately.
    private func takeRecords() -> Bool {
        let before = pending.count
        queues.drain(into: &pending, limit: FlowThread.batchLimit - before)
        if pending.count > before { alsoTo(Array(pending[before...])) }
        guard settings != nil else {
            pending.removeAll(keepingCapacity: true)
            return false
        }
        let now = Int64(cl_wall_clock() / 1_000_000_000)
        look(now)
        if store == nil, opensAt <= now { openStore(now) }
        guard !pending.isEmpty, let store, store.write(pending, identity: identity, now: now) else { return false }
        written.wrappingAdd(UInt64(pending.count), ordering: .relaxed)
        writtenAt.store(cl_wall_clock(), ordering: .relaxed)
        let wasFull = pending.count == FlowThread.batchLimit
        pending.removeAll(keepingCapacity: true)
        return wasFull
    }

    /// A missing file is recreated at once; one that can't be renamed is retried later.
    private func look(_ now: Int64) {
        store?.tick(now: now)
        guard let lost = store, lost.isLost else { return }
        store = nil
        opensAt = lost.isInTheWay ? now + FlowThread.openAgainAfter : now
    }

    // MARK: Another ledger

    /// Switches to another ledger, or to none; earlier records are written to the old one first.
    /// - Parameters:
    ///   - new: with the path as it is, only how long rows are kept changes.
    ///   - opened: nil if the path stays, or there is no ledger.
    /// - Returns: false if the thread has not switched within `patience` milliseconds; it does so as soon as it can.
    package func change(to new: LedgerSettings?, _ opened: OpenedLedger?, patience: Int = 3000) -> Bool {
        let next = Wish(settings: new, store: opened?.store)
        let number = wishes.withLock { wishes in
            wishes.next = next
            wishes.given += 1
            return wishes.given
        }
        loop.wake()
        for _ in 0..<max(1, patience / 5) {
            if wishes.withLock({ $0.done >= number }) { return true }
            cl_sleep(5_000_000)
        }
        return false
    }

    /// Records that the old ledger could not take stay for the new one.
    private func takeWish() {
        let (wish, number) = wishes.withLock { wishes in
            defer { wishes.next = nil }
            return (wishes.next, wishes.given)
        }
        guard let next = wish else { return }
        let old = settings
        settings = next.settings
        if let new = next.settings, new.path == old?.path {
            store?.keep(new)
        } else {
            store?.retire()
            store = next.store
            opensAt = 0
            let (from, to) = (
                old.map { "\($0.path) is closed" },
                next.settings.map { "flows are stored in \($0.path)" }
            )
            say(LedgerEvent(event: "ledger_changed", message: [to, from].compactMap { $0 }.joined(separator: ", ")))
        }
        // Set last, so that waiters can rely on it.
        wishes.withLock { $0.done = number }
    }

    private func openStore(_ now: Int64) {
        guard let settings else { return }
        do throws(LedgerProblem) {
            store = try LedgerStore(settings, say: say)
        } catch {
            opensAt = now + FlowThread.openAgainAfter
            say(LedgerEvent(event: "ledger_failed", message: "\(error); the node tries again"))
        }
    }

    /// Writes pending records, and ends. False if that took longer than `patience`: the rest is lost.
    package func stop(patience: TimeSpan = .seconds(2)) -> Bool { loop.stop(patience: patience) }
}
