import CLinux
import Pipeline

/// All slots of a worker, in one mapping that is touched only up to the highest slot ever used.
struct Slab: ~Copyable {
    let slots: UnsafeMutablePointer<Slot>
    let capacity: Int
    private let upOffset: Int
    private let downOffset: Int
    private let lastingOffset: Int
    private var free: Int32 = Flow.none
    private var touched = 0
    private(set) var inUse = 0

    /// Nil if the address space can't be had.
    init?(capacity: Int) {
        guard let up = MemoryLayout<Slot>.offset(of: \.up), let down = MemoryLayout<Slot>.offset(of: \.down),
            let lasting = MemoryLayout<Slot>.offset(of: \.lasting),
            let memory = cl_map(capacity * MemoryLayout<Slot>.stride)
        else { return nil }
        upOffset = up
        downOffset = down
        lastingOffset = lasting
        slots = memory.bindMemory(to: Slot.self, capacity: capacity)
        self.capacity = capacity
    }

    deinit { cl_unmap(slots, capacity * MemoryLayout<Slot>.stride) }

    /// The index of a clean slot; nil if all are taken.
    mutating func take() -> Int? {
        let index: Int
        if free != Flow.none {
            index = Int(free)
            free = slots[index].link
        } else {
            guard touched < capacity else { return nil }
            index = touched
            touched += 1
            slots[index].generation = 0
        }
        let generation = slots[index].generation &+ 1
        (slots + index).initialize(to: Slot())
        slots[index].generation = generation
        inUse += 1
        return index
    }

    mutating func give(_ index: Int) {
        slots[index].enter(.free)
        slots[index].generation &+= 1
        slots[index].link = free
        free = Int32(index)
        inUse -= 1
    }

    /// The flow of bytes that come from `source`; valid as long as the slab.
    func flow(_ index: Int, _ source: Side) -> UnsafeMutablePointer<Flow> {
        (UnsafeMutableRawPointer(slots + index) + (source == .client ? upOffset : downOffset))
            .assumingMemoryBound(to: Flow.self)
    }

    /// What its facts refer to; valid as long as the slab.
    func lasting(_ index: Int) -> UnsafeMutablePointer<LastingFacts> {
        (UnsafeMutableRawPointer(slots + index) + lastingOffset).assumingMemoryBound(to: LastingFacts.self)
    }

    /// Slots that were ever used; for walks over all connections.
    var extent: Int { touched }

    /// The slot that an event is for, or nil if that connection is gone.
    func find(_ key: EventKey) -> Int? {
        let index = key.index
        guard index < touched, slots[index].generation == key.generation, slots[index].phase != .free else {
            return nil
        }
        return index
    }
}
