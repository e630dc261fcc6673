import CLinux
import Glibc
import Pipeline

/// A snapshot as it lies on disk: mapped, and searched where it lies. Every byte was held to its checksum when it was
/// opened; what they say is looked at again wherever it leads to memory.
///
///     header, 4096 bytes | records | places in order of (kind, id), u32, each its offset / 8 | hash table, u32 the same,
///     0 free | checksum of each 64 KiB of all that
///
/// Threading: immutable; any number of readers. Unmapped with its last owner.
final class SnapshotFile: @unchecked Sendable {
    let header: SnapshotHeader
    /// Which file is mapped, and when it was written, by its clock.
    let identity: DiskStatus.Identity
    let modified: Int64
    private let base: UnsafeRawPointer
    private let disk: any Disk
    private let seed: HashSeed
    /// The place in the order at which each kind begins.
    private let starts: [Int]

    var byteCount: Int { header.fileBytes }
    var records: Int { header.records }

    /// A part of it can't be read any more.
    var hasLost: Bool { disk.hasLost(base) }

    private init(_ header: SnapshotHeader, _ status: DiskStatus, _ base: UnsafeRawPointer, _ disk: any Disk) {
        self.header = header
        identity = status.identity
        modified = status.modified
        self.base = base
        self.disk = disk
        seed = HashSeed(secret: header.secret)
        var starts = [0]
        for count in header.counts { starts.append(starts[starts.count - 1] + count) }
        self.starts = starts
    }

    deinit { disk.unmap(base, size: header.fileBytes) }

    /// - Parameter isKnown: it was written just now; its blocks aren't looked at again.
    static func open(
        _ path: String, number: UInt64, _ disk: any Disk, isKnown: Bool = false
    ) throws(FileFlaw) -> SnapshotFile {
        let file = disk.open(path, .read)
        guard file >= 0 else { throw FileFlaw.of(path, "opening it", file) }
        defer { disk.close(file) }
        let (memory, status) = try disk.map(file, path)
        let header: SnapshotHeader
        do throws(FileFlaw) {
            header = try SnapshotHeader(memory, fileBytes: status.size)
            guard header.number == number else { throw .damaged("it is snapshot.\(header.number) by its header") }
            if !isKnown { try header.checkBlocks(memory) }
        } catch {
            disk.unmap(memory, size: status.size)
            throw error
        }
        return SnapshotFile(header, status, memory, disk)
    }

    /// Every block against its checksum, once more.
    func check(_ place: StatePlace) throws(StateFault) {
        do throws(FileFlaw) { try header.checkBlocks(base) } catch {
            throw error.fault(place.path("snapshot.\(header.number)"))
        }
    }

    func find(_ kind: UInt8, _ id: UnsafeBufferPointer<UInt8>, hash: UInt64) -> Record? {
        let slots = header.slots
        guard slots > 0 else { return nil }
        var slot = Int(UInt64(slots).multipliedFullWidth(by: hash).high)
        // As many looks as there are slots, for a table that has no free one.
        for _ in 0..<slots {
            let place = base.number(header.slotsOffset + slot * 4, as: UInt32.self)
            if place == 0 { return nil }
            if let record = record(at: place), record.compare(kind, id) == 0 { return record }
            slot += 1
            if slot == slots { slot = 0 }
        }
        return nil
    }

    /// Places in the order of all records.
    func range(_ kind: UInt8) -> Range<Int> { starts[Int(kind)]..<starts[Int(kind) + 1] }

    /// The record that is so many from the first.
    func record(_ index: Int) -> Record? {
        guard index >= 0, index < header.records else { return nil }
        return record(at: base.number(header.indexOffset + index * 4, as: UInt32.self))
    }

    private func record(at place: UInt32) -> Record? {
        let offset = Int(place) &* 8
        guard offset >= StateFormat.snapshotHeader, offset < header.indexOffset else { return nil }
        return Record(at: base + offset, limit: header.indexOffset - offset)
    }
}

extension Disk {
    /// All of a file with a header.
    func map(_ file: Int32, _ path: String) throws(FileFlaw) -> (UnsafeRawPointer, DiskStatus) {
        var status = DiskStatus()
        var failed = self.status(of: file, &status)
        guard failed >= 0 else { throw FileFlaw.of(path, "looking at it", failed) }
        guard status.size >= StateFormat.snapshotHeader else { throw .damaged("it ends within its header") }
        var memory: UnsafeRawPointer?
        failed = map(file, size: status.size, &memory)
        guard failed >= 0, let memory else { throw FileFlaw.of(path, "reading it", failed) }
        return (memory, status)
    }
}

extension FileFlaw {
    /// What can't be read is as good as damaged.
    static func of(_ path: String, _ doing: String, _ failed: Int32) -> FileFlaw {
        failed == -EIO ? .damaged("it can't be read (EIO)") : .failed(StateFault.of(path, doing, failed))
    }
}

struct SnapshotHeader {
    var number: UInt64
    /// Nanoseconds since 1970.
    var written: UInt64
    var secret: [UInt8]
    /// Of the last change that is in it.
    var sequence: UInt64
    var records: Int
    var recordBytes: Int
    var slots: Int
    /// Of each kind.
    var counts: [Int]
    /// Of the checksums of blocks.
    var sum: UInt32

    var indexOffset: Int { StateFormat.snapshotHeader + recordBytes }
    var slotsOffset: Int { indexOffset + StateFormat.padded(records * 4) }
    var coveredEnd: Int { slotsOffset + StateFormat.padded(slots * 4) }
    var blocks: Int { StateFormat.blocks(coveredEnd - StateFormat.snapshotHeader) }
    var fileBytes: Int { coveredEnd + blocks * 4 }

    private static let countsOffset = 1024

    init(_ base: UnsafeRawPointer, fileBytes: Int) throws(FileFlaw) {
        try StateFormat.check(UnsafeRawBufferPointer(start: base, count: StateFormat.snapshotHeader), .snapshot)
        number = base.number(16, as: UInt64.self)
        written = base.number(24, as: UInt64.self)
        secret = [UInt8](UnsafeRawBufferPointer(start: base + 32, count: 16))
        sequence = base.number(48, as: UInt64.self)
        sum = base.number(80, as: UInt32.self)
        // No number of it can be more than the file's bytes, so that sums of them don't overflow.
        func count(_ offset: Int) throws(FileFlaw) -> Int {
            let value = base.number(offset, as: UInt64.self)
            guard value <= UInt64(fileBytes), fileBytes < 1 << 48 else { throw .damaged("a count of it is too large") }
            return Int(value)
        }
        records = try count(56)
        recordBytes = try count(64)
        slots = try count(72)
        counts = []
        for kind in 0..<256 { counts.append(try count(SnapshotHeader.countsOffset + kind * 8)) }
        guard sequence < UInt64(1) << 62, number > 0, number < UInt64(1) << 62, counts[0] == 0,
            counts.reduce(0, +) == records, recordBytes % 8 == 0, self.fileBytes == fileBytes
        else { throw .damaged("its size is not what its header says: it was cut, or has grown") }
    }

    init(
        number: UInt64, written: UInt64, secret: [UInt8], sequence: UInt64, records: Int, recordBytes: Int, slots: Int,
        counts: [Int], sum: UInt32
    ) {
        self.number = number
        self.written = written
        self.secret = secret
        self.sequence = sequence
        self.records = records
        self.recordBytes = recordBytes
        self.slots = slots
        self.counts = counts
        self.sum = sum
    }

    func encoded() -> [UInt8] {
        StateFormat.header(.snapshot, bytes: StateFormat.snapshotHeader) { to in
            to.put(number, at: 16)
            to.put(written, at: 24)
            for (index, byte) in secret.prefix(16).enumerated() { to[32 + index] = byte }
            to.put(sequence, at: 48)
            to.put(UInt64(records), at: 56)
            to.put(UInt64(recordBytes), at: 64)
            to.put(UInt64(slots), at: 72)
            to.put(sum, at: 80)
            for kind in 0..<256 { to.put(UInt64(counts[kind]), at: SnapshotHeader.countsOffset + kind * 8) }
        }
    }

    /// Every block against its checksum.
    func checkBlocks(_ base: UnsafeRawPointer) throws(FileFlaw) {
        try StateFormat.checkBlocks(base, until: coveredEnd, sum: sum)
    }
}
