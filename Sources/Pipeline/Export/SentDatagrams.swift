/// The last datagrams of a UDP session, to find the number of records of one that an ICMP error quotes.
///
/// An attacker off the path can send ICMP errors and guess addresses and ports, but not a message's header (RFC 7011
/// §3.1): version, length, export time, sequence number, domain. An error without it is ignored.
struct SentDatagrams {
    /// More than queue during neighbour resolution, or are in flight in most round trips.
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
