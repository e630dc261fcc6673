import Pipeline
import TestSupport
import Testing

@testable import PipelineExport

@Suite("conntrack: messages") struct ConntrackReaderTests {
    static func read(_ bytes: [UInt8]) -> [ConntrackMessage] {
        var messages: [ConntrackMessage] = []
        bytes.withUnsafeBytes { ConntrackReader.read($0) { message, _ in messages.append(message) } }
        return messages
    }
    static func entry(_ bytes: [UInt8]) throws -> ConntrackEntry {
        guard case .end(let entry)? = read(bytes).first else { throw Unread() }
        return entry
    }
    private struct Unread: Error {}

    private func address(_ text: String) throws -> IPAddress { try #require(IPAddress(text)) }

    @Test("a recorded dump: both directions, counters, ids and times") func dump() throws {
        let messages = Self.read(ConntrackFixtures.dump)
        let entries = messages.compactMap { if case .entry(let entry) = $0 { entry } else { nil } }
        #expect(entries.count == 4 && messages.count == 4)
        #expect(Self.read(ConntrackFixtures.done) == [.done])
        let udp = try #require(entries.first { $0.original.proto == 17 })
        let (us, them, loopback) = (try address("fd77::10"), try address("fd77::20"), try address("127.0.0.1"))
        #expect(udp.original.source == us && udp.original.destination == them)
        #expect(udp.original.sourcePort == 5353 && udp.original.destinationPort == 53)
        #expect(
            udp.reply.source == udp.original.destination && udp.reply.sourcePort == 53
                && udp.reply.destinationPort == 5353)
        // IPv6 and UDP headers are 48 bytes.
        #expect(udp.originalBytes == 148 && udp.replyBytes == 248)
        let icmp = try #require(entries.first { $0.original.proto == 1 })
        #expect(
            icmp.original.source == loopback && icmp.original.icmp == 0x0800 && icmp.reply.icmp == 0)
        #expect(icmp.originalBytes == 84 && icmp.replyBytes == 84)
        let icmp6 = try #require(entries.first { $0.original.proto == 58 })
        #expect(icmp6.original.icmp == 0x8000 && icmp6.originalBytes == 104 && icmp6.replyBytes == 104)
        let tcp = try #require(entries.first { $0.original.proto == 6 })
        #expect(tcp.original.destinationPort == 8080 && tcp.originalBytes == 112 && tcp.replyBytes == 60)
        #expect(entries.allSatisfy { $0.start > 1_700_000_000_000_000_000 && $0.stop == 0 && $0.id != 0 })
        #expect(Set(entries.map(\.id)).count == 4)
    }

    @Test("recorded ends are of the dump's entries, with a time") func ends() throws {
        let entries = Self.read(ConntrackFixtures.dump).compactMap {
            if case .entry(let entry) = $0 { entry } else { nil }
        }
        for end in ConntrackFixtures.ends {
            var ended = try Self.entry(end)
            #expect(ended.stop > ended.start)
            ended.stop = 0
            #expect(entries.contains(ended))
        }
        guard case .entry(let new)? = Self.read(ConntrackFixtures.start).first else { throw Unread() }
        #expect(new.originalBytes == nil && new.replyBytes == nil && new.original.proto == 17)
    }

    @Test("errors and acknowledgements") func errors() throws {
        func error(_ code: Int32) -> [UInt8] {
            var bytes: [UInt8] = [36, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
            withUnsafeBytes(of: code) { bytes += $0 }
            return bytes + [UInt8](repeating: 0, count: 16)
        }
        #expect(Self.read(error(-16)) == [.error(16)] && Self.read(error(0)) == [.error(0)])
        #expect(Self.read(error(5)) == [.other] && Self.read(error(.min)) == [.other])
    }

    @Test("every prefix: only whole messages, and those as they are") func prefixes() {
        for whole in [ConntrackFixtures.dump, ConntrackFixtures.start] + ConntrackFixtures.ends {
            let messages = Self.read(whole)
            for count in 0..<whole.count {
                let read = Self.read(Array(whole[..<count]))
                #expect(read.count < messages.count && read[...] == messages.prefix(read.count))
            }
        }
    }

    @Test("every prefix of a message that claims to be whole is read without a trap") func shortened() {
        for whole in ConntrackFixtures.ends {
            for count in 16..<whole.count {
                var bytes = Array(whole[..<count])
                bytes[0] = UInt8(count & 255)
                bytes[1] = UInt8(count >> 8)
                #expect(Self.read(bytes).count == 1)
            }
        }
    }

    @Test("every single-byte mutation is read without a trap, and so is what is counted of it") func mutations() {
        var account = ConntrackAccount(ConntrackSettings(), countsFrom: 0) { _ in 1 }
        for whole in [ConntrackFixtures.dump] + ConntrackFixtures.ends {
            for index in whole.indices {
                for value: UInt8 in [0, 1, 3, 4, whole[index] &+ 1, whole[index] &- 1, whole[index] ^ 0x80, 0x7F, 0xFF]
                {
                    var mutated = whole
                    mutated[index] = value
                    for message in Self.read(mutated) {
                        switch message {
                        case .entry(let entry): account.see(entry, isEnd: false, now: 5)
                        case .end(let entry): account.see(entry, isEnd: true, now: 5)
                        default: break
                        }
                    }
                }
            }
            _ = account.take()
        }
    }
}
