import CLinux
import Glibc
import Pipeline

/// What is made from a store's records at one moment, beside them, so that a start need not make it again: `table.7`. It says
/// nothing that the records don't say. Whatever is wrong with it, it is done without.
///
///     header, 4096 bytes | content, filled up to 8 | checksum of each 64 KiB of it
///
/// Threading: immutable; any number of readers. Unmapped and closed with its last owner.
public final class DerivedFile: @unchecked Sendable {
    let header: DerivedHeader
    public let path: String
    private let disk: any Disk
    /// Kept open: whatever becomes of its name, this is the file that is mapped.
    private let file: Int32
    private let base: UnsafeRawPointer
    /// When its bytes were written last, and how many there are, as of the last look.
    private var modified: Int64
    private let size: Int
    private var isSpoiled = false

    private init(
        _ header: DerivedHeader, _ path: String, _ file: Int32, _ status: DiskStatus, _ base: UnsafeRawPointer,
        _ disk: any Disk
    ) {
        (self.header, self.path, self.file, self.base, self.disk) = (header, path, file, base, disk)
        (modified, size) = (status.modified, status.size)
    }

    deinit {
        disk.unmap(base, size: size)
        disk.close(file)
    }

    /// Begins at a multiple of 8.
    public var content: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: base + StateFormat.snapshotHeader, count: header.contentBytes)
    }
    /// What its maker has noted of it.
    public var info: [UInt8] { header.info }
    /// Of the last change that is in it.
    public var sequence: UInt64 { header.sequence }
    public var byteCount: Int { size }

    /// Every byte is held to its checksum.
    /// - Parameter secret: of the store.
    static func open(
        _ path: String, number: UInt64, secret: [UInt8], _ disk: any Disk
    ) throws(FileFlaw) -> DerivedFile {
        let file = disk.open(path, .read)
        guard file >= 0 else { throw FileFlaw.of(path, "opening it", file) }
        do throws(FileFlaw) {
            return try open(path, file, number: number, secret: secret, disk)
        } catch {
            disk.close(file)
            throw error
        }
    }

    private static func open(
        _ path: String, _ file: Int32, number: UInt64, secret: [UInt8], _ disk: any Disk
    ) throws(FileFlaw) -> DerivedFile {
        let (memory, status) = try disk.map(file, path)
        do throws(FileFlaw) {
            let header = try DerivedHeader(memory, fileBytes: status.size)
            guard header.number == number else { throw .damaged("it is table.\(header.number) by its header") }
            // Of another store nothing can be checked; whoever asks is told whose it is.
            if header.store == LogHeader.store(secret: secret) { try header.check(memory, secret: secret) }
            return DerivedFile(header, path, file, status, memory, disk)
        } catch {
            disk.unmap(memory, size: status.size)
            throw error
        }
    }

    /// Its bytes are not what they were when it was opened, or can't be read any more. Cheap as long as nobody touches it.
    /// - Parameter secret: of the store.
    func isSpoiled(secret: [UInt8]) -> Bool {
        if isSpoiled { return true }
        var status = DiskStatus()
        let failed = disk.status(of: file, &status)
        if failed >= 0, status.size == size, status.modified == modified, !disk.hasLost(base) { return false }
        isSpoiled =
            failed < 0 || status.size != size || disk.hasLost(base) || (try? header.check(base, secret: secret)) == nil
            || disk.hasLost(base)
        modified = status.modified
        return isSpoiled
    }
}

struct DerivedHeader {
    var number: UInt64
    /// Nanoseconds since 1970.
    var written: UInt64
    /// See ``DerivedTask``.
    var nonce: [UInt8]
    var key: [UInt8]
    var version: UInt32
    var sequence: UInt64
    var contentBytes: Int
    /// Of the checksums of blocks.
    var sum: UInt32
    /// As a log's header has it.
    var store: UInt64
    /// Of the same checksums, by the store's secret: nobody else can make one.
    var mark: (UInt64, UInt64)
    var info: [UInt8]

    static let longestInfo = 1024
    private static let infoOffset = 1024

    var coveredEnd: Int { StateFormat.snapshotHeader + StateFormat.padded(contentBytes) }
    var blocks: Int { StateFormat.blocks(StateFormat.padded(contentBytes)) }
    var fileBytes: Int { coveredEnd + blocks * 4 }

    init(
        number: UInt64, sequence: UInt64, _ task: DerivedTask, secret: [UInt8], contentBytes: Int, sums: [UInt32],
        info: [UInt8]
    ) {
        (self.number, self.sequence, self.contentBytes, self.info) = (number, sequence, contentBytes, info)
        (nonce, key, version) = (task.nonce, task.key, task.version)
        written = cl_wall_clock()
        store = LogHeader.store(secret: secret)
        (sum, mark) = sums.withUnsafeBytes { (checksum($0), DerivedHeader.mark($0, secret: secret)) }
    }

    init(_ base: UnsafeRawPointer, fileBytes: Int) throws(FileFlaw) {
        try StateFormat.check(UnsafeRawBufferPointer(start: base, count: StateFormat.snapshotHeader), .derived)
        func bytes(_ offset: Int, _ count: Int) -> [UInt8] {
            [UInt8](UnsafeRawBufferPointer(start: base + offset, count: count))
        }
        number = base.number(16, as: UInt64.self)
        written = base.number(24, as: UInt64.self)
        nonce = bytes(32, 16)
        sequence = base.number(48, as: UInt64.self)
        let content = base.number(56, as: UInt64.self)
        version = base.number(64, as: UInt32.self)
        sum = base.number(68, as: UInt32.self)
        store = base.number(72, as: UInt64.self)
        mark = (base.number(80, as: UInt64.self), base.number(88, as: UInt64.self))
        key = bytes(96, 16)
        let infoCount = base.number(112, as: UInt32.self)
        guard content <= UInt64(fileBytes), fileBytes < 1 << 48, infoCount <= UInt32(DerivedHeader.longestInfo) else {
            throw .damaged("a count of it is too large")
        }
        contentBytes = Int(content)
        info = bytes(DerivedHeader.infoOffset, Int(infoCount))
        guard self.fileBytes == fileBytes else {
            throw .damaged("its size is not what its header says: it was cut, or has grown")
        }
    }

    func encoded() -> [UInt8] {
        StateFormat.header(.derived, bytes: StateFormat.snapshotHeader) { to in
            to.put(number, at: 16)
            to.put(written, at: 24)
            for (index, byte) in nonce.prefix(16).enumerated() { to[32 + index] = byte }
            to.put(sequence, at: 48)
            to.put(UInt64(contentBytes), at: 56)
            to.put(version, at: 64)
            to.put(sum, at: 68)
            to.put(store, at: 72)
            to.put(mark.0, at: 80)
            to.put(mark.1, at: 88)
            for (index, byte) in key.prefix(16).enumerated() { to[96 + index] = byte }
            to.put(UInt32(truncatingIfNeeded: info.count), at: 112)
            for (index, byte) in info.prefix(DerivedHeader.longestInfo).enumerated() {
                to[DerivedHeader.infoOffset + index] = byte
            }
        }
    }

    /// Of a header that was checked.
    static func version(of header: UnsafeRawBufferPointer) -> UInt32 {
        header.baseAddress.map { $0.number(64, as: UInt32.self) } ?? 0
    }

    private static func mark(_ sums: UnsafeRawBufferPointer, secret: [UInt8]) -> (UInt64, UInt64) {
        SipHash.wideHash(sums.bindMemory(to: UInt8.self), seed: HashSeed(secret: secret))
    }

    /// Every block against its checksum, and those against the secret.
    func check(_ base: UnsafeRawPointer, secret: [UInt8]) throws(FileFlaw) {
        let sums = UnsafeRawBufferPointer(start: base + coveredEnd, count: blocks * 4)
        guard DerivedHeader.mark(sums, secret: secret) == mark else {
            throw .damaged("its list of checksums is not the one that was written")
        }
        try StateFormat.checkBlocks(base, until: coveredEnd, sum: sum)
    }
}
