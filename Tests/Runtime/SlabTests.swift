import Pipeline
import Testing

@testable import PipelineRuntime

@Suite("Slab, keys and the run queue")
struct SlabTests {
    @Test("an event key gives back what it was made of")
    func keys() {
        for kind in [EventKind.client, .upstream, .listener, .control] {
            for (index, generation) in [(0, 0), (1, 1), (0x3FFF_FFFF, UInt32.max), (65_535, 0x8000_0000)] {
                let key = EventKey(kind, index: index, generation: generation)
                holds(key.kind == kind)
                holds(key.index == index)
                holds(key.generation == generation)
            }
        }
    }

    @Test("R27: as many slots as there are, then none; what is given back is lent again, clean")
    func capacity() throws {
        guard var slab = Slab(capacity: 3) else { throw NoMemory() }
        var indices: [Int] = []
        for _ in 0..<3 { if let index = slab.take() { indices.append(index) } }
        holds(Set(indices).count == 3)
        holds(slab.take() == nil)
        slab.slots[indices[1]].client = Descriptor(9)
        slab.slots[indices[1]].enter(.peeking)
        slab.give(indices[1])
        holds(slab.inUse == 2)
        guard let again = slab.take() else { throw NoMemory() }
        holds(again == indices[1])
        holds(slab.slots[again].client == .none)
        holds(slab.slots[again].timerBucket == Flow.none)
    }

    @Test("an event of a connection that is gone finds nobody, however often its slot is lent again")
    func staleKeys() throws {
        guard var slab = Slab(capacity: 2) else { throw NoMemory() }
        var stale: [EventKey] = []
        for _ in 0..<100 {
            guard let index = slab.take() else { throw NoMemory() }
            slab.slots[index].enter(.peeking)
            let key = EventKey(.client, index: index, generation: slab.slots[index].generation)
            holds(slab.find(key) == index)
            for old in stale { holds(slab.find(old) == nil) }
            slab.give(index)
            holds(slab.find(key) == nil)
            stale.append(key)
        }
        holds(slab.find(EventKey(.client, index: 77, generation: 1)) == nil)
    }

    @Test("flows are those of the slot")
    func flows() throws {
        guard var slab = Slab(capacity: 2) else { throw NoMemory() }
        _ = slab.take()
        guard let index = slab.take() else { throw NoMemory() }
        slab.flow(index, .client).pointee.total = 5
        slab.flow(index, .upstream).pointee.total = 7
        holds(slab.slots[index].up.total == 5)
        holds(slab.slots[index].down.total == 7)
    }

    @Test("facts refer to what the slot has, also those of a later block")
    func lastingFacts() throws {
        guard var slab = Slab(capacity: 2) else { throw NoMemory() }
        _ = slab.take()
        guard let index = slab.take() else { throw NoMemory() }
        var (prelude, memory) = (Prelude(), StageMemory())
        var facts = ConnectionFacts(slab.lasting(index))
        let client = ClientAddress(Endpoint(IPAddress(high: 1, low: 2), 3))
        Effects(facts: &facts, prelude: &prelude, memory: &memory).setClient(client)
        holds(slab.slots[index].lasting.client == client)
        holds(ConnectionFacts(slab.lasting(index)).client == client)
    }

    @Test("the run queue is first in, first out, and bounded")
    func runQueue() {
        var queue = RunQueue(capacity: 2)
        var expected: [Int] = []
        for round in 0..<5000 {
            if queue.push(round % 7) { expected.append(round % 7) }
            if round % 3 == 0 { holds(queue.pop() == expected.removeFirst()) }
        }
        holds(queue.count == expected.count)
        while let item = queue.pop() { holds(item == expected.removeFirst()) }
        holds(expected.isEmpty)
        holds(queue.isEmpty)
    }

    @Test("an eager write goes on while it works, and is tried again now and then when it did not")
    func eager() {
        var eager = EagerSend()
        holds(eager.shouldTry())
        eager.learn(false)
        var tries = 0
        for _ in 0..<640 where eager.shouldTry() { tries += 1 }
        holds(tries == 10)
        eager.learn(true)
        holds(eager.shouldTry() && eager.shouldTry())
    }
}
