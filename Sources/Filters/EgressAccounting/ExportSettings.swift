import Pipeline

/// An `export` line: where flow records go, as IPFIX (RFC 7011).
public struct ExportSettings: Hashable, Sendable {
    public enum Transport: String, Sendable, CaseIterable { case udp, tcp }

    /// The most collectors of a config (R27).
    public static let limit = 8
    /// The example number of RFC 5612, which is assigned to nobody, so that records with it are recognisable as
    /// unconfigured.
    public static let exampleEnterprise: UInt32 = 32473

    public var transport: Transport
    public var collector: Endpoint
    /// Observation domain id (RFC 7011 §3.1): distinguishes nodes that share an address towards the collector.
    public var domain: UInt32 = 1
    /// The private enterprise number of the elements for instance names.
    public var enterprise = ExportSettings.exampleEnterprise
    /// UDP: how often templates are sent again (RFC 7011 §8.4), for collectors that start later.
    public var templates = TimeSpan.seconds(60)
    /// The most queued records; beyond that, the newest are dropped and counted.
    public var queue = 65536

    public init(transport: Transport, collector: Endpoint) {
        self.transport = transport
        self.collector = collector
    }
}
