import Pipeline
import Testing

/// Addresses with runs of zeros of every length and place, and others.
private func samples() -> [IPAddress] {
    var random = SplitMix64(seed: 3)
    var list: [IPAddress] = [.unspecified, .unspecifiedV4, IPAddress(high: 0, low: 1), IPAddress(v4: .max)]
    for zeros in 0..<256 {
        var words: [UInt64] = [0, 0]
        for group in 0..<8 where zeros >> group & 1 == 0 {
            words[group / 4] |= UInt64.random(in: 1...0xFFFF, using: &random) << UInt64((3 - group % 4) * 16)
        }
        list.append(IPAddress(high: words[0], low: words[1]))
    }
    for _ in 0..<200 { list.append(IPAddress(v4: UInt32.random(in: 0...UInt32.max, using: &random))) }
    return list
}

@Suite("Addresses as text")
struct AddressTextTests {
    @Test("what is written reads back as the same")
    func roundTrip() {
        for address in samples() {
            #expect(IPAddress(address.description) == address, "\(address)")
            let endpoint = Endpoint(address, UInt16(truncatingIfNeeded: address.low))
            #expect(Endpoint(endpoint.description) == endpoint, "\(endpoint)")
        }
    }

    @Test(
        "RFC 5952: one text for each address",
        arguments: [
            ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"), ("0:0:0:0:0:0:0:0", "::"), ("::", "::"), ("1::", "1::"),
            ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"), ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
            ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"), ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::ffff:c000:201", "192.0.2.1"), ("64:ff9b::192.0.2.33", "64:ff9b::c000:221"),
            ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"), ("::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"), ("0.0.0.0", "0.0.0.0"),
        ])
    func canonical(text: String, wanted: String) {
        #expect(IPAddress(text)?.description == wanted)
    }

    @Test(
        "what is no address",
        arguments: [
            "", ":", ":::", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ", "1..2.3", ".1.2.3.4",
            "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3", "12345::", "g::", "::1%eth0", "[::1]", "1:2:3:4:5:6:7:",
            ":1:2:3:4:5:6:7", "::1.2.3", "1.2.3.4::", "1:2:3:4:5:6:7:1.2.3.4", "::1:2:3:4:5:6:7:8", "+1.2.3.4",
            "0x1.2.3.4",
        ])
    func refused(text: String) { #expect(IPAddress(text) == nil) }

    @Test("every prefix of a text is an address exactly where it should be")
    func prefixes() {
        func accepted(_ text: String) -> [String] {
            (0...text.count).map { String(text.prefix($0)) }.filter { IPAddress($0) != nil }
        }
        #expect(accepted("192.0.2.123") == ["192.0.2.1", "192.0.2.12", "192.0.2.123"])
        #expect(accepted("fd00::a:b") == ["fd00::", "fd00::a", "fd00::a:b"])
        #expect(accepted("1:2:3:4:5:6:7:89") == ["1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:89"])
    }

    @Test("no mutation of a text traps, and what reads still has a text that reads the same")
    func mutations() {
        for text in ["192.0.2.1", "2001:db8::192.0.2.1", "1:2:3:4:5:6:7:8", "::", "fd00::a"] {
            var raw = Array(text.utf8)
            for place in raw.indices {
                let before = raw[place]
                for byte in UInt8.min...UInt8.max {
                    raw[place] = byte
                    guard let address = raw.withUnsafeBufferPointer({ IPAddress(ascii: $0) }) else { continue }
                    #expect(IPAddress(address.description) == address)
                }
                raw[place] = before
            }
        }
    }

    @Test(
        "endpoints",
        arguments: [
            ("[::1]:443", true), ("192.0.2.1:0", true), ("192.0.2.1:65535", true), ("192.0.2.1:65536", false),
            ("::1:443", false), ("[192.0.2.1]:443", false), ("[::1]", false), ("[::1]:", false),
            ("192.0.2.1:0443", false),
            ("[::1]:+1", false), ("[::1]: 1", false), (":443", false), ("[]:1", false), ("[:1", false), ("", false),
        ])
    func endpoints(text: String, isOne: Bool) { #expect((Endpoint(text) != nil) == isOne) }

    @Test(
        "one text for each endpoint, whether as a String or as bytes behind others",
        arguments: [
            "[::]:0", "[::1]:1", "[1::]:65535", "[2001:db8::1]:443", "[2001:db8:0:1::]:80", "[1:2:3:4:5:6:7:8]:10",
            "[0:2:3:4:5:6:7:0]:100", "[1:0:0:2::3]:1000", "[fe80::ffff:0:0]:9", "[0:0:1::]:10000",
            "[a:b:c:d:e:f::]:99", "0.0.0.0:0", "255.255.255.255:65535", "192.0.2.10:443", "10.100.9.1:101",
        ])
    func endpointTexts(text: String) throws {
        let endpoint = try #require(Endpoint(text))
        #expect(endpoint.description == text)
        var bytes = Array("x".utf8)
        endpoint.append(to: &bytes)
        #expect(String(decoding: bytes, as: UTF8.self) == "x" + text)
    }
}

@Suite("Prefixes")
struct PrefixTests {
    @Test("what is written reads back as the same, for every length")
    func roundTrip() throws {
        for length in 0...128 {
            let high = length >= 64 ? UInt64.max : ~(UInt64.max >> UInt64(length))
            let low = length <= 64 ? 0 : ~(length == 128 ? 0 : UInt64.max >> UInt64(length - 64))
            let prefix = try #require(Prefix(IPAddress(high: high, low: low), length: length))
            #expect(Prefix(prefix.description) == prefix, "\(prefix)")
            #expect(prefix.contains(prefix.first) && prefix.contains(prefix.last))
        }
        for length in 0...32 {
            let bits = length == 0 ? 0 : UInt32.max << UInt32(32 - length)
            let prefix = try #require(Prefix(IPAddress(v4: bits), length: 96 + length))
            #expect(prefix.description == "\(IPAddress(v4: bits))/\(length)")
            #expect(Prefix(prefix.description) == prefix)
        }
    }

    @Test("membership at the edges")
    func edges() throws {
        let four = try #require(Prefix("192.0.2.0/24"))
        #expect(four.length == 120)
        for (text, isIn) in [("192.0.2.0", true), ("192.0.2.255", true), ("192.0.1.255", false), ("192.0.3.0", false)] {
            #expect(four.contains(try #require(IPAddress(text))) == isIn)
        }
        let six = try #require(Prefix("2001:db8::/33"))
        #expect(six.contains(try #require(IPAddress("2001:db8:7fff:ffff::1"))))
        #expect(!six.contains(try #require(IPAddress("2001:db8:8000::"))))
        let all = try #require(Prefix("::/0"))
        #expect(samples().allSatisfy { all.contains($0) })
        let allFour = try #require(Prefix("0.0.0.0/0"))
        #expect(samples().allSatisfy { allFour.contains($0) == $0.isIPv4 })
    }

    @Test(
        "what is no prefix",
        arguments: [
            "", "/", "/24", "192.0.2.0/", "192.0.2.0/33", "192.0.2.1/24", "::/129", "::1/64", "192.0.2.0/024",
            "192.0.2.0/+8", "192.0.2.0/-1", "192.0.2.0/24/24", "192.0.2.0/ 24", "192.0.2.0/999",
        ])
    func refused(text: String) { #expect(Prefix(text) == nil) }

    @Test("a bare address is the prefix of itself")
    func host() throws {
        #expect(try #require(Prefix("::1")).length == 128)
        #expect(try #require(Prefix("192.0.2.1")).description == "192.0.2.1/32")
    }
}
