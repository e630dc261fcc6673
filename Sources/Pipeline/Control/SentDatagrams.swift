/// The last datagrams of a UDP session, so that what ICMP quotes of one says how many records went with it.
///
/// The same datagram is never counted twice. What is not known is taken for the smallest: a sum of these is a lower bound.
struct SentDatagrams {
    /// More than wait for a neighbour's address that is being asked for, and than go within most round trips.
    static let limit = 512
    /// Where IPFIX has the sequence number (RFC 7011 §3.1).
    private static let sequenceOffset = 8
    static let quoteBytes = sequenceOffset + 4

    private struct Sent {
        let sequence: UInt32
        let records: Int
    }

    private var all: [Sent] = []

    mutating func note(_ sequence: UInt32, records: Int) {
        guard records > 0 else { return }
        if all.count == SentDatagrams.limit { all.removeFirst(SentDatagrams.limit / 2) }
        all.append(Sent(sequence: sequence, records: records))
    }

    /// Records of a datagram that did not arrive.
    /// - Parameter quote: its first bytes, as far as they are known.
    mutating func lose(_ quote: UnsafeRawBufferPointer) -> Int {
        guard quote.count >= SentDatagrams.quoteBytes else { return loseSmallest() }
        let raw = quote.loadUnaligned(fromByteOffset: SentDatagrams.sequenceOffset, as: UInt32.self)
        let sequence = UInt32(bigEndian: raw)
        // Missing: it was counted already, or went too long ago.
        guard let place = all.lastIndex(where: { $0.sequence == sequence }) else { return 0 }
        return all.remove(at: place).records
    }

    /// The same for one of which nothing is known.
    mutating func loseSmallest() -> Int {
        guard let place = all.indices.min(by: { all[$0].records < all[$1].records }) else { return 0 }
        return all.remove(at: place).records
    }
}
