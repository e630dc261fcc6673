import Pipeline
import PipelineWire
import TestSupport
import Testing

@Suite("PROXY")
struct ProxyTests {
    private func parse(_ text: String) -> ProxyVerdict {
        withExactBytes(Array(text.utf8)) { ProxyHeader.parse($0) }
    }

    @Test("CRC32C: RFC 3720 §B.4's vectors")
    func crc() {
        func crc(_ bytes: [UInt8]) -> UInt32 {
            var crc = CRC32C()
            withExactBytes(bytes) { crc.update($0) }
            return crc.value
        }
        #expect(crc(Array("123456789".utf8)) == 0xE306_9283)
        #expect(crc([UInt8](repeating: 0, count: 32)) == 0x8A91_36AA)
        #expect(crc([UInt8](repeating: 0xFF, count: 32)) == 0x62A8_AB43)
        #expect(crc(Array(0..<32)) == 0x46DD_794E)
        var zeros = CRC32C()
        zeros.updateZeros(32)
        #expect(zeros.value == 0x8A91_36AA)
    }

    @Test(
        "R17: v1 lines are strict",
        arguments: [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", ProxyFlaw.lineFields),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", .lineFields),
            ("PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", .lineFields),
            ("PROXY UNKNOWNX\r\n", .lineFields),
            ("PROXY \r\n", .lineFields),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", .port),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", .port),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n", .port),
            ("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", .address),
            ("PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", .address),
            ("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", .address),
            ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", .address),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", .lineEnd),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r \n", .lineEnd),
        ])
    func strict(_ line: String, _ flaw: ProxyFlaw) {
        #expect(parse(line) == .malformed(flaw))
    }

    @Test("R17: a v1 line of 107 bytes fits, one of 108 does not")
    func lineLimit() {
        let start = "PROXY UNKNOWN "
        for length in 105...109 {
            let line = start + String(repeating: "x", count: length - start.utf8.count - 2) + "\r\n"
            if length <= 107 {
                guard case .ok(let header) = parse(line) else {
                    Issue.record("refused at \(length)")
                    continue
                }
                #expect(header.length == length)
            } else {
                #expect(parse(line) == .malformed(.lineTooLong))
            }
        }
    }

    @Test("R17: a v2 header longer than the limit is refused from its length alone")
    func limit() {
        let start = bytes(hex: "0d0a0d0a000d0a515549540a21110400") ?? []
        #expect(withExactBytes(start) { ProxyHeader.parse($0, limit: 512) } == .malformed(.tooLong))
        #expect(withExactBytes(start) { ProxyHeader.parse($0, limit: 1040) } == .incomplete(needs: 1040))
    }

    @Test("a unix header conveys no address")
    func unix() {
        let start = bytes(hex: "0d0a0d0a000d0a515549540a213100d8") ?? []
        withExactBytes(start + [UInt8](repeating: 0x2F, count: 216)) { bytes in
            guard case .ok(let header) = ProxyHeader.parse(bytes) else {
                Issue.record("refused")
                return
            }
            #expect(header.family == .unix && header.transport == .stream)
            #expect(header.source == nil && header.destination == nil && header.tlvBytes.isEmpty)
        }
    }

    @Test("R17: LOCAL is taken whatever its family byte says, its block skipped; of PROXY undefined bytes are refused")
    func localFamilies() {
        for byte in UInt8.min...UInt8.max {
            let block: [UInt8] = [0, 3, 9, 9, 9]
            var stream = (bytes(hex: "0d0a0d0a000d0a515549540a20") ?? []) + [byte] + block
            withExactBytes(stream) { bytes in
                guard case .ok(let header) = ProxyHeader.parse(bytes) else {
                    Issue.record("LOCAL with family \(byte) is refused")
                    return
                }
                #expect(header.command == .local && header.family == .unspec && header.transport == .unspec)
                #expect(header.source == nil && header.destination == nil && header.tlvBytes.isEmpty)
                #expect(header.length == stream.count)
            }
            for count in 0..<stream.count {
                guard case .incomplete = withExactBytes(stream.prefix(count), { ProxyHeader.parse($0) }) else {
                    Issue.record("decided at \(count) with family \(byte)")
                    return
                }
            }
            #expect(withExactBytes(stream) { ProxyHeader.parse($0, limit: 18) } == .malformed(.tooLong))
            stream[12] = 0x21
            let isDefined = byte == 0 || (1...3).contains(byte >> 4) && (1...2).contains(byte & 15)
            let flaw: ProxyFlaw = isDefined ? .addressBlock : .familyOrTransport
            if byte != 0 { #expect(withExactBytes(stream) { ProxyHeader.parse($0) } == .malformed(flaw)) }
        }
    }

    @Test("R18: a LOCAL header, as probes send it")
    func local() {
        let memory = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: 16)
        defer { memory.deallocate() }
        var writer = ProxyV2Writer(localIn: memory)
        let written = writer.finish().map { hex($0) }
        #expect(written == "0d0a0d0a000d0a515549540a20000000")
        #expect(hex(ProxyV2Writer.local) == written)
    }

    @Test("R16: both sides IPv4 is INET, anything else INET6 with the IPv4 side mapped")
    func families() {
        let v4 = FilterHarness.endpoint("192.0.2.1:1")
        let mapped = FilterHarness.endpoint("[::ffff:192.0.2.2]:2")
        let v6 = FilterHarness.endpoint("[2001:db8::1]:3")
        for (client, destination, family) in [
            (v4, v4, ProxyHeader.Family.inet), (mapped, v4, .inet), (v4, mapped, .inet), (v6, v6, .inet6),
            (v4, v6, .inet6), (v6, mapped, .inet6),
        ] {
            let memory = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: 64)
            defer { memory.deallocate() }
            var writer = ProxyV2Writer(
                proxy: ClientAddress(client), to: DestinationAddress(destination), in: memory)
            guard let written = writer.finish(), case .ok(let header) = ProxyHeader.parse(written) else {
                Issue.record("no header for \(client)")
                continue
            }
            #expect(header.family == family && header.transport == .stream && header.command == .proxy)
            #expect(header.source == client && header.destination == destination)
        }
    }

    @Test("R16: a checksum that the writer fills in is the one that the parser works out, in any place")
    func writtenChecksum() {
        let v6 = FilterHarness.endpoint("[2001:db8::1]:3")
        let memory = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: 100)
        defer { memory.deallocate() }
        for place in 0..<3 {
            memory.update(repeating: 0xFF)
            var writer = ProxyV2Writer(proxy: ClientAddress(v6), to: DestinationAddress(v6), in: memory)
            for index in 0..<3 {
                if index == place { writer.appendChecksum() }
                if index < 2 { withExactBytes([1, 2, UInt8(index)]) { writer.append(ProxyTLV.Kind.custom, $0) } }
            }
            writer.appendChecksum()
            guard let written = writer.finish(), case .ok(let header) = ProxyHeader.parse(written) else {
                Issue.record("refused at \(place)")
                continue
            }
            #expect(header.length == 52 + 2 * 6 + 7)
            #expect(header.tlvs(in: written).map(\.type).firstIndex(of: ProxyTLV.Kind.crc32c) == place)
        }
    }

    @Test("a TLV that doesn't fit spoils the whole header")
    func noRoom() {
        let memory = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: 60)
        defer { memory.deallocate() }
        let v6 = FilterHarness.endpoint("[2001:db8::1]:3")
        for (count, fits) in [(0, true), (5, true), (6, false), (70000, false)] {
            var writer = ProxyV2Writer(proxy: ClientAddress(v6), to: DestinationAddress(v6), in: memory)
            withExactBytes([UInt8](repeating: 7, count: count)) { writer.append(ProxyTLV.Kind.custom, $0) }
            withExactBytes([UInt8]()) { if count == 70000 { writer.append(ProxyTLV.Kind.noop, $0) } }
            let length = writer.finish()?.count
            #expect(length == (fits ? 55 + count : nil))
        }
    }
}
