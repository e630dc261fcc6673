import Testing

@testable import PipelineControl

@Suite("IPFIX over UDP: what is known to be lost") struct SentDatagramsTests {
    private static func quote(_ sequence: UInt32) -> [UInt8] {
        [0, 10, 0, 20, 0, 0, 0, 0] + (0..<4).map { UInt8(truncatingIfNeeded: sequence >> (24 - 8 * $0)) }
    }

    private static func lose(_ sent: inout SentDatagrams, _ bytes: [UInt8]) -> Int {
        bytes.withUnsafeBytes { sent.lose($0) }
    }

    @Test("a quoted datagram counts with its records, once; one that nobody remembers does not") func quoted() {
        var sent = SentDatagrams()
        for (sequence, records) in [(0, 13), (13, 13), (26, 4)] as [(UInt32, Int)] {
            sent.note(sequence, records: records)
        }
        #expect(Self.lose(&sent, Self.quote(13)) == 13 && Self.lose(&sent, Self.quote(13)) == 0)
        #expect(Self.lose(&sent, Self.quote(99)) == 0)
        #expect(Self.lose(&sent, Self.quote(26)) == 4 && Self.lose(&sent, Self.quote(0)) == 13)
    }

    @Test("of one that is not quoted far enough, the smallest is taken; templates alone are nothing") func unknown() {
        var sent = SentDatagrams()
        sent.note(0, records: 0)
        #expect(sent.loseSmallest() == 0)
        for (sequence, records) in [(0, 13), (13, 5), (18, 7)] as [(UInt32, Int)] {
            sent.note(sequence, records: records)
        }
        #expect(Self.lose(&sent, Array(Self.quote(0).prefix(11))) == 5)
        #expect(Self.lose(&sent, []) == 7 && sent.loseSmallest() == 13 && sent.loseSmallest() == 0)
    }

    @Test("R27: it remembers the last ones, and no more") func bounded() {
        var sent = SentDatagrams()
        for number in 0..<UInt32(3 * SentDatagrams.limit) { sent.note(number, records: 1) }
        let last = UInt32(3 * SentDatagrams.limit - 1)
        #expect(Self.lose(&sent, Self.quote(0)) == 0 && Self.lose(&sent, Self.quote(last)) == 1)
        var rest = 0
        while sent.loseSmallest() > 0 { rest += 1 }
        #expect(rest < SentDatagrams.limit)
    }
}
