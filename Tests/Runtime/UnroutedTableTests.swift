import Pipeline
import Testing

@testable import PipelineRuntime

/// R27: whose waiting connections make room.
@Suite("Connections that wait for first bytes, by network")
struct UnroutedTableTests {
    private static func v6(_ network: Int, _ host: Int) -> IPAddress {
        IPAddress(high: 0x2001_0DB8 << 32 | UInt64(network), low: UInt64(host))
    }

    private func table(_ capacity: Int) throws -> UnroutedTable {
        guard let table = UnroutedTable(capacity: capacity, seed: HashSeed(1, 2)) else { throw NoMemory() }
        return table
    }

    @Test("the oldest of the network that has most, an IPv6 /64 or an IPv4 address")
    func order() throws {
        var table = try table(16)
        holds(table.oldestOfLargest == nil)
        // One client of its own, three of one /64, two of one IPv4 address and one of its neighbour.
        table.enter(0, of: Self.v6(1, 1))
        for slot in 1...3 { table.enter(slot, of: Self.v6(2, slot)) }
        for slot in 4...5 { table.enter(slot, of: IPAddress(v4: 0xC000_0207)) }
        table.enter(6, of: IPAddress(v4: 0xC000_0208))
        var order: [Int] = []
        while let slot = table.oldestOfLargest {
            order.append(slot)
            table.leave(slot)
        }
        holds(order.prefix(1) == [1])
        holds(Set(order.prefix(3)) == [1, 2, 4])
        holds(Set(order.suffix(4)) == [0, 3, 5, 6])
        holds(table.count == 0 && table.most == 0)
    }

    @Test("whoever waits on keeps its place; whoever turns out to be another's client goes to that one's network")
    func again() throws {
        var table = try table(8)
        table.enter(0, of: Self.v6(1, 1))
        table.enter(1, of: Self.v6(1, 2))
        table.enter(0, of: Self.v6(1, 3))
        holds(table.oldestOfLargest == 0)
        table.enter(0, of: Self.v6(2, 1))
        table.enter(2, of: Self.v6(2, 2))
        holds(table.oldestOfLargest == 0 && table.count == 3 && table.most == 2)
        table.leave(0)
        table.leave(0)
        holds(table.count == 2 && !table.contains(0) && table.contains(2))
    }

    @Test("is what a model says, whatever comes and goes")
    func model() throws {
        let capacity = 64
        var table = try table(capacity)
        var model: [(slot: Int, network: Int)] = []
        var state: UInt64 = 42
        func below(_ bound: Int) -> Int {
            state = Hashing.mix(state)
            return Int(state % UInt64(bound))
        }
        for _ in 0..<50_000 {
            let slot = below(capacity)
            if let place = model.firstIndex(where: { $0.slot == slot }) {
                model.remove(at: place)
                table.leave(slot)
            } else {
                // Few large ones and many small.
                let network = below(2) == 0 ? below(3) : below(200)
                table.enter(slot, of: network % 5 == 4 ? IPAddress(v4: UInt32(network)) : Self.v6(network, slot))
                model.append((slot, network))
            }
            let counts = Dictionary(model.map { ($0.network, 1) }, uniquingKeysWith: +)
            let most = counts.values.max() ?? 0
            holds(table.count == model.count)
            holds(table.most == most)
            guard let victim = table.oldestOfLargest else {
                holds(model.isEmpty)
                continue
            }
            let network = model.first { $0.slot == victim }?.network ?? -1
            holds(counts[network] == most)
            holds(model.first { $0.network == network }?.slot == victim)
        }
    }
}
