import CSQLite
import Pipeline

/// A prepared statement for loops of a million rows: bound and stepped without arrays and boxes, which would cost
/// several times as much as SQLite itself.
///
/// Threading: the database's. Not used after that was closed.
final class LedgerStatement {
    private let handle: OpaquePointer
    private unowned let database: LedgerDatabase
    private let sql: String

    /// A private statement; ``LedgerDatabase/statement(_:)`` has the shared ones.
    convenience init(_ database: LedgerDatabase, _ sql: String) throws {
        var rest = sql[...]
        try self.init(database, sql, rest: &rest)
    }

    /// - Parameter rest: what follows the first statement of `sql`.
    init(_ database: LedgerDatabase, _ sql: String, rest: inout Substring) throws {
        var made: OpaquePointer?
        var length = 0
        var copy = sql
        let code = copy.withUTF8 { bytes in
            bytes.withMemoryRebound(to: CChar.self) { text in
                var tail: UnsafePointer<CChar>?
                let code = sqlite3_prepare_v2(database.handle, text.baseAddress, Int32(text.count), &made, &tail)
                if let tail, let start = text.baseAddress { length = tail - start }
                return code
            }
        }
        let own = String(decoding: sql.utf8.prefix(length), as: UTF8.self)
        let text = LedgerStatement.trimmed(code == SQLITE_OK ? own : sql)
        guard code == SQLITE_OK else { throw database.failure(code, sql: text) }
        guard let made else { throw DatabaseError(SQLITE_MISUSE, "there is no statement", sql: text) }
        (handle, self.database, self.sql) = (made, database, text)
        rest = Substring(String(decoding: sql.utf8.dropFirst(length), as: UTF8.self))
    }

    deinit { sqlite3_finalize(handle) }

    private static func trimmed(_ sql: String) -> String {
        let isPart = { (character: Character) in !character.isWhitespace && character != ";" }
        guard let first = sql.firstIndex(where: isPart), let last = sql.lastIndex(where: isPart) else { return "" }
        return String(sql[first...last])
    }

    // MARK: Parameters, from 1

    func bind(_ place: Int32, _ value: Int64) { _ = sqlite3_bind_int64(handle, place, value) }

    /// The first places.
    func bind(_ values: [Int64]) {
        for (place, value) in values.enumerated() { bind(Int32(place + 1), value) }
    }

    /// The first places.
    func bind(_ values: [String]) {
        for (place, value) in values.enumerated() {
            _ = sqlite3_bind_text(
                handle, Int32(place + 1), value, Int32(value.utf8.count), LedgerStatement.copied)
        }
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
        guard code == SQLITE_ROW || code == SQLITE_DONE else { throw database.failure(code, sql: sql) }
        return code == SQLITE_ROW
    }

    func reset() { _ = sqlite3_reset(handle) }

    // MARK: Columns, from 0

    func isNull(_ column: Int32) -> Bool { sqlite3_column_type(handle, column) == SQLITE_NULL }
    func integer(_ column: Int32) -> Int64 { sqlite3_column_int64(handle, column) }

    /// Nil: the column is not an address.
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

    /// The column as text; it need not be UTF-8.
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
