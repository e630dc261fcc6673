import CLinux
import Pipeline

/// Writes a file of a header, blocks and their checksums: see ``StateFormat/block``. It is durable once ``finish(_:)`` has
/// returned, and stands beside its place until somebody renames it.
///
/// Memory: a mebibyte.
final class BlockWriter {
    let path: String
    private let disk: any Disk
    private var file: Int32
    /// What is not written yet, from `flushed` on; whole blocks of it are, once it is full.
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: BlockWriter.room, alignment: 8)
    private var filled = 0
    private var flushed = StateFormat.snapshotHeader
    private var unsynced = 0
    private var sums: [UInt32] = []

    private static let room = 16 * StateFormat.block
    /// A log beside it is synced between these: a disk that has much to write makes it wait.
    private static let syncEvery = 8 << 20

    init(_ path: String, _ disk: any Disk) throws(StateFault) {
        (self.path, self.disk) = (path, disk)
        file = disk.open(path, .empty)
        guard file >= 0 else { throw StateFault.of(path, "making it", file) }
    }

    deinit {
        if file >= 0 { disk.close(file) }
        buffer.deallocate()
    }

    /// Closes the file and takes it away.
    func abandon() {
        if file >= 0 { disk.close(file) }
        file = -1
        _ = disk.remove(path)
    }

    // MARK: Bytes

    /// Where the next byte comes.
    var end: Int { flushed + filled }

    func add(_ bytes: UnsafeRawBufferPointer) throws(StateFault) {
        var rest = bytes
        while !rest.isEmpty {
            if filled == buffer.count { try flush() }
            let part = min(rest.count, buffer.count - filled)
            UnsafeMutableRawBufferPointer(rebasing: buffer[filled..<(filled + part)])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: rest[..<part]))
            rest = UnsafeRawBufferPointer(rebasing: rest[part...])
            filled += part
        }
    }

    /// Fills up with zeros to 8. The buffer is a multiple of it.
    func pad() {
        while filled & 7 != 0 {
            buffer[filled] = 0
            filled += 1
        }
    }

    /// So many bytes in one piece, at most what an id takes, to be written to before the next call.
    func piece(_ count: Int) throws(StateFault) -> UnsafeMutableRawBufferPointer {
        if buffer.count - filled < count { try flush() }
        defer { filled += count }
        return UnsafeMutableRawBufferPointer(rebasing: buffer[filled..<(filled + count)])
    }

    /// Only whole blocks are written before the end.
    private func flush() throws(StateFault) {
        let whole = filled / StateFormat.block * StateFormat.block
        let rest = filled - whole
        try write(whole)
        if rest > 0, let base = buffer.baseAddress { base.copyMemory(from: base + whole, byteCount: rest) }
        filled = rest
    }

    /// Writes the first `count` bytes of the buffer, and keeps their checksums.
    private func write(_ count: Int) throws(StateFault) {
        guard count > 0 else { return }
        try put(UnsafeRawBufferPointer(rebasing: buffer[..<count]), at: flushed)
        flushed += count
        let known = sums.count
        sums.append(contentsOf: repeatElement(0, count: StateFormat.blocks(count)))
        sums.withUnsafeMutableBufferPointer { sums in
            guard let to = sums.baseAddress else { return }
            cl_crc32c_pieces(buffer.baseAddress, count, StateFormat.block, to + known)
        }
        unsynced += count
        guard unsynced >= BlockWriter.syncEvery else { return }
        unsynced = 0
        try sync()
    }

    private func put(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(StateFault) {
        let failed = disk.write(file, bytes, at: offset)
        guard failed >= 0 else { throw StateFault.of(path, "writing it", failed) }
    }

    private func put(_ bytes: [some BitwiseCopyable], at offset: Int) throws(StateFault) {
        let failed = bytes.withUnsafeBytes { $0.isEmpty ? 0 : disk.write(file, $0, at: offset) }
        guard failed >= 0 else { throw StateFault.of(path, "writing it", failed) }
    }

    private func sync() throws(StateFault) {
        let failed = disk.sync(file)
        guard failed >= 0 else { throw StateFault.of(path, "syncing it", failed) }
    }

    /// All that was added so far, where it lies, its header without what it will say.
    func read(_ body: (UnsafeRawPointer) -> Void) throws(StateFault) {
        // Written again with what follows: their block is not whole yet.
        try put(UnsafeRawBufferPointer(rebasing: buffer[..<filled]), at: flushed)
        var memory: UnsafeRawPointer?
        let failed = disk.map(file, size: end, &memory)
        guard failed >= 0, let memory else { throw StateFault.of(path, "reading it", failed) }
        defer { disk.unmap(memory, size: end) }
        body(memory)
    }

    /// Writes what is left: all of it is durable on return, but not in its place.
    /// - Parameter header: from the checksums of the blocks.
    func finish(_ header: (_ sums: [UInt32]) -> [UInt8]) throws(StateFault) {
        try write(filled)
        filled = 0
        try put(sums, at: flushed)
        try put(header(sums), at: 0)
        try sync()
        disk.close(file)
        file = -1
    }
}
