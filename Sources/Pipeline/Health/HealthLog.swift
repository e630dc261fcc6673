import Pipeline
import PipelineText

/// Log lines about backends, rate-limited (R27). One thread.
struct HealthLog {
    private var log: BudgetedLog

    init(wallClock: @escaping @Sendable () -> UInt64, write: @escaping @Sendable ([UInt8]) -> Void) {
        log = BudgetedLog(wallClock: wallClock, write: write)
    }

    /// - Parameter heard: the beginning of the backend's answer.
    mutating func say(_ event: ProbeTable.Event, of target: ProbeTarget, heard: [UInt8] = [], now: Instant) {
        log.say(HealthLog.name(event), HealthLog.message(event), now) { line in
            line.field("backend", target.key.endpoint.description)
            if target.instance != target.key.endpoint.description { line.field("instance", target.instance) }
            line.list("envs", target.routes.envs)
            line.list("routes", target.routes.ids) { $0.string($1) }
            if target.routes.count > target.routes.ids.count { line.field("route_count", target.routes.count) }
            line.field("health", target.settings.name)
            if target.settings.probesElsewhere {
                line.field("probed", target.settings.place(of: target.key.endpoint).description)
            }
            if case .down = event, let text = HealthLog.printable(heard) { line.field("answer", text) }
            line.field("proxy_v2", target.key.usesProxy && !target.proxyIsText)
            if target.proxyIsText { line.field("proxy_v1", target.key.usesProxy) }
            HealthLog.fields(event, &line)
        }
    }

    /// What it answered, up to the end of the line; nil: nothing.
    private static func printable(_ heard: [UInt8]) -> String? {
        let line = heard.prefix { $0 != 0x0A && $0 != 0x0D }
        guard !line.isEmpty else { return nil }
        return String(decoding: line.map { $0 >= 0x20 && $0 < 0x7F ? $0 : UInt8(ascii: ".") }, as: UTF8.self)
    }

    private static func name(_ event: ProbeTable.Event) -> String {
        switch event {
        case .down: "backend_down"
        case .up: "backend_up"
        case .proxyRejected: "backend_proxy_rejected"
        case .proxyAccepted: "backend_proxy_accepted"
        case .proxyUnknown: "backend_proxy_unknown"
        case .drained: "backend_drained"
        case .undrained: "backend_undrained"
        }
    }

    private static func message(_ event: ProbeTable.Event) -> String? {
        guard case .proxyRejected = event else { return nil }
        return "the backend rejects the PROXY header: enable it there (nginx `proxy_protocol`, HAProxy "
            + "`accept-proxy`), or set `proxy_protocol` of its routes to off"
    }

    private static func fields(_ event: ProbeTable.Event, _ line: inout JSONLine) {
        switch event {
        case .down(let result, let bad):
            line.field("reason", result.name)
            line.field("probes", UInt64(bad))
        case .up(let after, let good):
            line.field("probes", UInt64(good))
            line.field("down_ms", after.milliseconds)
        case .proxyRejected(let result): line.field("probe", result.name)
        case .proxyAccepted, .proxyUnknown, .drained, .undrained: break
        }
    }
}
