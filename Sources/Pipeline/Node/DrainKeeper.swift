import Pipeline
import PipelineRouting
import PipelineRuntime

/// Turns grace periods of drains into deadlines, which stay fixed across generations.
///
/// Threading: the control thread.
struct DrainKeeper {
    struct Due {
        let drain: RouteDrain
        let deadline: Instant

        var forWorkers: Drain {
            switch drain.target {
            case .backend(let cell): Drain(.backend(cell), deadline: deadline, reason: .instanceDrained)
            case .route(let cell): Drain(.route(cell), deadline: deadline, reason: .routeRemoved)
            // R30: with the table that refuses new ones, whatever a worker's clock says.
            case .env(let number): Drain(.env(number), deadline: Instant(nanoseconds: 0), reason: .suspended)
            case .org(let number): Drain(.org(number), deadline: Instant(nanoseconds: 0), reason: .suspended)
            }
        }
    }

    private(set) var due: [Due] = []

    /// How long after its deadline a drain is kept, so that connects in progress on an older generation are ended too.
    private static let tail = TimeSpan.seconds(10)

    /// Takes the drains of the last apply. Known ones keep their deadline; missing ones are over.
    mutating func update(_ wanted: [RouteDrain], now: Instant) {
        let known = Dictionary(due.map { (Key($0.drain), $0.deadline) }, uniquingKeysWith: { first, _ in first })
        due = wanted.map { Due(drain: $0, deadline: known[Key($0)] ?? now + $0.grace) }
    }

    /// True once a drain has been carried out by every worker.
    func isDone(_ drain: RouteDrain, now: Instant) -> Bool {
        due.contains { Key($0.drain) == Key(drain) && $0.deadline + DrainKeeper.tail <= now }
    }

    private struct Key: Hashable {
        private enum Target: Hashable {
            case cell(UnsafeRawPointer)
            case env(UInt32)
            case org(UInt32)
        }
        private let target: Target
        private let apply: UInt64

        init(_ drain: RouteDrain) {
            switch drain.target {
            case .backend(let cell): target = .cell(UnsafeRawPointer(cell))
            case .route(let cell): target = .cell(UnsafeRawPointer(cell))
            case .env(let number): target = .env(number)
            case .org(let number): target = .org(number)
            }
            apply = drain.apply
        }
    }
}
