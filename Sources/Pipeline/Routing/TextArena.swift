import Pipeline

/// Where a text stands in a ``TextArena``.
public struct TextRef: Hashable, Sendable {
    let offset: UInt32
    public let length: UInt16
    static let empty = TextRef(offset: 0, length: 0)
}

/// Texts one after the other in one block: a million names cost their bytes, not a million allocations.
///
/// Threading: filled by one thread, then read by any. Texts stay where they are as long as nothing is added.
public final class TextArena: @unchecked Sendable {
    private var storage = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: 4096)
    private var count = 0

    public init() {}
    deinit { storage.deallocate() }

    /// Nil if the text is longer than 65,535 bytes or the arena would outgrow 4 GiB.
    func append(_ text: Bytes) -> TextRef? {
        guard let length = UInt16(exactly: text.count), let offset = UInt32(exactly: count) else { return nil }
        if storage.count - count < text.count { grow(to: count + text.count) }
        if let source = text.baseAddress {
            (storage.baseAddress.unsafelyUnwrapped + count).update(from: source, count: text.count)
        }
        count += text.count
        return TextRef(offset: offset, length: length)
    }

    private func grow(to needed: Int) {
        let larger = UnsafeMutableBufferPointer<UInt8>.allocate(
            capacity: max(needed, storage.count + storage.count / 2))
        larger.baseAddress.unsafelyUnwrapped.update(from: storage.baseAddress.unsafelyUnwrapped, count: count)
        storage.deallocate()
        storage = larger
    }

    /// Valid until the next ``append(_:)``.
    @inline(__always) public func bytes(_ ref: TextRef) -> Bytes {
        guard Int(ref.offset) + Int(ref.length) <= count else { return Bytes(start: nil, count: 0) }
        return Bytes(start: storage.baseAddress.unsafelyUnwrapped + Int(ref.offset), count: Int(ref.length))
    }

    public func string(_ ref: TextRef) -> String { String(decoding: bytes(ref), as: UTF8.self) }
}

/// Texts that stay where they are until all go: a chunk for thousands.
///
/// Threading: filled by one thread; texts are for all.
final class FrozenTexts {
    private static let chunkSize = 1 << 16
    private var chunks: [UnsafeMutableBufferPointer<UInt8>] = []
    private var used = 0

    deinit { for chunk in chunks { chunk.deallocate() } }

    func append(_ text: Bytes) -> CountedText {
        let count = CountedText.byteCount(of: text.count)
        if chunks.isEmpty || chunks[chunks.count - 1].count - used < count {
            chunks.append(.allocate(capacity: max(count, FrozenTexts.chunkSize)))
            used = 0
        }
        let start = chunks[chunks.count - 1].baseAddress.unsafelyUnwrapped + used
        used += count
        return CountedText(at: CountedText.write(text, to: start))
    }
}

/// Texts that many objects share (env ids, process types), each held once and named by a number from 0 up.
///
/// Threading: as ``TextArena``.
public final class SymbolTable: @unchecked Sendable {
    private let text = TextArena()
    private var refs: [TextRef] = []
    private var index = HashIndex()
    private let seed: HashSeed
    private var last: UInt32?

    public init(seed: HashSeed) { self.seed = seed }

    public var count: Int { refs.count }

    /// The number of `name`, old or new. Nil under the limits of ``TextArena/append(_:)``.
    func intern(_ name: Bytes) -> UInt32? {
        // Neighbours in a document mostly belong together.
        if let last, sameBytes(bytes(last), name) { return last }
        let hash = SipHash.hash(name, seed: seed)
        if let found = index.find(hash, where: { sameBytes(bytes($0), name) }) {
            last = found
            return found
        }
        guard let number = UInt32(exactly: refs.count), let ref = text.append(name) else { return nil }
        refs.append(ref)
        index.insert(hash, number)
        last = number
        return number
    }

    func find(_ name: Bytes) -> UInt32? {
        index.find(SipHash.hash(name, seed: seed)) { sameBytes(bytes($0), name) }
    }

    @inline(__always) public func bytes(_ number: UInt32) -> Bytes {
        Int(number) < refs.count ? text.bytes(refs[Int(number)]) : Bytes(start: nil, count: 0)
    }

    public func string(_ number: UInt32) -> String { String(decoding: bytes(number), as: UTF8.self) }
}

/// An open-addressing index from hashes to numbers. It holds no keys: the caller compares. Several numbers may have
/// the same hash. Eight bytes a slot, at most 7/8 full.
struct HashIndex {
    /// 0: free. Otherwise the upper half of the hash, then the number + 1.
    private var slots: [UInt64] = []
    private(set) var count = 0

    private static func slot(_ hash: UInt64, _ number: UInt32) -> UInt64 {
        (hash & 0xFFFF_FFFF_0000_0000) | (UInt64(number) &+ 1)
    }

    @inline(__always) private func home(_ slot: UInt64, _ mask: Int) -> Int {
        Int(truncatingIfNeeded: slot &>> 32) & mask
    }

    /// The first number with this hash that `matches`.
    @inline(__always) func find(_ hash: UInt64, where matches: (UInt32) -> Bool) -> UInt32? {
        guard !slots.isEmpty else { return nil }
        return slots.withUnsafeBufferPointer { slots in
            let mask = slots.count - 1
            var position = home(hash, mask)
            while slots[position] != 0 {
                let slot = slots[position]
                if slot &>> 32 == hash &>> 32 {
                    let number = UInt32(truncatingIfNeeded: slot) &- 1
                    if matches(number) { return number }
                }
                position = (position &+ 1) & mask
            }
            return nil
        }
    }

    /// Reserves room for this many more.
    mutating func reserve(_ more: Int) {
        let old = slots
        var size = max(16, old.count)
        while (count + more) * 8 > size * 7 { size *= 2 }
        guard size > old.count else { return }
        slots = Array(repeating: 0, count: size)
        for slot in old where slot != 0 { put(slot) }
    }

    mutating func insert(_ hash: UInt64, _ number: UInt32) {
        if (count + 1) * 8 > slots.count * 7 { grow() }
        put(HashIndex.slot(hash, number))
        count += 1
    }

    private mutating func put(_ slot: UInt64) {
        slots.withUnsafeMutableBufferPointer { slots in
            let mask = slots.count - 1
            var position = Int(truncatingIfNeeded: slot &>> 32) & mask
            while slots[position] != 0 { position = (position &+ 1) & mask }
            slots[position] = slot
        }
    }

    private mutating func grow() {
        let old = slots
        slots = Array(repeating: 0, count: max(16, old.count * 2))
        for slot in old where slot != 0 { put(slot) }
    }

    /// Takes one number out; nothing happens if it isn't there. Later slots of its run move up, so no tombstones.
    mutating func remove(_ hash: UInt64, _ number: UInt32) {
        guard !slots.isEmpty else { return }
        let mask = slots.count - 1
        let wanted = HashIndex.slot(hash, number)
        var hole = home(hash, mask)
        while slots[hole] != wanted {
            if slots[hole] == 0 { return }
            hole = (hole &+ 1) & mask
        }
        count -= 1
        var next = (hole &+ 1) & mask
        while slots[next] != 0 {
            let distance = (next &- home(slots[next], mask)) & mask
            if distance >= (next &- hole) & mask {
                slots[hole] = slots[next]
                hole = next
            }
            next = (next &+ 1) & mask
        }
        slots[hole] = 0
    }
}
