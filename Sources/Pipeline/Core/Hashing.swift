/// Unkeyed hashing, for values that must be equal on every node. Not for tables that clients fill.
public enum Hashing {
    /// What ``SplitMix64`` counts by: odd, and near the golden ratio of 2^64.
    @inlinable static var step: UInt64 { 0x9E37_79B9_7F4A_7C15 }

    /// Spreads every bit over all (SplitMix64's finalizer).
    @inlinable public static func mix(_ value: UInt64) -> UInt64 {
        var mixed = value &+ step
        mixed = (mixed ^ mixed &>> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed &>> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed &>> 31
    }

    /// Of a whole address, either family.
    @inlinable public static func address(_ address: IPAddress) -> UInt64 { mix(mix(address.high) ^ address.low) }
}
