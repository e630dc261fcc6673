import Pipeline
import Testing

@testable import PipelineRuntime

@Suite("Upstream sockets and their next use")
struct UpstreamSocketsTests {
    private func make(connections: Int = 4, spares: Int = 2) throws -> UpstreamSockets {
        guard let sockets = UpstreamSockets(connections: connections, spares: spares) else { throw NoMemory() }
        return sockets
    }

    @Test("a socket that was kept is the next one of its kind, the last one first; another kind gets a new one")
    func kinds() throws {
        var sockets = try make()
        for number in Int32(10)...11 {
            guard let place = sockets.take(.backend6, for: Int(number)) else { throw NoMemory() }
            holds(!sockets.descriptor(place).isOpen)
            sockets.set(place, Descriptor(number))
        }
        sockets.keep(0)
        sockets.keep(1)
        holds(sockets.spareCount == 2)
        for other in [UpstreamKind.backend4, .marked6, .marked4, .bound] {
            guard let place = sockets.take(other, for: 1) else { throw NoMemory() }
            holds(!sockets.descriptor(place).isOpen)
            sockets.give(place)
        }
        holds(sockets.take(.backend6, for: 5).map { sockets.descriptor($0) } == Descriptor(11))
        holds(sockets.take(.backend6, for: 5).map { sockets.descriptor($0) } == Descriptor(10))
        holds(sockets.take(.backend6, for: 5).map { sockets.descriptor($0) } == Descriptor.none)
    }

    @Test("R27: no more spares than there may be, none that is bound, and an entry for each connection")
    func bounds() throws {
        var sockets = try make(connections: 2, spares: 1)
        guard let first = sockets.take(.backend4, for: 0), let second = sockets.take(.bound, for: 1) else {
            throw NoMemory()
        }
        holds(!sockets.mayKeep(second))
        holds(sockets.mayKeep(first))
        sockets.keep(first)
        guard let third = sockets.take(.backend6, for: 2) else { throw NoMemory() }
        holds(!sockets.mayKeep(third))
        holds(sockets.take(.backend6, for: 3) == nil)
    }

    @Test("S24: an event finds the owner of its socket, but not in the turn in which it got it")
    func turns() throws {
        var sockets = try make()
        sockets.turn = 1
        guard let place = sockets.take(.backend4, for: 7) else { throw NoMemory() }
        sockets.set(place, Descriptor(3))
        let key = sockets.key(place)
        holds(sockets.owner(key) == nil)
        sockets.turn = 2
        holds(sockets.owner(key) == 7)
        sockets.keep(place)
        holds(sockets.owner(key) == nil)
        _ = sockets.take(.backend4, for: 8)
        holds(sockets.key(place) == key)
        holds(sockets.owner(key) == nil)
        sockets.turn = 3
        holds(sockets.owner(key) == 8)
    }

    @Test("S24: an event of a socket that was closed finds nobody, however often its entry is used again")
    func closed() throws {
        var sockets = try make()
        var stale: [EventKey] = []
        for slot in 0..<5 {
            sockets.turn += 1
            guard let place = sockets.take(.backend4, for: slot) else { throw NoMemory() }
            holds(place == 0)
            stale.append(sockets.key(place))
            sockets.give(place)
        }
        _ = sockets.take(.backend4, for: 9)
        sockets.turn += 1
        for key in stale { holds(sockets.owner(key) == nil) }
        holds(sockets.owner(EventKey(.upstream, index: 3, generation: 0)) == nil)
    }
}
