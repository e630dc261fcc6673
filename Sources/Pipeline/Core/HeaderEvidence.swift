import Synchronization

/// What connections show of how a backend takes our PROXY header (R18). Any thread.
///
/// What an answer says, PipelineWire's `HeaderReply` tells. One that only who has read the header can give proves that it
/// is taken. The reverse proves nothing alone: a stranger's junk, or a hello that a server dislikes, is answered like a
/// header that was taken for a client's bytes. So such an answer is a doubt, and doubts of three networks in a row, with no
/// proof in between, are a rejection. Until then the control side asks the backend itself, by a LOCAL header.
extension BackendCell {
    /// So many networks must doubt.
    @inlinable static var networksThatReject: Int { 3 }
    /// Bits kept of each network's hash, in one word.
    private static var markBits: UInt64 { 21 }

    /// A connection was answered as by one that has read the header.
    public func noteHeaderTaken() {
        // Written only if they change: every connection comes by here.
        if headerDoubts.load(ordering: .relaxed) != 0 { headerDoubts.store(0, ordering: .relaxed) }
        if proxy.load(ordering: .relaxed) != HeaderVerdict.accepted.rawValue {
            proxy.store(HeaderVerdict.accepted.rawValue, ordering: .relaxed)
        }
    }

    /// A connection was answered as by one that has taken the header for its client's first bytes.
    /// - Returns: whether the backend counts as one that rejects it now.
    public func noteHeaderDoubt(of client: IPAddress) -> Bool {
        let mark = BackendCell.mark(client)
        var known = headerDoubts.load(ordering: .relaxed)
        while let (more, count) = BackendCell.adding(mark, to: known) {
            let (isExchanged, found) = headerDoubts.compareExchange(
                expected: known, desired: more, ordering: .relaxed)
            if isExchanged {
                if count >= BackendCell.networksThatReject {
                    proxy.store(HeaderVerdict.rejected.rawValue, ordering: .relaxed)
                }
                break
            }
            known = found
        }
        return proxy.load(ordering: .relaxed) == HeaderVerdict.rejected.rawValue
    }

    /// Of a client's network, /64 or an IPv4 address; never 0.
    private static func mark(_ client: IPAddress) -> UInt64 {
        let hash = Hashing.mix(client.isIPv4 ? client.low : client.high)
        return max(1, hash >> (64 - markBits))
    }

    /// `marks` with one more, and how many there are then; nil: it is among them, or they are enough.
    private static func adding(_ mark: UInt64, to marks: UInt64) -> (marks: UInt64, count: Int)? {
        for place in 0..<networksThatReject {
            let shift = UInt64(place) * markBits
            let there = marks >> shift & (1 << markBits - 1)
            if there == mark { return nil }
            if there == 0 { return (marks | mark << shift, place + 1) }
        }
        return nil
    }
}
