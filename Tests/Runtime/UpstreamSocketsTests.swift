import Pipeline
import Testing

@testable import PipelineRuntime

@Suite("Upstream sockets and their next use")
struct UpstreamSocketsTests {
    /// Sockets whose numbers begin at 10.
    private struct Bench: ~Copyable {
        var sockets: UpstreamSockets
        var kernel = PipeKernel()
        var now = Instant(nanoseconds: 5_000_000_000)
        /// As the slots of connections know them.
        private var keys: [Int32: UpstreamKey] = [:]

        init(connections: Int = 8, idleSockets: Int = 2) throws {
            guard let sockets = UpstreamSockets(connections: connections, idleSockets: idleSockets) else {
                throw NoMemory()
            }
            self.sockets = sockets
            kernel.next = 10
        }

        /// A connection that gets an idle socket's socket, or a new one.
        mutating func open(_ key: UpstreamKey, for slot: Int = 1) throws -> (place: Int32, socket: Int32) {
            guard let place = sockets.take(key, for: slot, at: now, &kernel) else { throw NoMemory() }
            keys[place] = key
            let idle = sockets.descriptor(place)
            if idle.isOpen { return (place, idle.number) }
            sockets.set(place, Descriptor(kernel.next))
            kernel.open.insert(kernel.next)
            kernel.next += 1
            return (place, kernel.next - 1)
        }

        /// True: it is kept.
        mutating func end(_ place: Int32) -> Bool {
            guard let key = keys[place], sockets.mayKeep(place, at: now) else {
                kernel.close(sockets.descriptor(place))
                sockets.give(place)
                return false
            }
            sockets.keep(place, key, at: now, &kernel)
            return true
        }
    }

    private static let first = BackendAddress(Endpoint(IPAddress(high: 0xFD00 << 48, low: 1), 80))
    private static let second = BackendAddress(Endpoint(IPAddress(high: 0xFD00 << 48, low: 2), 80))
    private static let otherPort = BackendAddress(Endpoint(IPAddress(high: 0xFD00 << 48, low: 1), 81))
    private static let key = UpstreamKey.backend(first, of: 7)

    @Test("S24: a socket that was kept is the next one of its env to the same place, the last one first; nobody else's")
    func keys() throws {
        var bench = try Bench(idleSockets: 3)
        let held = try (bench.open(Self.key), bench.open(Self.key))
        holds(bench.end(held.0.place) && bench.end(held.1.place))
        holds(bench.sockets.idleCount == 2)
        let others: [UpstreamKey] = [
            .backend(Self.first, of: 8), .backend(Self.second, of: 7), .backend(Self.otherPort, of: 7),
            .backend(Self.first, of: nil), .direct(Self.first.endpoint, of: 7),
            .direct(Self.first.endpoint, isForeign: true, of: 7), .backend(Self.first, of: 7, from: 1),
            .single(Self.first),
        ]
        for (number, other) in others.enumerated() {
            let opened = try bench.open(other)
            holds(opened.socket == Int32(12 + number))
            bench.kernel.close(Descriptor(opened.socket))
            bench.sockets.give(opened.place)
        }
        holds(try bench.open(Self.key).socket == 11)
        holds(try bench.open(Self.key).socket == 10)
        holds(try bench.open(Self.key).socket == 20)
    }

    @Test("S24: on egress a socket goes only to the same instance's next connection to the same destination")
    func egress() throws {
        var bench = try Bench(idleSockets: 4)
        let destination = Self.first.endpoint
        let mine = UpstreamKey.direct(destination, of: 3)
        let opened = try bench.open(mine)
        holds(bench.end(opened.place))
        let unknown = try bench.open(.direct(destination, of: InstanceIdentity.unknown))
        holds(unknown.socket != opened.socket)
        holds(!bench.end(unknown.place), "nobody's socket is kept")
        holds(try bench.open(.direct(destination, of: 4)).socket != opened.socket)
        holds(try bench.open(.direct(Self.second.endpoint, of: 3)).socket != opened.socket)
        holds(try bench.open(mine).socket == opened.socket)
    }

    @Test("R27: no more idleSockets than there may be, none that is bound, and an entry for each connection")
    func bounds() throws {
        var bench = try Bench(connections: 2, idleSockets: 1)
        let bound = try bench.open(.direct(Self.first.endpoint, isForeign: true, of: 1))
        let other = try bench.open(Self.key)
        holds(!bench.sockets.mayKeep(bound.place, at: bench.now))
        holds(bench.end(other.place))
        let third = try bench.open(.backend(Self.second, of: 7))
        holds(!bench.sockets.mayKeep(third.place, at: bench.now))
        holds(bench.sockets.take(.backend(Self.second, of: 7), for: 3, at: bench.now, &bench.kernel) == nil)
        var none = try Bench(idleSockets: 0)
        let only = try none.open(Self.key)
        holds(!none.end(only.place))
    }

    @Test("an idle socket keeps its place for a second; after that one of a busier env takes it")
    func quiet() throws {
        var bench = try Bench(idleSockets: 2)
        let quiet = try (bench.open(.backend(Self.first, of: 1)), bench.open(.backend(Self.first, of: 2)))
        holds(bench.end(quiet.0.place) && bench.end(quiet.1.place))
        bench.now = bench.now + .milliseconds(999)
        let early = try bench.open(.backend(Self.first, of: 3))
        holds(!bench.end(early.place))
        bench.now = bench.now + .milliseconds(1)
        let late = try bench.open(.backend(Self.first, of: 3))
        holds(bench.end(late.place))
        holds(bench.kernel.open == [quiet.1.socket, late.socket], "the oldest made room")
        holds(bench.sockets.idleCount == 2)
        holds(try bench.open(.backend(Self.first, of: 1)).socket != quiet.0.socket)
        holds(try bench.open(.backend(Self.first, of: 3)).socket == late.socket)
    }

    @Test("a socket that is a minute old is not idle, and one that has waited for a minute is closed")
    func ages() throws {
        var bench = try Bench()
        // Used again every five seconds, it is given up in time.
        var ages: [UInt64] = []
        let begin = bench.now
        let socket = try bench.open(Self.key)
        var place = socket.place
        while bench.end(place) {
            bench.now = bench.now + .seconds(5)
            let next = try bench.open(Self.key)
            ages.append(bench.now.since(begin).milliseconds)
            guard next.socket == socket.socket else { break }
            place = next.place
        }
        holds(ages.last.map { (55_000...65_000).contains($0) } == true, "\(ages)")
        holds(!bench.kernel.open.contains(socket.socket))
        bench = try Bench()
        let waiting = try bench.open(Self.key)
        holds(bench.end(waiting.place))
        bench.sockets.closeOld(at: bench.now + .milliseconds(59_999), &bench.kernel)
        holds(bench.kernel.open == [waiting.socket])
        bench.sockets.closeOld(at: bench.now + .seconds(60), &bench.kernel)
        holds(bench.kernel.open.isEmpty && bench.sockets.idleCount == 0)
    }

    @Test("whatever comes and goes, in any order: the last one of a key first, and the oldest of all")
    func model() throws {
        guard var idleSockets = IdleUpstreamSockets(capacity: 40) else { throw NoMemory() }
        var kept: [(place: Int32, key: UpstreamKey, since: Instant)] = []
        var numbers = SplitMix64(seed: 1)
        func random(_ limit: Int) -> Int { numbers.below(limit) }
        for number in Int32(0)..<20_000 {
            let address = BackendAddress(Endpoint(IPAddress(high: 0, low: UInt64(random(3))), UInt16(random(2))))
            let key = UpstreamKey.backend(address, of: UInt32(random(5)), from: UInt32(random(2)))
            let now = Instant(nanoseconds: UInt64(number))
            switch random(9) {
            case 0...3 where kept.count < 40:
                idleSockets.push(number, key, at: now)
                kept.append((number, key, now))
            case 8:
                holds(idleSockets.popOldest() == kept.first?.place)
                if !kept.isEmpty { kept.removeFirst() }
            default:
                let index = kept.lastIndex { $0.key == key }
                holds(idleSockets.pop(key) == index.map { kept[$0].place })
                if let index { kept.remove(at: index) }
            }
            holds(idleSockets.count == kept.count && idleSockets.oldest == kept.first?.since)
        }
    }

    @Test("S24: an event finds the owner of its socket, but not in the iteration in which it got it")
    func turns() throws {
        var bench = try Bench()
        bench.sockets.iteration = 1
        let place = try bench.open(Self.key, for: 7).place
        let key = bench.sockets.key(place)
        holds(bench.sockets.owner(key) == nil)
        bench.sockets.iteration = 2
        holds(bench.sockets.owner(key) == 7)
        holds(bench.end(place))
        holds(bench.sockets.owner(key) == nil)
        _ = try bench.open(Self.key, for: 8)
        holds(bench.sockets.key(place) == key)
        holds(bench.sockets.owner(key) == nil)
        bench.sockets.iteration = 3
        holds(bench.sockets.owner(key) == 8)
    }

    @Test("S24: an event of a socket that was closed finds nobody, however often its entry is used again")
    func closed() throws {
        var bench = try Bench()
        var stale: [EventKey] = []
        for slot in 0..<5 {
            bench.sockets.iteration += 1
            let place = try bench.open(Self.key, for: slot).place
            holds(place == 0)
            stale.append(bench.sockets.key(place))
            bench.sockets.give(place)
        }
        _ = try bench.open(Self.key, for: 9)
        bench.sockets.iteration += 1
        for key in stale { holds(bench.sockets.owner(key) == nil) }
        holds(bench.sockets.owner(EventKey(.upstream, index: 3, generation: 0)) == nil)
    }

    @Test("an entry stays as small as a connection can afford")
    func size() { holds(UpstreamSockets.entrySize <= 24) }
}
