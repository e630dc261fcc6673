import Pipeline
import Testing

@Suite("Unix sockets as endpoints") struct UnixSocketsTests {
    @Test("the same path is the same endpoint, and says its path; no address is one") func interned() throws {
        let one = try #require(UnixSockets.endpoint("/run/one.sock"))
        let two = try #require(UnixSockets.endpoint("/run/two.sock"))
        #expect(one != two && UnixSockets.endpoint("/run/one.sock") == one)
        #expect("\(one)" == "unix:/run/one.sock" && one.isUnixSocket && one.port == 0)
        #expect(!one.address.isIPv4 && !one.address.isUnspecified && !one.address.isOfThisHostAlone)
        for text in ["[::]:0", "0.0.0.0:0", "[fd00::1]:0", "[fd00::1]:80"] {
            let endpoint = try #require(Endpoint(text))
            #expect(!endpoint.isUnixSocket && "\(endpoint)" == text)
        }
        // A number that nobody was given, and a port.
        #expect(!Endpoint(IPAddress(high: one.address.high, low: .max), 0).isUnixSocket)
        #expect(!Endpoint(one.address, 1).isUnixSocket)
    }

    @Test("a path has 1 to 107 bytes") func length() {
        #expect(UnixSockets.endpoint("") == nil)
        #expect(UnixSockets.endpoint("/" + String(repeating: "a", count: 106)) != nil)
        #expect(UnixSockets.endpoint("/" + String(repeating: "a", count: 107)) == nil)
    }

    @Test("hashes go by the path, and of addresses are what they were") func hashes() throws {
        let one = try #require(UnixSockets.endpoint("/run/one.sock"))
        #expect(one.stableHash != (try #require(UnixSockets.endpoint("/run/onf.sock"))).stableHash)
        #expect(one.stableHash == 0xBBC6_1E3F_D495_CE31)
        let address = try #require(Endpoint("[fd00::1]:80"))
        #expect(address.stableHash == Hashing.address(address.address) ^ 80 << 8)
    }
}
