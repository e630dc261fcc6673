import CLinux
import Pipeline

/// What an upstream socket is made for: only a connection of the same kind can have it after another one.
enum UpstreamKind: UInt8, CaseIterable {
    case backend4, backend6
    /// Carries the node's mark (docs/EGRESS.md).
    case marked4, marked6
    /// Bound to an address of its own, and so never kept.
    case bound

    static func backend(_ address: IPAddress) -> UpstreamKind { address.isIPv4 ? .backend4 : .backend6 }
    static func direct(_ destination: IPAddress, _ source: IPAddress?) -> UpstreamKind {
        guard source == nil else { return .bound }
        return destination.isIPv4 ? .marked4 : .marked6
    }
}

/// Every upstream socket of a worker: which connection has it, and which wait for the next one (docs/adr/0030).
///
/// A socket that was disconnected is as good as new, and stays registered with epoll: the next connection saves making
/// it, its options, its registration and its close. So events name a socket and not a connection, and what epoll had
/// to say in the turn in which a socket changed hands is about its former owner.
struct UpstreamSockets: ~Copyable {
    private struct Entry {
        var descriptor = Descriptor.none
        /// Tells uses of this entry apart, as a slot's does.
        var generation: UInt32 = 0
        /// Index of the slot that has it, or ``Flow/none``.
        var owner = Flow.none
        /// The turn in which its owner got it.
        var since: UInt64 = 0
        /// The next free entry, or the next spare of its kind.
        var link = Flow.none
        var kind = UpstreamKind.bound
    }

    private let entries: UnsafeMutablePointer<Entry>
    private let capacity: Int
    private let mostSpares: Int
    private var touched = 0
    private var free = Flow.none
    private var spares = InlineArray<5, Int32>(repeating: Flow.none)
    private(set) var spareCount = 0
    /// Goes up before each wait for events.
    var turn: UInt64 = 0

    /// - Parameters:
    ///   - connections: how many may have a socket at once.
    ///   - spares: how many may wait for their next connection; 0: none is used twice.
    /// - Returns: nil if the address space can't be had.
    init?(connections: Int, spares: Int) {
        capacity = connections + spares
        mostSpares = spares
        guard let memory = cl_map(capacity * MemoryLayout<Entry>.stride) else { return nil }
        entries = memory.bindMemory(to: Entry.self, capacity: capacity)
    }

    deinit { cl_unmap(entries, capacity * MemoryLayout<Entry>.stride) }

    /// An entry for a connection's next socket: with a spare in it, or without one.
    mutating func take(_ kind: UpstreamKind, for slot: Int) -> Int32? {
        let place: Int32
        if spares[Int(kind.rawValue)] != Flow.none {
            place = spares[Int(kind.rawValue)]
            spares[Int(kind.rawValue)] = entries[Int(place)].link
            spareCount -= 1
        } else {
            guard let empty = takeEmpty() else { return nil }
            place = empty
            entries[Int(place)].kind = kind
        }
        entries[Int(place)].owner = Int32(truncatingIfNeeded: slot)
        entries[Int(place)].since = turn
        return place
    }

    private mutating func takeEmpty() -> Int32? {
        if free != Flow.none {
            let place = free
            free = entries[Int(place)].link
            return place
        }
        guard touched < capacity else { return nil }
        (entries + touched).initialize(to: Entry())
        touched += 1
        return Int32(touched - 1)
    }

    /// Puts the socket of a new entry into it.
    func set(_ place: Int32, _ descriptor: Descriptor) { entries[Int(place)].descriptor = descriptor }

    /// The spare's socket; none: it needs a new one.
    func descriptor(_ place: Int32) -> Descriptor { entries[Int(place)].descriptor }

    func key(_ place: Int32) -> EventKey {
        EventKey(.upstream, index: Int(place), generation: entries[Int(place)].generation)
    }

    /// The slot that an event is for; nil if its socket is gone, is a spare, or was another's when the event came about.
    func owner(_ key: EventKey) -> Int? {
        guard key.index < touched else { return nil }
        let entry = entries + key.index
        guard entry.pointee.generation == key.generation, entry.pointee.owner != Flow.none, entry.pointee.since != turn
        else { return nil }
        return Int(entry.pointee.owner)
    }

    /// Whether there is room for one more spare of its kind.
    func mayKeep(_ place: Int32) -> Bool { spareCount < mostSpares && entries[Int(place)].kind != .bound }

    /// Its socket is disconnected, and waits for its next connection.
    mutating func keep(_ place: Int32) {
        let kind = Int(entries[Int(place)].kind.rawValue)
        entries[Int(place)].owner = Flow.none
        entries[Int(place)].link = spares[kind]
        spares[kind] = place
        spareCount += 1
    }

    /// Its socket is closed.
    mutating func give(_ place: Int32) {
        entries[Int(place)].descriptor = .none
        entries[Int(place)].generation &+= 1
        entries[Int(place)].owner = Flow.none
        entries[Int(place)].link = free
        free = place
    }

    /// Closes what waits: at the end, and when descriptors are short. True if there was any.
    mutating func closeSpares(_ kernel: inout some Kernel) -> Bool {
        guard spareCount > 0 else { return false }
        for kind in spares.indices {
            while spares[kind] != Flow.none {
                let place = spares[kind]
                spares[kind] = entries[Int(place)].link
                kernel.close(entries[Int(place)].descriptor)
                give(place)
            }
        }
        spareCount = 0
        return true
    }
}
