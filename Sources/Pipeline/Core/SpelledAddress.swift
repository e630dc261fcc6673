/// IPv4 addresses embedded in IPv6 addresses: a translator forwards packets for one to the other, so that rules for
/// either must apply to both.
public enum SpelledAddress {
    /// - Parameter prefixes: this network's own translation prefixes (`nat64`): of 32, 40, 48, 56, 64 or 96 bits.
    /// - Returns: nil for IPv4 itself (IPv4-mapped addresses are IPv4 here), and if there is none.
    public static func v4(in address: IPAddress, translatedBy prefixes: FrozenArray<Prefix>? = nil) -> IPAddress? {
        guard !address.isIPv4 else { return nil }
        if let prefixes {
            for index in 0..<prefixes.count where prefixes[index].contains(address) {
                return embedded(in: address, behind: prefixes[index].length)
            }
        }
        switch address.high >> 32 {
        case 0 where address.high == 0 && address.low >> 32 == 0 && address.low > 1:
            // IPv4-compatible, deprecated (RFC 4291 §2.5.5.1). `::` and `::1` are themselves.
            return IPAddress(v4: UInt32(truncatingIfNeeded: address.low))
        case 0x0064_FF9B where address.high & 0xFFFF_FFFF == 0 && address.low >> 32 == 0:
            // 64:ff9b::/96, well known (RFC 6052).
            return embedded(in: address, behind: 96)
        case 0x0064_FF9B where address.high >> 16 & 0xFFFF == 1:
            // 64:ff9b:1::/48, for local use (RFC 8215): how long a prefix of it is, a network decides. One of 48 bits leaves
            // the last 40 zero (RFC 6052 §2.2).
            return embedded(in: address, behind: address.low & 0xFF_FFFF_FFFF == 0 ? 48 : 96)
        case let top where top >> 16 == 0x2002:
            // 6to4 (RFC 3056).
            return IPAddress(v4: UInt32(truncatingIfNeeded: address.high >> 16))
        default: return nil
        }
    }

    /// RFC 6052 §2.2: behind the prefix, but that bits 64 to 71 are zero.
    private static func embedded(in address: IPAddress, behind length: Int) -> IPAddress? {
        let (high, low) = (address.high, address.low)
        let bits: UInt64
        switch length {
        case 32: bits = high
        case 40: bits = high << 8 | low >> 48 & 0xFF
        case 48: bits = high << 16 | low >> 40 & 0xFFFF
        case 56: bits = high << 24 | low >> 32 & 0xFF_FFFF
        case 64: bits = low >> 24
        case 96: bits = low
        default: return nil
        }
        return IPAddress(v4: UInt32(truncatingIfNeeded: bits))
    }

    /// The lengths that ``embedded(in:behind:)`` knows.
    public static let prefixLengths: Set<Int> = [32, 40, 48, 56, 64, 96]
}

extension IPAddress {
    /// Not reachable from another host: unspecified and "this network", loopback, multicast, limited broadcast, and
    /// IPv6 link-local, which needs a link. A connect to one stays on this host (`::` is its loopback).
    public var isOfThisHostAlone: Bool {
        guard isIPv4 else { return high == 0 && low <= 1 || high >> 56 == 0xFF || high >> 54 == 0x3FA }
        switch v4Bits >> 24 {
        case 0, 127, 224...239: return true
        default: return v4Bits == .max
        }
    }
}
