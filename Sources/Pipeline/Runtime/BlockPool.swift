import CLinux
import Pipeline

/// Fixed blocks for bytes on their way: a head for ``Pending`` and a body. Memory is mapped once and costs nothing
/// until touched; the most recently returned block is lent first, so that few pages stay warm.
struct BlockPool: ~Copyable {
    /// The largest peek budget, and room for a prelude that could not be written whole.
    static let bodySize = PeekNeed.limit + Prelude.capacity
    private static let headSize = (MemoryLayout<Pending>.stride + 63) & ~63
    static let stride = (headSize + bodySize + 4095) & ~4095

    private let memory: UnsafeMutableRawPointer
    private let freeList: UnsafeMutableBufferPointer<Int32>
    private var freeCount: Int
    let capacity: Int
    /// The number of blocks reserved for accepts and first bytes.
    let reserve: Int
    /// While at most this many are free, an env or network with ``most`` gets no more.
    let scarce: Int
    /// Half of all, where first bytes have no more than an eighth.
    let most: Int
    /// A scratch block behind the others, for use within one event.
    let scratch: Int32

    /// How many of `capacity` blocks may hold bytes that a sink does not take.
    static func flowBlocks(of capacity: Int) -> Int { capacity > 1 ? capacity - max(1, capacity / 8) : capacity }

    /// - Parameter forFlows: how many may hold bytes that a sink does not take; the rest is for accepts and first bytes
    ///   alone.
    /// - Returns: nil if the address space can't be had.
    init?(capacity: Int, forFlows: Int) {
        guard let memory = cl_map((capacity + 1) * BlockPool.stride) else { return nil }
        let flows = min(max(forFlows, 0), capacity)
        reserve = capacity - flows
        scarce = reserve + flows / 7
        most = max(1, flows * 4 / 7)
        scratch = Int32(truncatingIfNeeded: capacity)
        self.memory = memory
        self.capacity = capacity
        freeList = .allocate(capacity: capacity)
        for i in 0..<capacity { freeList.initializeElement(at: i, to: Int32(capacity - 1 - i)) }
        freeCount = capacity
    }

    deinit {
        cl_unmap(memory, (capacity + 1) * BlockPool.stride)
        freeList.deallocate()
    }

    var inUse: Int { capacity - freeCount }
    var free: Int { freeCount }

    /// ``Flow/none`` if every block is lent.
    mutating func take() -> Int32 {
        guard freeCount > 0 else { return Flow.none }
        freeCount -= 1
        return freeList[freeCount]
    }

    /// While many blocks are out, a body that was filled beyond its first pages gives those back to the system, so
    /// that a burst leaves little memory behind. The last few stay warm: they are the ones lent next.
    mutating func give(_ block: Int32, touched: Int) {
        guard block != scratch else { return }
        if touched > BlockPool.keep, inUse > BlockPool.warm {
            cl_discard(start(block) + BlockPool.keepStart, BlockPool.stride - BlockPool.keepStart)
        }
        freeList[freeCount] = block
        freeCount += 1
    }

    private static let warm = 32
    private static let keep = 24576
    private static let keepStart = (headSize + keep + 4095) & ~4095

    private func start(_ block: Int32) -> UnsafeMutableRawPointer { memory + Int(block) * BlockPool.stride }

    func pending(_ block: Int32) -> UnsafeMutablePointer<Pending> {
        start(block).assumingMemoryBound(to: Pending.self)
    }

    func body(_ block: Int32) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: start(block) + BlockPool.headSize, count: BlockPool.bodySize)
    }
}

/// Pipes for splicing, made on demand, kept for the next stream that needs one. A pipe in the pool is empty.
struct PipePool: ~Copyable {
    struct Pipe {
        var readEnd: Descriptor
        var writeEnd: Descriptor
    }
    /// What a pipe may hold. Larger ones don't pay: the socket buffers are the bottleneck then.
    static let pipeSize = 1 << 20

    private let pipes: UnsafeMutableBufferPointer<Pipe>
    private let freeList: UnsafeMutableBufferPointer<Int32>
    private var freeCount = 0
    private var made = 0

    init(capacity: Int) {
        pipes = .allocate(capacity: capacity)
        freeList = .allocate(capacity: capacity)
    }

    deinit {
        pipes.deallocate()
        freeList.deallocate()
    }

    var inUse: Int { made - freeCount }

    /// ``Flow/none`` if there is none and none can be made: the stream continues to copy.
    mutating func take(_ kernel: inout some Kernel) -> Int32 {
        if freeCount > 0 {
            let place = Int(freeList[freeCount - 1])
            guard pipes[place].readEnd.isOpen || open(place, &kernel) else { return Flow.none }
            freeCount -= 1
            return Int32(place)
        }
        guard made < pipes.count, open(made, &kernel) else { return Flow.none }
        made += 1
        return Int32(made - 1)
    }

    private func open(_ place: Int, _ kernel: inout some Kernel) -> Bool {
        var writeEnd = Descriptor.none
        let outcome = kernel.makePipe(capacity: PipePool.pipeSize, writeEnd: &writeEnd)
        guard !outcome.isError else { return false }
        let readEnd = Descriptor(Int32(truncatingIfNeeded: outcome.value))
        pipes.initializeElement(at: place, to: Pipe(readEnd: readEnd, writeEnd: writeEnd))
        return true
    }

    mutating func give(_ pipe: Int32) {
        freeList[freeCount] = pipe
        freeCount += 1
    }

    /// A pipe with unread bytes is closed, so that they never reach another connection. Its place gets a new one when
    /// it is next lent.
    mutating func discard(_ pipe: Int32, _ kernel: inout some Kernel) {
        kernel.close(pipes[Int(pipe)].readEnd)
        kernel.close(pipes[Int(pipe)].writeEnd)
        pipes[Int(pipe)] = Pipe(readEnd: .none, writeEnd: .none)
        give(pipe)
    }
    subscript(_ pipe: Int32) -> Pipe { pipes[Int(pipe)] }

    mutating func closeAll(_ kernel: inout some Kernel) {
        for i in 0..<made where pipes[i].readEnd.isOpen {
            kernel.close(pipes[i].readEnd)
            kernel.close(pipes[i].writeEnd)
        }
        made = 0
        freeCount = 0
    }
}
