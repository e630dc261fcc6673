import PipelineInspect
import TestSupport
import Testing

@Suite("decode: what the parsers make of bytes, as JSON lines")
struct DecodeTests {
    private func json(_ subject: Decode.Subject, _ bytes: [UInt8], limit: Int = 8192) -> String {
        String(decoding: Decode.json(subject, bytes, limit: limit), as: UTF8.self)
    }

    private let hello = SyntheticHello.hello(serverName: Array("App.example.com".utf8))

    @Test("a hello: every outcome, and the fields of each")
    func hellos() {
        let count = hello.count
        let none = "\"alpn\":[],\"ech\":false,\"bytes\":0}"
        #expect(
            json(.hello, hello)
                == "{\"outcome\":\"ok\",\"server_name\":\"App.example.com\",\"alpn\":[],\"ech\":false,\"bytes\":\(count)}"
        )
        #expect(json(.hello, hello + [1, 2, 3]) == json(.hello, hello), "what follows is not the hello's")
        #expect(
            json(.hello, SyntheticHello.hello(serverName: nil)).hasPrefix(
                "{\"outcome\":\"no_sni\",\"server_name\":null,"))
        #expect(json(.hello, []) == "{\"outcome\":\"incomplete\",\"server_name\":null,\(none)")
        #expect(json(.hello, Array(hello.dropLast())) == "{\"outcome\":\"incomplete\",\"server_name\":null,\(none)")
        #expect(json(.hello, Array("GET ".utf8)) == "{\"outcome\":\"not_tls\",\"server_name\":null,\(none)")
        #expect(json(.hello, hello, limit: 20) == "{\"outcome\":\"too_large\",\"server_name\":null,\(none)")
        #expect(json(.hello, [22, 3, 1, 0, 0]) == "{\"outcome\":\"malformed\",\"server_name\":null,\(none)")
    }

    @Test("a server name stands as on the wire, and can't break the line")
    func wireName() {
        let nasty = SyntheticHello.hello(serverName: Array("a\"b\\c".utf8))
        #expect(json(.hello, nasty).contains("\"server_name\":\"a\\\"b\\\\c\""))
    }

    @Test("a PROXY header: v1, v2 with TLVs, LOCAL, and what is none")
    func proxies() throws {
        let v1 = Array("PROXY TCP4 192.0.2.1 192.0.2.2 1 65535\r\nrest".utf8)
        #expect(
            json(.proxy, v1) == """
                {"outcome":"ok","version":1,"command":"proxy","family":"inet","transport":"stream",\
                "source":"192.0.2.1:1","destination":"192.0.2.2:65535","tlvs":[],"bytes":40}
                """)
        let v2 = try #require(
            bytes(
                hex: "0d0a0d0a000d0a515549540a" + "2121" + "0029"
                    + "20010db8000000000000000000000001" + "20010db8000000000000000000000002" + "007b162e"
                    + "020002" + "4142"))
        #expect(
            json(.proxy, v2) == """
                {"outcome":"ok","version":2,"command":"proxy","family":"inet6","transport":"stream",\
                "source":"[2001:db8::1]:123","destination":"[2001:db8::2]:5678",\
                "tlvs":[{"type":2,"value":"4142"}],"bytes":57}
                """)
        let local = try #require(bytes(hex: "0d0a0d0a000d0a515549540a" + "2000" + "0000"))
        #expect(
            json(.proxy, local) == """
                {"outcome":"ok","version":2,"command":"local","family":"unspec","transport":"unspec",\
                "source":null,"destination":null,"tlvs":[],"bytes":16}
                """)
        let none = """
            "version":null,"command":null,"family":null,"transport":null,"source":null,"destination":null,"tlvs":[],\
            "bytes":0}
            """
        #expect(json(.proxy, []) == "{\"outcome\":\"incomplete\",\(none)")
        #expect(json(.proxy, [0x16]) == "{\"outcome\":\"not_proxy\",\(none)")
        #expect(json(.proxy, Array("PROXY X\r\n".utf8)) == "{\"outcome\":\"malformed\",\(none)")
    }

    @Test("hostnames in a config and on the wire")
    func hostnames() {
        #expect(json(.hostname, Array("App.Example.".utf8)) == "{\"config\":\"app.example\",\"wire\":\"app.example\"}")
        #expect(json(.hostname, Array("bücher.example".utf8)) == "{\"config\":\"xn--bcher-kva.example\",\"wire\":null}")
        #expect(json(.hostname, Array("*.example.com".utf8)) == "{\"config\":\"*.example.com\",\"wire\":null}")
        #expect(json(.hostname, Array("192.0.2.1".utf8)) == "{\"config\":null,\"wire\":null}")
        #expect(json(.hostname, []) == "{\"config\":null,\"wire\":null}")
    }

    @Test("text for people never carries a control character", arguments: Decode.Subject.allCases)
    func text(_ subject: Decode.Subject) {
        for input in [[], hello, Array("\u{1B}[31mx".utf8), SyntheticHello.hello(serverName: Array("x".utf8))] {
            let text = Decode.text(subject, input, limit: 8192)
            #expect(!text.isEmpty)
            #expect(!text.unicodeScalars.contains { $0.value < 0x20 || $0.value == 0x7F }, "\(text)")
        }
    }

    @Test("lines and hex: an empty line is an empty input, the last line break ends the last line")
    func input() {
        #expect(Decode.lines(Array("".utf8)).count == 0)
        #expect(Decode.lines(Array("\n".utf8)).map(Array.init) == [[]])
        #expect(Decode.lines(Array("a\n\nb".utf8)).map(Array.init) == [[0x61], [], [0x62]])
        #expect(Decode.hex(Array("00fF 7e\r".utf8)[...]) == [0, 255, 0x7E])
        #expect(Decode.hex([]) == [])
        for bad in ["0", "0g", "0x00", "-1"] { #expect(Decode.hex(Array(bad.utf8)[...]) == nil) }
    }

    @Test("R17: the shared PROXY vectors, every field", .enabled(if: Vectors.arePresent))
    func proxyVectors() throws {
        for vector in try Vectors.load("proxyv2.json") {
            let name = vector["name"] as? String ?? ""
            let input = try #require(bytes(hex: vector["hex"] as? String ?? "none"))
            let text = json(.proxy, input)
            let expected = ([vector["expect"] ?? ""] + (vector["alt"] as? [Any] ?? [])).map(DecodedVector.json)
            #expect(expected.contains(text), "\(name): \(text) is none of \(expected)")
        }
    }

    @Test("R3: the shared hostname vectors", .enabled(if: Vectors.arePresent))
    func hostnameVectors() throws {
        for vector in try Vectors.load("hostnames.json") {
            let name = vector["input"] as? String ?? ""
            let input = (vector["input_hex"] as? String).flatMap { bytes(hex: $0) } ?? Array(name.utf8)
            let text = json(.hostname, input)
            let alternatives = (vector["alt"] as? [Any] ?? []).map { $0 as? String }
            let accepted = [vector["canonical"] as? String] + alternatives
            let wire = (vector["canonical_wire"] as? String).map { "\"\($0)\"" } ?? "null"
            let expected = accepted.map { "{\"config\":\($0.map { "\"\($0)\"" } ?? "null"),\"wire\":\(wire)}" }
            #expect(expected.contains(text), "\(name): \(text)")
        }
    }
}
