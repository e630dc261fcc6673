import Synchronization

/// Evidence from connections on whether a backend accepts our PROXY header (R18). Any thread.
///
/// PipelineWire's `HeaderReply` classifies an answer. An answer that requires having read the header proves acceptance.
/// The reverse proves nothing alone: junk, or a hello that a server dislikes, gets the same answer as a header that was
/// read as client bytes. Such an answer is a doubt. Doubts of three networks in a row, without acceptance in between,
/// are a rejection. Until then the control side asks the backend with a LOCAL header.
extension BackendCell {
    /// The number of doubting networks that make a rejection.
    @inlinable static var networksThatReject: Int { 3 }
    /// Bits kept of each network's hash, in one word.
    private static var markBits: UInt64 { 21 }

    /// Records an answer that proves acceptance.
    public func noteHeaderTaken() {
        // Written only on change, because every connection runs this.
        if headerDoubts.load(ordering: .relaxed) != 0 { headerDoubts.store(0, ordering: .relaxed) }
        if proxy.load(ordering: .relaxed) != HeaderVerdict.accepted.rawValue {
            proxy.store(HeaderVerdict.accepted.rawValue, ordering: .relaxed)
        }
    }

    /// Records an answer as from a server that reads the header as client bytes. - Returns: whether the backend now
    /// counts as rejecting it.
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

    /// `marks` with one more, and their number; nil: it is among them, or there are enough.
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
