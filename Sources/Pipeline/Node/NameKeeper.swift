import CLinux
import FilterBackendSelect
import Pipeline
import PipelineResolve
import PipelineRouting
import PipelineRuntime
import PipelineText
import PipelineThreads

/// Follows the names of the routes' backends: has them looked up, and hands changes to the routes.
///
/// Threading: the control thread. Without names there is no thread.
package final class NameKeeper {
    private let write: @Sendable ([UInt8]) -> Void
    private let log: ControlLog
    private var resolver: NameResolver?
    /// What has changed and is not in the routes yet.
    private var pending: [BackendName: [ResolvedAddress]] = [:]
    /// Before that no change is applied.
    private var notBefore = Instant(nanoseconds: 0)
    /// When it is next looked whether the resolver's thread stands still.
    private var nextWatch = Instant(nanoseconds: 0)
    /// It did at the last look.
    private var isStuck = false

    /// Between two changes that are applied, however many answers come: what comes meanwhile is one change.
    private static let pause = TimeSpan.milliseconds(100)
    /// A change that takes long (a name behind a million routes: two seconds) is followed by so many times as long without one.
    private static let rest: UInt64 = 4
    /// How long a start or a reload waits for the first answers.
    private static let patience = TimeSpan.seconds(3)

    init(_ log: ControlLog, write: @escaping @Sendable ([UInt8]) -> Void) {
        self.log = log
        self.write = write
    }

    /// Readable when an answer has changed; nil: there are no names.
    var notice: Descriptor? { resolver.map { Descriptor($0.notice) } }
    /// When a change is to be applied; nil: there is none.
    var due: Instant? { pending.isEmpty ? nil : notBefore }

    package var statuses: [NameStatus] { resolver?.statuses() ?? [] }

    /// When ``watch(_:)`` is due; nil: there are no names.
    var nextLook: Instant? { resolver == nil ? nil : nextWatch }
    /// No name is looked up at present.
    package var problem: String? { isStuck ? NameKeeper.stuckText : nil }

    private static let stuckText =
        "the resolver stands still: a file system under /etc/resolv.conf that does not answer, most likely; names keep "
        + "their last addresses until it goes on, and other backends are served"

    /// Says when the resolver's thread begins to stand still, and when it goes on.
    func watch(_ now: Instant) {
        guard let resolver, nextWatch <= now else { return }
        nextWatch = now + NameResolver.stuckAfter
        let time = resolver.stuck(at: now)
        guard (time != nil) != isStuck else { return }
        isStuck = time != nil
        if let time {
            log.say("resolver_stuck", NameKeeper.stuckText) { $0.field("stuck_ms", time.milliseconds) }
        } else {
            log.say("resolver_recovered", "names are looked up again")
        }
    }

    /// The routes are new, and not published: asks for their names, waits a while for those that are new, and has the routes know
    /// them.
    func follow(_ program: Program, _ routing: RoutingState) {
        let names = routing.backendNames
        guard !names.isEmpty || resolver != nil else { return }
        guard let resolver = resolver ?? start() else { return }
        let settings = program.blocks.only(ResolveSettings.self) ?? ResolveSettings()
        resolver.update(names, settings)
        let end = Instant(nanoseconds: cl_now()) + NameKeeper.patience
        while !resolver.isComplete, Instant(nanoseconds: cl_now()) < end { cl_sleep(1_000_000) }
        collect()
        routing.forgetUnusedNames()
        // What is there from the beginning does not start slowly.
        _ = routing.resolve(take())
    }

    private func start() -> NameResolver? {
        let started = NameResolver.start(write: write)
        resolver = started.resolver
        if resolver == nil {
            log.say(
                "warning",
                "the resolver can't be started: \(kernelError(started.error)); names of backends have no addresses, other "
                    + "backends are served; raise TasksMax or the limit of open files, and reload")
        }
        return resolver
    }

    /// Takes what the resolver has.
    func collect() {
        guard let resolver else { return }
        pending.merge(resolver.take()) { $1 }
    }

    private func take() -> [BackendName: [ResolvedAddress]] {
        defer { pending = [:] }
        return pending
    }

    /// Hands what has changed to the routes. True: there is a new table.
    func apply(to routing: RoutingState, _ now: Instant) -> Bool {
        let changed = routing.resolve(take(), at: now).backendsChanged > 0
        let end = Instant(nanoseconds: cl_now())
        notBefore = end + max(NameKeeper.pause, TimeSpan(nanoseconds: end.since(now).nanoseconds * NameKeeper.rest))
        return changed
    }

    func stop() {
        resolver?.stop()
        resolver = nil
        isStuck = false
    }
}
