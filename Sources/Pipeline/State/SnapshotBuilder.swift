import CLinux
import Pipeline
import Synchronization

/// Takes all records of a new snapshot, in any order; of several with one id the last counts. In the order of (kind, id)
/// it costs no sorting.
public struct SnapshotWriter {
    let builder: SnapshotBuilder

    public mutating func put(
        _ kind: UInt8, _ id: some Collection<UInt8>, _ value: UnsafeRawBufferPointer
    ) throws(StateFault) {
        try builder.put(kind, id, value)
    }
}

/// Writes a snapshot beside its place: `snapshot.7.new`.
///
/// Memory: a mebibyte, 8 bytes a record, and at its end 6 more.
final class SnapshotBuilder {
    struct Identity {
        let number: UInt64
        let secret: [UInt8]
        let sequence: UInt64
    }

    let path: String
    private let identity: Identity
    var number: UInt64 { identity.number }
    private let disk: any Disk
    private let isCancelled: () -> Bool
    private var file: Int32 = -1
    /// What is not written yet, from `flushed` on; whole blocks of it are, once it is full.
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: SnapshotBuilder.room, alignment: 8)
    private var filled = 0
    private var flushed = StateFormat.snapshotHeader
    private var unsynced = 0
    private var sums: [UInt32] = []
    /// Offsets / 8.
    private var places: [UInt32] = []
    private var lastKind: UInt8 = 0
    private var lastID: [UInt8] = []
    private var isSorted = true

    private static let room = 16 * StateFormat.block
    /// A log beside it is synced between these: a disk that has much to write makes it wait.
    private static let syncEvery = 8 << 20

    init(
        directory: String, _ identity: Identity, _ disk: any Disk, isCancelled: @escaping () -> Bool = { false }
    ) throws(StateFault) {
        path = "\(directory)/snapshot.\(identity.number).new"
        self.identity = identity
        self.disk = disk
        self.isCancelled = isCancelled
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

    // MARK: Records

    func put(_ kind: UInt8, _ id: some Collection<UInt8>, _ value: UnsafeRawBufferPointer) throws(StateFault) {
        let idCount = id.count
        if let unfit = StateFault.unfit(kind: kind, id: idCount, value: value.count) { throw unfit }
        try begin()
        noteOrder(kind, id)
        try reserve(Record.header + StateFormat.padded(idCount))
        Record.writeHeader(kind: kind, id: idCount, value: value.count, flags: 0, to: buffer, at: filled)
        let idEnd = filled + Record.header + StateFormat.padded(idCount)
        buffer.put(UInt64(0), at: idEnd - 8)
        UnsafeMutableRawBufferPointer(rebasing: buffer[(filled + Record.header)..<idEnd]).copyBytes(from: id)
        filled = idEnd
        try add(value)
    }

    /// A record as another snapshot or a log has it.
    func put(_ record: Record) throws(StateFault) {
        try begin()
        if isSorted { noteOrder(record.kind, record.id) }
        try add(UnsafeRawBufferPointer(start: record.base, count: record.byteCount))
    }

    private func begin() throws(StateFault) {
        let place = (flushed + filled) / 8
        guard place <= Int(UInt32.max), places.count < Int(UInt32.max) / 2 else {
            throw .tooLarge(path: path, what: "more than 32 GiB of records")
        }
        if isCancelled() { throw .unfit(what: "cancelled") }
        places.append(UInt32(place))
    }

    private func noteOrder(_ kind: UInt8, _ id: some Collection<UInt8>) {
        guard isSorted else { return }
        isSorted = lastKind < kind || lastKind == kind && lastID.lexicographicallyPrecedes(id)
        lastKind = kind
        lastID.removeAll(keepingCapacity: true)
        lastID.append(contentsOf: id)
    }

    // MARK: Bytes

    /// Filled up with zeros to 8.
    private func add(_ bytes: UnsafeRawBufferPointer) throws(StateFault) {
        var rest = bytes
        while !rest.isEmpty {
            if filled == buffer.count { try flush() }
            let part = min(rest.count, buffer.count - filled)
            UnsafeMutableRawBufferPointer(rebasing: buffer[filled..<(filled + part)])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: rest[..<part]))
            rest = UnsafeRawBufferPointer(rebasing: rest[part...])
            filled += part
        }
        // The buffer is a multiple of 8.
        while filled & 7 != 0 {
            buffer[filled] = 0
            filled += 1
        }
    }

    /// Room for so many bytes in one piece, at most what an id takes. Only whole blocks are written before the end.
    private func reserve(_ count: Int) throws(StateFault) {
        guard buffer.count - filled < count else { return }
        try flush()
    }

    private func flush() throws(StateFault) {
        let whole = filled / StateFormat.block * StateFormat.block
        try write(whole)
        let rest = filled - whole
        if rest > 0, let base = buffer.baseAddress { base.copyMemory(from: base + whole, byteCount: rest) }
        filled = rest
        flushed += whole
    }

    /// Writes the first `count` bytes of the buffer, and keeps their checksums.
    private func write(_ count: Int) throws(StateFault) {
        guard count > 0 else { return }
        let failed = disk.write(file, UnsafeRawBufferPointer(rebasing: buffer[..<count]), at: flushed)
        guard failed >= 0 else { throw StateFault.of(path, "writing it", failed) }
        let blocks = (count + StateFormat.block - 1) / StateFormat.block
        let known = sums.count
        sums.append(contentsOf: repeatElement(0, count: blocks))
        sums.withUnsafeMutableBufferPointer { sums in
            guard let to = sums.baseAddress else { return }
            cl_crc32c_pieces(buffer.baseAddress, count, StateFormat.block, to + known)
        }
        unsynced += count
        guard unsynced >= SnapshotBuilder.syncEvery else { return }
        unsynced = 0
        try sync()
    }

    private func sync() throws(StateFault) {
        let failed = disk.sync(file)
        guard failed >= 0 else { throw StateFault.of(path, "syncing it", failed) }
    }

    // MARK: The end

    /// Writes what is left: all of it is durable on return, but not in its place.
    func finish() throws(StateFault) {
        let recordBytes = flushed + filled - StateFormat.snapshotHeader
        var counts = [Int](repeating: 0, count: 256)
        var slots: [UInt32] = []
        if !places.isEmpty { try arrange(recordBytes, &counts, &slots) }
        let records = places.count
        try add(places)
        places = []
        try add(slots)
        try flush()
        let rest = filled
        try write(rest)
        flushed += rest
        filled = 0
        let sum = try writeSums()
        let header = SnapshotHeader(
            number: identity.number, written: cl_wall_clock(), secret: identity.secret, sequence: identity.sequence,
            records: records, recordBytes: recordBytes, slots: slots.count, counts: counts, sum: sum)
        let bytes = header.encoded()
        let failed = bytes.withUnsafeBytes { disk.write(file, $0, at: 0) }
        guard failed >= 0 else { throw StateFault.of(path, "writing it", failed) }
        try sync()
        disk.close(file)
        file = -1
    }

    private func add(_ numbers: [UInt32]) throws(StateFault) {
        var failure: StateFault?
        numbers.withUnsafeBytes { bytes in
            do throws(StateFault) { try add(bytes) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    private func writeSums() throws(StateFault) -> UInt32 {
        var sum: UInt32 = 0
        var failed: Int32 = 0
        sums.withUnsafeBytes { bytes in
            sum = checksum(bytes)
            failed = bytes.isEmpty ? 0 : disk.write(file, bytes, at: flushed)
        }
        guard failed >= 0 else { throw StateFault.of(path, "writing it", failed) }
        return sum
    }

    /// Puts the places into the order of their keys, and makes the hash table: from the records as they were written.
    private func arrange(_ recordBytes: Int, _ counts: inout [Int], _ slots: inout [UInt32]) throws(StateFault) {
        // Written again with what follows: their block is not whole yet.
        let pending = disk.write(file, UnsafeRawBufferPointer(rebasing: buffer[..<filled]), at: flushed)
        guard pending >= 0 else { throw StateFault.of(path, "writing it", pending) }
        let size = StateFormat.snapshotHeader + recordBytes
        var memory: UnsafeRawPointer?
        let failed = disk.map(file, size: size, &memory)
        guard failed >= 0, let memory else { throw StateFault.of(path, "reading it", failed) }
        defer { disk.unmap(memory, size: size) }
        func record(_ place: UInt32) -> Record { Record(known: memory + Int(place) * 8) }
        if !isSorted {
            // Of equal keys the later place comes later.
            places.sort { left, right in
                let order = record(left).compare(record(right))
                return order != 0 ? order < 0 : left < right
            }
            var kept = 0
            for index in places.indices {
                if kept > 0, record(places[kept - 1]).compare(record(places[index])) == 0 { kept -= 1 }
                places[kept] = places[index]
                kept += 1
            }
            places.removeLast(places.count - kept)
        }
        let count = places.count + places.count / 2 + 8
        slots = [UInt32](repeating: 0, count: count)
        let seed = HashSeed(secret: identity.secret)
        for place in places {
            let record = record(place)
            counts[Int(record.kind)] += 1
            var slot = Int(UInt64(count).multipliedFullWidth(by: record.hash(seed)).high)
            while slots[slot] != 0 {
                slot += 1
                if slot == count { slot = 0 }
            }
            slots[slot] = place
        }
    }
}
