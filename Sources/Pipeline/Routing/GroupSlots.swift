import Pipeline

/// What is behind the number of a group in one table.
struct ServedSlot {
    let group: UnsafePointer<BackendGroup>
    /// Of all its routes.
    let owner: UnsafePointer<RouteOwner>
}

/// The groups of one table by their numbers, for lookups: two loads from a number to its group and owner. Trivially copyable;
/// valid as long as its ``GroupSlots``.
struct SlotLookup {
    fileprivate let chunks: UnsafePointer<SlotChunk.Pointer>

    /// - Parameter slot: of a route of the same table, which alone has checked it.
    @inline(__always) subscript(slot: UInt32) -> ServedSlot {
        SlotChunk.slots(chunks[Int(slot &>> SlotChunk.bits)])[Int(slot & SlotChunk.mask)]
    }
}

/// The groups of some consecutive numbers. Immutable once filled; shared by tables through ``references``.
struct SlotChunk {
    static let bits: UInt32 = 8
    static let mask: UInt32 = 255
    static let count = 256

    /// How many ``GroupSlots`` hold it. Control side only.
    var references = 0

    typealias Pointer = UnsafeMutablePointer<SlotChunk>
    typealias Slots = UnsafeMutablePointer<ServedSlot>

    static var byteCount: Int { MemoryLayout<SlotChunk>.stride + count * MemoryLayout<ServedSlot>.stride }

    /// Header and slots in one block, the latter to be initialized.
    static func allocate() -> Pointer {
        let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 16)
        (memory + MemoryLayout<SlotChunk>.stride).bindMemory(to: ServedSlot.self, capacity: count)
        let chunk = memory.bindMemory(to: SlotChunk.self, capacity: 1)
        chunk.initialize(to: SlotChunk())
        return chunk
    }

    /// They stand behind the header. Of a number that is not in use: ``RouteStore/nobody``.
    @inline(__always) static func slots(_ chunk: Pointer) -> Slots {
        (UnsafeMutableRawPointer(chunk) + MemoryLayout<SlotChunk>.stride).assumingMemoryBound(to: ServedSlot.self)
    }
}

/// Who is behind each number of a group, in one table. A change of a group copies its chunk and the list of chunks, and no
/// route: one instance costs one slot, however many routes lead to it.
///
/// Threading: made and released on the control side; ``lookup`` from any thread.
final class GroupSlots {
    private let chunks: UnsafeMutableBufferPointer<SlotChunk.Pointer>
    private let store: RouteStore

    private init(_ chunks: UnsafeMutableBufferPointer<SlotChunk.Pointer>, _ store: RouteStore) {
        self.chunks = chunks
        self.store = store
        for chunk in chunks { chunk.pointee.references += 1 }
    }

    deinit {
        for chunk in chunks { store.release(chunk) }
        chunks.deallocate()
    }

    /// Without a group.
    convenience init(_ store: RouteStore) {
        let chunks = UnsafeMutableBufferPointer<SlotChunk.Pointer>.allocate(capacity: 1)
        chunks.initialize(repeating: store.makeChunk { _ in nil })
        self.init(chunks, store)
    }

    var lookup: SlotLookup { SlotLookup(chunks: UnsafePointer(chunks.baseAddress.unsafelyUnwrapped)) }
    /// Bytes of the list and of chunks, shared ones too.
    var byteCount: Int {
        chunks.count * (MemoryLayout<SlotChunk.Pointer>.stride + SlotChunk.byteCount)
    }

    /// The next ones: numbers that are stale with what they have by now, all others as they are. A group without an owner is
    /// nobody's.
    func with(_ state: RoutingState) -> GroupSlots {
        let changed = state.groups.takeStale()
        let groups = state.groups
        let count = max(chunks.count, (groups.count + SlotChunk.count - 1) / SlotChunk.count)
        var isStale = [Bool](repeating: false, count: count)
        for number in changed { isStale[Int(number >> SlotChunk.bits)] = true }
        let next = UnsafeMutableBufferPointer<SlotChunk.Pointer>.allocate(capacity: count)
        for index in 0..<count {
            // A number that none had before is among those that have changed.
            let chunk =
                index < chunks.count && !isStale[index]
                ? chunks[index]
                : store.makeChunk { place in
                    let number = UInt32(index * SlotChunk.count + place)
                    guard let box = groups.box(number), let owner = state.envs[groups[number].key.env]?.box
                    else { return nil }
                    return (box, owner)
                }
            next.initializeElement(at: index, to: chunk)
        }
        return GroupSlots(next, store)
    }
}

extension RouteStore {
    /// A chunk that holds what its slots lead to.
    /// - Parameter slot: by its place in the chunk; nil: the number is not in use.
    func makeChunk(
        _ slot: (Int) -> (box: UnsafeMutablePointer<BackendBox>, owner: UnsafeMutablePointer<OwnerBox>)?
    ) -> SlotChunk.Pointer {
        allocated()
        let chunk = SlotChunk.allocate()
        for place in 0..<SlotChunk.count {
            let (box, owner) = slot(place) ?? (nobody, nobodysOwner)
            box.pointee.references += 1
            owner.pointee.references += 1
            (SlotChunk.slots(chunk) + place).initialize(to: ServedSlot(group: box.asGroup, owner: owner.asOwner))
        }
        return chunk
    }

    func release(_ chunk: SlotChunk.Pointer) {
        chunk.pointee.references -= 1
        guard chunk.pointee.references == 0 else { return }
        for place in 0..<SlotChunk.count {
            let slot = SlotChunk.slots(chunk)[place]
            release(UnsafeMutableRawPointer(mutating: slot.group).assumingMemoryBound(to: BackendBox.self))
            release(UnsafeMutableRawPointer(mutating: slot.owner).assumingMemoryBound(to: OwnerBox.self))
        }
        UnsafeMutableRawPointer(chunk).deallocate()
        freed()
    }
}

extension UnsafeMutablePointer<BackendBox> {
    /// Its first field.
    var asGroup: UnsafePointer<BackendGroup> { UnsafeRawPointer(self).assumingMemoryBound(to: BackendGroup.self) }
}

extension UnsafeMutablePointer<OwnerBox> {
    /// Its first field.
    var asOwner: UnsafePointer<RouteOwner> { UnsafeRawPointer(self).assumingMemoryBound(to: RouteOwner.self) }
}
