import CLinux
import Pipeline

/// The connections of one worker whose clients have sent nothing yet, by client network (/64, IPv4 by /32): which
/// network has most of them, and which of its connections waits longest. Fixed memory, mapped once and touched as
/// connections come to wait; each call takes constant time.
struct UnroutedTable: ~Copyable {
    /// Slots and networks are stored as index + 1, so that zeroed memory means "none".
    private typealias Name = KeyTable.Name

    private struct Place {
        var network: Name
        var older: Name
        var newer: Name
    }

    private struct Network {
        var count: Int32
        var oldest: Name
        var newest: Name
        /// Others with as many connections.
        var before: Name
        var behind: Name
    }

    private struct Rank {
        var first: Name
        var last: Name
    }

    private var keys: KeyTable
    private let places: UnsafeMutablePointer<Place>
    private let networks: UnsafeMutablePointer<Network>
    /// Networks by how many connections they have.
    private let ranks: UnsafeMutablePointer<Rank>
    private let memory: UnsafeMutableRawPointer
    private let size: Int
    private(set) var count = 0
    /// The most that one network has.
    private(set) var most = 0

    /// Nil if the address space can't be had.
    init?(capacity: Int, seed: HashSeed = .random()) {
        let networkBytes = (capacity + 1) * MemoryLayout<Network>.stride
        let placeBytes = capacity * MemoryLayout<Place>.stride
        size = networkBytes + placeBytes + (capacity + 1) * MemoryLayout<Rank>.stride
        guard let memory = cl_map(size) else { return nil }
        guard let keys = KeyTable(capacity: capacity, seed: seed) else {
            cl_unmap(memory, size)
            return nil
        }
        self.keys = keys
        self.memory = memory
        networks = memory.bindMemory(to: Network.self, capacity: capacity + 1)
        places = (memory + networkBytes).bindMemory(to: Place.self, capacity: capacity)
        ranks = (memory + networkBytes + placeBytes).bindMemory(to: Rank.self, capacity: capacity + 1)
    }

    deinit { cl_unmap(memory, size) }

    func contains(_ slot: Int) -> Bool { count > 0 && places[slot].network != 0 }

    /// Adds a waiting connection. One that waits already keeps its place, unless its network has changed.
    mutating func enter(_ slot: Int, of address: IPAddress) {
        let (key, kind) = NetworkKey.of(address)
        let present = places[slot].network
        if present != 0 {
            guard !keys.isOf(present, key, kind) else { return }
            leave(slot)
        }
        var name = keys.find(key, kind)
        if name == 0 {
            name = keys.make(key, kind)
            networks[Int(name)] = Network(count: 0, oldest: 0, newest: 0, before: 0, behind: 0)
        }
        let network = networks + Int(name)
        let (newest, own) = (network.pointee.newest, Name(slot + 1))
        places[slot] = Place(network: name, older: newest, newer: 0)
        if newest != 0 { places[Int(newest) - 1].newer = own } else { network.pointee.oldest = own }
        network.pointee.newest = own
        rank(name, network.pointee.count + 1)
        most = max(most, Int(network.pointee.count))
        count += 1
    }

    /// Removes a waiting connection, if it is there.
    mutating func leave(_ slot: Int) {
        guard contains(slot) else { return }
        let place = places[slot]
        let (older, newer) = (place.older, place.newer)
        let network = networks + Int(place.network)
        if older != 0 { places[Int(older) - 1].newer = newer } else { network.pointee.oldest = newer }
        if newer != 0 { places[Int(newer) - 1].older = older } else { network.pointee.newest = older }
        places[slot].network = 0
        let had = Int(network.pointee.count)
        rank(place.network, network.pointee.count - 1)
        if had == most, ranks[had].first == 0 { most -= 1 }
        if network.pointee.count == 0 { keys.remove(place.network) }
        count -= 1
    }

    /// Of the network that has most waiting connections, the one that has waited longest; nil: none waits.
    var oldestOfLargest: Int? { largest.map { Int(networks[Int($0)].oldest) - 1 } }

    /// Of that network, the one that came last; nil: none waits.
    var newestOfLargest: Int? { largest.map { Int(networks[Int($0)].newest) - 1 } }

    private var largest: Name? {
        guard count > 0, ranks[most].first != 0 else { return nil }
        return ranks[most].first
    }

    /// Moves a network to the end of the list of networks with this many connections; 0: removes it.
    private mutating func rank(_ name: Name, _ count: Int32) {
        let network = networks + Int(name)
        let old = Int(network.pointee.count)
        if old > 0 {
            let (before, behind) = (network.pointee.before, network.pointee.behind)
            if before != 0 { networks[Int(before)].behind = behind } else { ranks[old].first = behind }
            if behind != 0 { networks[Int(behind)].before = before } else { ranks[old].last = before }
        }
        network.pointee.count = count
        guard count > 0 else { return }
        let last = ranks[Int(count)].last
        network.pointee.before = last
        network.pointee.behind = 0
        if last != 0 { networks[Int(last)].behind = name } else { ranks[Int(count)].first = name }
        ranks[Int(count)].last = name
    }
}

/// The network that an address counts for: its /64, of IPv4 the address itself.
enum NetworkKey {
    static func of(_ address: IPAddress) -> (key: UInt64, kind: UInt8) {
        address.isIPv4 ? (address.low, 1) : (address.high, 0)
    }
    /// For keys of other kinds in the same table.
    static let env: UInt8 = 2
}

/// Room for new connections (R27): silent clients do not keep places from others.
extension Worker {
    /// A connection starts to wait for first bytes, and may evict another. It never evicts itself: it is the newest of
    /// its network, and its network the last in its list.
    mutating func noteUnrouted(_ index: Int) {
        unrouted.enter(index, of: slab.slots[index].lasting.client.endpoint.address)
        while unrouted.count > unroutedLimit, endUnrouted() {}
        assert(unrouted.count <= unroutedLimit, "S33: more connections wait for first bytes than the limit allows")
    }

    /// All stages have passed it, and its client has said nothing, or nothing that an inspection let through: it was routed for its port
    /// alone, or because time was up.
    mutating func noteMute(_ index: Int) {
        let slot = slab.slots + index
        let pending = blocks.pending(slot.pointee.pending)
        guard pending.pointee.count <= pending.pointee.facts.consumed || slot.pointee.inspecting != 0 else { return }
        mute.enter(index, of: slot.pointee.lasting.client.endpoint.address)
    }

    /// No slot is free. False: none could be freed. Of those that wait for something the network with the most loses one.
    mutating func makeRoom() -> Bool {
        if waiting.most >= max(mute.most, unrouted.most), endWaiting() { return true }
        return (mute.most > unrouted.most && endMute()) || endUnrouted() || endMute() || endWaiting()
    }

    /// Ends a connection that waits for a place of a limit, of the network that has most of them, if it has many: the one
    /// that came last, whose turn is the farthest.
    private mutating func endWaiting() -> Bool {
        guard waiting.most >= crowd, let victim = waiting.newestOfLargest else { return false }
        finish(victim, RuntimeReason.crowdedOut.code, .reset)
        return true
    }

    /// Ends the oldest silent routed connection of the network that has most of them, if it has many. In some protocols
    /// the server speaks first, so this is done only to free a slot, and never to a network with few.
    private mutating func endMute() -> Bool {
        while mute.most >= crowd, let victim = mute.oldestOfLargest {
            guard slab.slots[victim].up.total <= 0 else {
                // An inspection has let through what it said.
                mute.leave(victim)
                continue
            }
            finish(victim, RuntimeReason.unrouted.code, .reset)
            return true
        }
        return false
    }

    /// Ends the oldest waiting connection of the network that has most of them. False: none waits.
    mutating func endUnrouted() -> Bool {
        guard let victim = unrouted.oldestOfLargest else { return false }
        finish(victim, RuntimeReason.unrouted.code, .reset)
        return true
    }
}
