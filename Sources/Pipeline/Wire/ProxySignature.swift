/// The first bytes of PROXY protocol headers (HAProxy's proxy-protocol.txt, §2.1 and §2.2).
public enum ProxySignature {
    /// `PROXY` and the space after it.
    static let v1: InlineArray<6, UInt8> = [0x50, 0x52, 0x4F, 0x58, 0x59, 0x20]
    static let v2: InlineArray<12, UInt8> = [
        0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A,
    ]

    /// Classifies a stream's first bytes, for clients that must not send a header (R17).
    public enum Check: Equatable, Sendable {
        /// A signature: a receiver could read it as a header, whatever follows.
        case block
        /// A prefix of a signature, or nothing. Check again at `needs` bytes in total: the next byte may decide.
        case wait(needs: Int)
        /// No signature, whatever follows.
        case pass
    }

    /// Pure: the answer depends on the first twelve bytes only, and a final one never changes.
    public static func check(_ bytes: UnsafeBufferPointer<UInt8>) -> Check {
        guard let first = bytes.first else { return .wait(needs: 1) }
        switch first {
        case v1[0]: return compare(bytes, v1.span)
        case v2[0]: return compare(bytes, v2.span)
        default: return .pass
        }
    }

    private static func compare(_ bytes: UnsafeBufferPointer<UInt8>, _ signature: Span<UInt8>) -> Check {
        for index in 0..<min(bytes.count, signature.count) where bytes[index] != signature[index] { return .pass }
        return bytes.count >= signature.count ? .block : .wait(needs: bytes.count + 1)
    }
}
