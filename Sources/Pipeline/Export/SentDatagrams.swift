/// The last datagrams of a UDP session, so that what ICMP quotes of one says how many records went with it.
///
/// Who is no router on the way can send an ICMP message too, and guess addresses and ports. What it can't know is the
/// header of a message (RFC 7011 §3.1): version, length, export time, sequence number, domain. Without that it says nothing.
struct SentDatagrams {
    /// More than wait for a neighbour's address that is being asked for, and than go within most round trips.
    static let limit = 512
    /// The header.
    static let quoteBytes = 16
    /// Up to the sequence number. A router need not quote more than 8 bytes behind an IPv4 header, which are none of these.
    private static let shortestQuote = 12

    private struct Sent {
        let header: [UInt8]
        let records: Int
    }

    private var all: [Sent] = []

    /// - Parameter records: none in a datagram of templates alone.
    mutating func note(_ message: [UInt8], records: Int) {
        if all.count == SentDatagrams.limit { all.removeFirst(SentDatagrams.limit / 2) }
        all.append(Sent(header: Array(message.prefix(SentDatagrams.quoteBytes)), records: records))
    }

    /// Records of a datagram that did not arrive; the same datagram is never counted twice.
    /// - Parameter quote: its first bytes, as far as they are known.
    /// - Returns: nil if no datagram that is remembered begins so: it was counted already, went too long ago, or was never
    ///   sent.
    mutating func lose(_ quote: UnsafeRawBufferPointer) -> Int? {
        let quote = quote.prefix(SentDatagrams.quoteBytes)
        guard quote.count >= SentDatagrams.shortestQuote,
            let place = all.lastIndex(where: { $0.header.prefix(quote.count).elementsEqual(quote) })
        else { return nil }
        return all.remove(at: place).records
    }
}
