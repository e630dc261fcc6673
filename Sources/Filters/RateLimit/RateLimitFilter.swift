import Pipeline
import PipelineLimits

/// `rate_limit per_client`: refuses connections beyond a `limit` block's rate, concurrency or table size, and applies
/// its byte rates to the relay.
public enum RateLimitFilter: Filter {
    /// Views the block's table, which the stage keeps alive.
    public struct Settings: Sendable {
        let limit: LimitHandle
        /// The block's, for `explain`.
        let name: FrozenText
    }

    enum Refusal: UInt8, CaseIterable {
        case rateExceeded, tooManyConnections, tableFull

        init(_ refusal: LimitRefusal) {
            switch refusal {
            case .rateExceeded: self = .rateExceeded
            case .tooManyConnections: self = .tooManyConnections
            case .tableFull: self = .tableFull
            }
        }
    }

    public static let descriptor = FilterDescriptor(
        keyword: "rate_limit",
        summary: "limits connections and bytes by client, route, owner, instance or listener",
        reads: [.client],
        clauses: [
            ClauseSpec(
                "limit", [.block(name: "limit", LimitTable.block.kind)], required: true,
                summary: "the `limit` block with the key, the limits and the size of the table")
        ],
        reasons: [
            ReasonSpec("rate_exceeded", .client, "The key opened more connections than its rate and burst allow."),
            ReasonSpec("too_many_connections", .client, "The key is at its limit of concurrent connections."),
            ReasonSpec("table_full", .node, "The key is new, and the limit's table is full."),
        ], blocks: [LimitTable.block],
        foreignWords: foreignWords)

    public static func settings(_ directive: Directive) throws(SettingsError) -> Settings {
        guard let table = directive.block("limit") as? LimitTable else {
            throw SettingsError("`rate_limit` needs a limit", remedy: "write `rate_limit NAME`", clause: "limit")
        }
        return Settings(limit: table.handle, name: FrozenText(table.name))
    }

    public static func facts(_ settings: Settings) -> StageFacts {
        let key = settings.limit.key
        let reservations = settings.limit.isHeld ? 1 : 0
        if case .client = key { return StageFacts(reads: descriptor.reads, reservations: reservations) }
        return StageFacts(needs: key.needs, instead: key.instead, reservations: reservations)
    }

    public static func evaluate(
        _ settings: Settings, _ state: inout Void, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        // No route: a stage above would have refused the connection, but is in shadow mode.
        guard let key = key(settings, view) else { return .next }
        if view.isDryRun {
            return settings.limit.look(key, at: view.now).refusal.map { .refuse(Refusal($0).rawValue) } ?? .next
        }
        switch settings.limit.admit(key, at: view.now) {
        case .refused(let refusal): return .refuse(Refusal(refusal).rawValue)
        case .admitted(let reservation, let bucket):
            guard let reservation else { return .next }
            guard effects.reserve(reservation) else {
                reservation.pointee.remove()
                return .refuse(Refusal.tooManyConnections.rawValue)
            }
            if let bucket { _ = effects.pace(bucket) }
            return .next
        }
    }

    public static func dispose(_ settings: Settings) { settings.name.deallocate() }
}

// MARK: Keys

extension RateLimitFilter {
    /// Nil: the connection has none, since no route was found.
    static func key(_ settings: Settings, _ view: ConnectionView) -> LimitKeyBits? {
        switch settings.limit.key {
        case .client(let v6, let v4):
            let network = network(view.facts.client.endpoint.address, v6: v6, v4: v4)
            return LimitKeyBits(high: network.high, low: network.low)
        case .listener: return LimitKeyBits(high: 0, low: UInt64(view.facts.listener))
        case .connection: return LimitKeyBits(high: 0, low: view.facts.serial)
        case .route, .env, .org, .instance: return who(settings.limit.key, view)?.bits(settings)
        }
    }

    /// The first address of the client's network. An IPv4 client is never counted with IPv6 ones.
    static func network(_ address: IPAddress, v6: UInt8, v4: UInt8) -> IPAddress {
        let length = UInt64(address.isIPv4 ? 96 + min(v4, 32) : min(v6, 128))
        // Half by half: smart shifts by 64 or more give zero.
        return IPAddress(
            high: address.high & ~(UInt64.max >> min(length, 64)),
            low: address.low & ~(UInt64.max >> (max(length, 64) - 64)))
    }

    /// The key's text. An id alone is ambiguous: other envs may have the same.
    private struct Who {
        let org: FrozenText
        var env: (app: FrozenText, id: FrozenText)?
        /// Of a route or an instance of the env.
        var id: FrozenText?

        func bits(_ settings: Settings) -> LimitKeyBits {
            guard let env else { return settings.limit.bits(of: org) }
            return settings.limit.bits(org: org, app: env.app, env: env.id, id: id)
        }

        /// `acme`, `acme/shop/prod`, `i_7 of acme/shop/prod`.
        var text: String {
            guard let env else { return org.string }
            let path = EnvName(org: org.string, app: env.app.string, env: env.id.string).path
            return id.map { "\($0.string) of \(path)" } ?? path
        }
    }

    private static func who(_ key: LimitKey, _ view: ConnectionView) -> Who? {
        // R19: with a known sender, limits apply to the sender.
        if let identity = view.facts.identity, key != .route {
            let env = (app: identity.pointee.app, id: identity.pointee.env)
            switch key {
            case .env: return Who(org: identity.pointee.org, env: env)
            case .org: return Who(org: identity.pointee.org)
            case .instance: return Who(org: identity.pointee.org, env: env, id: identity.pointee.id)
            case .route, .client, .listener, .connection: return nil
            }
        }
        guard let route = view.facts.route else { return nil }
        let owner = route.pointee.owner
        let env = (app: owner.pointee.app, id: owner.pointee.env)
        switch key {
        case .route: return Who(org: owner.pointee.org, env: env, id: route.pointee.id)
        case .env: return Who(org: owner.pointee.org, env: env)
        case .org: return Who(org: owner.pointee.org)
        case .instance:
            return view.facts.candidates[0].map { Who(org: owner.pointee.org, env: env, id: $0.pointee.instance) }
        case .client, .listener, .connection: return nil
        }
    }

    /// `client 2001:db8::/64`, `env acme/shop/prod`.
    private static func describe(_ key: LimitKey, _ view: ConnectionView) -> String? {
        switch key {
        case .client(let v6, let v4):
            let address = view.facts.client.endpoint.address
            return "client \(network(address, v6: v6, v4: v4))/\(address.isIPv4 ? v4 : v6)"
        case .listener: return "listener \(view.facts.listener)"
        case .connection: return "the connection"
        case .route: return who(key, view).map { "route \($0.text)" }
        case .env: return who(key, view).map { "env \($0.text)" }
        case .org: return who(key, view).map { "org \($0.text)" }
        case .instance: return who(key, view).map { "instance \($0.text)" }
        }
    }

    public static func explain(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        guard let key = key(settings, view), let who = describe(settings.limit.key, view) else {
            return "neither a route nor a sender is known, so there is no key"
        }
        let state = settings.limit.look(key, at: view.now)
        let stands = state.isKnown ? standing(settings, state) : "is new to the limit \(settings.name.string)"
        switch verdict {
        case .refuse(Refusal.rateExceeded.rawValue): return "\(who) \(stands): its rate is exhausted"
        case .refuse(Refusal.tooManyConnections.rawValue): return "\(who) \(stands), which is its limit"
        case .refuse: return "\(who) \(stands), whose table is full"
        case .next, .needBytes, .inspect, .wait: return "\(who) \(stands)"
        }
    }

    private static func standing(_ settings: Settings, _ state: LimitState) -> String {
        var parts: [String] = []
        if let available = state.available { parts.append("may open \(available) connections now") }
        if settings.limit.isHeld { parts.append("has \(state.active) connections") }
        return parts.joined(separator: ", ")
    }
}
