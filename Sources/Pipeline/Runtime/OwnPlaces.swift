import Pipeline

/// Where this worker's listeners are, for whoever is about to connect: a connection to one of them would come back, and be
/// relayed to it again, until every slot is taken.
struct OwnPlaces: ~Copyable {
    /// Sorted by port, then by address.
    private let places: UnsafeMutableBufferPointer<Endpoint>
    /// Addresses that the system was asked about lately.
    private let asked: UnsafeMutableBufferPointer<Answer>

    private struct Answer {
        var address = IPAddress.unspecified
        var isOwn = false
        var until = Instant(nanoseconds: 0)
    }

    init(_ listeners: some Sequence<Endpoint>) {
        let sorted = listeners.sorted(by: OwnPlaces.isBefore)
        places = .allocate(capacity: sorted.count)
        _ = places.initialize(from: sorted)
        asked = .allocate(capacity: OwnPlaces.answers)
        asked.initialize(repeating: Answer())
    }

    deinit {
        places.deallocate()
        asked.deallocate()
    }

    /// A power of two.
    private static let answers = 256
    /// An address that comes or goes is known after this.
    private static var freshness: TimeSpan { .seconds(1) }

    /// Whether somebody who connects to `endpoint` comes to one of the listeners. Asks the system only where one listens on
    /// that port at every address, and not about one address again and again.
    func contains(_ endpoint: Endpoint, at now: Instant, _ kernel: inout some Kernel) -> Bool {
        if has(endpoint) { return true }
        return has(Endpoint(endpoint.address.unspecifiedOfFamily, endpoint.port))
            && isOwn(endpoint.address, at: now, &kernel)
    }

    /// Whether this host itself has the address. The system is not asked about one address again and again.
    func isOwn(_ address: IPAddress, at now: Instant, _ kernel: inout some Kernel) -> Bool {
        let place =
            Int(truncatingIfNeeded: (address.high ^ address.low &* 0x9E37_79B9_7F4A_7C15) >> 32) & (asked.count - 1)
        if asked[place].address == address, asked[place].until > now { return asked[place].isOwn }
        let answer = Answer(address: address, isOwn: kernel.isOwn(address), until: now + OwnPlaces.freshness)
        asked[place] = answer
        return answer.isOwn
    }

    private func has(_ endpoint: Endpoint) -> Bool {
        var (low, high) = (0, places.count)
        while low < high {
            let middle = (low + high) / 2
            if OwnPlaces.isBefore(places[middle], endpoint) { low = middle + 1 } else { high = middle }
        }
        return low < places.count && places[low] == endpoint
    }

    private static func isBefore(_ a: Endpoint, _ b: Endpoint) -> Bool {
        a.port != b.port ? a.port < b.port : a.address < b.address
    }
}
