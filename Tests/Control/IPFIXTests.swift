import Pipeline
import PipelineExport
import PipelineFlows
import TestSupport
import Testing

@Suite("IPFIX: messages") struct IPFIXTests {
    private static func flow(_ source: String, _ destination: String, proto: UInt8 = 6, port: UInt16 = 443) throws
        -> FlowRecord
    {
        FlowRecord(
            key: FlowKey(
                instance: 3, source: try #require(IPAddress(source)), destination: try #require(IPAddress(destination)),
                port: port, proto: proto),
            connections: 7, bytesOut: 0x1_0000_0001, bytesIn: .max, firstSeen: 1_700_000_000_123_456_789,
            lastSeen: 1_700_000_001_999_999_999, origin: 1, sequence: 9)
    }
    private struct NothingToSay: Error {}
    private func finished(_ encoder: inout IPFIXEncoder, at time: UInt32 = 1) throws -> [UInt8] {
        guard let message = encoder.finish(exportTime: time) else { throw NothingToSay() }
        return message
    }
    private static let names = FlowNames(instance: "i-1", env: "prod", app: "shop", org: "acme")

    @Test("every octet of a message with one IPv4 record, as RFC 7011 lays it out") func layout() throws {
        var encoder = IPFIXEncoder(domain: 0x0102_0304, enterprise: 32473, messageLimit: 1360, sequence: 5)
        let flow = try Self.flow("192.0.2.1", "198.51.100.2")
        #expect(encoder.append(flow, Self.names) == true)
        let expected = """
            000a 0056 65538f01 00000005 01020304 0100 0046
            c0000201 c6336402 01bb 06 0000000100000001 ffffffffffffffff 00000007
            0000018bcfe5687b 0000018bcfe56fcf
            03692d31 0470726f64 0473686f70 0461636d65
            """
        let message = try finished(&encoder, at: 0x6553_8F01)
        let wanted = try #require(bytes(hex: expected.filter { !$0.isWhitespace }))
        #expect(message == wanted)
        #expect(encoder.sequence == 6 && encoder.isEmpty)
        #expect(encoder.finish(exportTime: 0) == nil)
    }

    @Test("templates: standard elements, the reverse direction by RFC 5103, names under the operator's number")
    func templates() throws {
        var encoder = IPFIXEncoder(domain: 1, enterprise: 99, messageLimit: 1360)
        #expect(encoder.appendTemplates() == true)
        let message = try finished(&encoder)
        var reader = IPFIXReader()
        let read = try reader.read(message)
        #expect(read.sets == [2] && read.sequence == 0 && encoder.sequence == 0, "templates don't count")
        #expect(reader.templates.keys.sorted() == [256, 257, 258, 259])
        let heads: [UInt16: [(UInt16, UInt16)]] = [
            256: [(8, 4), (12, 4), (11, 2)], 257: [(27, 16), (28, 16), (11, 2)], 258: [(8, 4), (12, 4), (32, 2)],
            259: [(27, 16), (28, 16), (139, 2)],
        ]
        for (id, fields) in reader.templates {
            let wanted: [(UInt16, UInt16, UInt32)] =
                try #require(heads[id]).map { ($0.0, $0.1, 0) } + [
                    (4, 1, 0), (1, 8, 0), (1, 8, 29305), (278, 4, 0), (152, 8, 0), (153, 8, 0), (1, 65535, 99),
                    (2, 65535, 99), (3, 65535, 99), (4, 65535, 99),
                ]
            #expect(
                fields.map { [Int($0.0.id), Int($0.1), Int($0.0.enterprise)] }
                    == wanted.map { [Int($0.0), Int($0.1), Int($0.2)] })
        }
    }

    @Test("a flow's kind chooses its template, and its values come back") func kinds() throws {
        let cases: [(FlowRecord, UInt16, UInt16)] = [
            (try Self.flow("192.0.2.1", "198.51.100.2"), 256, 11),
            (try Self.flow("fd00::1", "2001:db8::2", proto: 17), 257, 11),
            (try Self.flow("192.0.2.1", "198.51.100.2", proto: 1, port: 0x0800), 258, 32),
            (try Self.flow("fd00::1", "2001:db8::2", proto: 58, port: 0x8000), 259, 139),
            // One socket has one family; should both come, the IPv6 form holds both.
            (try Self.flow("192.0.2.1", "2001:db8::2"), 257, 11),
            // ICMP of the other family is a protocol like others.
            (try Self.flow("fd00::1", "2001:db8::2", proto: 1), 257, 11),
        ]
        for (flow, template, port) in cases {
            var encoder = IPFIXEncoder(domain: 1, enterprise: 99, messageLimit: 1360)
            #expect(encoder.appendTemplates() == true)
            #expect(encoder.append(flow, Self.names) == true)
            var reader = IPFIXReader()
            let records = try reader.read(finished(&encoder)).records
            let record = try #require(records.first)
            #expect(record.template == template)
            #expect(record.number(port) == UInt64(flow.key.port) && record.number(4) == UInt64(flow.key.proto))
            #expect(record.number(1) == flow.bytesOut && record.number(1, 29305) == flow.bytesIn)
            #expect(
                record.number(278) == 7 && record.number(152) == 1_700_000_000_123
                    && record.number(153) == 1_700_000_001_999)
            #expect([1, 2, 3, 4].map { record.text($0, 99) } == ["i-1", "prod", "shop", "acme"])
            let source = try #require(
                record.values[.init(id: template == 256 || template == 258 ? 8 : 27, enterprise: 0)])
            #expect(source == (0..<16).suffix(source.count).map { flow.key.source.byte($0) })
        }
    }

    @Test("R21: flows of two envs that are called the same are told apart by app and org") func sameNames() throws {
        var encoder = IPFIXEncoder(domain: 1, enterprise: 99, messageLimit: 1360)
        #expect(encoder.appendTemplates() == true)
        let flow = try Self.flow("fd00::1", "fd00::2")
        for (org, app) in [("acme", "shop"), ("globex", "web")] {
            #expect(encoder.append(flow, FlowNames(instance: "i", env: "prod", app: app, org: org)) == true)
        }
        var reader = IPFIXReader()
        let records = try reader.read(finished(&encoder)).records
        let owners = records.map { record in [4, 3, 2].map { record.text($0, 99) } }
        #expect(owners == [["acme", "shop", "prod"], ["globex", "web", "prod"]])
    }

    @Test("names: cut at a character, never over 254 octets") func longNames() throws {
        for (text, kept) in [
            ("", 0), (String(repeating: "a", count: 254), 254), (String(repeating: "a", count: 300), 254),
            (String(repeating: "a", count: 253) + "é", 253), (String(repeating: "a", count: 252) + "éé", 254),
            (String(repeating: "🙂", count: 70), 252),
        ] {
            var encoder = IPFIXEncoder(domain: 1, enterprise: 99, messageLimit: 0)
            #expect(encoder.appendTemplates() == true)
            var reader = IPFIXReader()
            _ = try reader.read(finished(&encoder))
            let names = FlowNames(instance: text, env: text, app: text, org: text)
            let flow = try Self.flow("fd00::1", "fd00::2")
            #expect(encoder.append(flow, names) == true, "an empty message takes any record")
            let records = try reader.read(finished(&encoder)).records
            let record = try #require(records.first)
            let value = try #require(record.values[.init(id: 1, enterprise: 99)])
            #expect(value.count == kept && text.utf8.starts(with: value))
            #expect(String(validating: value, as: UTF8.self) != nil)
        }
    }

    @Test(
        "splitting: whatever comes, every record arrives once and in order, no message is too long, numbers add up",
        arguments: 0..<200)
    func splitting(seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        let limit = [1280, 1360, 1400, 9000, 65535, 100_000][Int.random(in: 0..<6, using: &random)]
        let start = UInt32.max - UInt32.random(in: 0..<400, using: &random)
        var encoder = IPFIXEncoder(domain: 7, enterprise: 99, messageLimit: limit, sequence: start)
        var reader = IPFIXReader()
        var sent: [UInt64] = []
        var received: [UInt64] = []
        var counted = start
        func take() throws {
            let message = try finished(&encoder)
            #expect(message.count <= min(limit, 65535))
            let read = try reader.read(message)
            #expect(read.sequence == counted)
            counted &+= UInt32(read.records.count)
            received += try read.records.map { try #require($0.number(1)) }
        }
        #expect(encoder.appendTemplates() == true)
        for index in 0..<Int.random(in: 1...900, using: &random) {
            var flow =
                try Bool.random(using: &random)
                ? Self.flow("fd00::1", "fd00::2", proto: [6, 17, 58].randomElement(using: &random) ?? 6)
                : Self.flow("192.0.2.1", "192.0.2.2", proto: [6, 17, 1].randomElement(using: &random) ?? 6)
            flow.bytesOut = UInt64(index)
            sent.append(flow.bytesOut)
            let name = String(repeating: "x", count: Int.random(in: 0...260, using: &random))
            let names = FlowNames(instance: name, env: name, app: "", org: name)
            if Int.random(in: 0..<50, using: &random) == 0, !encoder.appendTemplates() {
                try take()
                #expect(encoder.appendTemplates() == true)
            }
            if !encoder.append(flow, names) {
                try take()
                #expect(encoder.append(flow, names) == true)
            }
        }
        try take()
        #expect(received == sent && encoder.sequence == counted)
    }
}
