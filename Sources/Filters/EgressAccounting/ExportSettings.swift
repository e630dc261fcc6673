import Pipeline

/// An `export` line: where flow records go, as IPFIX (RFC 7011).
public struct ExportSettings: Hashable, Sendable {
    public enum Transport: String, Sendable, CaseIterable { case udp, tcp }

    /// Collectors that one config may name (R27).
    public static let limit = 8
    /// The example number of RFC 5612: never anyone's own, so that what is decoded by it is known to be made up.
    public static let exampleEnterprise: UInt32 = 32473

    public var transport: Transport
    public var collector: Endpoint
    /// Observation domain id (RFC 7011 §3.1): tells nodes apart that share an address towards the collector.
    public var domain: UInt32 = 1
    /// The private enterprise number that the names of instances are told under.
    public var enterprise = ExportSettings.exampleEnterprise
    /// UDP: how often templates are sent again (RFC 7011 §8.4), so that a collector that began later understands.
    public var templates = TimeSpan.seconds(60)
    /// Records that wait at most; beyond, the newest are dropped and counted.
    public var queue = 65536

    public init(transport: Transport, collector: Endpoint) {
        self.transport = transport
        self.collector = collector
    }
}
