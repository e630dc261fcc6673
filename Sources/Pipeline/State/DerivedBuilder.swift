import CLinux
import Pipeline

/// Makes a file of what there is at one moment, on a thread.
public struct DerivedTask: Sendable {
    public typealias Put = (UnsafeRawBufferPointer) throws(StateFault) -> Void

    /// Of what it writes: another one is not read.
    public let version: UInt32
    /// 16 bytes: what it depends on besides the records.
    public let key: [UInt8]
    /// 16 bytes, which are among the records from that moment on: a store that has them has gone through it.
    public let nonce: [UInt8]
    /// Writes the content, a piece at a time. The answer is noted with it, at most 1 KiB; nil: there is nothing to be kept.
    let write: @Sendable (Put) throws(StateFault) -> [UInt8]?

    public init(
        version: UInt32, key: [UInt8], nonce: [UInt8],
        write: @escaping @Sendable (Put) throws(StateFault) -> [UInt8]?
    ) {
        (self.version, self.key, self.nonce, self.write) = (version, key, nonce, write)
    }
}

/// Writes a derived file beside its place: `table.7.new`.
///
/// Memory: a mebibyte.
final class DerivedBuilder {
    let path: String
    private let disk: any Disk
    private let isCancelled: () -> Bool
    private var file: Int32
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: DerivedBuilder.room, alignment: 8)
    private var filled = 0
    /// Bytes of content that are written.
    private var flushed = 0
    private var unsynced = 0
    private var sums: [UInt32] = []

    private static let room = 16 * StateFormat.block
    /// As of a snapshot.
    private static let syncEvery = 8 << 20

    init(_ path: String, _ disk: any Disk, isCancelled: @escaping () -> Bool) throws(StateFault) {
        (self.path, self.disk, self.isCancelled) = (path, disk, isCancelled)
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

    func put(_ bytes: UnsafeRawBufferPointer) throws(StateFault) {
        if isCancelled() { throw .unfit(what: "cancelled") }
        var rest = bytes
        while !rest.isEmpty {
            if filled == buffer.count { try flush(filled) }
            let part = min(rest.count, buffer.count - filled)
            UnsafeMutableRawBufferPointer(rebasing: buffer[filled..<(filled + part)])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: rest[..<part]))
            rest = UnsafeRawBufferPointer(rebasing: rest[part...])
            filled += part
        }
    }

    /// Writes the buffer, and keeps the checksums of its blocks.
    private func flush(_ count: Int) throws(StateFault) {
        guard count > 0 else { return }
        let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
        let failed = disk.write(file, bytes, at: StateFormat.snapshotHeader + flushed)
        guard failed >= 0 else { throw StateFault.of(path, "writing it", failed) }
        let known = sums.count
        sums.append(contentsOf: repeatElement(0, count: StateFormat.blocks(count)))
        sums.withUnsafeMutableBufferPointer { sums in
            guard let to = sums.baseAddress else { return }
            cl_crc32c_pieces(buffer.baseAddress, count, StateFormat.block, to + known)
        }
        (flushed, filled) = (flushed + count, 0)
        unsynced += count
        guard unsynced >= DerivedBuilder.syncEvery else { return }
        unsynced = 0
        try sync()
    }

    private func sync() throws(StateFault) {
        let failed = disk.sync(file)
        guard failed >= 0 else { throw StateFault.of(path, "syncing it", failed) }
    }

    /// Writes what is left: all of it is durable on return, but not in its place.
    func finish(_ header: (_ contentBytes: Int, _ sums: [UInt32]) -> DerivedHeader) throws(StateFault) {
        let content = flushed + filled
        while filled & 7 != 0 {
            buffer[filled] = 0
            filled += 1
        }
        try flush(filled)
        var failed: Int32 = 0
        if !sums.isEmpty {
            failed = sums.withUnsafeBytes { disk.write(file, $0, at: StateFormat.snapshotHeader + flushed) }
            guard failed >= 0 else { throw StateFault.of(path, "writing it", failed) }
        }
        failed = header(content, sums).encoded().withUnsafeBytes { disk.write(file, $0, at: 0) }
        guard failed >= 0 else { throw StateFault.of(path, "writing it", failed) }
        try sync()
        disk.close(file)
        file = -1
    }
}
