import PipelineWire
import TestSupport
import Testing

@Suite("first bytes that are no TLS")
struct FirstBytesTests {
    private func look(_ bytes: [UInt8]) -> FirstBytes { withExactBytes(bytes) { FirstBytes.look(at: $0) } }

    @Test(
        "RFC 4253 §4.2: a client of SSH says so in four bytes",
        arguments: ["SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "SSH-1.99-x\r\n", "SSH-2.0-libssh\n", "SSH-"])
    func ssh(_ text: String) {
        #expect(look(Array(text.utf8)) == .ssh)
        for count in 1..<4 { #expect(look(Array(text.utf8.prefix(count))) == .incomplete(needs: 4), "\(count)") }
    }

    @Test("start-up packets of PostgreSQL, by length and code")
    func postgresql() {
        let user = Array("user\u{0}postgres\u{0}\u{0}".utf8)
        let rows: [([UInt8], PostgreSQLStart)] = [
            ([0, 0, 0, 8, 4, 0xD2, 0x16, 0x2F], .tls), ([0, 0, 0, 8, 4, 0xD2, 0x16, 0x30], .gss),
            ([0, 0, 0, 16, 4, 0xD2, 0x16, 0x2E, 0, 0, 0, 1, 0, 0, 0, 2], .cancel),
            ([0, 0, 0, UInt8(8 + user.count), 0, 3, 0, 0] + user, .startup),
            ([0, 0, 0, UInt8(8 + user.count), 0, 3, 0, 2] + user, .startup),
        ]
        for (bytes, start) in rows {
            #expect(look(bytes) == .postgresql(start))
            for count in 1..<8 { #expect(look(Array(bytes.prefix(count))) == .incomplete(needs: 8), "\(count)") }
        }
    }

    @Test("what only begins alike is neither, and known as soon as it differs")
    func others() {
        let texts: [String] = ["GET / HTTP/1.1\r\n", "SSl", "SS-", "SSH_2.0", "HELP", "\u{0}\u{1}", "EHLO x\r\n"]
        for text in texts { #expect(look(Array(text.utf8)) == .other, "\(text)") }
        let packets: [[UInt8]] = [
            [0, 0, 0, 7], [0, 0, 0x27, 0x11], [0, 0, 0, 8, 0, 3, 0, 0], [0, 0, 0, 9, 4, 0xD2, 0x16, 0x2F],
            [0, 0, 0, 15, 4, 0xD2, 0x16, 0x2E], [0, 0, 1, 13, 4, 0xD2, 0x16, 0x2E], [0, 0, 0, 20, 0, 2, 0, 0],
        ]
        for packet in packets { #expect(look(packet) == .other, "\(packet)") }
    }
}
