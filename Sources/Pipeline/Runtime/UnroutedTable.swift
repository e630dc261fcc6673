import CLinux
import Pipeline

/// The connections of one worker that wait for their first bytes, by the network that they come from (/64, IPv4 by /32):
/// which network has most of them, and which of its own waits longest. Fixed memory, mapped once and touched as connections
/// come to wait; each call takes the same time however many there are.
struct UnroutedTable: ~Copyable {
    /// Slots and networks are named by their number plus one: memory as it is mapped says "none".
    private typealias Name = Int32

    private struct Place {
        var network: Name
        var older: Name
        var newer: Name
    }

    private struct Network {
        var key: UInt64
        var isIPv4: Bool
        var count: Int32
        var oldest: Name
        var newest: Name
        /// Others with as many connections.
        var before: Name
        var behind: Name
        /// The next one of the same hash, or of those that are free.
        var next: Name
    }

    private struct Rank {
        var first: Name
        var last: Name
    }

    private let places: UnsafeMutablePointer<Place>
    private let networks: UnsafeMutablePointer<Network>
    /// Networks by hash.
    private let heads: UnsafeMutablePointer<Name>
    /// Networks by how many connections they have.
    private let ranks: UnsafeMutablePointer<Rank>
    private let memory: UnsafeMutableRawPointer
    private let size: Int
    private let mask: Int
    private let seed: HashSeed
    private var free: Name = 0
    private var touched: Name = 0
    private(set) var count = 0
    /// The most that one network has.
    private(set) var most = 0

    /// Nil if the address space can't be had.
    init?(capacity: Int, seed: HashSeed = .random()) {
        var buckets = 1
        while buckets < capacity { buckets *= 2 }
        mask = buckets - 1
        self.seed = seed
        let sizes = (
            networks: capacity * MemoryLayout<Network>.stride, places: capacity * MemoryLayout<Place>.stride,
            ranks: (capacity + 1) * MemoryLayout<Rank>.stride, heads: buckets * MemoryLayout<Name>.stride
        )
        size = sizes.networks + sizes.places + sizes.ranks + sizes.heads
        guard let memory = cl_map(size) else { return nil }
        self.memory = memory
        networks = memory.bindMemory(to: Network.self, capacity: capacity)
        var rest = memory + sizes.networks
        places = rest.bindMemory(to: Place.self, capacity: capacity)
        rest += sizes.places
        ranks = rest.bindMemory(to: Rank.self, capacity: capacity + 1)
        rest += sizes.ranks
        heads = rest.bindMemory(to: Name.self, capacity: buckets)
    }

    deinit { cl_unmap(memory, size) }

    func contains(_ slot: Int) -> Bool { count > 0 && places[slot].network != 0 }

    /// The connection waits from now on, or still: then it keeps its place, unless it is of another network than it seemed.
    mutating func enter(_ slot: Int, of address: IPAddress) {
        let isIPv4 = address.isIPv4
        let key = isIPv4 ? address.low : address.high
        let present = places[slot].network
        if present != 0 {
            let network = networks[Int(present) - 1]
            guard network.key != key || network.isIPv4 != isIPv4 else { return }
            leave(slot)
        }
        let bucket = bucket(key, isIPv4)
        var name = heads[bucket]
        while name != 0, networks[Int(name) - 1].key != key || networks[Int(name) - 1].isIPv4 != isIPv4 {
            name = networks[Int(name) - 1].next
        }
        if name == 0 { name = make(key, isIPv4, in: bucket) }
        let network = networks + (Int(name) - 1)
        let (newest, own) = (network.pointee.newest, Name(slot + 1))
        places[slot] = Place(network: name, older: newest, newer: 0)
        if newest != 0 { places[Int(newest) - 1].newer = own } else { network.pointee.oldest = own }
        network.pointee.newest = own
        rank(name, network.pointee.count + 1)
        most = max(most, Int(network.pointee.count))
        count += 1
    }

    /// It waits no more. Nothing happens if it did not.
    mutating func leave(_ slot: Int) {
        guard contains(slot) else { return }
        let place = places[slot]
        let (older, newer) = (place.older, place.newer)
        let network = networks + (Int(place.network) - 1)
        if older != 0 { places[Int(older) - 1].newer = newer } else { network.pointee.oldest = newer }
        if newer != 0 { places[Int(newer) - 1].older = older } else { network.pointee.newest = older }
        places[slot].network = 0
        let had = Int(network.pointee.count)
        rank(place.network, network.pointee.count - 1)
        if had == most, ranks[had].first == 0 { most -= 1 }
        if network.pointee.count == 0 { remove(place.network) }
        count -= 1
    }

    /// Of the network that has most waiting connections, the one that has waited longest; nil: none waits.
    var oldestOfLargest: Int? {
        guard count > 0 else { return nil }
        let network = ranks[most].first
        return network == 0 ? nil : Int(networks[Int(network) - 1].oldest) - 1
    }

    // MARK: Networks

    private func bucket(_ key: UInt64, _ isIPv4: Bool) -> Int {
        let hash = withUnsafeBytes(of: key) {
            SipHash.hash($0.assumingMemoryBound(to: UInt8.self), domain: isIPv4 ? 1 : 0, seed: seed)
        }
        return Int(truncatingIfNeeded: hash) & mask
    }

    private mutating func make(_ key: UInt64, _ isIPv4: Bool, in bucket: Int) -> Name {
        var name = free
        if name != 0 {
            free = networks[Int(name) - 1].next
        } else {
            touched += 1
            name = touched
        }
        networks[Int(name) - 1] = Network(
            key: key, isIPv4: isIPv4, count: 0, oldest: 0, newest: 0, before: 0, behind: 0, next: heads[bucket])
        heads[bucket] = name
        return name
    }

    private mutating func remove(_ name: Name) {
        let network = networks + (Int(name) - 1)
        let bucket = bucket(network.pointee.key, network.pointee.isIPv4)
        if heads[bucket] == name {
            heads[bucket] = network.pointee.next
        } else {
            var other = heads[bucket]
            while networks[Int(other) - 1].next != name { other = networks[Int(other) - 1].next }
            networks[Int(other) - 1].next = network.pointee.next
        }
        network.pointee.next = free
        free = name
    }

    /// Moves a network to the end of those that have so many connections; 0: to none.
    private mutating func rank(_ name: Name, _ count: Int32) {
        let network = networks + (Int(name) - 1)
        let old = Int(network.pointee.count)
        if old > 0 {
            let (before, behind) = (network.pointee.before, network.pointee.behind)
            if before != 0 { networks[Int(before) - 1].behind = behind } else { ranks[old].first = behind }
            if behind != 0 { networks[Int(behind) - 1].before = before } else { ranks[old].last = before }
        }
        network.pointee.count = count
        guard count > 0 else { return }
        let last = ranks[Int(count)].last
        network.pointee.before = last
        network.pointee.behind = 0
        if last != 0 { networks[Int(last) - 1].behind = name } else { ranks[Int(count)].first = name }
        ranks[Int(count)].last = name
    }
}

/// Room for newcomers (R27): whoever says nothing takes no place for long from those who do.
extension Worker {
    /// A connection waits for its first bytes. It never goes for itself: it is the newest of its network, and that the last
    /// to have as many.
    mutating func noteUnrouted(_ index: Int) {
        let pending = blocks.pending(slab.slots[index].pending)
        unrouted.enter(index, of: pending.pointee.facts.client.endpoint.address)
        while unrouted.count > unroutedLimit, endUnrouted() {}
    }

    /// Ends the oldest waiting connection of the network that has most of them. False: none waits.
    mutating func endUnrouted() -> Bool {
        guard let victim = unrouted.oldestOfLargest else { return false }
        finish(victim, RuntimeReason.unrouted.code, .reset)
        return true
    }
}
