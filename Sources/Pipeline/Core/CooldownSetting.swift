/// R31: how long an address that was another env's is not served; zero: not at all.
public struct CooldownSetting: Sendable, Equatable {
    /// Addresses of instances.
    public var instances: TimeSpan
    /// Dedicated IPv4 addresses.
    public var ipv4: TimeSpan

    public init(instances: TimeSpan, ipv4: TimeSpan) {
        self.instances = instances
        self.ipv4 = ipv4
    }

    public static let standard = CooldownSetting(instances: .seconds(3600), ipv4: .seconds(86400))
    public static let off = CooldownSetting(instances: .zero, ipv4: .zero)

    /// As in a config.
    public var text: String {
        self == .off ? instances.configText : "\(instances.configText) ipv4 \(ipv4.configText)"
    }
}
