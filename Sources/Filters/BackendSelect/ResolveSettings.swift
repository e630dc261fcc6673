import Pipeline

/// The `resolve` block: how names of backends are looked up. Immutable.
public final class ResolveSettings: SettingsBlock {
    public struct Values: Sendable {
        /// Empty: those of /etc/resolv.conf.
        public var nameservers: [Endpoint] = []
        /// Bounds of the time for which an answer counts as fresh.
        public var minTTL = TimeSpan.seconds(5)
        public var maxTTL = TimeSpan.seconds(300)
        /// For one try at one server.
        public var timeout = TimeSpan.seconds(2)
        public var retries: UInt32 = 2
        /// How long the last addresses of a name are kept that has none any more.
        public var hold = TimeSpan.seconds(30)
        /// Nil: all but ``refused``.
        public var allowed: [AddressSet]?
        public init() {}
    }

    public let name = ""
    public let values: Values
    public init(_ values: Values = Values()) { self.values = values }

    /// Whether a name may lead to the address.
    /// - Parameter isOwn: whether an address is one of this host's.
    public func allows(_ address: IPAddress, isOwn: (IPAddress) -> Bool = { _ in false }) -> Bool {
        guard let sets = values.allowed else { return !ResolveSettings.isRefused(address) && !isOwn(address) }
        return sets.contains { set in set.prefixes.contains { $0.contains(address) } }
    }

    /// Not without a word of the operator: what is no host's, this host, and where clouds give credentials to whoever asks.
    static func isRefused(_ address: IPAddress) -> Bool {
        address.isOfThisHostAlone || address.isUnspecified || refused.contains { $0.contains(address) }
    }

    private static let refused = [
        "169.254.0.0/16", "0.0.0.0/8", "240.0.0.0/4", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32",
        "fd00:ec2::254/128", "fd20:ce::254/128",
    ].compactMap { Prefix($0) }
}

// MARK: Lines

extension ResolveSettings {
    static let block = BlockDescriptor(
        "resolve", .single, what: "resolve block", of: ResolveSettings.self,
        "how names of backends are looked up", absent: { _ in nil })

    public static let initial = Values()
    public static let lines: [Setting<Values>] = [
        Setting(
            SettingLine(
                "nameservers", [[.list(nameserver, limit: 8)]],
                "who is asked, one after the other: addresses, with a port if it is not 53",
                without: "those of /etc/resolv.conf"),
            text: { values in
                values.nameservers.isEmpty ? nil : values.nameservers.map { text($0) }.joined(separator: " ")
            },
            apply: { $0.nameservers = $1.customs(as: Endpoint.self) }),
        .duration(
            "min_ttl", \.minTTL, TimeSpan.milliseconds(100)...(.seconds(3600)),
            "an answer is asked for again after its TTL, and not before this"),
        .duration(
            "max_ttl", \.maxTTL, TimeSpan.milliseconds(100)...(.seconds(86400)), "and not later than this"),
        .duration(
            "timeout", \.timeout, TimeSpan.milliseconds(100)...(.seconds(30)),
            "how long one server has for an answer; the next rounds of tries take twice as long each"),
        .count("retries", \.retries, 0...10, "further tries at each server"),
        .duration(
            "hold", \.hold, TimeSpan.milliseconds(0)...(.seconds(86400)),
            "how long a name keeps its last addresses that is gone (NXDOMAIN) or has none any more; while no server "
                + "answers, it keeps them in any case"),
        Setting(
            SettingLine(
                "allow", [[.set(name: "set"), .several([.set(name: "set")], limit: 15)]],
                "the addresses that a name may lead to",
                without: "all but this host's, link-local, multicast and reserved ones, and those of cloud metadata"),
            text: { $0.allowed.map { $0.map(\.name).joined(separator: " ") } },
            apply: { values, clause in
                values.allowed = clause.values.compactMap { if case .set(let set) = $0 { set } else { nil } }
            }),
    ]

    private static let nameserver = ValueKind(
        "ADDRESS", expected: "an address like `192.0.2.53`, or `[2001:db8::53]:5353`"
    ) { text throws(ValueProblem) in
        let isBare = text.hasPrefix("[") && text.hasSuffix("]")
        let address = IPAddress(isBare ? text.dropFirst().dropLast() : text[...])
        let endpoint = address.map { Endpoint($0, 53) } ?? Endpoint(text)
        guard let endpoint, endpoint.port > 0, !endpoint.address.isUnspecified else {
            throw ValueProblem(
                message: "\(quoted(text)) is not the address of a name server",
                expected: "an address like `192.0.2.53`, or `[2001:db8::53]:5353`")
        }
        return .custom(endpoint)
    }

    private static func text(_ server: Endpoint) -> String {
        server.port == 53 ? "\(server.address)" : "\(server)"
    }

    public static func make(_ values: Values, _ context: BlockContext) -> BlockOutcome {
        var remarks: [BlockRemark] = []
        if values.minTTL > values.maxTTL {
            remarks.append(
                BlockRemark(
                    .error, at: context.said.contains("min_ttl") ? "min_ttl" : "max_ttl",
                    "`min_ttl` of \(values.minTTL.configText) is longer than `max_ttl` of \(values.maxTTL.configText)",
                    help: "make `min_ttl` shorter or `max_ttl` longer"))
        }
        return BlockOutcome(ResolveSettings(values), remarks)
    }
}
