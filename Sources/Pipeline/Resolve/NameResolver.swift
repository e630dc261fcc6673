import CCares
import CLinux
import FilterBackendSelect
import Pipeline
import PipelineText
import PipelineThreads
import Synchronization

/// Looks names of backends up on a thread of its own, each again when its answer is old.
///
/// Threading: made, updated and stopped by the control thread; ``statuses()`` from any. One lock protects the records, and is
/// held for bookkeeping alone.
package final class NameResolver: @unchecked Sendable {
    /// The most lookups at once. With their sockets and this thread's own they fit into one poll(2).
    private static let lookupLimit = 12
    /// The most descriptors that it takes at once.
    package static let descriptors = lookupLimit * 4 + 2
    private static let stackBytes = 1 << 19

    private struct Records {
        var all: [BackendName: NameRecord] = [:]
        var settings = ResolveSettings()
        /// Names whose addresses have changed and were not taken.
        var changed: Set<BackendName> = []
    }

    /// As long as the thread may take for what is no waiting, before it counts as stuck.
    package static let stuckAfter = TimeSpan.seconds(5)

    private let records = Mutex(Records())
    private let loop: ThreadLoop
    /// Since when the thread works without waiting; 0: it waits, or there is none yet.
    private let workingSince = Atomic<UInt64>(0)
    /// A descriptor: readable once ``take()`` has something.
    package let notice: Int32
    // The thread's own.
    private var lookups: [Lookup] = []
    private var log: NameLog

    private init(_ loop: ThreadLoop, _ notice: Int32, _ write: @escaping @Sendable ([UInt8]) -> Void) {
        self.loop = loop
        self.notice = notice
        log = NameLog(wallClock: { cl_wall_clock() }, write: write)
    }

    deinit { _ = cl_close(notice) }

    /// Starts the thread, which asks for nothing yet.
    /// - Parameter write: takes whole lines, from the resolver's thread.
    /// - Returns: nil, with an errno, if the kernel gives no descriptor or no thread.
    package static func start(
        write: @escaping @Sendable ([UInt8]) -> Void
    ) -> (resolver: NameResolver?, error: Int32) {
        let (loop, error) = ThreadLoop.make()
        guard let loop else { return (nil, error) }
        let notice = cl_eventfd()
        guard notice >= 0 else { return (nil, -notice) }
        _ = ares_library_init(ARES_LIB_INIT_ALL)
        let resolver = NameResolver(loop, notice, write)
        let failed = loop.start("resolve", stackBytes: stackBytes) { resolver.iterate() }
        return failed == 0 ? (resolver, 0) : (nil, failed)
    }

    /// Replaces names and settings. Names that stay keep their addresses; all are asked for at once.
    package func update(_ names: Set<BackendName>, _ settings: ResolveSettings) {
        let now = Instant(nanoseconds: cl_now())
        records.withLock { records in
            records.settings = settings
            records.all = records.all.filter { names.contains($0.key) }
            records.changed.formIntersection(names)
            for name in names {
                var record = records.all[name] ?? NameRecord(name, at: now)
                record.refresh(at: now)
                records.all[name] = record
            }
        }
        loop.wake()
    }

    /// For how long the thread has stood still: a file system that does not answer, most likely. Nil: it has not.
    package func stuck(at now: Instant) -> TimeSpan? {
        let since = workingSince.load(ordering: .relaxed)
        let time = now.since(Instant(nanoseconds: since))
        return since > 0 && time >= NameResolver.stuckAfter ? time : nil
    }

    /// Whether the first lookup of each name is over.
    package var isComplete: Bool { records.withLock { $0.all.values.allSatisfy(\.isKnown) } }

    /// The addresses of names that have changed since the last call. For the control thread.
    package func take() -> [BackendName: [ResolvedAddress]] {
        _ = cl_eventfd_clear(notice)
        return records.withLock { records in
            let changed = records.changed
            records.changed = []
            return Dictionary(uniqueKeysWithValues: changed.map { ($0, records.all[$0]?.addresses ?? []) })
        }
    }

    /// Each name, in order.
    package func statuses() -> [NameStatus] {
        let now = Instant(nanoseconds: cl_now())
        return records.withLock { records in
            records.all.values.map { NameStatus($0, at: now) }.sorted { $0.name < $1.name }
        }
    }

    /// Does not wait for long: /etc/resolv.conf may be on a file system that does not answer.
    package func stop() { _ = loop.stop(patience: .seconds(2)) }

    // MARK: The thread

    private func iterate() -> ThreadLoop.Next {
        workingSince.store(cl_now(), ordering: .relaxed)
        defer { workingSince.store(0, ordering: .relaxed) }
        guard !loop.isEnding else {
            for lookup in lookups { lookup.close() }
            lookups = []
            return .over
        }
        let now = Instant(nanoseconds: cl_now())
        for lookup in lookups { lookup.work(now) }
        for lookup in lookups where lookup.isOver { finish(lookup, now) }
        lookups.removeAll(where: \.isOver)
        let next = beginDue(now)
        if lookups.contains(where: \.isOver) { return .again }
        let due = [next].compactMap { $0 } + lookups.map { $0.wakeUp(now) }
        return .wait(until: due.min(), lookups.flatMap { $0.waits() })
    }

    private func finish(_ lookup: Lookup, _ now: Instant) {
        lookup.close()
        let done = records.withLock { records -> (record: NameRecord, events: [NameRecord.Event])? in
            guard var record = records.all[lookup.name] else { return nil }
            let events = record.take(lookup.result, at: now, records.settings, isOwn: isOfThisHost)
            records.all[lookup.name] = record
            if events.contains(where: { if case .changed = $0 { true } else { false } }) {
                records.changed.insert(lookup.name)
            }
            return (record, events)
        }
        guard let done else { return }
        for event in done.events {
            if case .changed = event { _ = cl_eventfd_signal(notice) }
            log.say(event, done.record, now)
        }
    }

    /// - Returns: when the next name is due; nil: none is before a lookup ends.
    private func beginDue(_ now: Instant) -> Instant? {
        while lookups.count < NameResolver.lookupLimit {
            let next = records.withLock { records -> (name: BackendName, settings: ResolveSettings, due: Instant)? in
                let waiting = records.all.values.filter { !$0.isAsking }
                guard let first = waiting.min(by: { ($0.next, $0.name) < ($1.next, $1.name) }) else { return nil }
                if first.next <= now { records.all[first.name]?.isAsking = true }
                return (first.name, records.settings, first.next)
            }
            guard let next else { return nil }
            guard next.due <= now else { return next.due }
            lookups.append(Lookup(next.name, next.settings, at: now))
        }
        return nil
    }
}

/// A name in reports.
package struct NameStatus: Sendable {
    package let name: BackendName
    package let addresses: [ResolvedAddress]
    /// How long ago it was last answered whole; nil: never.
    package let age: TimeSpan?
    /// Until it is asked for again; nil: it is being asked for.
    package let next: TimeSpan?
    package let problem: String?
    /// It was answered, and has no address: why.
    package let emptiness: String?
    package let refused: Int
    package let omitted: Int

    init(_ record: NameRecord, at now: Instant) {
        name = record.name
        addresses = record.addresses
        age = record.answered.map { now.since($0) }
        next = record.isAsking ? nil : record.next.since(now)
        problem = record.problem
        emptiness = record.problem == nil ? record.emptiness : nil
        refused = record.refused
        omitted = record.omitted
    }
}

/// Whether it is an address of this host, by the kernel's routes.
private func isOfThisHost(_ address: IPAddress) -> Bool {
    var at = cl_endpoint(high: address.high, low: address.low, port: 0)
    return cl_host_has(&at) == 1
}
