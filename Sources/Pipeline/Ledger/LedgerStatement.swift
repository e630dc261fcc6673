import GRDB
import GRDBSQLite
import Pipeline

/// A statement for loops of a million rows: bound and stepped without a detour by arrays and boxes, which cost several
/// times what SQLite does.
///
/// Threading: the database's. Not used after the access to the database that made it.
struct LedgerStatement {
    private let statement: Statement
    private var handle: SQLiteStatement { statement.sqliteStatement }

    /// - Parameter isShared: one statement for all who have the same text, one after the other; false: one of its own.
    init(_ db: Database, _ sql: String, isShared: Bool = true) throws {
        statement = try isShared ? db.cachedStatement(sql: sql) : db.makeStatement(sql: sql)
        reset()
    }

    // MARK: Parameters, from 1

    func bind(_ place: Int32, _ value: Int64) { _ = sqlite3_bind_int64(handle, place, value) }

    /// The first places.
    func bind(_ values: [Int64]) {
        for (place, value) in values.enumerated() { bind(Int32(place + 1), value) }
    }

    /// As the database has addresses: 4 bytes or 16, in network order.
    func bind(_ place: Int32, _ address: IPAddress) {
        if address.isIPv4 {
            var bits = address.v4Bits.bigEndian
            _ = sqlite3_bind_blob(handle, place, &bits, 4, LedgerStatement.copied)
        } else {
            var halves = (address.high.bigEndian, address.low.bigEndian)
            _ = sqlite3_bind_blob(handle, place, &halves, 16, LedgerStatement.copied)
        }
    }

    /// `SQLITE_TRANSIENT`: SQLite makes a copy of its own.
    private static let copied = unsafeBitCast(-1, to: sqlite3_destructor_type.self)

    // MARK: Running

    /// Runs it to its end, and makes it ready for the next.
    func run() throws {
        defer { reset() }
        while try step() {}
    }

    func each(_ body: (LedgerStatement) throws -> Void) throws {
        defer { reset() }
        while try step() { try body(self) }
    }

    /// False: there are no more rows.
    func step() throws -> Bool {
        let code = sqlite3_step(handle)
        guard code == SQLITE_ROW || code == SQLITE_DONE else {
            let message = sqlite3_db_handle(handle).flatMap { sqlite3_errmsg($0) }.map { String(cString: $0) }
            throw DatabaseError(resultCode: ResultCode(rawValue: code), message: message, sql: statement.sql)
        }
        return code == SQLITE_ROW
    }

    func reset() { _ = sqlite3_reset(handle) }

    // MARK: Columns, from 0

    func integer(_ column: Int32) -> Int64 { sqlite3_column_int64(handle, column) }

    /// Nil: what is there is no address.
    func address(_ column: Int32) -> IPAddress? {
        let bytes = UnsafeRawBufferPointer(
            start: sqlite3_column_blob(handle, column), count: Int(sqlite3_column_bytes(handle, column)))
        switch bytes.count {
        case 4: return IPAddress(v4: UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self)))
        case 16:
            return IPAddress(
                high: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
                low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
        default: return nil
        }
    }

    /// What is there as text; it need not be UTF-8.
    func text(_ column: Int32) -> String {
        guard let bytes = sqlite3_column_text(handle, column) else { return "" }
        let count = Int(sqlite3_column_bytes(handle, column))
        return String(decoding: UnsafeBufferPointer(start: bytes, count: count), as: UTF8.self)
    }

    /// Five columns from this one on: connections, bytes out, bytes in, first and last as seconds after `at`. The file may
    /// say anything: there is nothing less than none.
    func sums(_ column: Int32, at: Int64) -> ReportSums {
        func number(_ place: Int32) -> Int64 { max(0, integer(column + place)) }
        return ReportSums(
            connections: number(0), bytesOut: number(1), bytesIn: number(2),
            first: LedgerSums.capped(max(0, at), number(3)), last: LedgerSums.capped(max(0, at), number(4)))
    }
}
