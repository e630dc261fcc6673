/// Who an instance is, in the platform's own names; empty where it is not known. For records that leave the node.
package struct FlowNames: Hashable, Sendable {
    package var instance: String
    package var env: String
    package var app: String
    package var org: String
    package init(instance: String = "", env: String = "", app: String = "", org: String = "") {
        self.instance = instance
        self.env = env
        self.app = app
        self.org = org
    }
}

/// An `export` line: where flow records go, as IPFIX (RFC 7011).
package struct ExportSettings: Hashable, Sendable {
    package enum Transport: String, Sendable, CaseIterable { case udp, tcp }

    /// Collectors that one config may name (R27).
    package static let limit = 8
    /// The example number of RFC 5612: never anyone's own, so that what is decoded by it is known to be made up.
    package static let exampleEnterprise: UInt32 = 32473

    package var transport: Transport
    package var collector: Endpoint
    /// Observation domain id (RFC 7011 §3.1): tells nodes apart that share an address towards the collector.
    package var domain: UInt32 = 1
    /// The private enterprise number that the names of instances are told under.
    package var enterprise = ExportSettings.exampleEnterprise
    /// UDP: how often templates are sent again (RFC 7011 §8.4), so that a collector that began later understands.
    package var templates = TimeSpan.seconds(60)
    /// Records that wait at most; beyond, the newest are dropped and counted.
    package var queue = 65536

    package init(transport: Transport, collector: Endpoint) {
        self.transport = transport
        self.collector = collector
    }
}
