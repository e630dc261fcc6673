import CLinux

/// The first bytes of undecided inspections, by slot, so that a connection that has sent a few bytes holds no block
/// while it waits. Mapped once, touched where it is used.
struct InspectionStash: ~Copyable {
    /// Longer than any signature.
    static let most = 31
    private static let stride = 32

    private let memory: UnsafeMutablePointer<UInt8>
    private let size: Int

    /// Nil if the address space can't be had.
    init?(capacity: Int) {
        size = capacity * InspectionStash.stride
        guard let memory = cl_map(size) else { return nil }
        self.memory = memory.bindMemory(to: UInt8.self, capacity: size)
    }

    deinit { cl_unmap(memory, size) }

    func count(_ slot: Int) -> Int { Int(memory[slot * InspectionStash.stride]) }

    /// False if they are too many.
    func keep(_ slot: Int, _ bytes: UnsafeRawBufferPointer) -> Bool {
        guard bytes.count <= InspectionStash.most, let source = bytes.baseAddress else { return bytes.isEmpty }
        let place = memory + slot * InspectionStash.stride
        place[0] = UInt8(bytes.count)
        UnsafeMutableRawPointer(place + 1).copyMemory(from: source, byteCount: bytes.count)
        return true
    }

    /// Takes the bytes out, and returns their number.
    func restore(_ slot: Int, into body: UnsafeMutableRawBufferPointer) -> Int {
        let count = count(slot)
        guard count > 0, count <= body.count, let target = body.baseAddress else { return 0 }
        target.copyMemory(from: memory + slot * InspectionStash.stride + 1, byteCount: count)
        memory[slot * InspectionStash.stride] = 0
        return count
    }

    func clear(_ slot: Int) {
        if count(slot) > 0 { memory[slot * InspectionStash.stride] = 0 }
    }
}
