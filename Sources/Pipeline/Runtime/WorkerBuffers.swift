import CLinux
import Pipeline

/// How many blocks of unsent bytes each env and each client network holds.
struct BlockShares: ~Copyable {
    private var keys: KeyTable
    private let counts: UnsafeMutablePointer<Int32>
    private let size: Int

    /// - Parameter blocks: all that there are; each counts for two at most.
    init?(blocks: Int, seed: HashSeed = .random()) {
        size = (2 * blocks + 1) * MemoryLayout<Int32>.stride
        guard let memory = cl_map(size) else { return nil }
        guard let keys = KeyTable(capacity: 2 * blocks, seed: seed) else {
            cl_unmap(memory, size)
            return nil
        }
        counts = memory.bindMemory(to: Int32.self, capacity: 2 * blocks + 1)
        self.keys = keys
    }

    deinit { cl_unmap(counts, size) }

    func count(_ key: UInt64, _ kind: UInt8) -> Int {
        let name = keys.find(key, kind)
        return name == 0 ? 0 : Int(counts[Int(name)])
    }

    mutating func add(_ key: UInt64, _ kind: UInt8) {
        var name = keys.find(key, kind)
        if name == 0 {
            name = keys.make(key, kind)
            counts[Int(name)] = 0
        }
        counts[Int(name)] += 1
    }

    mutating func remove(_ key: UInt64, _ kind: UInt8) {
        let name = keys.find(key, kind)
        guard name != 0 else { return }
        counts[Int(name)] -= 1
        if counts[Int(name)] == 0 { keys.remove(name) }
    }
}

/// Admission to blocks (R27). Accepts and first bytes have a reserve. While less than a quarter is free, an env or
/// network with half of all gets no more; while memory is short, none does. A flow without a block continues: see
/// ``copyUnbuffered(_:_:_:_:)``.
extension Worker {
    /// Whether a flow may have a block for bytes that its sink does not take.
    @inline(__always)
    func mayBuffer(_ index: Int) -> Bool {
        guard blocks.free > blocks.reserve, !memory.isShort else { return false }
        return blocks.free > blocks.scarce || isWithinShare(index)
    }

    private func isWithinShare(_ index: Int) -> Bool {
        let slot = slab.slots + index
        let most = blocks.most
        let (network, family) = NetworkKey.of(slot.pointee.lasting.client.endpoint.address)
        guard shares.count(network, family) < most else { return false }
        guard let owner = slot.pointee.owner else { return true }
        return shares.count(UInt64(owner.pointee.number), NetworkKey.env) < most
    }

    private mutating func count(_ index: Int) {
        let slot = slab.slots + index
        let (network, family) = NetworkKey.of(slot.pointee.lasting.client.endpoint.address)
        shares.add(network, family)
        if let owner = slot.pointee.owner { shares.add(UInt64(owner.pointee.number), NetworkKey.env) }
    }

    private mutating func uncount(_ index: Int) {
        let slot = slab.slots + index
        let (network, family) = NetworkKey.of(slot.pointee.lasting.client.endpoint.address)
        shares.remove(network, family)
        if let owner = slot.pointee.owner { shares.remove(UInt64(owner.pointee.number), NetworkKey.env) }
    }

    /// A block for first bytes. Silent connections make room.
    mutating func takeBlock() -> Int32 {
        let block = blocks.take()
        guard block == Flow.none, endUnrouted() else { return block }
        return blocks.take()
    }

    /// The block becomes the flow's, with bytes that its sink has not taken.
    mutating func store(_ block: Int32, _ range: Range<Int>, _ index: Int, _ source: Side) {
        let flow = slab.flow(index, source)
        flow.pointee.block = block
        flow.pointee.blockStart = UInt32(range.lowerBound)
        flow.pointee.blockEnd = UInt32(range.upperBound)
        count(index)
    }

    mutating func giveBlock(_ index: Int, _ flow: UnsafeMutablePointer<Flow>) {
        blocks.give(flow.pointee.block, touched: Int(flow.pointee.blockEnd))
        flow.pointee.block = Flow.none
        uncount(index)
    }

    /// A connection keeps its block during the connect, and is charged for it from now on. False if it may have no
    /// more, and has ended.
    mutating func keepWhileConnecting(_ index: Int) -> Bool {
        let slot = slab.slots + index
        guard !slot.pointee.marks.contains(.blockCounted) else { return true }
        guard blocks.free > blocks.scarce || isWithinShare(index) else {
            finish(index, RuntimeReason.noSniffBuffer.code, .reset)
            return false
        }
        slot.pointee.marks.insert(.blockCounted)
        count(index)
        return true
    }

    mutating func stopKeeping(_ index: Int) {
        guard slab.slots[index].marks.contains(.blockCounted) else { return }
        slab.slots[index].marks.remove(.blockCounted)
        uncount(index)
    }
}
