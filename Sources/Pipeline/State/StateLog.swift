import CLinux
import Glibc
import Pipeline

/// How a log begins, 64 bytes.
///
///     magic u64 | version u32 | kind u32 | number u64 | written u64 | store u64 | alone u64 | first u64 | 0 u32 | checksum u32
struct LogHeader {
    var number: UInt64
    /// Nanoseconds since 1970: no two logs have the same checksum, and what an entry's checksum goes on from is the header's.
    var written: UInt64
    /// Of the store's secret.
    var store: UInt64
    /// The number of the one snapshot that it goes on from; 0: from whatever was before, by the sequence.
    var alone: UInt64
    /// The sequence of its first entry. What earlier logs have from there on is void.
    var first: UInt64

    func encoded() -> [UInt8] {
        StateFormat.header(.log, bytes: StateFormat.logHeader) { to in
            to.put(number, at: 16)
            to.put(written, at: 24)
            to.put(store, at: 32)
            to.put(alone, at: 40)
            to.put(first, at: 48)
        }
    }

    init(number: UInt64, written: UInt64, store: UInt64, alone: UInt64, first: UInt64) {
        self.number = number
        self.written = written
        self.store = store
        self.alone = alone
        self.first = first
    }

    init(_ bytes: UnsafeRawBufferPointer) throws(FileFlaw) {
        guard bytes.count >= StateFormat.logHeader, let base = bytes.baseAddress else {
            throw .damaged("it ends within its header")
        }
        try StateFormat.check(UnsafeRawBufferPointer(rebasing: bytes[..<StateFormat.logHeader]), .log)
        number = base.number(16, as: UInt64.self)
        written = base.number(24, as: UInt64.self)
        store = base.number(32, as: UInt64.self)
        alone = base.number(40, as: UInt64.self)
        first = base.number(48, as: UInt64.self)
        guard first > 0, first < UInt64(1) << 62 else { throw .damaged("its first sequence makes no sense") }
    }

    /// A header of which one byte is wrong: its checksum says which. Nil: it is none, or more is wrong.
    static func mended(_ bytes: UnsafeRawBufferPointer, number: UInt64, store: UInt64) -> LogHeader? {
        guard bytes.count >= StateFormat.logHeader else { return nil }
        var header = Array(bytes[..<StateFormat.logHeader])
        for place in header.indices {
            let was = header[place]
            for value in UInt8.min...UInt8.max {
                header[place] = value
                let found = header.withUnsafeBytes { bytes -> LogHeader? in
                    guard StateFormat.isWhole(bytes) else { return nil }
                    return try? LogHeader(bytes)
                }
                if let found, found.number == number, found.store == store, found.encoded() == header { return found }
            }
            header[place] = was
        }
        return nil
    }

    /// What ties logs to a store.
    static func store(secret: [UInt8]) -> UInt64 {
        secret.withUnsafeBufferPointer { SipHash.hash($0, domain: 0, seed: HashSeed(secret: secret)) }
    }
}

/// An entry of a log: changes that are made together.
///
///     body's bytes u32 | header's checksum u32 | sequence u64 | synced u64 | body's checksum u32 | records u32 | body
///
/// The header's checksum goes on from the log's, so that no entry of another file, and no value that looks like one, is
/// taken for this log's.
struct LogEntry {
    let sequence: UInt64
    /// The last sequence that was known to be durable when this was written.
    let synced: UInt64
    let body: UnsafeRawBufferPointer
    private let bodySum: UInt32
    private let records: UInt32

    var byteCount: Int { StateFormat.entryHeader + body.count }

    /// By its header alone; the body lies within `bytes`.
    init?(header bytes: UnsafeRawBufferPointer, salt: UInt32) {
        guard bytes.count >= StateFormat.entryHeader, let base = bytes.baseAddress else { return nil }
        let count = Int(base.number(0, as: UInt32.self))
        guard count > 0, count % 8 == 0, count <= bytes.count - StateFormat.entryHeader else { return nil }
        guard base.number(4, as: UInt32.self) == LogEntry.headerSum(base, salt) else { return nil }
        sequence = base.number(8, as: UInt64.self)
        synced = base.number(16, as: UInt64.self)
        bodySum = base.number(24, as: UInt32.self)
        records = base.number(28, as: UInt32.self)
        body = UnsafeRawBufferPointer(start: base + StateFormat.entryHeader, count: count)
    }

    /// Whether the body is what was written: its checksum, and as many records as there were.
    var isWhole: Bool {
        guard checksum(body) == bodySum else { return false }
        var count: UInt32 = 0
        let end = visit { _ in count &+= 1 }
        return end == body.count && count == records
    }

    /// - Returns: where records end.
    @discardableResult func visit(_ body: (Record) -> Void) -> Int {
        guard let base = self.body.baseAddress else { return 0 }
        var offset = 0
        while let record = Record(at: base + offset, limit: self.body.count - offset) {
            body(record)
            offset += record.byteCount
        }
        return offset
    }

    private static func headerSum(_ base: UnsafeRawPointer, _ salt: UInt32) -> UInt32 {
        let length = checksum(UnsafeRawBufferPointer(start: base, count: 4), after: salt)
        return checksum(UnsafeRawBufferPointer(start: base + 8, count: StateFormat.entryHeader - 8), after: length)
    }

    /// Fills in the header of the entry at `offset`, which lies there whole. `records`: nil, it is there.
    static func seal(
        _ bytes: inout [UInt8], at offset: Int = 0, count: Int, records: UInt32? = nil, sequence: UInt64,
        synced: UInt64, salt: UInt32
    ) {
        bytes.withUnsafeMutableBytes { all in
            let entry = UnsafeMutableRawBufferPointer(rebasing: all[offset..<(offset + count)])
            guard let base = entry.baseAddress else { return }
            entry.put(UInt32(count - StateFormat.entryHeader), at: 0)
            entry.put(sequence, at: 8)
            entry.put(synced, at: 16)
            if let records {
                let body = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(entry)[StateFormat.entryHeader...])
                entry.put(checksum(body), at: 24)
                entry.put(records, at: 28)
            }
            entry.put(headerSum(UnsafeRawPointer(base), salt), at: 4)
        }
    }

    /// Seals the entries that stand one behind the other anew, for another log.
    static func reseal(_ bytes: inout [UInt8], first: UInt64, synced: UInt64, salt: UInt32) {
        var offset = 0
        var sequence = first
        while offset + StateFormat.entryHeader <= bytes.count {
            let body = bytes.withUnsafeBytes {
                UnsafeRawBufferPointer(rebasing: $0[offset...]).loadUnaligned(as: UInt32.self)
            }
            let count = StateFormat.entryHeader + Int(UInt32(littleEndian: body))
            guard offset + count <= bytes.count else { return }
            seal(&bytes, at: offset, count: count, sequence: sequence, synced: synced, salt: salt)
            offset += count
            sequence += 1
        }
    }
}

/// How the entries of a log end.
enum LogEnd: Equatable {
    /// With the file, or with zeros that were reserved.
    case clean
    /// In what was being written when the machine or the process ended.
    case torn
    /// In an entry that had been durable: a later one says so.
    case damaged
    /// In entries that are whole, and wanted no more.
    case setAside
}

/// Reads entries until something is wrong.
struct LogReader {
    let bytes: UnsafeRawBufferPointer
    let salt: UInt32
    private(set) var offset = StateFormat.logHeader

    /// - Parameter bytes: the file, whose header was looked at.
    init(_ bytes: UnsafeRawBufferPointer) {
        self.init(bytes, salt: bytes.baseAddress.map { $0.number(StateFormat.logHeader - 4, as: UInt32.self) } ?? 0)
    }

    init(_ bytes: UnsafeRawBufferPointer, salt: UInt32) {
        self.bytes = bytes
        self.salt = salt
    }

    private func rest(_ offset: Int) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: bytes[offset...]) }

    /// The next entry, if it is whole and has this sequence.
    mutating func next(_ sequence: UInt64) -> LogEntry? {
        guard let entry = LogEntry(header: rest(offset), salt: salt), entry.sequence == sequence, entry.isWhole else {
            return nil
        }
        offset += entry.byteCount
        return entry
    }

    /// What is there in place of the entry with this sequence. An entry that was durable is missed by one that came after
    /// its sync; of others, which a crash may lose in any order, nobody was told that they were durable.
    func end(_ sequence: UInt64) -> LogEnd {
        let tail = rest(offset)
        if tail.allSatisfy({ $0 == 0 }) { return .clean }
        var place = 0
        while place + StateFormat.entryHeader <= tail.count {
            let later = LogEntry(header: UnsafeRawBufferPointer(rebasing: tail[place...]), salt: salt)
            if let later, later.sequence >= sequence, later.synced >= sequence { return .damaged }
            place += 8
        }
        return .torn
    }
}
