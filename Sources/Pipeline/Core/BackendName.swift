/// A name in place of a backend's address, which the DNS is asked for.
public struct BackendName: Hashable, Comparable, Sendable {
    /// Of A and AAAA records, or of SRV records, which have ports and weights.
    public enum Kind: String, Sendable { case host, service }
    public let kind: Kind
    /// In lower case, without a dot at the end.
    public let host: String

    /// The most addresses of a name; those beyond it are left out, and said to be.
    public static let addressLimit = 64
    /// The most names of a node.
    public static let limit = 256

    public init(_ kind: Kind, _ host: String) {
        self.kind = kind
        self.host = host
    }

    public static func < (a: BackendName, b: BackendName) -> Bool {
        (a.host, a.kind.rawValue) < (b.host, b.kind.rawValue)
    }

    /// A name of the DNS: labels of 1 to 63 letters, digits, `-` and `_`, together at most 253. The last one is no number, or
    /// it would be a misspelt address. Nil: it is none.
    public static func canonical(_ text: some StringProtocol) -> String? {
        let name = text.hasSuffix(".") ? text.dropLast() : text[...]
        guard (1...253).contains(name.utf8.count) else { return nil }
        let labels = name.split(separator: ".", omittingEmptySubsequences: false)
        let isFine = labels.allSatisfy { label in
            (1...63).contains(label.utf8.count)
                && label.utf8.allSatisfy { $0.isASCIILetterOrDigit || $0 == 0x2D || $0 == 0x5F }
        }
        guard isFine, let last = labels.last, !last.allSatisfy(\.isNumber) else { return nil }
        return name.lowercased()
    }
}

extension BackendName: CustomStringConvertible {
    /// As a config writes it, without the port of a host.
    public var description: String { kind == .service ? "srv \(host)" : host }
}

/// One address of a name.
public struct ResolvedAddress: Hashable, Comparable, Sendable {
    public let address: IPAddress
    /// Nil: the port that the config gives.
    public let port: UInt16?
    /// Nil: the weight that the config gives.
    public let weight: UInt16?
    /// Added to the priority that the config gives.
    public let priority: UInt8

    public init(_ address: IPAddress, port: UInt16? = nil, weight: UInt16? = nil, priority: UInt8 = 0) {
        self.address = address
        self.port = port
        self.weight = weight
        self.priority = priority
    }

    public static func < (a: ResolvedAddress, b: ResolvedAddress) -> Bool {
        a.address != b.address ? a.address < b.address : (a.port ?? 0) < (b.port ?? 0)
    }

    /// `fd00::1`, or `[fd00::1]:8443` of a service.
    public var text: String { port.map { "\(Endpoint(address, $0))" } ?? "\(address)" }
}

extension BackendSpec {
    /// Itself at an address of its ``name``.
    public func at(_ address: ResolvedAddress) -> BackendSpec {
        BackendSpec(
            Endpoint(address.address, address.port ?? endpoint.port), weight: address.weight ?? weight,
            maxConnections: maxConnections,
            priority: UInt8(clamping: min(Int(priority) + Int(address.priority), Int(BackendSpec.backupPriority))))
    }

    /// As the config writes it.
    public var place: String {
        guard let name else { return "\(endpoint)" }
        return name.kind == .service ? "\(name)" : "\(name):\(endpoint.port)"
    }
}
