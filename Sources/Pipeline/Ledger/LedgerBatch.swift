import Foundation
import GRDB
import Pipeline

/// A row's key but for its level.
struct LedgerKey: Hashable {
    let at: Int64
    let owner: Int64
    let destination: IPAddress
    let port: UInt16
    let proto: UInt8
}

/// What is added to a row.
struct LedgerSums {
    var connections: Int64 = 0
    var bytesOut: Int64 = 0
    var bytesIn: Int64 = 0
    /// Seconds since 1970.
    var first = Int64.max
    var last: Int64 = 0

    mutating func add(_ record: FlowRecord) {
        connections = LedgerSums.sum(connections, UInt64(record.connections))
        bytesOut = LedgerSums.sum(bytesOut, record.bytesOut)
        bytesIn = LedgerSums.sum(bytesIn, record.bytesIn)
        first = min(first, Int64(record.firstSeen / 1_000_000_000))
        last = max(last, Int64(record.lastSeen / 1_000_000_000))
    }

    /// The most that one batch adds to a number, so that SQLite's sums stay whole numbers whatever a record says.
    private static let most = Int64(1) << 52
    /// A sum that stays where it is at its end.
    static func capped(_ a: Int64, _ b: Int64) -> Int64 {
        let (sum, overflow) = a.addingReportingOverflow(b)
        return overflow ? .max : sum
    }
    private static func sum(_ value: Int64, _ more: UInt64) -> Int64 {
        min(most, value + Int64(clamping: min(more, UInt64(most))))
    }
}

/// Records, put together by row: a row is written once a batch.
struct LedgerBatch {
    private(set) var rows: [LedgerKey: LedgerSums] = [:]
    /// The highest sequence of each origin.
    private(set) var marks: [UInt16: UInt64] = [:]

    /// By the minute. Records that `marks` says were written before are left out.
    init(
        _ records: some Sequence<FlowRecord>, after marks: [UInt16: UInt64], owner: (FlowRecord) throws -> Int64
    ) rethrows {
        for record in records where record.sequence > marks[record.origin] ?? 0 {
            let second = Int64(record.lastSeen / 1_000_000_000)
            let key = LedgerKey(
                at: LedgerLevel.minutes.start(of: second), owner: try owner(record),
                destination: record.key.destination, port: record.key.port, proto: record.key.proto)
            rows[key, default: LedgerSums()].add(record)
            self.marks[record.origin] = max(self.marks[record.origin] ?? 0, record.sequence)
        }
    }

    func write(_ db: Database, _ level: LedgerLevel) throws {
        let statement = try db.cachedStatement(
            sql: """
                INSERT INTO \(level.table) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT DO UPDATE SET
                    connections = connections + excluded.connections, bytes_out = bytes_out + excluded.bytes_out,
                    bytes_in = bytes_in + excluded.bytes_in, first = min(first, excluded.first),
                    last = max(last, excluded.last)
                """)
        for (key, sums) in rows {
            try statement.execute(arguments: [
                level.start(of: key.at), key.owner, LedgerAddress.data(key.destination), Int64(key.port),
                Int64(key.proto), sums.connections, sums.bytesOut, sums.bytesIn, sums.first, sums.last,
            ])
        }
    }

    func writeMarks(_ db: Database, run: Int64) throws {
        let statement = try db.cachedStatement(sql: "INSERT OR REPLACE INTO marks VALUES (?, ?, ?)")
        for (origin, sequence) in marks {
            try statement.execute(arguments: [run, Int64(origin), Int64(clamping: sequence)])
        }
    }
}

/// Addresses as the database has them: 4 bytes or 16, in network order.
enum LedgerAddress {
    static func data(_ address: IPAddress) -> Data {
        Data(((address.isIPv4 ? 12 : 0)..<16).map { address.byte($0) })
    }

    /// Nil: the bytes are no address.
    static func address(_ bytes: some Collection<UInt8>) -> IPAddress? {
        let word = { (part: [UInt8]) in part.reduce(UInt64(0)) { $0 << 8 | UInt64($1) } }
        switch bytes.count {
        case 4: return IPAddress(v4: UInt32(truncatingIfNeeded: word(Array(bytes))))
        case 16: return IPAddress(high: word(Array(bytes.prefix(8))), low: word(Array(bytes.suffix(8))))
        default: return nil
        }
    }
}
