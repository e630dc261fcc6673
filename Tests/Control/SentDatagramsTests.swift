import Testing

@testable import PipelineExport

@Suite("IPFIX over UDP: what is known to be lost") struct SentDatagramsTests {
    /// A message of 20 bytes.
    private static func message(_ sequence: UInt32, time: UInt8 = 9, length: UInt8 = 20) -> [UInt8] {
        [0, 10, 0, length, 0, 0, 0, time] + (0..<4).map { UInt8(truncatingIfNeeded: sequence >> (24 - 8 * $0)) }
            + [0, 0, 0, 7, 1, 2, 3, 4]
    }

    private static func lose(_ sent: inout SentDatagrams, _ bytes: some Sequence<UInt8>) -> Int? {
        Array(bytes).withUnsafeBytes { sent.lose($0) }
    }

    private static func sent(_ all: [(UInt32, Int)]) -> SentDatagrams {
        var sent = SentDatagrams()
        for (sequence, records) in all { sent.note(message(sequence), records: records) }
        return sent
    }

    @Test("a quoted datagram counts with its records, once; one that nobody remembers does not") func quoted() {
        var sent = Self.sent([(0, 13), (13, 13), (26, 4)])
        #expect(Self.lose(&sent, Self.message(13)) == 13 && Self.lose(&sent, Self.message(13)) == nil)
        #expect(Self.lose(&sent, Self.message(99)) == nil)
        #expect(Self.lose(&sent, Self.message(26).prefix(16)) == 4)
        #expect(Self.lose(&sent, Self.message(0).prefix(12)) == 13)
    }

    @Test("templates alone are heard of, with no records") func templates() {
        var sent = Self.sent([(5, 0)])
        #expect(Self.lose(&sent, Self.message(5)) == 0 && Self.lose(&sent, Self.message(5)) == nil)
    }

    @Test("what is not quoted up to the sequence number, or says another header, is no datagram of ours") func forged()
    {
        var sent = Self.sent([(0, 13), (13, 5)])
        let message = Self.message(13)
        for count in 0..<12 { #expect(Self.lose(&sent, message.prefix(count)) == nil) }
        for place in 0..<16 {
            var other = message
            other[place] ^= 1
            #expect(Self.lose(&sent, other) == nil, "\(place)")
        }
        #expect(Self.lose(&sent, message) == 5)
    }

    @Test("R27: it remembers the last ones, and no more") func bounded() {
        let numbers = 0..<UInt32(3 * SentDatagrams.limit)
        var sent = Self.sent(numbers.map { ($0, 1) })
        #expect(Self.lose(&sent, Self.message(0)) == nil)
        #expect(Self.lose(&sent, Self.message(numbers.upperBound - 1)) == 1)
        #expect(numbers.count { Self.lose(&sent, Self.message($0)) != nil } < SentDatagrams.limit)
    }
}
