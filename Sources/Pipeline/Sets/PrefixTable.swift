import Pipeline

/// Maps an address to the smallest value of the prefixes that contain it. Stages look it up per connection.
///
/// Prefixes are cut into ranges with one value each, kept sorted by where they start; a trie over the starts leads to
/// the few among which the address lies (docs/adr/0012). An IPv4 address costs at most 6 steps and an IPv6 address at
/// most 11 per half, however many prefixes there are.
///
/// Threading and ownership are those of ``FrozenArray``: any number of readers, one owner calls ``deallocate()``.
public struct PrefixTable: Sendable {
    /// No prefix holds the address.
    public static let none = UInt16.max
    /// The largest value that a prefix may have.
    public static let maxValue = UInt16.max - 2
    /// Stands for a value in the high halves: the low half decides.
    public static let split = UInt16.max - 1

    public let v4: RangeTrie<UInt32>
    /// The first 64 bits of IPv6 addresses.
    public let high: RangeTrie<UInt64>
    /// The last 64 bits, one root for each first half that needs it.
    public let low: RangeTrie<UInt64>

    /// - Parameter groups: prefixes and their value, at most ``maxValue``. IPv4 prefixes lie in the IPv4-mapped space, so
    ///   `::/0` holds every address of both families.
    /// - Returns: nil if they need more ranges than a table can number: 64 million.
    public init?(_ groups: [(prefixes: [Prefix], value: UInt16)]) {
        guard let tries = PrefixTableBuilder.build(groups) else { return nil }
        (v4, high, low) = tries
    }

    /// ``none``, or the smallest value of the prefixes that hold `address`.
    @inlinable public func value(of address: IPAddress) -> UInt16 {
        if address.isIPv4 { return v4.values[v4.position(of: address.v4Bits, root: v4.root(of: address.v4Bits))] }
        let position = high.position(of: address.high, root: high.root(of: address.high))
        let value = high.values[position]
        guard value == PrefixTable.split else { return value }
        return low.values[low.position(of: address.low, root: low.roots[high.splitRank(position)])]
    }

    /// Memory that it takes, in bytes.
    public var byteCount: Int { v4.byteCount + high.byteCount + low.byteCount }

    public func deallocate() {
        v4.deallocate()
        high.deallocate()
        low.deallocate()
    }
}
