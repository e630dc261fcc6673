import Pipeline
import PipelineRouting
import TestSupport
import Testing

@Suite("Hostnames of configs and state")
struct HostnameTests {
    @Test("R3: the shared vectors", .enabled(if: Vectors.arePresent, "no shared vectors beside this checkout"))
    func vectors() throws {
        let vectors = try Vectors.load("hostnames.json")
        #expect(vectors.count > 50)
        for vector in vectors {
            let input = try #require(vector["input"] as? String)
            let raw = (vector["input_hex"] as? String).flatMap { bytes(hex: $0) } ?? Array(input.utf8)
            let wanted = vector["canonical"] as? String
            // `[Any]`, because null is one of the answers.
            let others = (vector["alt"] as? [Any] ?? []).map { $0 as? String }
            // A suffix, which routes may have, is no hostname.
            let pattern = raw.withUnsafeBufferPointer { try? HostPattern($0) }
            let found = pattern?.mark == "." ? nil : pattern?.text
            #expect(found == wanted || others.contains(found), "\(input): \(found ?? "nil")")
            if vector["kind"] as? String == "host" {
                let host = raw.withUnsafeBufferPointer { try? Hostname.canonical($0) }?.string
                #expect(host == found, "\(input)")
            }
        }
    }

    @Test("R3: what is canonical stays as it is, also on the wire")
    func idempotent() throws {
        for text in ["Straße.example.", "MÜLLER.example", "_dmarc.Example.COM", "xn--fiqs8s", "a.b"] {
            let name = try Hostname.canonical(text)
            #expect(try Hostname.canonical(name.string).string == name.string)
            var wire = ServerName()
            let isName = name.withBytes { wire.set(wire: $0) }
            #expect(isName)
            #expect(wire.string == name.string)
        }
    }

    @Test(
        "R3: a refusal says why",
        arguments: [
            ("", "is empty"), ("a..b", "empty label"), ("..a.b", "empty label"), (".com", "top-level"),
            (".", "every name"), ("a b", "contains byte 0x20"),
            ("a.example:443", "\":\""), ("192.0.2.1", "IP address"), ("a.*.b", "star"), ("xn--a.example", "IDNA"),
            ("[::1]", "\"[\""), ("*", "every name"), ("*.com", "top-level"), ("*a.example.com", "first label"),
            (String(repeating: "a", count: 64) + ".b", "64 characters"), ("m\u{FC}\u{0}.b", "NUL"),
            (String(repeating: "a.", count: 127) + "b", "255 characters"),
        ])
    func reasons(text: String, part: String) {
        #expect {
            _ = try HostPattern(text)
        } throws: { error in
            guard let error = error as? HostnameError else { return false }
            return (error.problem + error.remedy).contains(part)
        }
    }

    @Test("R27: no input stops or crashes it: random bytes, every byte after a good name")
    func anything() {
        var random = SplitMix64(seed: 7)
        for _ in 0..<20_000 {
            let count = Int.random(in: 0...40, using: &random)
            let raw = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
            guard let name = raw.withUnsafeBufferPointer({ try? Hostname.canonical($0) }) else { continue }
            let isCanonical = name.withBytes { $0.allSatisfy { ServerName.isNameByte($0) || $0 == 0x2E } }
            #expect(isCanonical && name.count <= ServerName.capacity)
        }
        let long = Array(repeating: UInt8(0xC3), count: 100_000)
        #expect(long.withUnsafeBufferPointer { try? Hostname.canonical($0) } == nil)
    }
}
