import Pipeline

/// The lookup table of consistent hashing (R11): Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load
/// Balancer", NSDI 2016, section 3.4.
///
/// Each backend has a permutation of the table's places, derived from its address alone; backends take turns to claim
/// their next free place. All nodes therefore build the same table, and adding or removing a backend moves few other
/// places. The table has one size for all groups, because a change of size would move all clients (docs/adr/0010).
public enum Maglev {
    /// Prime, so that every step visits every place. 128 KiB a group that asks for it.
    public static let size = 65537

    /// - Returns: the backend of each place, as an index; empty if none has a weight, or there are more than places can
    ///   tell apart.
    public static func table(_ backends: [BackendSpec]) -> [UInt16] {
        guard !backends.isEmpty, backends.count <= Int(UInt16.max) else { return [] }
        let weights = backends.map { UInt32($0.weight) }
        guard let most = weights.max(), most > 0 else { return [] }
        var next = backends.map { Int(seed($0.endpoint, 0) % UInt64(size)) }
        let steps = backends.map { Int(seed($0.endpoint, 1) % UInt64(size - 1)) + 1 }
        // What each has saved up for its next place: the heaviest claims one a round.
        var credit = [UInt32](repeating: 0, count: backends.count)
        var table = [UInt16](repeating: .max, count: size)
        var isTaken = [Bool](repeating: false, count: size)
        var taken = 0
        while true {
            for index in backends.indices {
                credit[index] += weights[index]
                guard credit[index] >= most else { continue }
                credit[index] -= most
                var place = next[index]
                while isTaken[place] { place = following(place, steps[index]) }
                table[place] = UInt16(index)
                isTaken[place] = true
                next[index] = following(place, steps[index])
                taken += 1
                if taken == size { return table }
            }
        }
    }

    private static func following(_ place: Int, _ step: Int) -> Int {
        place + step >= size ? place + step - size : place + step
    }

    private static func seed(_ endpoint: Endpoint, _ salt: UInt64) -> UInt64 {
        Hashing.mix(endpoint.stableHash ^ salt)
    }
}
