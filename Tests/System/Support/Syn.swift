/// What the first segment of a connection says.
struct Syn: Sendable {
    let port: UInt16
    let sequence: UInt32

    /// Nil if it is no IP packet with a TCP header right behind.
    init?(_ packet: [UInt8]) {
        guard let first = packet.first else { return nil }
        let header = first >> 4 == 4 ? Int(first & 15) * 4 : 40
        guard packet.count >= header + 20 else { return nil }
        func number(_ range: Range<Int>) -> UInt32 { packet[range].reduce(0) { $0 << 8 | UInt32($1) } }
        port = UInt16(truncatingIfNeeded: number(header..<header + 2))
        sequence = number(header + 4..<header + 8)
    }

    /// Whether `next` is what a socket that made this connection has for its next one: Linux goes on from the last
    /// sequence number plus the largest window, which both are small.
    func foretells(_ next: Syn) -> Bool { (60_000...70_000).contains(next.sequence &- sequence) }
}
