import Synchronization

/// What became of connections during a canary, by worker, side and bucket.
///
/// Threading: each worker writes its own cells, control reads them all; each value is atomic, but values are not
/// consistent with each other. Ownership: control, which frees it when no worker reads a snapshot with it any more.
public struct CanaryEvidence: ~Copyable {
    public enum Kind: Int, CaseIterable, Sendable {
        /// Given to this side.
        case begun
        /// A backend was connected.
        case relayed
        /// The sum over those of log2 of the nanoseconds from accept to then, times 256; and of their squares.
        case time, squaredTime
        /// Ended before, by: a stage or a limit of this node; no backend that could be connected; the client.
        case refused, notConnected, left
        /// Relayed ones that ended: all; by anything but a close of both sides; closed without a byte to a client that
        /// had asked.
        case ended, broken, unanswered
    }

    /// A power of two.
    public static var buckets: Int { 32 }
    private static var perSide: Int { buckets * Kind.allCases.count }
    private static var perWorker: Int { perSide * CanarySide.allCases.count }

    private let cells: UnsafeMutableBufferPointer<Atomic<UInt64>>
    private let workers: Int
    /// How many codes of reasons there are (``ReasonTable/count``).
    private let reasons: Int
    /// Behind those of buckets: by worker, side and code.
    private let reasonStart: Int

    public init(workers: Int, reasons: Int) {
        self.workers = workers
        self.reasons = reasons
        reasonStart = workers * CanaryEvidence.perWorker
        cells = .allocate(capacity: reasonStart + workers * CanarySide.allCases.count * reasons)
        for i in cells.indices { (cells.baseAddress.unsafelyUnwrapped + i).initialize(to: Atomic(0)) }
    }

    deinit {
        cells.deinitialize()
        cells.deallocate()
    }

    /// One worker's add: a load and a store, no locked instruction.
    private func add(_ index: Int, _ amount: UInt64) {
        guard cells.indices.contains(index) else { return }
        cells[index].store(cells[index].load(ordering: .relaxed) &+ amount, ordering: .relaxed)
    }

    private static func index(_ worker: Int, _ place: CanaryPlace, _ kind: Kind) -> Int {
        ((worker * CanarySide.allCases.count + place.side.rawValue) * buckets + place.bucket) * Kind.allCases.count
            + kind.rawValue
    }

    public func add(_ kind: Kind, worker: Int, _ place: CanaryPlace, _ amount: UInt64 = 1) {
        add(CanaryEvidence.index(worker, place, kind), amount)
    }

    /// A backend was connected after that time.
    public func addRelayed(after time: TimeSpan, worker: Int, _ place: CanaryPlace) {
        let log = CanaryEvidence.log(time)
        add(.relayed, worker: worker, place)
        add(.time, worker: worker, place, log)
        add(.squaredTime, worker: worker, place, log &* log)
    }

    /// The connection did not end as connections should.
    public func add(failed reason: ReasonCode, worker: Int, _ side: CanarySide) {
        guard Int(reason.rawValue) < reasons else { return }
        add(reasonStart + (worker * CanarySide.allCases.count + side.rawValue) * reasons + Int(reason.rawValue), 1)
    }

    /// log2 of the nanoseconds, times 256, within 9 % of the time.
    public static func log(_ time: TimeSpan) -> UInt64 {
        // Less than a microsecond is the clock.
        let value = max(time.nanoseconds, 1024)
        let zeros = UInt64(value.leadingZeroBitCount)
        let fraction = ((value &<< zeros) &>> 55) & 0xFF
        return (63 - zeros) << 8 | fraction
    }

    // MARK: Reading

    public func read(_ kind: Kind, _ place: CanaryPlace) -> UInt64 {
        (0..<workers).reduce(0) {
            $0 &+ cells[CanaryEvidence.index($1, place, kind)].load(ordering: .relaxed)
        }
    }

    public func read(failed reason: ReasonCode, _ side: CanarySide) -> UInt64 {
        guard Int(reason.rawValue) < reasons else { return 0 }
        return (0..<workers).reduce(0) { sum, worker in
            let start = reasonStart + (worker * CanarySide.allCases.count + side.rawValue) * reasons
            return sum &+ cells[start + Int(reason.rawValue)].load(ordering: .relaxed)
        }
    }
}

extension CanaryPlace {
    public init(_ side: CanarySide, bucket: Int) { (self.side, self.bucket) = (side, bucket) }
}

/// How a connection's end counts.
public enum CanaryOutcome: Sendable, Equatable {
    /// As it should.
    case fine
    /// Somebody at this node has ended it, or the routes changed: it says nothing about a program.
    case unrelated
    case failed(CanaryEvidence.Kind)

    /// - Parameter isRelayed: a backend was connected.
    public init(_ reason: ReasonCode, isRelayed: Bool) {
        let runtime = RuntimeReason(rawValue: reason.rawValue)
        switch runtime {
        case .drainDeadline, .killed, .instanceDrained, .routeRemoved, .routeChanged, .backendDown, .primaryBack,
            .suspended:
            self = .unrelated
        case .closedByClient where isRelayed, .closedByUpstream where isRelayed:
            self = .fine
        case _ where isRelayed:
            self = .failed(.broken)
        case .clientLeftEarly, .abandoned, .queueAbandoned, .closedByClient, .resetByClient, .clientTimedOut:
            self = .failed(.left)
        case .connectRefused, .connectTimeout, .connectUnreachable, .connectFailed, .connectForbidden, .noBackend,
            .backendsFull, .backendLoop, .noPort, .noSource, .proxyRejected, .proxyTextRejected,
            .upgradeTimeout, .upgradeClosed:
            self = .failed(.notConnected)
        default:
            self = .failed(.refused)
        }
    }
}
