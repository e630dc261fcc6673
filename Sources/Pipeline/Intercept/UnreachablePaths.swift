import CLinux
import Glibc
import Pipeline
import PipelineExport
import PipelineRuntime
import PipelineText
import PipelineThreads
import Synchronization

/// Adds unreachable destinations to the kernel's sets, so that the next SYN there is refused before the relay accepts
/// it (ADR 0049). On its own thread, since a transaction waits for other changes of rules.
///
/// Threading: ``enqueue(_:)`` on the log thread; ``update(_:)`` and ``stop()`` on the control thread; ``counts`` on any.
package final class UnreachablePaths: @unchecked Sendable {
    /// For `status`.
    package struct Counts: Equatable, Sendable {
        /// Destinations added to the kernel's sets.
        package var added: UInt64 = 0
        /// Destinations not added: too many at once, of one instance or in total, refused by the kernel, or tried while
        /// this host's conntrack was full.
        package var dropped: UInt64 = 0
        /// Destinations not added, because they have answered another connection meanwhile.
        package var answered: UInt64 = 0
        /// The errno of the last refusal by the kernel; 0: none.
        package var refusal: Int32 = 0
    }

    private static let stackBytes = 1 << 18
    /// Between transactions: with ``UnreachableSets/batch`` the most destinations a second.
    private static let pause = TimeSpan.milliseconds(250)
    /// How often this host's conntrack is checked without proofs.
    private static let look = TimeSpan.seconds(1)
    /// The most queued proofs; further ones are dropped.
    private static let waitingLimit = 1024

    private struct Shared {
        var waiting: [UnreachableProof] = []
        var answered = AnsweredPaths()
        var counts = Counts()
    }

    private let log: ControlLog
    private let shared = Mutex(Shared())
    /// The thread runs; without it answers are not recorded.
    private let isRunning = Atomic<Bool>(false)
    private let made = ThreadLoop.make()
    // The control thread's own.
    private var hasFailed = false
    // The thread's own.
    /// Nothing is put into the sets before.
    private var resumesAt: Instant?
    private var book = UnreachableBook()
    private var sets: UnreachableSets?
    private var established: EstablishedPaths?
    private var conntrack: ConntrackShortage

    package init(_ log: ControlLog, _ conntrack: ConntrackShortage = ConntrackShortage()) {
        self.log = log
        self.conntrack = conntrack
    }

    // MARK: The control thread's side

    /// Starts the thread once a program needs it. Without proofs it checks conntrack once a second.
    package func update(_ program: Program) {
        guard program.capabilities.contains(.refusesUnreachable), !isRunning.load(ordering: .relaxed), !hasFailed else {
            return
        }
        let error = start()
        hasFailed = error != 0
        isRunning.store(!hasFailed, ordering: .relaxed)
        guard hasFailed else { return }
        shared.withLock { $0.counts.refusal = error }
        say(error)
    }

    private func start() -> Int32 {
        guard let loop = made.loop else { return made.error }
        return loop.start("unreachable", stackBytes: UnreachablePaths.stackBytes) { self.iterate(loop) }
    }

    package var counts: Counts { shared.withLock { $0.counts } }

    /// Why unreachable destinations are not refused; nil: they are.
    package var problem: String? {
        let refusal = counts.refusal
        return refusal == 0 ? nil : UnreachablePaths.explain(refusal)
    }

    package func stop() {
        guard isRunning.exchange(false, ordering: .relaxed) else { return }
        made.loop?.stop()
    }

    // MARK: The log thread's side

    /// An ended connection.
    package func enqueue(_ record: ConnectionRecord) {
        guard isRunning.load(ordering: .relaxed) else { return }
        if let path = AnsweredPath(record) {
            let now = record.endedAt
            shared.withLock { $0.answered.note(path.destination, at: path.time, by: path.asker, now) }
        }
        guard let proof = UnreachableProof(record) else { return }
        let isFirst = shared.withLock { shared in
            guard shared.waiting.count < UnreachablePaths.waitingLimit else {
                shared.counts.dropped += 1
                return false
            }
            shared.waiting.append(proof)
            return shared.waiting.count == 1
        }
        if isFirst { made.loop?.wake() }
    }

    // MARK: The thread

    private func iterate(_ loop: ThreadLoop) -> ThreadLoop.Next {
        guard !loop.isEnding else { return .over }
        if let until = resumesAt, Instant(nanoseconds: cl_now()) < until { return .wait(until: until) }
        let isPauseOver = resumesAt != nil
        resumesAt = nil
        if !isPauseOver || !isIdle, takeProofs() > 0 {
            resumesAt = Instant(nanoseconds: cl_now()) + UnreachablePaths.pause
            return .wait(until: resumesAt)
        }
        return isIdle ? .wait(until: Instant(nanoseconds: cl_now()) + UnreachablePaths.look) : .again
    }

    private var isIdle: Bool { shared.withLock { $0.waiting.isEmpty } }

    /// At most one transaction per family. Returns the number of proofs taken.
    private func takeProofs() -> Int {
        let (taken, proofs) = shared.withLock { shared in
            let proofs = Array(shared.waiting.prefix(UnreachableSets.batch))
            shared.waiting.removeFirst(proofs.count)
            let left = proofs.filter { shared.answered.last($0.destination) < $0.began }
            shared.counts.answered += UInt64(proofs.count - left.count)
            return (proofs.count, left)
        }
        let now = Instant(nanoseconds: cl_now())
        book.expire(now)
        // The relay's own SYNs were dropped then.
        if conntrack.isShort(now) {
            shared.withLock { $0.counts.dropped += UInt64(proofs.count) }
            return taken
        }
        var new: [UnreachableProof] = []
        var dropped = 0
        for proof in proofs {
            switch book.admit(proof, now) {
            case .new: new.append(proof)
            case .full: dropped += 1
            case .known: break
            }
        }
        shared.withLock { $0.counts.dropped += UInt64(dropped) }
        for isIPv4 in [false, true] {
            let family = new.filter { $0.destination.address.isIPv4 == isIPv4 }
            add(withoutEstablished(family, isIPv4: isIPv4), isIPv4: isIPv4)
        }
        return taken
    }

    /// A destination that answered an open connection since the failed connect began is not dead either. If the kernel
    /// can't tell, all are added; those missing from a cut answer are not.
    private func withoutEstablished(_ proofs: [UnreachableProof], isIPv4: Bool) -> [UnreachableProof] {
        guard !proofs.isEmpty else { return [] }
        if established == nil { established = EstablishedPaths.open() }
        guard let answer = established?.ask(proofs.map(\.destination), isIPv4: isIPv4), answer.error == 0 else {
            return proofs
        }
        let now = cl_wall_clock()
        var left: [UnreachableProof] = []
        var answered: UInt64 = 0
        for proof in proofs {
            if let heard = answer.heard[proof.destination], heard.nanoseconds <= now &- min(now, proof.began) {
                answered += 1
            } else if answer.isWhole {
                left.append(proof)
                continue
            }
            book.forget(proof.destination)
        }
        let dropped = UInt64(proofs.count - left.count) - answered
        shared.withLock {
            $0.counts.answered += answered
            $0.counts.dropped += dropped
        }
        return left
    }

    private func add(_ proofs: [UnreachableProof], isIPv4: Bool) {
        guard !proofs.isEmpty else { return }
        let error = send(proofs, isIPv4: isIPv4)
        if error != 0 {
            for proof in proofs { book.forget(proof.destination) }
        }
        let before = shared.withLock { shared in
            defer { shared.counts.refusal = error }
            if error == 0 {
                shared.counts.added += UInt64(proofs.count)
            } else {
                shared.counts.dropped += UInt64(proofs.count)
            }
            return shared.counts.refusal
        }
        // Logged once, until it works again or the error changes.
        if error != 0, error != before { say(error) }
    }

    private func send(_ proofs: [UnreachableProof], isIPv4: Bool) -> Int32 {
        if sets == nil {
            let (opened, error) = UnreachableSets.open()
            guard let opened else { return error }
            sets = opened
        }
        return sets?.add(proofs[...], isIPv4: isIPv4) ?? 0
    }

    private func say(_ error: Int32) { log.say("unreachable_off", UnreachablePaths.explain(error)) }

    private static func explain(_ error: Int32) -> String {
        let why =
            switch error {
            case EPERM: "it needs CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN)"
            case ENOENT: "the nftables set is missing: run `pipelined egress rules CONFIG --apply`"
            case ENFILE: "the set is full"
            case EPROTONOSUPPORT, EOPNOTSUPP: "the kernel has no nf_tables"
            default: kernelError(error)
            }
        return "unreachable destinations are not refused before accept: \(why)"
    }
}
