import CLinux
import Pipeline

/// Entries and their cells by number, where lookups find them: chunks that never move, of memory that costs nothing until it
/// is touched. A cell that no connection has pinned is zeros.
///
/// Threading: filled on the control side, before a table has the number; read from any thread. Trivially copyable; valid as
/// long as its ``RouteStore``.
struct EntryTable {
    private struct Chunk {
        let entries: UnsafeMutablePointer<RouteEntry>
        /// Ids.
        let names: UnsafeMutablePointer<CountedText>
        let cells: UnsafeMutablePointer<RouteCell>
    }
    private static let bits: UInt32 = 12
    private static let mask: UInt32 = 4095
    private static let chunkSize = 4096
    /// Of 268,435,456 routes; no memory holds as many. Address space may be short (R26): a larger one cost 16 MiB of it.
    private static let mostChunks = 1 << 16
    private static let namesAt = chunkSize * MemoryLayout<RouteEntry>.stride
    private static let cellsAt = namesAt + chunkSize * MemoryLayout<CountedText>.stride
    private static let chunkBytes = cellsAt + chunkSize * MemoryLayout<RouteCell>.stride

    private let chunks: UnsafeMutablePointer<Chunk>

    init() {
        guard let memory = cl_map(EntryTable.mostChunks * MemoryLayout<Chunk>.stride) else {
            preconditionFailure("no memory for routes")
        }
        chunks = memory.bindMemory(to: Chunk.self, capacity: EntryTable.mostChunks)
    }

    @inline(__always) func entry(_ number: UInt32) -> UnsafeMutablePointer<RouteEntry> {
        chunks[Int(number &>> EntryTable.bits)].entries + Int(number & EntryTable.mask)
    }

    @inline(__always) func cell(_ number: UInt32) -> UnsafeMutablePointer<RouteCell> {
        chunks[Int(number &>> EntryTable.bits)].cells + Int(number & EntryTable.mask)
    }

    /// Where the id of an entry is.
    @inline(__always) func name(_ number: UInt32) -> UnsafeMutablePointer<CountedText> {
        chunks[Int(number &>> EntryTable.bits)].names + Int(number & EntryTable.mask)
    }

    /// The counters of a route of a table.
    @inline(__always) func cell(of route: TableRoute) -> UnsafePointer<RouteCell> {
        guard route.isShared, let box = entry(route.entry).pointee.shared else {
            return UnsafePointer(cell(route.entry))
        }
        return UnsafeRawPointer(box).assumingMemoryBound(to: RouteCell.self)
    }

    /// Makes room for `number`, which is the one after the last.
    /// - Returns: false: there is no memory for it.
    func grow(to number: UInt32) -> Bool {
        guard number & EntryTable.mask == 0 else { return true }
        guard number &>> EntryTable.bits < UInt32(EntryTable.mostChunks), let memory = cl_map(EntryTable.chunkBytes)
        else { return false }
        let names = memory + EntryTable.namesAt
        let cells = memory + EntryTable.cellsAt
        (chunks + Int(number &>> EntryTable.bits)).initialize(
            to: Chunk(
                entries: memory.bindMemory(to: RouteEntry.self, capacity: EntryTable.chunkSize),
                names: names.bindMemory(to: CountedText.self, capacity: EntryTable.chunkSize),
                cells: cells.bindMemory(to: RouteCell.self, capacity: EntryTable.chunkSize)))
        return true
    }

    /// Gives back the room for all numbers from `number` on, which nobody has.
    /// - Parameter end: the one after the last that there is room for.
    func shrink(to number: UInt32, from end: UInt32) {
        let first = (number &+ EntryTable.mask) & ~EntryTable.mask
        for number in stride(from: first, to: max(first, end), by: EntryTable.chunkSize) {
            cl_unmap(entry(number), EntryTable.chunkBytes)
        }
    }

    /// - Parameter count: of the numbers in use.
    func deallocate(_ count: UInt32) {
        for number in stride(from: 0, to: count, by: EntryTable.chunkSize) {
            cl_unmap(entry(number), EntryTable.chunkBytes)
        }
        cl_unmap(chunks, EntryTable.mostChunks * MemoryLayout<Chunk>.stride)
    }
}
