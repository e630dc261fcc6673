/// CRC-32C (Castagnoli, RFC 3720 §B.4), as PROXY v2's `PP2_TYPE_CRC32C` uses it. Four bits a step: the input is a
/// header, and sixteen words need no global table.
public struct CRC32C {
    private static var table: InlineArray<16, UInt32> {
        [
            0x0000_0000, 0x105E_C76F, 0x20BD_8EDE, 0x30E3_49B1, 0x417B_1DBC, 0x5125_DAD3, 0x61C6_9362, 0x7198_540D,
            0x82F6_3B78, 0x92A8_FC17, 0xA24B_B5A6, 0xB215_72C9, 0xC38D_26C4, 0xD3D3_E1AB, 0xE330_A81A, 0xF36E_6F75,
        ]
    }

    private var state: UInt32 = .max

    public init() {}

    public mutating func update(_ bytes: UnsafeBufferPointer<UInt8>) {
        for byte in bytes { update(byte) }
    }

    /// The same as `count` zero bytes.
    public mutating func updateZeros(_ count: Int) {
        for _ in 0..<max(0, count) { update(0) }
    }

    private mutating func update(_ byte: UInt8) {
        state ^= UInt32(byte)
        state = state >> 4 ^ CRC32C.table[Int(state & 15)]
        state = state >> 4 ^ CRC32C.table[Int(state & 15)]
    }

    public var value: UInt32 { ~state }
}
