import Pipeline
import PipelineWire
import Synchronization

/// `backend original_destination`: relays intercepted connections to their original destination.
///
/// `backend round_robin`: finds the route, and the backends to try, in order (R4, R6, R10–R13).
public enum BackendFilter: Filter {
    public struct Settings: @unchecked Sendable {
        /// For routes without a balance.
        let balance: Balance
        /// Zero: no slow start.
        let slowStart: TimeSpan
        let panic: HealthSettings.Panic
        /// The `health` block's, which the stage keeps alive, or the standard one.
        let ejection: UnsafePointer<EjectionPolicy>
        /// Other than `no`: connect to original destinations, without routes.
        let direct: DirectConnect
        /// How long such a connect may take.
        let directTimeout: TimeSpan
        /// How long an unreachable destination is refused; zero: not at all.
        let unreachableFor: TimeSpan
        /// Zero: none.
        let idleTimeout: TimeSpan
        /// Other backends that are tried after the first one failed.
        let retries: Int
        /// Zero: at any time.
        let retryWithin: TimeSpan
        /// For routes without a source; nil: the kernel chooses. The settings own it.
        let source: UnsafePointer<SourceAddresses>?
    }

    /// The worker's random generator.
    public struct WorkerState {
        var random: SplitMix64
    }

    enum Refusal: UInt8, CaseIterable {
        case noRoute, noBackend, noHealthyBackend, backendsFull, routeFull, tooManyReservations, proxyMismatch,
            groupFull
        case routeQueueFull, routeQueueTimeout, groupQueueFull, groupQueueTimeout, backendsQueueFull,
            backendsQueueTimeout, sourceFamily
        case suspended
    }

    public static let descriptor = FilterDescriptor(
        keyword: "backend",
        summary: "finds the route and the backends to try",
        reads: [.client],
        gives: [.route, .backend],
        clauses: [
            ClauseSpec(
                "balance", [.choice(name: "balance", Balance.allCases.map(\.name))],
                summary: "how routes without a `balance` of their own choose among backends; default `round_robin`"),
            ClauseSpec(
                "original_destination", [.word("original_destination")],
                summary: "no routes: connect to the client's original destination, from this host's own address"),
            ClauseSpec(
                "from_instance", [.word("original_destination"), .word("from"), .word("instance")],
                summary: "the same, from the client's address and a port that the kernel chooses"),
            ClauseSpec(
                "connect_timeout",
                [.word("connect_timeout"), .duration(name: "time", .milliseconds(10)...(.seconds(120)))],
                summary: "how long a connect to the original destination may take; default `60s`"),
            ClauseSpec(
                "unreachable_for", [.word("unreachable_for"), .duration(name: "time", .seconds(1)...(.seconds(30)))],
                summary: "how long new connections to an original destination that did not answer are refused; "
                    + "default `30s`"),
            ClauseSpec(
                "unreachable_off", [.word("unreachable_for"), .word("off")],
                summary: "never refuse a client because the destination did not answer another one"),
            ClauseSpec(
                "health", [.word("health"), .block(name: "block", HealthSettings.block.kind)],
                summary: "probes, ejection after connect failures, and what happens when all backends are out"),
            ClauseSpec(
                "slow_start", [.word("slow_start"), .duration(name: "window", .seconds(1)...(.seconds(3600)))],
                summary: "a backend that returns reaches its full share after this long"),
            ClauseSpec(
                "idle_timeout", [.word("idle_timeout"), .duration(name: "time", .seconds(1)...(.seconds(2_592_000)))],
                summary:
                    "ends a connection once both sides were quiet for this long, where its route says nothing else; "
                    + "default: never"),
            ClauseSpec(
                "retries", [.word("retries"), .count(name: "number", 1...2)],
                summary: "other backends that are tried after a refused or timed-out connect; default 2"),
            ClauseSpec(
                "retries_off", [.word("retries"), .word("off")],
                summary: "one backend for each connection: its failure is the client's"),
            ClauseSpec(
                "retry_within", [.word("retry_within"), .duration(name: "time", .milliseconds(10)...(.seconds(600)))],
                summary: "no other backend is tried this long after the first attempt began; default: any time"),
            ClauseSpec(
                "source", [.word("source"), .list(sourceKind, limit: SourceSpec.wordLimit)],
                summary: "where connections to backends come from, in turn, where their route says nothing else; "
                    + "default: the kernel chooses"),
            ClauseSpec(
                "source_client", [.word("source"), .word("client")],
                summary: "connections to backends come from the client's own address"),
        ],
        reasons: [
            ReasonSpec(
                "no_route", .client,
                "No route here has this name; or there is no name, and not exactly one candidate route."),
            ReasonSpec(
                "no_backend", .upstream, "The route has no instance that is ready, and no name with an address."),
            ReasonSpec(
                "no_healthy_backend", .upstream,
                "Every ready instance is out: its probe is down, it is ejected, or its weight is 0."),
            ReasonSpec(
                "backends_full", .upstream,
                "Every usable instance is at its connection limit: of the first priority with one that is up."),
            ReasonSpec("route_full", .client, "The route is at its connection limit."),
            ReasonSpec(
                "too_many_limits", .node,
                "More limits apply to the connection than one connection can count "
                    + "in."),
            ReasonSpec(
                "proxy_mismatch", .node,
                "The route's PROXY settings contradict each other: its backend would get a header that it doesn't "
                    + "expect, or trust a client's."
            ),
            ReasonSpec("group_full", .client, "The route's `backends` block is at its connection limit."),
            ReasonSpec(
                "route_queue_full", .client,
                "The route is at its connection limit, and as many connections wait for a place as its `queue` allows."),
            ReasonSpec(
                "route_queue_timeout", .client,
                "No place of the route's connection limit came free in the time of `queue`."),
            ReasonSpec(
                "group_queue_full", .client,
                "The `backends` block is at its connection limit, and as many connections wait as its `queue` allows."),
            ReasonSpec(
                "group_queue_timeout", .client,
                "No place of the `backends` block's connection limit came free in the time of `queue`."),
            ReasonSpec(
                "backends_queue_full", .upstream,
                "Every usable instance is at its connection limit, and as many connections wait as `queue` allows."),
            ReasonSpec(
                "backends_queue_timeout", .upstream, "No usable instance had a place free in the time of `queue`."),
            ReasonSpec(
                "source_family", .node,
                "No backend is of a family that `source` has: with `source client`, the client's."),
            ReasonSpec(
                "suspended", .node,
                "The env of the route, or of the sending instance, is suspended, or its org; or the route is withdrawn."
            ),
        ],
        endings: [
            .connectRefused: "refused", .connectTimeout: "timeout", .connectUnreachable: "unreachable",
            .connectFailed: "connect_failed", .backendsFull: "full", .routeChanged: "route_changed",
            .abandoned: "abandoned", .connectForbidden: "forbidden", .backendLoop: "loop", .backendDown: "down",
            .primaryBack: "primary_back", .queueAbandoned: "queue_abandoned", .noSource: "no_source",
        ],
        blocks: [HealthSettings.block, ResolveSettings.block], foreignWords: foreignWords)

    public static func settings(_ directive: Directive) throws(SettingsError) -> Settings {
        let direct = try direct(directive)
        let named = directive.word("balance")
        let health = directive.block("health") as? HealthSettings
        return Settings(
            balance: Balance.allCases.first { $0.name == named } ?? .roundRobin,
            slowStart: directive.duration("slow_start") ?? .zero,
            // Without a `health` block there are no probes to un-eject a backend. If all are out they are tried anyway,
            // so that a route's only backend is never out.
            panic: health?.panic ?? .useAll,
            ejection: health?.ejection ?? EjectionPolicy.standardPointer, direct: direct,
            directTimeout: directive.duration("connect_timeout") ?? ConnectionFacts.usualDirectTimeout,
            unreachableFor: try unreachableFor(directive, direct),
            idleTimeout: directive.duration("idle_timeout") ?? .zero,
            retries: try retries(directive), retryWithin: directive.duration("retry_within") ?? .zero,
            // Last: nobody frees it if something else is wrong.
            source: try sourceSpec(directive).map(SourceAddresses.make))
    }

    private static func retries(_ directive: Directive) throws(SettingsError) -> Int {
        guard let mine = try one(of: ["retries", "retries_off"], "a number", directive) else {
            return BackendCandidates.capacity - 1
        }
        return mine.count().map { Int(clamping: $0) } ?? 0
    }

    /// What is a value or `off` is two clauses, the value's first, and a directive has one of them at most.
    static func one(
        of names: [String], _ value: String, _ directive: Directive, or other: String = "off"
    ) throws(SettingsError) -> Clause? {
        let mine = directive.clauses.filter { names.contains($0.name) }
        guard mine.count <= 1 else {
            throw SettingsError(
                "`\(names[0])` is given twice", remedy: "write \(value) or `\(other)`", clause: mine[1].name)
        }
        return mine.first
    }

    private static func unreachableFor(
        _ directive: Directive, _ direct: DirectConnect
    ) throws(SettingsError) -> TimeSpan {
        guard let first = try one(of: ["unreachable_for", "unreachable_off"], "a time", directive) else {
            return direct == .fromHost ? .seconds(30) : .zero
        }
        guard let time = directive.duration("unreachable_for") else { return .zero }
        guard direct != .fromClient else {
            throw SettingsError(
                "a destination that does not answer one instance's address may answer another's",
                remedy: "remove `unreachable_for`: with `from instance` no client is refused for another's timeout",
                clause: first.name
            )
        }
        return time
    }

    private static func direct(_ directive: Directive) throws(SettingsError) -> DirectConnect {
        let names: [String] = ["original_destination", "from_instance"]
        let details: [String] = ["connect_timeout", "unreachable_for", "unreachable_off"]
        guard let mine = directive.clauses.first(where: { names.contains($0.name) }) else {
            guard let detail = directive.clauses.first(where: { details.contains($0.name) }) else { return .no }
            throw SettingsError(
                detail.name == "connect_timeout"
                    ? "`connect_timeout` here applies to connects to the original destination"
                    : "`unreachable_for` applies to original destinations",
                remedy: detail.name == "connect_timeout"
                    ? "write `connect_timeout` in `node` for those to backends"
                    : "remove it: a `health` block decides which backends are out",
                clause: detail.name)
        }
        let fits = details + [mine.name, "idle_timeout"]
        if let source = directive.clauses.first(where: { $0.name.hasPrefix("source") }) {
            throw SettingsError(
                "`source` is of connections to backends",
                remedy: "`original_destination from instance` connects from the instance's own address; without "
                    + "`from instance` it is one of this host, which the kernel chooses",
                clause: source.name)
        }
        if let other = directive.clauses.first(where: { !fits.contains($0.name) }) {
            throw SettingsError(
                "there is one original destination, and nothing to choose or to probe",
                remedy:
                    "write `backend original_destination`, with or without `from instance`, `connect_timeout`, "
                    + "`unreachable_for` and `idle_timeout`, and nothing else",
                clause: other.name)
        }
        return mine.name == "from_instance" ? .fromClient : .fromHost
    }

    public static func facts(_ settings: Settings) -> StageFacts {
        guard settings.direct != .no else {
            var facts = descriptor.facts
            if settings.balance == .consistentHash { facts.capabilities.insert(.hashesClients) }
            facts.source = settings.source?.pointee.spec
            if facts.source == .client { facts.capabilities.insert(.appearsAsClient) }
            return facts
        }
        var capabilities: StageCapabilities = [.connectsToDestination]
        if settings.direct == .fromClient { capabilities.insert(.connectsAsClient) }
        if settings.unreachableFor != .zero { capabilities.insert(.refusesUnreachable) }
        return StageFacts(gives: [.backend], capabilities: capabilities)
    }

    private static let states = Atomic<UInt64>(0)

    public static func makeState(_ settings: Settings) -> WorkerState {
        // Seeds differ between workers, so that they don't all choose the same two backends.
        let number = states.wrappingAdd(1, ordering: .relaxed).newValue
        return WorkerState(random: SplitMix64(seed: Hashing.mix(number)))
    }

    public static func evaluate(
        _ settings: Settings, _ state: inout WorkerState, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        guard settings.direct == .no else {
            if view.facts.identity?.pointee.isSuspended == true { return .refuse(Refusal.suspended.rawValue) }
            if settings.idleTimeout > .zero { effects.setIdleTimeout(settings.idleTimeout) }
            effects.connectDirectly(
                settings.direct, timeout: settings.directTimeout, unreachableFor: settings.unreachableFor)
            return .next
        }
        guard let route = lookUp(settings, view) else { return .refuse(Refusal.noRoute.rawValue) }
        guard !view.routes.isSuspended(route) else {
            effects.setRoute(route, candidates: BackendCandidates())
            return .refuse(Refusal.suspended.rawValue)
        }
        guard !route.pointee.flags.contains(.proxyMismatch) else {
            effects.setRoute(route, candidates: BackendCandidates())
            return .refuse(Refusal.proxyMismatch.rawValue)
        }
        let group = route.group
        let idleTimeout = group.pointee.policy?.pointee.idleTimeout
        if idleTimeout != nil || settings.idleTimeout > .zero {
            effects.setIdleTimeout(idleTimeout ?? settings.idleTimeout)
        }
        effects.setEjection(group.pointee.health?.pointee.ejection ?? settings.ejection)
        effects.setRetries(settings.retries, within: settings.retryWithin)
        effects.setSource(source(of: route, settings))
        return admit(route, settings, &state, view, effects)
    }

    public static func reselect(
        _ settings: Settings, _ state: inout WorkerState, _ route: FoundRoute, _ view: ConnectionView,
        _ effects: Effects
    ) -> Verdict {
        guard !view.routes.isSuspended(route) else {
            effects.setCandidates(BackendCandidates())
            return .refuse(Refusal.suspended.rawValue)
        }
        // Of the newest routes, as the choice is.
        effects.setSource(source(of: route, settings))
        let choice = choose(route, settings, &state, view)
        effects.setCandidates(choice.candidates)
        guard choice.candidates.count == 0 else { return .next }
        return refuse(
            choice.refusal, .backends, route.group.pointee.policy?.pointee.groupQueue, route, effects)
    }

    static func choose(
        _ route: FoundRoute, _ settings: Settings, _ state: inout WorkerState, _ view: ConnectionView
    ) -> BackendChoice {
        var choice = BackendChoice(route, settings, view)
        choice.choose(route.pointee.balance ?? settings.balance, &state.random)
        return choice
    }

    /// A client with a server name gets that name's route or none, never the only route (R6). A raw route never serves
    /// a TLS listener, nor the reverse.
    public static func lookUp(_ settings: Settings, _ view: ConnectionView) -> FoundRoute? {
        let destination = view.facts.destination
        let isRaw = view.facts.hint == .tcpRaw
        let found: FoundRoute?
        if let client = view.facts.clientProtocol {
            found = view.routes.speaking(client, at: destination)
        } else if isRaw || view.facts.serverName.isEmpty {
            found = view.routes.sole(at: destination)
        } else {
            found = view.withALPN { view.routes.named(view.facts.serverName, offering: $0, at: destination) }
        }
        guard let found, found.pointee.flags.contains(.raw) == isRaw else { return nil }
        return found
    }
}
