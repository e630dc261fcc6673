import Pipeline

/// Lines about backends, and no more of them than someone can read (R27). One thread.
struct HealthLog {
    /// Lines at once after a pause, and a second in the long run.
    static let burst = 100
    static let perSecond = 20

    private let write: @Sendable ([UInt8]) -> Void
    private let wallClock: @Sendable () -> UInt64
    private var tokens = Double(HealthLog.burst)
    private var filled = Instant(nanoseconds: 0)
    private var suppressed = 0

    init(wallClock: @escaping @Sendable () -> UInt64, write: @escaping @Sendable ([UInt8]) -> Void) {
        self.write = write
        self.wallClock = wallClock
    }

    mutating func say(_ event: HealthBoard.Event, of target: ProbeTarget, now: Instant) {
        guard mayWrite(now) else {
            suppressed += 1
            return
        }
        let omitted = suppressed
        suppressed = 0
        write(
            ControlLog.line(HealthLog.name(event), HealthLog.message(event), time: wallClock()) { line in
                line.field("backend", target.key.endpoint.description)
                if target.instance != target.key.endpoint.description { line.field("instance", target.instance) }
                line.list("envs", target.routes.envs)
                line.list("routes", target.routes.ids) { $0.string($1) }
                if target.routes.count > target.routes.ids.count { line.field("route_count", target.routes.count) }
                line.field("health", target.settings.name)
                line.field("proxy_v2", target.key.usesProxy)
                HealthLog.fields(event, &line)
                if omitted > 0 { line.field("suppressed", omitted) }
            })
    }

    private mutating func mayWrite(_ now: Instant) -> Bool {
        let seconds = Double(now.since(filled).nanoseconds) / 1e9
        filled = max(filled, now)
        tokens = min(Double(HealthLog.burst), tokens + seconds * Double(HealthLog.perSecond))
        guard tokens >= 1 else { return false }
        tokens -= 1
        return true
    }

    private static func name(_ event: HealthBoard.Event) -> String {
        switch event {
        case .down: "backend_down"
        case .up: "backend_up"
        case .proxyRejected: "backend_proxy_rejected"
        case .proxyAccepted: "backend_proxy_accepted"
        case .proxyUnknown: "backend_proxy_unknown"
        }
    }

    private static func message(_ event: HealthBoard.Event) -> String? {
        guard case .proxyRejected = event else { return nil }
        return "the backend takes the PROXY header for the client's bytes: have it expect one (nginx `proxy_protocol`, "
            + "HAProxy `accept-proxy`), or set `proxy_protocol` of its routes to off"
    }

    private static func fields(_ event: HealthBoard.Event, _ line: inout JSONLine) {
        switch event {
        case .down(let result, let bad):
            line.field("reason", result.name)
            line.field("probes", UInt64(bad))
        case .up(let after, let good):
            line.field("probes", UInt64(good))
            line.field("down_ms", after.milliseconds)
        case .proxyRejected(let result): line.field("probe", result.name)
        case .proxyAccepted, .proxyUnknown: break
        }
    }
}
