import Pipeline
import PipelineFlows

/// IPFIX definitions (RFC 7011): the templates, and their numbers from RFC 7012's registry.
package enum IPFIX {
    package static let version: UInt16 = 10
    package static let headerLength = 16
    package static let setHeaderLength = 4
    /// RFC 7011 §3.3.2.
    package static let templateSet: UInt16 = 2
    /// A field's length in a template if each record says its own (RFC 7011 §7).
    package static let variableLength: UInt16 = 65535
    /// RFC 5103 §6.1: an element under this number is the standard one, of the reverse direction.
    package static let reverseEnterprise: UInt32 = 29305
    /// A name has this many octets at most; a longer one is cut at a character.
    package static let nameLimit = 254
    /// A message is never longer than its 16-bit length can say.
    package static let longestMessage = 65535
    /// Any record fits a message of this length (four names of ``nameLimit``, headers and 64 octets and more of numbers).
    package static let shortestLimit = 1280

    /// Names of ours, under the operator's enterprise number.
    package enum NameElement: UInt16, CaseIterable, Sendable {
        case instance = 1
        case env, app, org
    }

    /// A field of a template.
    package struct Field: Equatable, Sendable {
        package enum Space: Equatable, Sendable { case standard, reverse, ours }
        package let element: UInt16
        package let length: UInt16
        package let space: Space
        fileprivate init(_ element: UInt16, _ length: UInt16, _ space: Space = .standard) {
            self.element = element
            self.length = length
            self.space = space
        }
    }

    /// One template for each kind of flow. ICMP has no ports: a type and a code stand in their place.
    package enum Template: UInt16, CaseIterable, Sendable {
        case ipv4 = 256
        case ipv6, icmpIPv4, icmpIPv6

        package init(_ key: FlowKey) {
            let isIPv4 = key.source.isIPv4 && key.destination.isIPv4
            switch (isIPv4, key.proto) {
            case (true, 1): self = .icmpIPv4
            case (false, 58): self = .icmpIPv6
            default: self = isIPv4 ? .ipv4 : .ipv6
            }
        }

        package var isIPv4: Bool { self == .ipv4 || self == .icmpIPv4 }

        /// In the order in which a record's values stand.
        package var fields: [Field] {
            let addresses =
                isIPv4
                ? [Field(8, 4), Field(12, 4)]  // sourceIPv4Address, destinationIPv4Address
                : [Field(27, 16), Field(28, 16)]  // sourceIPv6Address, destinationIPv6Address
            let port =
                switch self {
                case .ipv4, .ipv6: Field(11, 2)  // destinationTransportPort
                case .icmpIPv4: Field(32, 2)  // icmpTypeCodeIPv4
                case .icmpIPv6: Field(139, 2)  // icmpTypeCodeIPv6
                }
            return addresses + [
                port,
                Field(4, 1),  // protocolIdentifier
                Field(1, 8),  // octetDeltaCount: from the instance
                Field(1, 8, .reverse),  // reverseOctetDeltaCount: to the instance
                Field(278, 4),  // newConnectionDeltaCount
                Field(152, 8),  // flowStartMilliseconds
                Field(153, 8),  // flowEndMilliseconds
            ] + NameElement.allCases.map { Field($0.rawValue, variableLength, .ours) }
        }
    }
}
