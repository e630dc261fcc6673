import CLinux
import Pipeline

/// The connections of one worker that wait for a place (`queue N for T`): a line for each queue. In a line client networks
/// (/64, IPv4 by /32) take turns, and each network's connections go in order of arrival. Fixed memory, mapped once and
/// touched as connections come to wait; each call takes constant time.
struct WaitingLines: ~Copyable {
    /// Slots, networks and lines are stored as index + 1, so that zeroed memory means "none".
    typealias Name = KeyTable.Name

    private struct Place {
        var network: Name
        var older: Name
        var newer: Name
        /// In microseconds; it wraps after 71 minutes, and nobody waits for as long.
        var since: UInt32
    }

    private struct Network: RingMember {
        var line: Name
        var oldest: Name
        var newest: Name
        /// The ring of the networks of a line, in the order of their turns.
        var before: Name
        var behind: Name
    }

    private struct Line: RingMember {
        var queue: UnsafePointer<WaitQueue>
        /// Since when none of it was served.
        var since: Instant
        /// To whom it has left a place at the last tick.
        var deferredTo: WaitQueue.Turn?
        /// The network whose turn it is.
        var turn: Name
        /// The ring of all lines.
        var before: Name
        var behind: Name
    }

    private var lineKeys: KeyTable
    private var networkKeys: KeyTable
    private let seed: HashSeed
    private let places: UnsafeMutablePointer<Place>
    private let networks: UnsafeMutablePointer<Network>
    private let lines: UnsafeMutablePointer<Line>
    private let memory: UnsafeMutableRawPointer
    private let size: Int
    private let worker: Int
    /// The line to look at next.
    private var cursor: Name = 0
    private(set) var count = 0
    private(set) var lineCount = 0

    /// A place may be free.
    var isRung = false
    /// When the lines are looked at whatever happens: backends come and go, limits change, and places of other routes come
    /// free.
    private(set) var tick = Instant(nanoseconds: 0)
    /// The slot at which a walk goes on that looks at each connection by a new table; nil: none is in progress.
    var walk: Int?

    static var interval: TimeSpan { .milliseconds(50) }

    /// Nil if the address space can't be had.
    init?(capacity: Int, worker: Int, seed: HashSeed = .random()) {
        let lineBytes = (capacity + 1) * MemoryLayout<Line>.stride
        let networkBytes = (capacity + 1) * MemoryLayout<Network>.stride
        size = lineBytes + networkBytes + capacity * MemoryLayout<Place>.stride
        guard let memory = cl_map(size) else { return nil }
        guard let lineKeys = KeyTable(capacity: capacity, seed: seed),
            let networkKeys = KeyTable(capacity: capacity, seed: seed)
        else {
            cl_unmap(memory, size)
            return nil
        }
        self.lineKeys = lineKeys
        self.networkKeys = networkKeys
        self.seed = seed
        self.memory = memory
        self.worker = worker
        lines = memory.bindMemory(to: Line.self, capacity: capacity + 1)
        networks = (memory + lineBytes).bindMemory(to: Network.self, capacity: capacity + 1)
        places = (memory + lineBytes + networkBytes).bindMemory(to: Place.self, capacity: capacity)
    }

    deinit { cl_unmap(memory, size) }

    func contains(_ slot: Int) -> Bool { count > 0 && places[slot].network != 0 }

    /// The queue that a connection waits in; nil: it waits in none.
    func queue(of slot: Int) -> UnsafePointer<WaitQueue>? {
        contains(slot) ? lines[Int(networks[Int(places[slot].network)].line)].queue : nil
    }

    // MARK: Connections

    /// A connection that does not wait yet goes to the end of its network in the queue.
    mutating func enter(_ slot: Int, _ queue: UnsafePointer<WaitQueue>, of address: IPAddress, at now: Instant) {
        if count == 0 { tick = now + WaitingLines.interval }
        let network = network(of: address, in: line(of: queue, at: now))
        let (newest, own) = (networks[Int(network)].newest, Name(slot + 1))
        places[slot] = Place(network: network, older: newest, newer: 0, since: WaitingLines.time(now))
        if newest != 0 { places[Int(newest) - 1].newer = own } else { networks[Int(network)].oldest = own }
        networks[Int(network)].newest = own
        count += 1
    }

    /// A connection waits no more.
    /// - Parameter served: it was its turn: the next network's comes.
    /// - Returns: how long it has waited, in milliseconds.
    mutating func leave(_ slot: Int, at now: Instant, served: Bool) -> UInt32 {
        guard contains(slot) else { return 0 }
        let place = places[slot]
        let network = place.network
        let line = networks[Int(network)].line
        let (older, newer) = (place.older, place.newer)
        if older != 0 { places[Int(older) - 1].newer = newer } else { networks[Int(network)].oldest = newer }
        if newer != 0 { places[Int(newer) - 1].older = older } else { networks[Int(network)].newest = older }
        places[slot].network = 0
        count -= 1
        if served {
            lines[Int(line)].turn = networks[Int(network)].behind
            lines[Int(line)].since = now
            lines[Int(line)].deferredTo = nil
        }
        if networks[Int(network)].oldest == 0 { remove(network: network, of: line) }
        if lines[Int(line)].turn == 0 {
            remove(line: line)
        } else if served {
            lines[Int(line)].queue.pointee.setTurn(of: worker, since: now)
        }
        return (WaitingLines.time(now) &- place.since) / 1000
    }

    private static func time(_ now: Instant) -> UInt32 { UInt32(truncatingIfNeeded: now.nanoseconds / 1000) }

    // MARK: Turns

    /// The connection whose turn it is; nil: nobody waits there any more.
    func head(of line: Name) -> Int? {
        let turn = lines[Int(line)].turn
        return turn == 0 ? nil : Int(networks[Int(turn)].oldest) - 1
    }

    func queue(of line: Name) -> UnsafePointer<WaitQueue> { lines[Int(line)].queue }

    /// The lines, one after the other; 0: there is none.
    mutating func nextLine() -> Name {
        let line = cursor
        if line != 0 { cursor = lines[Int(line)].behind }
        return line
    }

    /// Another worker whose line was not served for longer than this one; nil: it is this worker's turn.
    ///
    /// Who has not taken what was left to it by the next tick has lost its turn: its worker may be busy, or what it was told
    /// of was taken by somebody who doesn't wait.
    mutating func earlier(than line: Name, isTick: Bool) -> WaitQueue.Turn? {
        guard let next = lines[Int(line)].queue.pointee.next, !next.isOf(worker: worker),
            next.since < lines[Int(line)].since.nanoseconds
        else { return nil }
        guard isTick else { return next }
        if lines[Int(line)].deferredTo == next { return nil }
        lines[Int(line)].deferredTo = next
        return next
    }

    mutating func ticked(at now: Instant) { tick = now + WaitingLines.interval }

    // MARK: Lines and networks

    private mutating func line(of queue: UnsafePointer<WaitQueue>, at now: Instant) -> Name {
        let key = UInt64(queue.pointee.number)
        let known = lineKeys.find(key, 0)
        if known != 0 { return known }
        let line = lineKeys.make(key, 0)
        lines[Int(line)] = Line(queue: queue, since: now, deferredTo: nil, turn: 0, before: line, behind: line)
        if cursor == 0 {
            cursor = line
        } else {
            lines.join(line, before: cursor)
        }
        lineCount += 1
        queue.pointee.setTurn(of: worker, since: now)
        return line
    }

    private mutating func remove(line: Name) {
        let behind = lines.leave(line)
        if cursor == line { cursor = behind }
        lines[Int(line)].queue.pointee.endTurn(of: worker)
        lineKeys.remove(line)
        lineCount -= 1
    }

    /// Of one line alone: by a keyed hash, since a network does not fit into a word with its queue.
    private func key(_ address: IPAddress, _ queue: UInt32) -> UInt64 {
        let (network, kind) = NetworkKey.of(address)
        return SipHash.wideHash(network, UInt64(queue) << 8 | UInt64(kind), seed: seed).0
    }

    /// A network that comes to wait has its turn after all that are there.
    private mutating func network(of address: IPAddress, in line: Name) -> Name {
        let key = key(address, lines[Int(line)].queue.pointee.number)
        let known = networkKeys.find(key, 0)
        if known != 0 { return known }
        let network = networkKeys.make(key, 0)
        networks[Int(network)] = Network(line: line, oldest: 0, newest: 0, before: network, behind: network)
        let turn = lines[Int(line)].turn
        if turn == 0 {
            lines[Int(line)].turn = network
        } else {
            networks.join(network, before: turn)
        }
        return network
    }

    private mutating func remove(network: Name, of line: Name) {
        let behind = networks.leave(network)
        if lines[Int(line)].turn == network { lines[Int(line)].turn = behind }
        networkKeys.remove(network)
    }
}

/// A member of a ring in an array: the names of its neighbours, its own while it is alone.
private protocol RingMember {
    var before: KeyTable.Name { get set }
    var behind: KeyTable.Name { get set }
}

extension UnsafeMutablePointer where Pointee: RingMember {
    /// Puts a member into the ring of another, in front of that.
    fileprivate func join(_ name: KeyTable.Name, before next: KeyTable.Name) {
        let last = self[Int(next)].before
        self[Int(name)].before = last
        self[Int(name)].behind = next
        self[Int(last)].behind = name
        self[Int(next)].before = name
    }

    /// Takes a member out of its ring.
    /// - Returns: who was behind it; 0: it was alone.
    fileprivate func leave(_ name: KeyTable.Name) -> KeyTable.Name {
        let (before, behind) = (self[Int(name)].before, self[Int(name)].behind)
        self[Int(before)].behind = behind
        self[Int(behind)].before = before
        return behind == name ? 0 : behind
    }
}
