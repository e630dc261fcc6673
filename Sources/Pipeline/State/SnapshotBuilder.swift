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

    let file: BlockWriter
    var path: String { file.path }
    private let identity: Identity
    var number: UInt64 { identity.number }
    private let isCancelled: () -> Bool
    /// Offsets / 8.
    private var places: [UInt32] = []
    private var lastKind: UInt8 = 0
    private var lastID: [UInt8] = []
    private var isSorted = true

    init(
        directory: String, _ identity: Identity, _ disk: any Disk, isCancelled: @escaping () -> Bool = { false }
    ) throws(StateFault) {
        file = try BlockWriter("\(directory)/snapshot.\(identity.number).new", disk)
        (self.identity, self.isCancelled) = (identity, isCancelled)
    }

    /// Closes the file and takes it away.
    func abandon() { file.abandon() }

    // MARK: Records

    func put(_ kind: UInt8, _ id: some Collection<UInt8>, _ value: UnsafeRawBufferPointer) throws(StateFault) {
        let idCount = id.count
        if let unfit = StateFault.unfit(kind: kind, id: idCount, value: value.count) { throw unfit }
        try begin()
        noteOrder(kind, id)
        let piece = try file.piece(Record.header + StateFormat.padded(idCount))
        Record.writeHeader(kind: kind, id: idCount, value: value.count, flags: 0, to: piece, at: 0)
        piece.put(UInt64(0), at: piece.count - 8)
        UnsafeMutableRawBufferPointer(rebasing: piece[Record.header...]).copyBytes(from: id)
        try add(value)
    }

    /// A record as another snapshot or a log has it.
    func put(_ record: Record) throws(StateFault) {
        try begin()
        if isSorted { noteOrder(record.kind, record.id) }
        try add(UnsafeRawBufferPointer(start: record.base, count: record.byteCount))
    }

    private func begin() throws(StateFault) {
        let place = file.end / 8
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

    /// Filled up with zeros to 8.
    private func add(_ bytes: UnsafeRawBufferPointer) throws(StateFault) {
        try file.add(bytes)
        file.pad()
    }

    // MARK: The end

    /// Writes what is left: all of it is durable on return, but not in its place.
    func finish() throws(StateFault) {
        let recordBytes = file.end - StateFormat.snapshotHeader
        var counts = [Int](repeating: 0, count: 256)
        var slots: [UInt32] = []
        if !places.isEmpty { try arrange(&counts, &slots) }
        let records = places.count
        try add(places)
        places = []
        try add(slots)
        try file.finish { sums in
            SnapshotHeader(
                number: identity.number, written: cl_wall_clock(), secret: identity.secret,
                sequence: identity.sequence, records: records, recordBytes: recordBytes, slots: slots.count,
                counts: counts, sum: sums.withUnsafeBytes { checksum($0) }
            ).encoded()
        }
    }

    private func add(_ numbers: [UInt32]) throws(StateFault) {
        var failure: StateFault?
        numbers.withUnsafeBytes { bytes in
            do throws(StateFault) { try add(bytes) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    /// Puts the places into the order of their keys, and makes the hash table: from the records as they were written.
    private func arrange(_ counts: inout [Int], _ slots: inout [UInt32]) throws(StateFault) {
        try file.read { memory in
            func record(_ place: UInt32) -> Record { Record(known: memory + Int(place) * 8) }
            if !isSorted { sort(record) }
            fill(&counts, &slots, record)
        }
    }

    private func sort(_ record: (UInt32) -> Record) {
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

    private func fill(_ counts: inout [Int], _ slots: inout [UInt32], _ record: (UInt32) -> Record) {
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
