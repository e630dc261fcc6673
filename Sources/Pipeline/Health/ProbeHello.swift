/// The ClientHello of `probe tls`: one that any server of TLS 1.2 or 1.3 answers with a ServerHello (RFC 8446 §4.1.2,
/// RFC 5246 §7.4.1.2). It belongs to the prober alone: who asks a chain what it would do sends ``SyntheticHello``.
///
/// It offers what browsers offer, and a share for X25519, so that a server that needs nothing else comes as far as choosing
/// its certificate. One that wants another group says so in a HelloRetryRequest, which is an answer as well.
enum ProbeHello {
    /// - Parameter serverName: the name to ask for; nil: no server_name extension. At most 255 bytes.
    static func bytes(serverName: [UInt8]?) -> [UInt8] {
        var extensions: [UInt8] = []
        if let serverName { extensions += field(0x0000, list([0] + list(serverName))) }
        // extended_master_secret and renegotiation_info: servers under FIPS rules, and hardened ones, refuse a TLS 1.2 client
        // without them (RFC 7627 §5.3, RFC 5746 §3.6).
        extensions += field(0x0017, [])
        extensions += field(0xFF01, [0])
        extensions += field(0x000A, list(words(groups)))
        extensions += field(0x000B, [1, 0])
        extensions += field(0x000D, list(words(signatures)))
        extensions += field(0x002B, shortList(words([0x0304, 0x0303])))
        extensions += field(0x002D, shortList([1]))
        extensions += field(0x0033, list(words([0x001D]) + list(share)))
        // No session id: nothing is resumed, and no middlebox needs TLS 1.2 compatibility mode.
        let body = [0x03, 0x03] + random + [0] + list(words(suites)) + [1, 0] + list(extensions)
        // The version of the record is 1.0 in a first hello (RFC 8446 §5.1).
        return [0x16, 0x03, 0x01] + list([1, 0] + list(body))
    }

    /// TLS 1.3's, then forward-secret ones, then those of servers that have nothing else.
    private static let suites: [UInt16] = [
        0x1301, 0x1302, 0x1303,
        0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8, 0x009E, 0x009F, 0xCCAA,
        0xC023, 0xC027, 0xC009, 0xC013, 0xC024, 0xC028, 0xC00A, 0xC014, 0x0067, 0x006B, 0x0033, 0x0039,
        0x009C, 0x009D, 0x003C, 0x003D, 0x002F, 0x0035,
    ]
    /// X25519, P-256, P-384, P-521, X448, X25519MLKEM768, SecP256r1MLKEM768: a server that insists on a hybrid one asks for
    /// it. ffdhe2048 and ffdhe3072.
    private static let groups: [UInt16] = [
        0x001D, 0x0017, 0x0018, 0x0019, 0x001E, 0x11EC, 0x11EB, 0x0100, 0x0101,
    ]
    /// For certificates of every kind, Ed25519, Ed448 and RSASSA-PSS too; SHA-1 for TLS 1.2 servers with old ones.
    private static let signatures: [UInt16] = [
        0x0403, 0x0503, 0x0603, 0x0807, 0x0808, 0x0804, 0x0805, 0x0806, 0x0809, 0x080A, 0x080B, 0x0401, 0x0501, 0x0601,
        0x0203, 0x0201,
    ]
    /// A valid point: the public key of the example in RFC 7748 §6.1. No handshake continues with it, so that its
    /// secret may be known.
    private static let share: [UInt8] = [
        0x85, 0x20, 0xF0, 0x09, 0x89, 0x30, 0xA7, 0x54, 0x74, 0x8B, 0x7D, 0xDC, 0xB4, 0x3E, 0xF7, 0x5A,
        0x0D, 0xBF, 0x3A, 0x0D, 0x26, 0x38, 0x1A, 0xF4, 0xEB, 0xA4, 0xA9, 0x8E, 0xAA, 0x9B, 0x4E, 0x6A,
    ]
    /// The same in every probe, for the same reason.
    private static let random: [UInt8] = (0..<32).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ 11) }

    private static func field(_ type: UInt16, _ content: [UInt8]) -> [UInt8] { words([type]) + list(content) }
    private static func words(_ values: [UInt16]) -> [UInt8] {
        values.flatMap { [UInt8($0 >> 8), UInt8($0 & 0xFF)] }
    }
    private static func list(_ content: [UInt8]) -> [UInt8] { words([UInt16(clamping: content.count)]) + content }
    private static func shortList(_ content: [UInt8]) -> [UInt8] { [UInt8(clamping: content.count)] + content }
}
