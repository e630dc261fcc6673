import FilterEgressAccounting
import Foundation
import Pipeline
import PipelineFlows
import TestSupport
import Testing

@testable import PipelineInspect
@testable import PipelineLedger

/// A ledger's file is input: who may write to its folder can put anything into it.
@Suite("egress report: a ledger with numbers that no node wrote")
struct HostileLedgerTests {
    private static let noon: Int64 = 1_790_000_000 / 86400 * 86400 + 43200
    private static let tables = ["minutes", "hours", "days", "sums", "pairs"]

    private final class Folder {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("ledger-\(UUID().uuidString)").path
        init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
        deinit { try? FileManager.default.removeItem(atPath: path) }
    }

    /// A ledger of 20 instances, changed by SQL.
    private func ledger(_ folder: String, _ sql: String) throws -> String {
        let path = folder + "/ledger.db"
        let store = try LedgerStore(LedgerSettings(path: path)) { _ in }
        let nanoseconds = UInt64(Self.noon) * 1_000_000_000
        let records = (1...20 as ClosedRange<UInt32>).map { number in
            FlowRecord(
                key: FlowKey(
                    instance: number, source: IPAddress(v4: number), destination: IPAddress(v4: number % 7),
                    port: UInt16(number), proto: 6),
                connections: 1, bytesOut: 10, bytesIn: 20, firstSeen: nanoseconds, lastSeen: nanoseconds, origin: 0,
                sequence: UInt64(number))
        }
        #expect(
            store.write(
                records,
                identity: { number, _ in
                    FlowNames(instance: "i\(number)", env: "e\(number % 5)", app: "a\(number % 3)", org: "o")
                }, now: Self.noon))
        try store.execute(sql)
        return path
    }

    /// Every form of a report, by everything, the widest ranges and the smallest.
    private func readAll(_ path: String) throws {
        let reader = try LedgerReader(path)
        let groups = ReportGroup.allCases.flatMap { first in
            [[first]] + ReportGroup.allCases.filter { $0 != first }.map { [first, $0] }
        }
        let wide: [Int64] = [60, 86400, Self.noon]
        let tops: [(Int, UInt16?)] = [(1, nil), (1_000_000, 5), (3, nil)]
        for by in groups {
            for (order, (before, (top, port))) in zip(ReportQuestion.Order.allCases, zip(wide, tops)) {
                var question = ReportQuestion(
                    by: by, from: Self.noon - before, to: Self.noon + before, now: Self.noon + 300)
                (question.order, question.top, question.port) = (order, top, port)
                let report = try reader.report(question)
                #expect(report.total.bytesOut >= 0 && report.total.bytesIn >= 0)
                #expect(report.rows.allSatisfy { $0.sums.bytesOut >= 0 && $0.sums.bytes >= 0 })
                let text = EgressReportText(report)
                #expect(!text.table.isEmpty && !text.csv.isEmpty)
                #expect(try JSONSerialization.jsonObject(with: Data(text.json.utf8)) is [String: Any])
                #expect(EgressPlot(try reader.series(question)).svg.hasSuffix("</svg>\n"))
            }
        }
    }

    @Test(
        "any number in any column is reported, and none ends the process",
        arguments: ["-9223372036854775808", "-1", "9223372036854775807", "1e300", "-1e300", "'text'", "x'ff'"])
    func numbers(value: String) throws {
        let folder = try Folder()
        let columns = ["connections", "bytes_out", "bytes_in", "first", "last"].map { "\($0) = \(value)" }
        let sql = Self.tables.map { "UPDATE \($0) SET \(columns.joined(separator: ", "));" }
        try readAll(ledger(folder.path, sql.joined(separator: "\n")))
    }

    @Test("some below nothing, some as large as can be: they don't take from each other")
    func mixed() throws {
        let folder = try Folder()
        let sql = Self.tables.map {
            "UPDATE \($0) SET bytes_out = CASE abs(random()) % 3 WHEN 0 THEN 9223372036854775807 "
                + "WHEN 1 THEN -9223372036854775808 ELSE bytes_out END;"
        }
        try readAll(ledger(folder.path, sql.joined(separator: "\n")))
    }

    @Test(
        "times and names of any kind",
        arguments: ["-9223372036854775808", "9223372036854775807", "-1e300", "'text'", "x'ff'"])
    func keys(value: String) throws {
        let folder = try Folder()
        var sql = "INSERT INTO gaps VALUES (\(value), \(value), \(value)), (0, \(value), 5), (1, 5, \(value));"
        sql += "INSERT INTO owners VALUES (1000, x'ff', x'fe', \(value), \(value));"
        for table in ["minutes", "hours", "days"] {
            sql += "INSERT INTO \(table) VALUES (\(value), x'01020304', 1, 5, 1, 1, 1, 1, 1);"
            sql += "INSERT INTO \(table) VALUES (\(Self.noon), \(value), \(value), \(value), 1, 1, 1, 1, 1);"
        }
        for level in 0...2 {
            sql += "INSERT INTO sums VALUES (\(level), 0, \(value), 1, 1, 1, 1, 1, 1);"
            sql += "INSERT INTO pairs VALUES (\(level), \(value), 1, \(value), 1, 1, 1, 1, 1);"
        }
        try readAll(ledger(folder.path, sql))
    }

    @Test("brought up from the format before", arguments: ["-9223372036854775807", "9223372036854775806"])
    func migrated(value: String) throws {
        let folder = try Folder()
        var sql = "DROP TABLE pairs; PRAGMA user_version = 3;"
        for table in ["minutes", "hours", "days"] {
            sql += "INSERT INTO \(table) VALUES (\(value), x'01020304', 1, 5, \(value), \(value), 1, 1, \(value));"
        }
        let path = try ledger(folder.path, sql)
        do { _ = try LedgerStore(LedgerSettings(path: path)) { _ in } }
        try readAll(path)
    }
}
