import CLinux
import Pipeline

/// All upstream sockets of a worker: in use by a connection, or idle (docs/adr/0030).
///
/// A disconnected socket is as good as new, and stays registered with epoll: its next connection saves the calls to
/// create, configure, register and close it. Events therefore name a socket, not a connection; an event in the
/// iteration in which the socket changed hands belongs to its former owner.
struct UpstreamSockets: ~Copyable {
    /// Packed, since there is one for each concurrent connection, and without the key: the connection's slot has it
    /// while in use, ``IdleUpstreamSockets`` while idle.
    private struct Entry {
        /// The iteration in which its owner got it.
        var since: UInt64 = 0
        var descriptor = Descriptor.none
        /// Distinguishes uses of this entry, as a slot's does.
        var generation: UInt32 = 0
        var use = Use.free
        /// A connection of the same key may reuse the socket.
        var isKept = false
        /// When its socket was made, in ticks of ``UpstreamSockets/tick(_:)``, which wrap around.
        var made: UInt8 = 0
        /// In use: index of the slot that has it. Free: the next free entry, or ``Flow/none``.
        var link = Flow.none
    }

    private enum Use: UInt8 { case free, owned, idle }

    static var entrySize: Int { MemoryLayout<Entry>.stride }

    private let entries: UnsafeMutablePointer<Entry>
    private let capacity: Int
    private var touched = 0
    private var free = Flow.none
    private var idleSockets: IdleUpstreamSockets
    var idleCount: Int { idleSockets.count }
    /// Goes up before each wait for events.
    var iteration: UInt64 = 0

    /// - Parameters:
    ///   - connections: how many may have a socket at once.
    ///   - idleSockets: how many may wait for their next connection; 0: none is used twice.
    /// - Returns: nil if the address space can't be had.
    init?(connections: Int, idleSockets: Int) {
        guard let waiting = IdleUpstreamSockets(capacity: idleSockets),
            let memory = cl_map((connections + idleSockets) * MemoryLayout<Entry>.stride)
        else { return nil }
        capacity = connections + idleSockets
        self.idleSockets = waiting
        entries = memory.bindMemory(to: Entry.self, capacity: capacity)
    }

    deinit { cl_unmap(entries, capacity * MemoryLayout<Entry>.stride) }

    /// An entry for a connection's next socket: with an idle socket of the same key in it, or without one.
    mutating func take(_ key: UpstreamKey, for slot: Int, at now: Instant, _ kernel: inout some Kernel) -> Int32? {
        var idle = key.kind == .single ? nil : idleSockets.pop(key)
        if let old = idle, !isYoung(old, at: now) {
            close(old, &kernel)
            idle = nil
        }
        guard let place = idle ?? takeEmpty() else { return nil }
        let entry = entries + Int(place)
        if idle == nil {
            entry.pointee.isKept = key.kind != .single
            entry.pointee.made = Self.tick(now)
        }
        entry.pointee.use = .owned
        entry.pointee.link = Int32(truncatingIfNeeded: slot)
        entry.pointee.since = iteration
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

    /// Stores the socket of a new entry.
    func set(_ place: Int32, _ descriptor: Descriptor) { entries[Int(place)].descriptor = descriptor }

    /// The idle socket; none: it needs a new one.
    func descriptor(_ place: Int32) -> Descriptor { entries[Int(place)].descriptor }

    func key(_ place: Int32) -> EventKey {
        EventKey(.upstream, index: Int(place), generation: entries[Int(place)].generation)
    }

    /// The slot that an event is for; nil if the socket is closed, idle, or had another owner when the event occurred.
    func owner(_ key: EventKey) -> Int? {
        guard key.index < touched else { return nil }
        let entry = entries + key.index
        guard entry.pointee.generation == key.generation, entry.pointee.use == .owned, entry.pointee.since != iteration
        else { return nil }
        return Int(entry.pointee.link)
    }

    /// Whether that slot owns this socket, and so gets its events.
    func has(_ place: Int32, _ descriptor: Descriptor, for slot: Int) -> Bool {
        let entry = entries + Int(place)
        return entry.pointee.use == .owned && Int(entry.pointee.link) == slot && entry.pointee.descriptor == descriptor
    }

    /// Whether the socket may be kept idle: there is room, or an older idle socket makes room.
    func mayKeep(_ place: Int32, at now: Instant) -> Bool {
        guard idleSockets.capacity > 0, entries[Int(place)].isKept, isYoung(place, at: now) else { return false }
        guard idleSockets.count == idleSockets.capacity, let oldest = idleSockets.oldest else { return true }
        return now.since(oldest) >= Self.quiet
    }

    /// Keeps a disconnected socket idle. Only after ``mayKeep(_:at:)``.
    /// - Parameter key: that of ``take(_:for:at:_:)``.
    mutating func keep(_ place: Int32, _ key: UpstreamKey, at now: Instant, _ kernel: inout some Kernel) {
        if idleSockets.count == idleSockets.capacity, let oldest = idleSockets.popOldest() { close(oldest, &kernel) }
        entries[Int(place)].use = .idle
        idleSockets.push(place, key, at: now)
    }

    /// Its socket is closed.
    mutating func give(_ place: Int32) {
        entries[Int(place)].descriptor = .none
        entries[Int(place)].generation &+= 1
        entries[Int(place)].use = .free
        entries[Int(place)].link = free
        free = place
    }

    private mutating func close(_ place: Int32, _ kernel: inout some Kernel) {
        kernel.close(entries[Int(place)].descriptor)
        give(place)
    }

    /// Closes all idle sockets: at the end, and when descriptors are short. True if there were any.
    mutating func closeIdle(_ kernel: inout some Kernel) -> Bool {
        guard idleSockets.count > 0 else { return false }
        while let place = idleSockets.popOldest() { close(place, &kernel) }
        return true
    }

    /// Closes expired idle sockets, a few in each iteration. It wakes no worker.
    mutating func closeOld(at now: Instant, _ kernel: inout some Kernel) {
        var left = 8
        while left > 0, let oldest = idleSockets.oldest, now.since(oldest) >= Self.longest,
            let place = idleSockets.popOldest()
        {
            close(place, &kernel)
            left -= 1
        }
    }

    // MARK: Ages

    /// How long an idle socket is protected from replacement when all places are taken. Without it, many keys in turn
    /// would replace each other's sockets, and none would ever be reused.
    static var quiet: TimeSpan { .seconds(1) }
    /// How long an idle socket waits at most.
    static var longest: TimeSpan { .seconds(60) }

    /// A socket is not kept once it is a minute old: changed system settings, such as the congestion control, apply to
    /// new sockets only.
    private func isYoung(_ place: Int32, at now: Instant) -> Bool {
        Self.tick(now) &- entries[Int(place)].made < 14
    }

    /// 4.3 seconds.
    private static func tick(_ now: Instant) -> UInt8 { UInt8(truncatingIfNeeded: now.nanoseconds >> 32) }
}
