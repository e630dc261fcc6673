import Pipeline
import PipelineWire
import TestSupport
import Testing

@Suite("R16: PROXY v1, written")
struct ProxyV1WriterTests {
    private func line(_ source: Endpoint, _ destination: Endpoint, room: Int = 200) -> String? {
        let memory = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: room)
        defer { memory.deallocate() }
        memory.update(repeating: 0xFF)
        let count = ProxyV1Writer.write(proxy: ClientAddress(source), to: DestinationAddress(destination), in: memory)
        return count.map { String(decoding: memory[..<$0], as: UTF8.self) }
    }
    private func line(_ source: String, _ destination: String) -> String? {
        line(FilterHarness.endpoint(source), FilterHarness.endpoint(destination))
    }

    @Test("TCP4 and TCP6, addresses as RFC 5952 has them; IPv4-mapped of one family is TCP4, of two TCP6")
    func forms() {
        #expect(line("192.0.2.1:40000", "198.51.100.2:443") == "PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n")
        #expect(line("[::ffff:192.0.2.1]:1", "192.0.2.2:65535") == "PROXY TCP4 192.0.2.1 192.0.2.2 1 65535\r\n")
        #expect(
            line("[2001:db8::1]:40000", "[2001:db8:0:1::]:443") == "PROXY TCP6 2001:db8::1 2001:db8:0:1:: 40000 443\r\n"
        )
        #expect(line("[::1]:0", "[::]:80") == "PROXY TCP6 ::1 :: 0 80\r\n")
        #expect(line("192.0.2.1:7", "[2001:db8::2]:443") == "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 7 443\r\n")
        #expect(String(decoding: ProxyV1Writer.unknown, as: UTF8.self) == "PROXY UNKNOWN\r\n")
    }

    @Test("the longest fits the protocol's 107 bytes, and less room than a line takes gives none of it")
    func bounds() throws {
        let far = FilterHarness.endpoint("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")
        let longest = try #require(line(far, far))
        #expect(longest.utf8.count == 104 && longest.utf8.count <= ProxyV1Writer.longest)
        for room in 0..<longest.utf8.count { #expect(line(far, far, room: room) == nil) }
        #expect(line(far, far, room: 104) == longest)
    }

    @Test("what is written is read again as the same, for every shape of address")
    func read() throws {
        var random = SplitMix64(seed: 16)
        for _ in 0..<5000 {
            // Zeros in many places: they are what the text shortens.
            let part = { (random: inout SplitMix64) in
                random.next() & random.next() & (random.next() | 0xFFFF << UInt64(random.below(4) * 16))
            }
            let isV4 = random.below(3) == 0
            let address = { (random: inout SplitMix64) in
                isV4
                    ? IPAddress(v4: UInt32(truncatingIfNeeded: random.next()))
                    : IPAddress(high: part(&random), low: part(&random))
            }
            let source = Endpoint(address(&random), UInt16(random.below(65536)))
            let target = Endpoint(address(&random), UInt16(random.below(65536)))
            let text = try #require(line(source, target))
            let verdict = withExactBytes(Array(text.utf8)) { ProxyHeader.parse($0) }
            guard case .ok(let header) = verdict else {
                Issue.record("\(text): \(verdict)")
                return
            }
            #expect(header.source == source && header.destination == target && header.length == text.utf8.count)
        }
    }

    @Test("the shared vectors' lines, written from what they say", .enabled(if: Vectors.arePresent))
    func vectors() throws {
        var count = 0
        for vector in try Vectors.load("proxyv2.json") {
            guard let expected = vector["expect"] as? [String: Any], expected["version"] as? Int == 1,
                let source = expected["src"] as? String, let target = expected["dst"] as? String,
                let from = expected["sport"] as? Int, let to = expected["dport"] as? Int,
                let length = expected["consumed"] as? Int, let sent = (vector["hex"] as? String).flatMap(bytes(hex:)),
                let first = IPAddress(source), let second = IPAddress(target)
            else { continue }
            count += 1
            let text = try #require(line(Endpoint(first, UInt16(from)), Endpoint(second, UInt16(to))))
            #expect(text == String(decoding: sent.prefix(length), as: UTF8.self))
        }
        #expect(count >= 6)
    }
}
