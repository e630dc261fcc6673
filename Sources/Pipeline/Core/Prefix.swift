/// A CIDR prefix. IPv4 prefixes live in the IPv4-mapped space: `192.0.2.0/24` has ``length`` 120.
public struct Prefix: Hashable, Sendable {
    public let first: IPAddress
    /// 0...128, in the 128-bit space.
    public let length: Int

    /// Nil if `length` is out of range or `address` has bits beyond it (a typo more often than not).
    public init?(_ address: IPAddress, length: Int) {
        guard (0...128).contains(length) else { return nil }
        let mask = Prefix.mask(length)
        guard address.high & ~mask.high == 0, address.low & ~mask.low == 0 else { return nil }
        self.first = address
        self.length = length
    }

    /// Parses `2001:db8::/32`, `192.0.2.0/24`, or a bare address (a host prefix).
    public init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let head = parts.first, let address = IPAddress(head) else { return nil }
        let width = address.isIPv4 && !head.contains(":") ? 32 : 128
        var length = width
        if parts.count == 2 {
            guard let given = UInt8(parts[1]), String(given) == parts[1], given <= width else { return nil }
            length = Int(given)
        }
        self.init(address, length: length + 128 - width)
    }

    /// The same as the initializer above, over bytes that need not be valid text: for files of a million of them.
    public init?(ascii bytes: UnsafeBufferPointer<UInt8>) {
        let slash = bytes.firstIndex(of: UInt8(ascii: "/")) ?? bytes.count
        let head = UnsafeBufferPointer(rebasing: bytes[..<slash])
        guard let address = IPAddress(ascii: head) else { return nil }
        let width = address.isIPv4 && !head.contains(UInt8(ascii: ":")) ? 32 : 128
        var length = width
        if slash < bytes.count {
            let digits = bytes[(slash + 1)...]
            guard (1...3).contains(digits.count), digits.first != UInt8(ascii: "0") || digits.count == 1 else {
                return nil
            }
            length = 0
            for digit in digits {
                guard digit >= UInt8(ascii: "0"), digit <= UInt8(ascii: "9") else { return nil }
                length = length * 10 + Int(digit - UInt8(ascii: "0"))
            }
            guard length <= width else { return nil }
        }
        self.init(address, length: length + 128 - width)
    }

    public var last: IPAddress {
        let mask = Prefix.mask(length)
        return IPAddress(high: first.high | ~mask.high, low: first.low | ~mask.low)
    }

    public func contains(_ address: IPAddress) -> Bool { first <= address && address <= last }

    private static func mask(_ length: Int) -> (high: UInt64, low: UInt64) {
        let high = length >= 64 ? UInt64.max : ~(UInt64.max >> UInt64(length))
        let low = length <= 64 ? 0 : (length >= 128 ? UInt64.max : ~(UInt64.max >> UInt64(length - 64)))
        return (length == 0 ? 0 : high, low)
    }
}

extension Prefix: CustomStringConvertible {
    public var description: String {
        first.isIPv4 && length >= 96 ? "\(first)/\(length - 96)" : "\(first)/\(length)"
    }
}
