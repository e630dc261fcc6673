import Pipeline
import PipelineWire
import TestSupport
import Testing

@Suite("any bytes")
struct PropertyTests {
    private static let hellos: [[UInt8]] = {
        var full = HelloBuilder("app.example.com")
        full.alpn = ["h2", "http/1.1"]
        full.hasECH = true
        var cut = full
        cut.recordLengths = [1, 3, 40, 60, 7, 9]
        return [full.bytes, cut.bytes, HelloBuilder().bytes]
    }()

    private static let headers: [[UInt8]] = [
        Array("PROXY TCP4 192.0.2.1 192.0.2.2 123 5678\r\nrest".utf8),
        Array("PROXY TCP6 2001:db8::1 2001:db8::2 123 5678\r\nrest".utf8),
        Array("PROXY UNKNOWN what ever\r\nrest".utf8),
        bytes(hex: "0d0a0d0a000d0a515549540a2121002d20010db800000000000000000000000120010db8000000000000000000000002")
            ?? [],
        bytes(hex: "0d0a0d0a000d0a515549540a21110015c0000201c0000202007b162e04000205060200016101e0ff") ?? [],
    ]

    @Test("R7: every single-byte mutation of a hello, at every byte")
    func helloMutations() {
        for hello in Self.hellos {
            for index in hello.indices {
                for value: UInt8 in [0, 1, hello[index] &+ 1, hello[index] &- 1, hello[index] ^ 0x80, 0x7F, 0xFF] {
                    var mutated = hello
                    mutated[index] = value
                    expectHello(mutated, limit: 8192)
                }
            }
        }
    }

    @Test("R7: every byte removed or doubled, and every limit")
    func helloCuts() {
        for hello in Self.hellos {
            for index in hello.indices {
                var shorter = hello
                shorter.remove(at: index)
                expectHello(shorter, limit: 8192)
                var longer = hello
                longer.insert(hello[index], at: index)
                expectHello(longer, limit: 8192)
                expectHello(hello, limit: index)
            }
        }
    }

    @Test("R17: every single-byte mutation of a PROXY header, at every byte")
    func proxyMutations() {
        for header in Self.headers {
            for index in header.indices {
                let old = header[index]
                for value: UInt8 in [0, 0x0A, 0x0D, 0x20, 0x30, 0x39, 0x3A, old &+ 1, old &- 1, old ^ 0x80, 0xFF] {
                    var mutated = header
                    mutated[index] = value
                    expectProxy(mutated)
                }
            }
        }
    }

    private static let replies: [[UInt8]] = [
        [0x15, 3, 3, 0, 2, 2, 10], [0x15, 3, 3, 0, 2, 1, 112, 0x16, 3, 3, 0, 90, 2], [0x16, 3, 3, 0, 90, 2, 0, 0, 86],
        Array("HTTP/1.1 400 Bad Request\r\n".utf8), Array("HTTP/1.1 200 OK\r\n".utf8),
        Array("220-a\r\n b\r\n220 c\r\n500 what\r\n221 bye\r\n".utf8), Array("* OK x\r\n* BAD y\r\n".utf8),
        Array("+OK\r\n-ERR what\r\n".utf8), Array("SSH-2.0-x\r\nInvalid SSH id".utf8), Array("* PREAUTH\r\n* BYE".utf8),
        Array("ERROR\r\n".utf8), Array("421 busy\r\n".utf8), Array("hello\r\nBAD x\r\n".utf8),
    ]

    @Test("R18: every single-byte mutation of a reply to a PROXY header, at every byte, and every prefix of it")
    func replyMutations() {
        for reply in Self.replies {
            for how in [0, 1, 2, 3 | 4 << 2] as [UInt8] {
                for index in reply.indices {
                    expectReply([how] + reply[..<index])
                    let old = reply[index]
                    for value: UInt8 in [0, 0x0A, 0x23, 0x2D, old &+ 1, old ^ 0x80] {
                        var mutated = [how] + reply
                        mutated[index + 1] = value
                        expectReply(mutated)
                    }
                }
            }
        }
    }

    @Test("random changes to valid input", arguments: 0..<64)
    func random(_ seed: UInt64) {
        var random = SplitMix64(seed: seed)
        for _ in 0..<40 {
            var hello = Self.hellos.randomElement(using: &random) ?? []
            var header = Self.headers.randomElement(using: &random) ?? []
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                hello[Int.random(in: hello.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
                header[Int.random(in: header.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            expectHello(hello, limit: Int.random(in: 0...1024, using: &random))
            expectProxy(header)
        }
    }

    private func expectHello(_ input: [UInt8], limit: Int) {
        let violation = withExactBytes(input) { HelloProperties.violation($0, limit: limit) }
        #expect(violation == nil, "limit \(limit): \(hex(input))")
    }

    private func expectProxy(_ input: [UInt8]) {
        let violation = withExactBytes(input) { ProxyProperties.violation($0, limit: ProxyHeader.maxLength) }
        #expect(violation == nil, "\(hex(input))")
    }

    private func expectReply(_ input: [UInt8]) {
        let violation = withExactBytes(input) { ReplyProperties.violation($0) }
        #expect(violation == nil, "\(hex(input))")
    }
}
