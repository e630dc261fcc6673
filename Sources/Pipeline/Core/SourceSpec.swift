/// What a config says of where connections to backends come from: `source` of a stage, a `backends` block or a route.
public enum SourceSpec: Hashable, Sendable {
    /// `off`: the kernel chooses.
    case kernel
    /// The client's own address, as it is believed: that of our PROXY header.
    case client
    /// These take turns, each for backends of its family.
    case addresses([AddressRange])

    /// The most addresses of one `source` (R27): each has as many ports to one backend as the system's range has.
    public static let limit = 4096
    /// The most words of one.
    public static let wordLimit = 64

    /// - Throws: if there are too many, or one is there twice.
    public static func of(_ ranges: [AddressRange]) throws(ValueProblem) -> SourceSpec {
        let sorted = ranges.sorted { $0.first < $1.first }
        for (range, next) in zip(sorted, sorted.dropFirst()) where next.first <= range.last {
            throw ValueProblem(message: "`source` has \(next.first) twice", help: "remove one of them")
        }
        guard ranges.reduce(0, { $0 + $1.count }) <= limit else {
            throw ValueProblem(
                message: "`source` has more than \(limit) addresses", help: "write a smaller prefix, or a range")
        }
        return .addresses(ranges)
    }

    /// What a check says of ``client``.
    public static let clientNote = (
        text: "`source client`: what backends answer to clients' addresses must come back to this host's sockets",
        help: "docs/filters/backend.md, *The client's own address*, has the routes and rules that it takes; an IPv4 "
            + "client reaches no IPv6 backend so, nor the reverse"
    )

    /// As a config writes it, after `source`.
    public var configText: String {
        switch self {
        case .kernel: "off"
        case .client: "client"
        case .addresses(let ranges): ranges.map(\.description).joined(separator: " ")
        }
    }

    /// Whether a backend there can be connected to, as far as that is known without the client.
    public func reaches(_ backend: IPAddress) -> Bool {
        guard case .addresses(let ranges) = self else { return true }
        return ranges.contains { $0.first.isIPv4 == backend.isIPv4 }
    }

    /// All of them, of one family, in order.
    public func addresses(isIPv4: Bool) -> [IPAddress] {
        guard case .addresses(let ranges) = self else { return [] }
        return ranges.filter { $0.first.isIPv4 == isIPv4 }.flatMap(\.all)
    }
}

/// Addresses of one family in a row: one, a prefix, or `FIRST-LAST`.
public struct AddressRange: Hashable, Sendable, CustomStringConvertible {
    public let first: IPAddress
    public let last: IPAddress

    /// Nil: they are of two families, in the wrong order, or more than ``SourceSpec/limit``.
    public init?(_ first: IPAddress, _ last: IPAddress) {
        guard first.isIPv4 == last.isIPv4, first <= last, first.high == last.high,
            last.low - first.low < UInt64(SourceSpec.limit)
        else { return nil }
        self.first = first
        self.last = last
    }

    public var count: Int { Int(last.low - first.low) + 1 }

    /// In order.
    public var all: [IPAddress] { (0..<UInt64(count)).map { IPAddress(high: first.high, low: first.low + $0) } }

    /// `192.0.2.1`, `192.0.2.0/28` or `192.0.2.10-192.0.2.20`.
    public var description: String {
        if count == 1 { return first.description }
        let bits = Int.bitWidth - (count - 1).leadingZeroBitCount
        guard let prefix = Prefix(first, length: 128 - bits), prefix.last == last else { return "\(first)-\(last)" }
        return prefix.description
    }
}

extension ConfigValue {
    /// One word of `source`: an address, a prefix, or `FIRST-LAST`.
    public static func sourceRange(_ text: String) throws(ValueProblem) -> AddressRange {
        let ends = text.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
        let bounds: (first: IPAddress, last: IPAddress)
        if ends.count == 2, let first = IPAddress(ends[0]), let last = IPAddress(ends[1]) {
            bounds = (first, last)
        } else {
            bounds = try sourcePrefix(text)
        }
        guard bounds.first.isIPv4 == bounds.last.isIPv4 else {
            throw ValueProblem(message: "\(quoted(text)) is of two address families", help: "write a range for each")
        }
        guard bounds.first <= bounds.last else {
            throw ValueProblem(message: "\(quoted(text)) is reversed", help: "write `\(bounds.last)-\(bounds.first)`")
        }
        guard let range = AddressRange(bounds.first, bounds.last) else {
            throw ValueProblem(
                message: "\(quoted(text)) has more than \(SourceSpec.limit) addresses",
                help: "write a smaller prefix, or a range")
        }
        // A prefix of any length lies in such a range or outside of it; `FIRST-LAST` may touch one.
        guard !range.first.isNoSource, !range.last.isNoSource else {
            throw ValueProblem(
                message: "nothing can be sent from \(range.first.isNoSource ? range.first : range.last)",
                expected: sourceForm, help: "write an address that this host has (`ip addr`)")
        }
        return range
    }

    public static let sourceForm = "an address, a prefix or a range like `192.0.2.10-192.0.2.20`"

    private static func sourcePrefix(_ text: String) throws(ValueProblem) -> (first: IPAddress, last: IPAddress) {
        if let endpoint = Endpoint(text) {
            throw ValueProblem(
                message: "\(quoted(text)) is not an address", expected: sourceForm,
                help: "write `\(endpoint.address)`: the kernel chooses the port, out of `net.ipv4.ip_local_port_range`")
        }
        guard text.contains("/") || IPAddress(text) != nil else {
            let inner = text.hasPrefix("[") && text.hasSuffix("]") ? String(text.dropFirst().dropLast()) : ""
            throw ValueProblem(
                message: "\(quoted(text)) is not an address", expected: sourceForm,
                help: IPAddress(inner) == nil ? nil : "write `\(inner)`")
        }
        let prefix = try prefix(text)
        return (prefix.first, prefix.last)
    }
}

extension IPAddress {
    /// An address that TCP can't be sent from; link-local ones of IPv6 need an interface.
    fileprivate var isNoSource: Bool {
        guard isIPv4 else { return isUnspecified || high >> 56 == 0xFF || high >> 54 == 0x3FA }
        return v4Bits >> 24 == 0 || v4Bits >> 24 >= 224
    }
}
