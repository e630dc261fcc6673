import Pipeline
import Testing

@testable import PipelineFlows

/// `#expect` can't hold calls that change something.
private func holds(_ condition: Bool, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(condition, sourceLocation: sourceLocation)
}

private struct Sums: Equatable {
    var connections: UInt64 = 0
    var bytesOut: UInt64 = 0
    var bytesIn: UInt64 = 0

    mutating func add(_ growth: FlowTable.Growth) {
        connections += UInt64(growth.connections)
        bytesOut += growth.bytesOut
        bytesIn += growth.bytesIn
    }
    mutating func add(_ record: FlowRecord) {
        connections += UInt64(record.connections)
        bytesOut += record.bytesOut
        bytesIn += record.bytesIn
    }
}

@Suite("Flow table, queues and queues")
struct FlowTableTests {
    private static func key(_ source: UInt32, _ destination: UInt32) -> FlowKey {
        FlowKey(
            instance: .max, source: IPAddress(v4: source), destination: IPAddress(v4: destination), port: 443, proto: 6)
    }

    private static func growth(_ out: UInt64, _ into: UInt64 = 0, connections: UInt32 = 1, at: UInt64 = 9)
        -> FlowTable.Growth
    {
        FlowTable.Growth(connections: connections, bytesOut: out, bytesIn: into, firstSeen: at, lastSeen: at)
    }

    /// R21, R27: whatever the order of growth, flushes and reads, and however little room there is, what comes out is
    /// what went in, for each source that has a place, and for all together.
    @Test(
        "R21: sums of records are sums of growth, on random schedules, with overflow",
        arguments: 0..<40 as Range<UInt64>)
    func sums(seed: UInt64) throws {
        var draws = SplitMix64(seed: seed &* 7919)
        let capacity = Int.random(in: 1...64, using: &draws)
        let sources = UInt32.random(in: 1...20, using: &draws)
        let destinations = UInt32.random(in: 1...120, using: &draws)
        let queues = FlowQueues(capacity: 1 << Int.random(in: 0...6, using: &draws))
        let queue = try #require(queues.claim())
        var table = try #require(FlowTable(capacity: capacity, seed: HashSeed(seed, 1)))
        defer { table.deallocate() }
        var expected = Sums()
        var bySource: [IPAddress: UInt64] = [:]
        var records: [FlowRecord] = []
        for _ in 0..<4000 {
            switch Int.random(in: 0..<20, using: &draws) {
            case 0: _ = table.drain(into: queue, limit: Int.random(in: 1...40, using: &draws))
            case 1: queues.drain(into: &records, limit: Int.random(in: 0...30, using: &draws))
            default:
                let key = Self.key(
                    .random(in: 0..<sources, using: &draws), .random(in: 0..<destinations, using: &draws))
                let growth = Self.growth(.random(in: 0...1000, using: &draws), .random(in: 0...9, using: &draws))
                table.add(key, growth)
                expected.add(growth)
                bySource[key.source, default: 0] += growth.bytesOut
            }
            try #require(table.count <= capacity + max(1, capacity / 16) + 1)
        }
        queues.release(queue, rest: table.takeAll())
        queues.drain(into: &records, limit: .max)
        var sums = Sums()
        for record in records { sums.add(record) }
        #expect(sums == expected)
        // Nobody's bytes are counted for somebody else.
        for (source, bytes) in bySource {
            let own = records.filter { $0.key.source == source }.reduce(0) { $0 + $1.bytesOut }
            #expect(own <= bytes)
            if sources <= max(1, capacity / 16) { #expect(own == bytes) }
        }
        #expect(records.map(\.sequence) == Array(1...UInt64(records.count)))
    }

    @Test("one record a key, with the first and the last time of its growth")
    func merges() throws {
        let queues = FlowQueues(capacity: 8)
        let queue = try #require(queues.claim())
        var table = try #require(FlowTable(capacity: 4))
        defer { table.deallocate() }
        table.add(Self.key(1, 1), Self.growth(10, 1, at: 5))
        table.add(Self.key(1, 1), Self.growth(5, 2, connections: 0, at: 7))
        holds(table.drain(into: queue, limit: 10))
        #expect(table.count == 0)
        var records: [FlowRecord] = []
        queues.drain(into: &records, limit: 10)
        try #require(records.count == 1)
        #expect((records[0].bytesOut, records[0].bytesIn) == (15, 3))
        #expect((records[0].firstSeen, records[0].lastSeen, records[0].connections) == (5, 7, 1))
    }

    @Test("R27: the newest keys of a full table share a record of their source; too many sources share one")
    func overflow() throws {
        var table = try #require(FlowTable(capacity: 16))
        defer { table.deallocate() }
        for destination in 0..<16 as Range<UInt32> { holds(table.add(Self.key(1, destination), Self.growth(1))) }
        holds(!table.add(Self.key(1, 100), Self.growth(7)))
        holds(!table.add(Self.key(1, 101), Self.growth(7)))
        holds(!table.add(Self.key(2, 100), Self.growth(3)))
        holds(!table.add(Self.key(3, 100), Self.growth(4)))
        // A key that has a place keeps it.
        holds(table.add(Self.key(1, 3), Self.growth(1)))
        let records = table.takeAll()
        let aggregated = records.filter { $0.key.destination == .unspecified && $0.key.port == 0 }
        #expect(aggregated.first { $0.key.source == IPAddress(v4: 1) }?.bytesOut == 14)
        #expect(aggregated.first { $0.key.source == .unspecified }?.bytesOut == 7)
        #expect(records.count == 18)
    }

    @Test("a full ring loses nothing: what has no room stays, grows, and comes later")
    func fullRing() throws {
        let queues = FlowQueues(capacity: 2)
        let queue = try #require(queues.claim())
        var table = try #require(FlowTable(capacity: 8))
        defer { table.deallocate() }
        for source in 0..<5 as Range<UInt32> { table.add(Self.key(source, 1), Self.growth(1)) }
        holds(!table.drain(into: queue, limit: 100))
        #expect(table.count == 3)
        for source in 0..<5 as Range<UInt32> { table.add(Self.key(source, 1), Self.growth(1)) }
        var records: [FlowRecord] = []
        for _ in 0..<10 {
            queues.drain(into: &records, limit: 100)
            _ = table.drain(into: queue, limit: 100)
        }
        queues.drain(into: &records, limit: 100)
        #expect(table.count == 0)
        #expect(records.reduce(0) { $0 + $1.bytesOut } == 10)
        #expect(Set(records.map(\.sequence)).count == records.count)
    }

    @Test("R27: what waits beside the rings is bounded: bytes stay whole, destinations and then instances go")
    func restIsBounded() throws {
        let queues = FlowQueues(capacity: 8, mostRest: 100)
        let queue = try #require(queues.claim())
        func handOver(_ instances: Range<UInt32>, destinations: UInt64) {
            let records = instances.flatMap { instance in
                (0..<destinations).map { number in
                    FlowRecord(
                        key: FlowKey(
                            instance: instance, source: IPAddress(high: 1, low: UInt64(instance)),
                            destination: IPAddress(high: 2, low: number), port: 443, proto: 6),
                        connections: 1, bytesOut: 3, bytesIn: 5, firstSeen: number, lastSeen: number, origin: 0,
                        sequence: 0)
                }
            }
            queues.hand(over: records, from: queue)
        }
        handOver(0..<10, destinations: 10)
        #expect(queues.aggregatedKeys == 0)
        handOver(0..<10, destinations: 20)
        #expect(queues.aggregatedKeys == 290)
        var records: [FlowRecord] = []
        queues.drain(into: &records, limit: 1000)
        #expect(Set(records.map(\.key.instance)) == Set(0..<10) && records.count == 10)
        #expect(records.allSatisfy { $0.key.destination == .unspecified && $0.firstSeen == 0 && $0.lastSeen == 19 })
        #expect(records.reduce(0) { $0 + $1.bytesOut } == 900 && records.reduce(0) { $0 + $1.connections } == 300)
        #expect(records.map(\.sequence) == records.map(\.sequence).sorted() && records.last?.sequence == 300)
        // More instances than may wait.
        handOver(0..<200, destinations: 1)
        queues.drain(into: &records, limit: 1000)
        #expect(records.count == 11 && records.last?.key.instance == .max && records.last?.bytesIn == 1000)
        #expect(records.last?.sequence == 500)
    }

    @Test("a queue that is claimed again goes on with its sequence")
    func reclaim() throws {
        let queues = FlowQueues(capacity: 8)
        let first = try #require(queues.claim())
        let record = FlowRecord(
            key: Self.key(1, 1), connections: 1, bytesOut: 1, bytesIn: 0, firstSeen: 0, lastSeen: 0, origin: 0,
            sequence: 0)
        holds(first.pointee.push(record))
        queues.release(first, rest: [record])
        var records: [FlowRecord] = []
        // It would overtake its own rest.
        holds(queues.claim() != first)
        queues.drain(into: &records, limit: 1)
        queues.drain(into: &records, limit: 1)
        #expect(records.map(\.sequence) == [1, 2])
        let again = try #require(queues.claim())
        #expect(again == first)
        holds(again.pointee.push(record))
        let other = try #require(queues.claim())
        #expect(other.pointee.origin != again.pointee.origin)
        holds(queues.claim(FlowQueues.conntrack)?.pointee.origin == FlowQueues.conntrack)
        holds(queues.claim(FlowQueues.conntrack) == nil)
        queues.drain(into: &records, limit: 10)
        #expect(records.map(\.sequence) == [1, 2, 3])
    }
}
