import Pipeline

/// Sums by address, for a million of them: keys and sums lie one after the other as they came, and an index of four
/// bytes a place finds them. A dictionary spends three times as long, most of it on growing. Hashed with a key, since
/// workloads choose where they send.
struct AddressSums {
    private let seed = HashSeed.random()
    private(set) var addresses: [IPAddress] = []
    private(set) var sums: [ReportSums] = []
    /// Open addressing with linear probing, at most half full: 0 is free, else the place plus one.
    private var index = [UInt32](repeating: 0, count: 1 << 12)

    var count: Int { addresses.count }

    mutating func add(_ address: IPAddress, _ more: ReportSums) {
        let slot = slot(of: address)
        if index[slot] > 0 { return sums[Int(index[slot]) - 1].add(more) }
        addresses.append(address)
        sums.append(more)
        index[slot] = UInt32(addresses.count)
        if addresses.count * 2 >= index.count { grow() }
    }

    /// Where the address is, or is to be.
    private func slot(of address: IPAddress) -> Int {
        let mask = index.count - 1
        var slot = Int(truncatingIfNeeded: SipHash.hash(address, seed: seed)) & mask
        while index[slot] > 0, addresses[Int(index[slot]) - 1] != address { slot = (slot + 1) & mask }
        return slot
    }

    private mutating func grow() {
        index = [UInt32](repeating: 0, count: index.count * 4)
        let mask = index.count - 1
        for (place, address) in addresses.enumerated() {
            var slot = Int(truncatingIfNeeded: SipHash.hash(address, seed: seed)) & mask
            while index[slot] > 0 { slot = (slot + 1) & mask }
            index[slot] = UInt32(place + 1)
        }
    }
}
