import Foundation
import GRDB
import Pipeline

/// What to put together in a report.
package enum ReportGroup: String, CaseIterable, Sendable {
    case org, env, instance, destination, port
}

/// How much moved.
package struct ReportSums: Equatable, Sendable {
    package var connections: Int64 = 0
    /// From instances.
    package var bytesOut: Int64 = 0
    /// To instances.
    package var bytesIn: Int64 = 0
    /// Seconds since 1970.
    package var first = Int64.max
    package var last: Int64 = 0

    package var bytes: Int64 { LedgerSums.capped(bytesOut, bytesIn) }

    package init(
        connections: Int64 = 0, bytesOut: Int64 = 0, bytesIn: Int64 = 0, first: Int64 = .max, last: Int64 = 0
    ) {
        self.connections = connections
        self.bytesOut = bytesOut
        self.bytesIn = bytesIn
        self.first = first
        self.last = last
    }

    mutating func add(_ other: ReportSums) {
        connections = LedgerSums.capped(connections, other.connections)
        bytesOut = LedgerSums.capped(bytesOut, other.bytesOut)
        bytesIn = LedgerSums.capped(bytesIn, other.bytesIn)
        first = min(first, other.first)
        last = max(last, other.last)
    }
}

/// One group of a report.
package struct ReportRow: Equatable, Sendable {
    /// What it is grouped by: an id, an address, `443/tcp`.
    package let name: String
    /// Whose it is, as far as the group says.
    package var org = ""
    package var app = ""
    package var env = ""
    package var sums = ReportSums()

    package init(name: String, org: String = "", app: String = "", env: String = "", sums: ReportSums = ReportSums()) {
        self.name = name
        self.org = org
        self.app = app
        self.env = env
        self.sums = sums
    }
}

/// What a range holds.
package struct Report: Equatable, Sendable {
    package let group: ReportGroup
    /// What the rows cover; it may begin before and end after what was asked for, where detail is gone.
    package let from: Int64
    package let to: Int64
    /// The largest first.
    package let rows: [ReportRow]
    /// Groups that are not in `rows`.
    package let others: Int
    package let total: ReportSums

    package init(group: ReportGroup, from: Int64, to: Int64, rows: [ReportRow], others: Int, total: ReportSums) {
        self.group = group
        self.from = from
        self.to = to
        self.rows = rows
        self.others = others
        self.total = total
    }
}

/// Volume over time of each env.
package struct ReportSeries: Equatable, Sendable {
    /// Seconds of a step.
    package let step: Int64
    package let from: Int64
    package let to: Int64
    /// The largest first; bytes, both ways, by the beginning of the step.
    package let envs: [(env: String, bytes: [Int64: Int64])]

    package init(step: Int64, from: Int64, to: Int64, envs: [(env: String, bytes: [Int64: Int64])]) {
        self.step = step
        self.from = from
        self.to = to
        self.envs = envs
    }

    package static func == (a: ReportSeries, b: ReportSeries) -> Bool {
        a.step == b.step && a.from == b.from && a.to == b.to && a.envs.map(\.env) == b.envs.map(\.env)
            && a.envs.map(\.bytes) == b.envs.map(\.bytes)
    }
}

/// A ledger as reports read it, also while a node writes to it. Threading: one thread at a time.
package final class LedgerReader {
    private let queue: DatabaseQueue

    package init(_ path: String) throws(LedgerProblem) {
        do {
            queue = try LedgerFile.open(path, isReadOnly: true)
        } catch let problem as LedgerProblem {
            throw problem
        } catch {
            throw LedgerProblem("can't read the ledger \(path): \(error)")
        }
    }

    /// - Parameters:
    ///   - from: seconds since 1970; `to` is the first second that no longer counts.
    ///   - top: rows at most.
    package func report(by group: ReportGroup, from: Int64, to: Int64, now: Int64, top: Int) throws(LedgerProblem)
        -> Report
    {
        try read { db in
            let range = try LedgerReader.range(db, from, to, now)
            var rows: [ReportRow]
            switch group {
            case .org, .env, .instance: rows = try LedgerReader.byOwner(db, range, group)
            case .destination: rows = try LedgerReader.byColumns(db, range, "destination", LedgerReader.destination)
            case .port: rows = try LedgerReader.byColumns(db, range, "port << 8 | proto", LedgerReader.port)
            }
            let total = rows.reduce(into: ReportSums()) { $0.add($1.sums) }
            let count = rows.count
            rows.sort { ($0.sums.bytes, $1.name) > ($1.sums.bytes, $0.name) }
            return Report(
                group: group, from: range.start, to: to >= now ? now : range.end, rows: Array(rows.prefix(max(0, top))),
                others: max(0, count - top), total: total)
        }
    }

    /// Of the largest `top` envs, the rest together as ``LedgerReader/rest``.
    package func series(from: Int64, to: Int64, now: Int64, top: Int = 8) throws(LedgerProblem) -> ReportSeries {
        try read { db in
            let length = to - from
            let oldest = try LedgerReader.oldest(db)
            var level: LedgerLevel = length <= 6 * 3600 ? .minutes : length <= 14 * 86400 ? .hours : .days
            while level < .days, (oldest[level] ?? .max) > level.start(of: from),
                oldest[.days] ?? .max < level.start(of: from),
                let coarser = LedgerLevel(rawValue: level.rawValue + 1)
            {
                level = coarser
            }
            let owners = try LedgerReader.owners(db)
            let (start, end) = (level.start(of: from), level.ceiling(min(to, now + 1)))
            var byEnv: [String: [Int64: Int64]] = [:]
            let rows = try Row.fetchCursor(
                db,
                sql: """
                    SELECT at, owner, sum(bytes_out), sum(bytes_in) FROM \(level.table) WHERE at >= ? AND at < ?
                    GROUP BY at, owner
                    """, arguments: [start, end])
            while let row = try rows.next() {
                let env = owners[row[1] as Int64]?.env ?? ""
                byEnv[env, default: [:]][row[0] as Int64, default: 0] += LedgerSums.capped(row[2], row[3])
            }
            var ordered = byEnv.map { (env: $0.key, bytes: $0.value) }
            let size = { (bytes: [Int64: Int64]) in bytes.values.reduce(0, LedgerSums.capped) }
            ordered.sort { (size($0.bytes), $1.env) > (size($1.bytes), $0.env) }
            if ordered.count > top {
                var rest: [Int64: Int64] = [:]
                for env in ordered[top...] { rest.merge(env.bytes, uniquingKeysWith: LedgerSums.capped) }
                ordered = Array(ordered[..<top]) + [(LedgerReader.rest, rest)]
            }
            return ReportSeries(step: level.seconds, from: start, to: end, envs: ordered)
        }
    }

    package static let rest = "(others)"

    // MARK: Queries

    private func read<Result>(_ body: (Database) throws -> Result) throws(LedgerProblem) -> Result {
        do {
            return try queue.read(body)
        } catch {
            throw LedgerProblem("can't read the ledger \(queue.path): \(error)")
        }
    }

    private static func oldest(_ db: Database) throws -> [LedgerLevel: Int64] {
        var oldest: [LedgerLevel: Int64] = [:]
        for level in LedgerLevel.allCases {
            oldest[level] = try Int64.fetchOne(db, sql: "SELECT min(at) FROM \(level.table)")
        }
        return oldest
    }

    private static func range(_ db: Database, _ from: Int64, _ to: Int64, _ now: Int64) throws -> LedgerRange {
        let oldest = try oldest(db)
        return LedgerRange(from: from, to: to, now: now) { level in
            // Where even days begin later, there is nothing before it to lose.
            guard let first = oldest[level] else { return nil }
            guard level < .days, let day = oldest[.days], first - level.seconds < day + LedgerLevel.days.seconds else {
                return first
            }
            return .min
        }
    }

    private static func owners(_ db: Database) throws -> [Int64: FlowNames] {
        var owners: [Int64: FlowNames] = [:]
        for row in try Row.fetchAll(db, sql: "SELECT id, instance, env, app, org FROM owners") {
            owners[row[0]] = FlowNames(instance: row[1], env: row[2], app: row[3], org: row[4])
        }
        return owners
    }

    private static let sums = "sum(connections), sum(bytes_out), sum(bytes_in), min(first), max(last)"

    private static func sums(_ row: Row) -> ReportSums {
        ReportSums(connections: row[1], bytesOut: row[2], bytesIn: row[3], first: row[4], last: row[5])
    }

    /// In the order of the key, bucket by bucket: nothing is sorted.
    private static func byOwner(_ db: Database, _ range: LedgerRange, _ group: ReportGroup) throws -> [ReportRow] {
        let owners = try owners(db)
        var found: [FlowNames: ReportRow] = [:]
        for part in range.parts {
            let rows = try Row.fetchCursor(
                db, sql: "SELECT owner, \(sums) FROM \(part.level.table) WHERE at >= ? AND at < ? GROUP BY at, owner",
                arguments: [part.start, part.end])
            while let row = try rows.next() {
                let owner = owners[row[0] as Int64] ?? FlowNames(instance: "")
                var key = owner
                if group != .instance { (key.instance, key.app) = ("", "") }
                if group == .org { key.env = "" }
                let name = group == .instance ? owner.instance : group == .env ? owner.env : owner.org
                found[key, default: ReportRow(name: name, org: key.org, app: key.app, env: key.env)].sums.add(sums(row))
            }
        }
        return Array(found.values)
    }

    private static func byColumns(
        _ db: Database, _ range: LedgerRange, _ column: String, _ name: (DatabaseValue) -> String
    ) throws -> [ReportRow] {
        var found: [DatabaseValue: ReportSums] = [:]
        for part in range.parts {
            let rows = try Row.fetchCursor(
                db, sql: "SELECT \(column), \(sums) FROM \(part.level.table) WHERE at >= ? AND at < ? GROUP BY 1",
                arguments: [part.start, part.end])
            while let row = try rows.next() { found[row[0], default: ReportSums()].add(sums(row)) }
        }
        return found.map { ReportRow(name: name($0.key), sums: $0.value) }
    }

    private static func destination(_ value: DatabaseValue) -> String {
        guard let data = Data.fromDatabaseValue(value), let address = LedgerAddress.address(data) else { return "?" }
        return address == .unspecified ? rest : "\(address)"
    }

    private static func port(_ value: DatabaseValue) -> String {
        guard let value = Int64.fromDatabaseValue(value) else { return "?" }
        let (port, proto) = (value >> 8, value & 255)
        switch proto {
        case 6: return port == 0 ? rest : "\(port)/tcp"
        case 17: return "\(port)/udp"
        case 1: return "icmp type \(port >> 8)"
        case 58: return "icmpv6 type \(port >> 8)"
        default: return "\(port)/protocol \(proto)"
        }
    }
}
