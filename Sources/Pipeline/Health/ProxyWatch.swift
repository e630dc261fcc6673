import CLinux
import FilterBackendSelect
import Pipeline
import PipelineRouting
import PipelineRuntime
import PipelineText

/// Checks once a second whether backends of routes with a PROXY header accept our header, probes those with doubts from connections, and
/// logs changed verdicts (R18). Costs a walk over the distinct sets of backends, and one over the routes only while a
/// set has, or just had, a rejecting backend.
package struct ProxyWatch {
    private static let interval = TimeSpan.seconds(1)

    private struct Rejected: Hashable {
        let route: String
        let owner: EnvName
        /// The `backends` block; empty: none. A route of a file leads to several.
        let group: String
    }

    /// Of routes with a header, in the newest table.
    private var groups: [UnsafePointer<BackendGroup>] = []
    /// Those with one of version 1.
    private var texts: Set<UnsafePointer<BackendGroup>> = []
    /// Where their connections come from, if not from where the kernel chooses.
    private var sources: [UnsafePointer<BackendGroup>: SourceSpec] = [:]
    private var isStale = true
    private var rejected: Set<Rejected> = []
    private var probes = DoubtProbes()
    private var due: Instant?

    package init() {}

    /// Nil: there are no such routes.
    package var nextLook: Instant? { [due, probes.deadline].compactMap { $0 }.min() }
    /// Readable when a probe's backend has answered; nil: none is in flight.
    package var descriptor: Descriptor? { probes.descriptor }

    package mutating func routesChanged() {
        isStale = true
        due = due ?? Instant(nanoseconds: 0)
    }

    package mutating func look(_ table: RouteTableSnapshot, _ program: Program, _ now: Instant, _ log: ControlLog) {
        let answers = probes.take(now)
        guard !answers.isEmpty || due.map({ $0 <= now }) == true else { return }
        if isStale { collect(table, program) }
        due = groups.isEmpty ? nil : now + ProxyWatch.interval
        askDoubted(answers, now)
        guard !rejected.isEmpty || groups.contains(where: { ProxyVerdict($0.pointee) == .rejected }) else { return }
        sayChanges(table, log)
    }

    private mutating func collect(_ table: RouteTableSnapshot, _ program: Program) {
        isStale = false
        texts = []
        sources = [:]
        let source = ProbeTargets.sources(in: program)
        var seen: Set<UnsafePointer<BackendGroup>> = []
        table.visitAll { route, _ in
            if route.pointee.flags.intersection([.proxyHeader, .proxyMismatch]) == .proxyHeader,
                !table.handle.isSuspended(route)
            {
                if seen.insert(route.pointee.group).inserted {
                    sources[route.pointee.group] = source(route.pointee)
                }
                if route.pointee.flags.contains(.proxyText) { texts.insert(route.pointee.group) }
            }
        }
        groups = Array(seen)
    }

    /// Records probe results, and starts probes for new doubts.
    private mutating func askDoubted(_ answers: [Endpoint: ProxyAnswer], _ now: Instant) {
        for group in groups {
            for backend in group.pointee.backends.buffer {
                let cell = backend.cell
                if let answer = answers[backend.address.endpoint] { note(answer, cell) }
                let doubts = cell.pointee.headerDoubts.load(ordering: .relaxed)
                guard doubts != 0, ProxyVerdict(cell) != .rejected else { continue }
                probes.ask(backend, doubts, isText: texts.contains(group), from: sources[group], now)
            }
        }
    }

    /// Doubts stay: failing clients of three networks outweigh a good probe.
    private func note(_ answer: ProxyAnswer, _ cell: UnsafePointer<BackendCell>) {
        switch answer {
        case .rejected: cell.pointee.proxy.store(answer.rawValue, ordering: .relaxed)
        case .accepted:
            _ = cell.pointee.proxy.compareExchange(
                expected: BackendCell.HeaderVerdict.unknown.rawValue, desired: answer.rawValue, ordering: .relaxed)
        }
    }

    // MARK: Saying it

    private mutating func sayChanges(_ table: RouteTableSnapshot, _ log: ControlLog) {
        var found: Set<Rejected> = []
        var verdicts: [Rejected: ProxyVerdict] = [:]
        table.visitAll { route, _ in
            let verdict = ProxyVerdict(route.pointee)
            guard verdict == .rejected || !rejected.isEmpty else { return }
            let one = Rejected(
                route: route.pointee.id.string, owner: route.pointee.owner.pointee.name,
                group: route.pointee.group.pointee.cell.pointee.name.string)
            if verdict == .rejected {
                // A route has many names.
                if found.insert(one).inserted, !rejected.contains(one) { sayRejected(one, route.pointee, log) }
            } else if rejected.contains(one) {
                verdicts[one] = verdict
            }
        }
        for one in rejected.subtracting(found).sorted(by: { $0.route < $1.route }) {
            log.say(verdicts[one] == .unknown ? "proxy_unknown" : "proxy_accepted") { line in
                line.field("route", one.route)
                if !one.group.isEmpty { line.field("group", one.group) }
                line.fields(one.owner)
            }
        }
        rejected = found
    }

    private func sayRejected(_ rejected: Rejected, _ route: Route, _ log: ControlLog) {
        let guilty = route.backends.buffer.filter { ProxyVerdict($0.cell) == .rejected }
        log.say(
            "proxy_rejected",
            "a backend rejects the PROXY header: enable it there, or set the route's proxy_protocol to off"
        ) { line in
            line.field("route", rejected.route)
            if !rejected.group.isEmpty { line.field("group", rejected.group) }
            line.fields(rejected.owner)
            line.list("backends", guilty.prefix(20)) { $0.string($1.address.endpoint.description) }
            line.field("connections", UInt64(route.cell.pointee.proxyRejections.load(ordering: .relaxed)))
        }
    }
}

/// Probes with LOCAL headers, for backends whose answers to clients raised doubts: they decide where the client could
/// be the cause (R18). With or without a `health` block. Control thread only.
struct DoubtProbes {
    /// The most probes in flight; the rest wait for the next check.
    static let limit = 8
    /// Between two probes of a backend.
    private static let pause = TimeSpan.seconds(5)
    /// The most backends that are remembered as probed.
    private static let memoryLimit = 4096

    private struct Asked {
        /// What the doubts were.
        var doubts: UInt64
        /// When it may be probed again; nil: a probe is in flight.
        var next: Instant?
    }

    /// Made with the first doubt.
    private var inFlight: ProbesInFlight?
    private var epoll = Descriptor.none
    private var asked: [Endpoint: Asked] = [:]
    private var underWay: [ProbeSchedule.Identity: Endpoint] = [:]
    private var nextIdentity: ProbeSchedule.Identity = 1

    var descriptor: Descriptor? { underWay.isEmpty ? nil : epoll }
    var deadline: Instant? { underWay.isEmpty ? nil : inFlight?.deadline }

    private static let settings = HealthSettings(
        name: "", probe: .tcp, interval: .seconds(1), jitterPercent: 0, timeout: .seconds(2), rise: 1, fall: 1,
        probesPerSecond: 1, panic: .failFast, ejection: .none)

    /// Starts a probe, unless one is in flight, or there are no new doubts.
    mutating func ask(
        _ backend: Backend, _ doubts: UInt64, isText: Bool, from source: SourceSpec?, _ now: Instant
    ) {
        let endpoint = backend.address.endpoint
        if let known = asked[endpoint] {
            guard known.doubts != doubts, let next = known.next, next <= now else { return }
        } else if asked.count >= DoubtProbes.memoryLimit {
            asked = asked.filter { $0.value.next.map { $0 > now } ?? true }
            guard asked.count < DoubtProbes.memoryLimit else { return }
        }
        guard var inFlight = inFlight ?? make(), !inFlight.isFull else { return }
        var target = ProbeTarget(
            key: .init(endpoint: endpoint, usesProxy: true), cell: backend.cell, settings: DoubtProbes.settings,
            instance: "")
        target.proxyIsText = isText
        target.source = source
        let identity = nextIdentity
        nextIdentity += 1
        let end = inFlight.begin(identity, target, now)
        self.inFlight = inFlight
        asked[endpoint] = Asked(doubts: doubts, next: end == nil ? nil : now + DoubtProbes.pause)
        if end == nil { underWay[identity] = endpoint }
    }

    /// Nil: the kernel gives no descriptor now.
    private mutating func make() -> ProbesInFlight? {
        let made = cl_epoll_create()
        guard made >= 0 else { return nil }
        epoll = Descriptor(made)
        return ProbesInFlight(epoll: made, limit: DoubtProbes.limit)
    }

    /// The decided results; undecided ones are left out.
    mutating func take(_ now: Instant) -> [Endpoint: ProxyAnswer] {
        guard !underWay.isEmpty, let ends = inFlight?.take() else { return [:] }
        var answers: [Endpoint: ProxyAnswer] = [:]
        for end in ends {
            guard let endpoint = underWay.removeValue(forKey: end.identity) else { continue }
            asked[endpoint]?.next = now + DoubtProbes.pause
            if let answer = end.outcome.proxy { answers[endpoint] = answer }
        }
        return answers
    }
}
