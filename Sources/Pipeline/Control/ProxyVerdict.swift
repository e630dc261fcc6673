import CLinux
import Pipeline
import PipelineRouting

/// R18: whether the backends of a route take our PROXY header.
package enum ProxyVerdict: String, Sendable, Equatable {
    /// The route sends none.
    case off
    /// No connection and no probe has shown yet.
    case unknown
    case accepted
    /// One of its backends, at least, does not.
    case rejected
    /// R16: the route and its backends can't agree on it; every connection is refused.
    case mismatch

    package init(_ route: Route) {
        guard !route.flags.contains(.proxyMismatch) else {
            self = .mismatch
            return
        }
        guard route.flags.contains(.proxyV2) else {
            self = .off
            return
        }
        self.init(route.group.pointee)
    }

    init(_ group: BackendGroup) {
        self = .unknown
        for backend in group.backends.buffer {
            let verdict = ProxyVerdict(backend.cell)
            if verdict == .rejected {
                self = .rejected
                return
            }
            if verdict == .accepted { self = .accepted }
        }
    }

    /// Of one backend.
    init(_ cell: UnsafePointer<BackendCell>) {
        switch BackendCell.HeaderVerdict(rawValue: cell.pointee.proxy.load(ordering: .relaxed)) {
        case .accepted?: self = .accepted
        case .rejected?: self = .rejected
        case .unknown?, nil: self = .unknown
        }
    }
}

/// Looks once a second whether backends of v2 routes take our header, and says when that changes (R18). Costs a walk
/// over the distinct sets of backends, and one over the routes only while some set has a backend that doesn't.
struct ProxyWatch {
    private static let interval = TimeSpan.seconds(1)

    private struct Rejected: Hashable {
        let route: String
        let owner: EnvName
    }

    /// Of v2 routes, in the newest table.
    private var groups: [UnsafePointer<BackendGroup>] = []
    private var isStale = true
    private var rejected: Set<Rejected> = []
    /// Nil: there are no v2 routes.
    private(set) var nextLook: Instant?

    mutating func routesChanged() {
        isStale = true
        nextLook = nextLook ?? Instant(nanoseconds: 0)
    }

    mutating func look(_ table: RouteTableSnapshot, _ now: Instant, _ log: ControlLog) {
        guard let due = nextLook, due <= now else { return }
        if isStale { collect(table) }
        nextLook = groups.isEmpty ? nil : now + ProxyWatch.interval
        guard !rejected.isEmpty || groups.contains(where: { ProxyVerdict($0.pointee) == .rejected }) else { return }
        var found: Set<Rejected> = []
        table.visitAll { route, _ in
            guard ProxyVerdict(route.pointee) == .rejected else { return }
            let one = Rejected(route: route.pointee.id.string, owner: route.pointee.owner.pointee.name)
            found.insert(one)
            if !rejected.contains(one) { sayRejected(one, route.pointee, log) }
        }
        for one in rejected.subtracting(found).sorted(by: { $0.route < $1.route }) {
            log.say("proxy_accepted") { line in
                line.field("route", one.route)
                line.fields(one.owner)
            }
        }
        rejected = found
    }

    private mutating func collect(_ table: RouteTableSnapshot) {
        isStale = false
        var seen: Set<UnsafePointer<BackendGroup>> = []
        table.visitAll { route, _ in
            if route.pointee.flags.intersection([.proxyV2, .proxyMismatch]) == .proxyV2 {
                seen.insert(route.pointee.group)
            }
        }
        groups = Array(seen)
    }

    private func sayRejected(_ rejected: Rejected, _ route: Route, _ log: ControlLog) {
        let guilty = route.backends.buffer.filter { ProxyVerdict($0.cell) == .rejected }
        log.say(
            "proxy_rejected",
            "a backend does not take our PROXY header; make it expect one, or set the route's proxy_protocol to off"
        ) { line in
            line.field("route", rejected.route)
            line.fields(rejected.owner)
            line.list("backends", guilty.prefix(20)) { $0.string($1.address.endpoint.description) }
            line.field("connections", UInt64(route.cell.pointee.proxyRejections.load(ordering: .relaxed)))
        }
    }
}
