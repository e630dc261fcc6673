import Pipeline
import Testing

@testable import PipelineRuntime

/// Only makes pipes, and knows which descriptors are open.
struct PipeKernel: Kernel {
    var next: Int32 = 3
    var open: Set<Int32> = []
    var left = Int.max

    mutating func makePipe(capacity: Int, writeEnd: inout Descriptor) -> Outcome {
        guard left > 0 else { return Outcome(-Int(ErrorNumber.tooManyFiles)) }
        left -= 1
        open.formUnion([next, next + 1])
        writeEnd = Descriptor(next + 1)
        next += 2
        return Outcome(Int(next - 2))
    }
    mutating func close(_ descriptor: Descriptor) {
        holds(open.remove(descriptor.number) != nil, "closes what is not open")
    }

    func now() -> Instant { Instant(nanoseconds: 0) }
    func wallClock() -> UInt64 { 0 }
    mutating func take(_ listener: Descriptor) -> Outcome { Outcome(-9) }
    mutating func stopListening(_ listener: Descriptor) {}
    mutating func letGo(_ listener: Descriptor) {}
    func accept(_ listener: Descriptor, _ accepted: inout Accepted) -> Outcome { Outcome(-11) }
    func refuse(_ listener: Descriptor, _ peer: inout Endpoint) -> Outcome { Outcome(-11) }
    func localAddress(_ descriptor: Descriptor) -> Endpoint? { nil }
    func originalDestination(_ descriptor: Descriptor) -> Endpoint? { nil }
    func interface(of descriptor: Descriptor) -> UInt32 { 0 }
    func isOwn(_ address: IPAddress) -> Bool { false }
    func connect(_ backend: BackendAddress, _ way: UpstreamWay, on idle: Descriptor) -> Outcome { Outcome(-111) }
    func setLowWater(_ descriptor: Descriptor, _ bytes: Int) {}
    func isDelivered(_ descriptor: Descriptor) -> Bool { false }
    func disconnect(_ descriptor: Descriptor) -> Bool { false }
    func guardAgainstDeath(_ descriptor: Descriptor) {}
    func capBuffers(_ descriptor: Descriptor) {}
    func silence(of descriptor: Descriptor) -> PeerSilence? { nil }
    func probe(_ descriptor: Descriptor, every longest: TimeSpan?) {}
    func pendingError(_ descriptor: Descriptor) -> Int32 { 0 }
    func receive(_ descriptor: Descriptor, _ buffer: UnsafeMutableRawBufferPointer) -> Outcome { Outcome(-11) }
    func peek(_ descriptor: Descriptor, _ buffer: UnsafeMutableRawBufferPointer) -> Outcome { Outcome(-11) }
    func discard(_ descriptor: Descriptor, _ count: Int) -> Outcome { Outcome(-11) }
    func send(_ descriptor: Descriptor, _ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer) -> Outcome {
        Outcome(-11)
    }
    func splice(_ from: Descriptor, _ to: Descriptor, _ count: Int, more: Bool) -> Outcome { Outcome(-11) }
    func pacedSegment(_ descriptor: Descriptor) -> Int? { nil }
    func shutdownWrite(_ descriptor: Descriptor) {}
    func closeWithReset(_ descriptor: Descriptor) {}
    func watch(_ descriptor: Descriptor, _ key: EventKey) -> Outcome { Outcome(0) }
    func watchLevel(_ descriptor: Descriptor, _ key: EventKey) -> Outcome { Outcome(0) }
    func unwatch(_ descriptor: Descriptor) {}
    func wake(workersAt place: Int) {}
    func wait(_ events: UnsafeMutableBufferPointer<Event>, timeout: TimeSpan?) -> Int { 0 }
}

@Suite("Pools of blocks and pipes")
struct PoolTests {
    @Test("R27: as many blocks as there are; the last one back is the next one lent; none overlaps another")
    func blocks() throws {
        guard var pool = BlockPool(capacity: 40, forFlows: 35) else { throw NoMemory() }
        var blocks: [Int32] = []
        for _ in 0..<40 { blocks.append(pool.take()) }
        holds(Set(blocks).count == 40)
        holds(pool.take() == Flow.none)
        for block in blocks {
            let body = pool.body(block)
            holds(body.count >= PeekNeed.limit + Prelude.capacity)
            for offset in [0, body.count / 2, body.count - 1] { body[offset] = UInt8(truncatingIfNeeded: block) }
        }
        for block in blocks {
            let body = pool.body(block)
            for offset in [0, body.count / 2, body.count - 1] {
                holds(body[offset] == UInt8(truncatingIfNeeded: block))
            }
            let head = UnsafeRawPointer(pool.pending(block)) + MemoryLayout<Pending>.size
            holds(head <= UnsafeRawPointer(try #require(body.baseAddress)), "a head reaches into its body")
        }
        // Touched to the end, while many are out: pages go back, and the block is as good as before.
        pool.give(blocks[7], touched: BlockPool.bodySize)
        holds(pool.inUse == 39)
        holds(pool.take() == blocks[7])
        pool.body(blocks[7])[BlockPool.bodySize - 1] = 1
        holds(pool.body(blocks[7])[BlockPool.bodySize - 1] == 1)
        holds(pool.body(blocks[6])[0] == UInt8(truncatingIfNeeded: blocks[6]), "a neighbour lost its bytes")
    }

    @Test("R27: blocks for flows, first bytes and pipes fit into what the node may use, all workers together")
    func fitting() {
        var limits = WorkerLimits(connections: 20_000, blocks: 16_384, pipes: 1024, idleSockets: 0)
        let before = limits
        limits.fit(memory: 0, workers: 1, unroutedIsSet: false)
        holds(limits.flowBlocks == before.flowBlocks && limits.unrouted == before.unrouted && limits.pipes == 1024)
        limits.fit(memory: 64 << 30, workers: 2, unroutedIsSet: false)
        holds(limits.flowBlocks == before.flowBlocks && limits.unrouted == before.unrouted && limits.pipes == 1024)
        limits.fit(memory: 64 << 20, workers: 2, unroutedIsSet: false)
        holds(limits.flowBlocks * BlockPool.bodySize <= 8 << 20 && limits.flowBlocks > 100)
        holds(limits.unrouted == limits.flowBlocks && limits.pipes == 8 && limits.blocks == 16_384)
        // The operator's own word stands; less than a few of each is no node.
        var least = before
        least.fit(memory: 1, workers: 8, unroutedIsSet: true)
        holds(least.flowBlocks == 64 && least.unrouted == before.unrouted && least.pipes == 4)
        holds(WorkerLimits(connections: 64, blocks: 128, pipes: 1, idleSockets: 0).flowBlocks == 112)
    }

    @Test("pipes are made on demand, kept, and bounded")
    func pipes() {
        var kernel = PipeKernel()
        var pool = PipePool(capacity: 2)
        let first = pool.take(&kernel)
        let second = pool.take(&kernel)
        holds(first != Flow.none && second != Flow.none && first != second)
        holds(pool.take(&kernel) == Flow.none)
        pool.give(first)
        holds(pool.inUse == 1)
        holds(pool.take(&kernel) == first)
        holds(kernel.open.count == 4)
        pool.closeAll(&kernel)
        holds(kernel.open.isEmpty)
    }

    @Test(
        "a pipe with bytes in it never reaches another connection, and its place is not lost at descriptor exhaustion")
    func discard() {
        var kernel = PipeKernel()
        var pool = PipePool(capacity: 1)
        let pipe = pool.take(&kernel)
        let soiled = pool[pipe].readEnd
        kernel.left = 0
        pool.discard(pipe, &kernel)
        holds(pool.inUse == 0)
        holds(kernel.open.isEmpty)
        holds(pool.take(&kernel) == Flow.none)
        kernel.left = 5
        let again = pool.take(&kernel)
        holds(again != Flow.none, "the pool has shrunk for good")
        if again != Flow.none { holds(pool[again].readEnd != soiled) }
        pool.closeAll(&kernel)
        holds(kernel.open.isEmpty)
    }
}
