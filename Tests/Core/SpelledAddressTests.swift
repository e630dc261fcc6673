import Pipeline
import Testing

@Suite("IPv4 addresses that IPv6 addresses spell")
struct SpelledAddressTests {
    @Test(
        "RFC 6052, RFC 8215, RFC 3056, RFC 4291: each way to write it, and what is none",
        arguments: [
            ("64:ff9b::127.0.0.1", "127.0.0.1"), ("64:ff9b::a9fe:a9fe", "169.254.169.254"),
            ("64:ff9b:1::10.0.0.1", "10.0.0.1"), ("64:ff9b:1:c000:2:2100::", "192.0.2.33"),
            ("64:ff9b:1:fffe::8.8.8.8", "8.8.8.8"), ("2002:7f00:1::", "127.0.0.1"), ("2002:a00:1:5::9", "10.0.0.1"),
            ("::10.1.2.3", "10.1.2.3"), ("::", nil), ("::1", nil), ("2001:db8::1", nil), ("64:ff9b:2::1", nil),
            ("64:ff9c::127.0.0.1", nil), ("127.0.0.1", nil), ("::ffff:127.0.0.1", nil),
        ] as [(String, String?)])
    func known(_ text: String, _ spelled: String?) throws {
        let address = try #require(IPAddress(text))
        #expect(SpelledAddress.v4(in: address) == spelled.flatMap { IPAddress($0) })
    }

    /// The table of RFC 6052 §2.4, with 192.0.2.33.
    @Test(
        "RFC 6052 §2.4: a prefix of a network's own, of each length",
        arguments: [
            ("2001:db8::/32", "2001:db8:c000:221::"), ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"), ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
        ])
    func own(_ prefix: String, _ text: String) throws {
        let prefixes = FrozenArray([try #require(Prefix(prefix))])
        defer { prefixes.deallocate() }
        let address = try #require(IPAddress(text))
        #expect(SpelledAddress.v4(in: address, translatedBy: prefixes) == IPAddress("192.0.2.33"))
        #expect(SpelledAddress.v4(in: address) == nil)
    }

    @Test("what stands for this host alone, and what does not")
    func ofThisHost() throws {
        for text in [
            "::", "::1", "0.0.0.0", "0.1.2.3", "127.9.9.9", "224.0.0.1", "239.255.255.255", "255.255.255.255",
            "ff02::1", "fe80::1", "febf::1",
        ] {
            #expect(try #require(IPAddress(text)).isOfThisHostAlone, "\(text)")
        }
        for text in ["::2", "10.0.0.1", "169.254.169.254", "223.255.255.255", "240.0.0.1", "2001:db8::1", "fec0::1"] {
            #expect(try !#require(IPAddress(text)).isOfThisHostAlone, "\(text)")
        }
    }
}
