import Pipeline

/// A merge of several buckets' rows by destination, in which each bucket is sorted: sums over a million destinations
/// without storing them.
struct DestinationMerge {
    /// An address as the database orders it: by bytes, the shorter first.
    private struct Key: Comparable {
        let high: UInt64
        let low: UInt64
        let length: Int32

        init(_ address: IPAddress) {
            if address.isIPv4 {
                (high, low, length) = (UInt64(address.v4Bits) << 32, 0, 4)
            } else {
                (high, low, length) = (address.high, address.low, 16)
            }
        }
        static func < (a: Key, b: Key) -> Bool {
            if a.high != b.high { return a.high < b.high }
            return a.low != b.low ? a.low < b.low : a.length < b.length
        }
    }

    /// The rows of one bucket, at the next one.
    private struct Cursor: Comparable {
        let rows: LedgerStatement
        let at: Int64
        var address = IPAddress.unspecified
        var key = Key(.unspecified)

        static func < (a: Cursor, b: Cursor) -> Bool { a.key < b.key }
        static func == (a: Cursor, b: Cursor) -> Bool { a.key == b.key }

        /// Advances to the next row with an address; false: there is none.
        mutating func next() throws -> Bool {
            while try rows.step() {
                guard let found = rows.address(0) else { continue }
                (address, key) = (found, Key(found))
                return true
            }
            return false
        }
    }

    private var cursors = Heap<Cursor>()

    /// - Parameter destination: only this one; nil: all.
    init(_ db: LedgerDatabase, _ range: LedgerRange, only destination: IPAddress? = nil) throws {
        for part in range.parts {
            let sql = """
                SELECT destination, connections, bytes_out, bytes_in, first, last, owner, service FROM \(part.level.table)
                WHERE at = ? \(destination == nil ? "" : "AND destination = ?") ORDER BY destination
                """
            for at in try part.buckets(db) {
                let rows = try LedgerStatement(db, sql)
                rows.bind(1, at)
                if let destination { rows.bind(2, destination) }
                var cursor = Cursor(rows: rows, at: at)
                if try cursor.next() { cursors.push(cursor) }
            }
        }
    }

    /// Each row of a destination, then its end; each destination once.
    mutating func run(
        row: (_ owner: Int64, _ service: Int64, ReportSums) -> Void, end: (IPAddress) -> Void
    ) throws {
        defer { while let cursor = cursors.pop() { cursor.rows.reset() } }
        while let first = cursors.first {
            while let next = cursors.first, next.key == first.key {
                row(next.rows.integer(6), next.rows.integer(7), next.rows.sums(1, at: next.at))
                try cursors.advanceFirst { cursor in
                    let isMore = try cursor.next()
                    if !isMore { cursor.rows.reset() }
                    return isMore
                }
            }
            end(first.address)
        }
    }
}
