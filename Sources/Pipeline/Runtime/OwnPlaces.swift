import Pipeline

/// The endpoints of this worker's listeners, checked before each connect: a connection to one of them would loop until
/// every slot is taken.
struct OwnPlaces: ~Copyable {
    /// Sorted by port, then by address.
    private let places: UnsafeMutableBufferPointer<Endpoint>
    /// Addresses that were looked up recently.
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
    /// How long a looked-up address is cached.
    private static var freshness: TimeSpan { .seconds(1) }

    /// Whether a connect to `endpoint` reaches one of the listeners. The system is asked only if a listener has that
    /// port at every address, and the answer is cached.
    func contains(_ endpoint: Endpoint, at now: Instant, _ kernel: inout some Kernel) -> Bool {
        if has(endpoint) { return true }
        return has(Endpoint(endpoint.address.unspecifiedOfFamily, endpoint.port))
            && isOwn(endpoint.address, at: now, &kernel)
    }

    /// Whether this host has the address. The answer is cached.
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
