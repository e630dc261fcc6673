import Pipeline

/// The groups of one table by their numbers, for lookups: two loads from a number to its group. Trivially copyable; valid as
/// long as its ``GroupSlots``.
struct SlotLookup {
    fileprivate let chunks: UnsafePointer<SlotChunk.Pointer>

    /// - Parameter slot: of a route of the same table, which alone has checked it.
    @inline(__always) subscript(slot: UInt32) -> UnsafePointer<BackendGroup> {
        SlotChunk.groups(chunks[Int(slot &>> SlotChunk.bits)])[Int(slot & SlotChunk.mask)]
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
    typealias Groups = UnsafeMutablePointer<UnsafePointer<BackendGroup>>

    static var byteCount: Int { MemoryLayout<SlotChunk>.stride + count * MemoryLayout<Groups.Pointee>.stride }

    /// Header and groups in one block, the latter to be initialized.
    static func allocate() -> Pointer {
        let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 16)
        (memory + MemoryLayout<SlotChunk>.stride).bindMemory(to: Groups.Pointee.self, capacity: count)
        let chunk = memory.bindMemory(to: SlotChunk.self, capacity: 1)
        chunk.initialize(to: SlotChunk())
        return chunk
    }

    /// They stand behind the header. Of a number that is not in use: ``RouteStore/nobody``.
    @inline(__always) static func groups(_ chunk: Pointer) -> Groups {
        (UnsafeMutableRawPointer(chunk) + MemoryLayout<SlotChunk>.stride).assumingMemoryBound(to: Groups.Pointee.self)
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

    /// The next ones: `changed` numbers with what they have in `groups` by now, all others as they are.
    func with(_ changed: [UInt32], of groups: GroupTable) -> GroupSlots {
        let count = max(chunks.count, (groups.count + SlotChunk.count - 1) / SlotChunk.count)
        var isStale = [Bool](repeating: false, count: count)
        for number in changed { isStale[Int(number >> SlotChunk.bits)] = true }
        let next = UnsafeMutableBufferPointer<SlotChunk.Pointer>.allocate(capacity: count)
        for index in 0..<count {
            // A number that none had before is among those that have changed.
            let chunk =
                index < chunks.count && !isStale[index]
                ? chunks[index]
                : store.makeChunk { groups.box(UInt32(index * SlotChunk.count + $0)) }
            next.initializeElement(at: index, to: chunk)
        }
        return GroupSlots(next, store)
    }
}

extension RouteStore {
    /// A chunk that holds the boxes of its groups.
    /// - Parameter box: by its place in the chunk; nil: the number is not in use.
    func makeChunk(_ box: (Int) -> UnsafeMutablePointer<BackendBox>?) -> SlotChunk.Pointer {
        allocated()
        let chunk = SlotChunk.allocate()
        for place in 0..<SlotChunk.count {
            let box = box(place) ?? nobody
            box.pointee.references += 1
            (SlotChunk.groups(chunk) + place).initialize(to: box.asGroup)
        }
        return chunk
    }

    func release(_ chunk: SlotChunk.Pointer) {
        chunk.pointee.references -= 1
        guard chunk.pointee.references == 0 else { return }
        for place in 0..<SlotChunk.count {
            let group = UnsafeMutableRawPointer(mutating: SlotChunk.groups(chunk)[place])
            release(group.assumingMemoryBound(to: BackendBox.self))
        }
        UnsafeMutableRawPointer(chunk).deallocate()
        freed()
    }
}

extension UnsafeMutablePointer<BackendBox> {
    /// Its first field.
    var asGroup: UnsafePointer<BackendGroup> { UnsafeRawPointer(self).assumingMemoryBound(to: BackendGroup.self) }
}
