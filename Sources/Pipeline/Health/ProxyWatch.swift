import CLinux
import FilterBackendSelect
import Pipeline
import PipelineRouting
import PipelineRuntime
import PipelineText

/// Checks once a second whether backends of routes with a PROXY header accept our header, probes those with doubts from connections, and
/// logs changed verdicts (R18). Costs a walk over the distinct sets of backends with such routes, and one over the
/// routes of a set while it has a rejecting backend; a change costs the sets that it changes.
package struct ProxyWatch {
    private static let interval = TimeSpan.seconds(1)

    private struct Rejected: Hashable {
        let route: String
        let owner: EnvName
        /// The `backends` block; empty: none. A route of a file leads to several.
        let group: String
    }

    /// The header that the routes of a group get.
    private struct Headers {
        let group: UnsafePointer<BackendGroup>
        /// Some get one of version 1.
        let isText: Bool
        /// Where their connections come from; nil: the kernel chooses.
        let source: SourceSpec?
    }

    private var program: Program?
    private var entrances: Entrances?
    /// Of routes with a header, by the number of their group.
    private var groups: [UInt32: Headers] = [:]
    /// Keeps what ``groups`` points to.
    private var table: RouteTableSnapshot?
    /// With the number of their group.
    private var rejected: [Rejected: UInt32] = [:]
    private var probes = DoubtProbes()
    private var due: Instant?

    package init() {}

    /// Nil: there are no such routes.
    package var nextLook: Instant? { [due, probes.deadline].compactMap { $0 }.min() }
    /// Readable when a probe's backend has answered; nil: none is in flight.
    package var descriptor: Descriptor? { probes.descriptor }

    /// Looks at the groups that have changed, or, for another program, at all.
    package mutating func follow(_ program: Program, _ routing: RoutingState, _ news: TableNews) {
        if self.program === program {
            for number in news.groups { take(number, routing) }
        } else {
            self.program = program
            entrances = Entrances(program)
            groups = [:]
            routing.visitGroups { take($0, routing) }
        }
        table = routing.snapshot
        due = due ?? Instant(nanoseconds: 0)
    }

    private mutating func take(_ number: UInt32, _ routing: RoutingState) {
        groups[number] = routing.servedGroup(number).flatMap { group in
            let uses = group.uses.map(\.use).filter {
                $0.flags.contains(.proxyHeader) && !$0.flags.contains(.proxyMismatch)
            }
            guard !group.isSuspended, let first = uses.first else { return nil }
            return Headers(
                group: group.group, isText: uses.contains { $0.flags.contains(.proxyText) },
                source: entrances?.source(group.group.pointee, first))
        }
    }

    package mutating func look(_ routing: RoutingState, _ now: Instant, _ log: ControlLog) {
        let answers = probes.take(now)
        guard !answers.isEmpty || due.map({ $0 <= now }) == true else { return }
        due = groups.isEmpty ? nil : now + ProxyWatch.interval
        askDoubted(answers, now)
        guard !rejected.isEmpty || groups.values.contains(where: { ProxyVerdict($0.group.pointee) == .rejected }) else {
            return
        }
        sayChanges(routing, log)
    }

    /// Records probe results, and starts probes for new doubts.
    private mutating func askDoubted(_ answers: [Endpoint: ProxyAnswer], _ now: Instant) {
        for headers in groups.values {
            for backend in headers.group.pointee.backends.buffer {
                let cell = backend.cell
                if let answer = answers[backend.address.endpoint] { note(answer, cell) }
                let doubts = cell.pointee.headerDoubts.load(ordering: .relaxed)
                guard doubts != 0, ProxyVerdict(cell) != .rejected else { continue }
                probes.ask(backend, doubts, isText: headers.isText, from: headers.source, now)
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

    private mutating func sayChanges(_ routing: RoutingState, _ log: ControlLog) {
        var found: [Rejected: UInt32] = [:]
        for (number, headers) in groups where ProxyVerdict(headers.group.pointee) == .rejected {
            routing.visitRoutes(of: number) { route in
                guard ProxyVerdict(route) == .rejected else { return }
                let one = Rejected(
                    route: route.pointee.id.string, owner: route.pointee.owner.pointee.name,
                    group: route.group.pointee.cell.pointee.name.string)
                // A route has many names.
                guard found.updateValue(number, forKey: one) == nil, rejected[one] == nil else { return }
                sayRejected(one, route, log)
            }
        }
        for (one, number) in rejected.filter({ found[$0.key] == nil }).sorted(by: { $0.key.route < $1.key.route }) {
            let verdict = groups[number].map { ProxyVerdict($0.group.pointee) }
            log.say(verdict == .unknown ? "proxy_unknown" : "proxy_accepted") { line in
                line.field("route", one.route)
                if !one.group.isEmpty { line.field("group", one.group) }
                line.fields(one.owner)
            }
        }
        rejected = found
    }

    private func sayRejected(_ rejected: Rejected, _ route: FoundRoute, _ log: ControlLog) {
        let guilty = route.backends.buffer.filter { ProxyVerdict($0.cell) == .rejected }
        log.say(
            "proxy_rejected",
            "a backend rejects the PROXY header: enable it there, or set the route's proxy_protocol to off"
        ) { line in
            line.field("route", rejected.route)
            if !rejected.group.isEmpty { line.field("group", rejected.group) }
            line.fields(rejected.owner)
            line.list("backends", guilty.prefix(20)) { $0.string($1.address.endpoint.description) }
            line.field("connections", UInt64(route.pointee.cell.pointee.proxyRejections.load(ordering: .relaxed)))
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
