import GRDB
import Pipeline

/// A ledger as reports read it, also while a node writes to it. Threading: one thread at a time.
///
/// By whom and by service is read from sums that the writer keeps, by destination from the rows themselves. Numbers are put
/// together here: SQLite would sort a million rows to group them.
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
            let found =
                switch group {
                case .org, .env, .instance: try LedgerReader.byOwner(db, range, group, top)
                case .destination: try LedgerReader.byDestination(db, range, top)
                case .port: try LedgerReader.byService(db, range, top)
                }
            return Report(
                group: group, from: range.start, to: to >= now ? now : range.end, rows: found.rows,
                others: found.count - found.rows.count, total: found.total)
        }
    }

    /// Of the largest `top` envs, and the rest together.
    package func series(from: Int64, to: Int64, now: Int64, top: Int = 8) throws(LedgerProblem) -> ReportSeries {
        try read { db in
            let level = try LedgerReader.step(db, from, to)
            let owners = try LedgerReader.owners(db)
            let (start, end) = (level.start(of: from), level.ceiling(min(to, now + 1)))
            var byEnv: [EnvName: [Int64: Int64]] = [:]
            try LedgerReader.eachSum(db, .owner, level, start, end) { at, owner, sums in
                let env = (owners[owner] ?? FlowNames()).owner
                let before = byEnv[env]?[at] ?? 0
                byEnv[env, default: [:]][at] = LedgerSums.capped(before, sums.bytes)
            }
            var ordered = byEnv.map { (env: EnvName?.some($0.key), bytes: $0.value) }
            let size = { (bytes: [Int64: Int64]) in bytes.values.reduce(0, LedgerSums.capped) }
            ordered.sort { a, b in
                let (first, second) = (size(a.bytes), size(b.bytes))
                guard first == second, let a = a.env, let b = b.env else { return first > second }
                return a < b
            }
            if ordered.count > top {
                var rest: [Int64: Int64] = [:]
                for env in ordered[top...] { rest.merge(env.bytes, uniquingKeysWith: LedgerSums.capped) }
                ordered = Array(ordered[..<top]) + [(nil, rest)]
            }
            return ReportSeries(step: level.seconds, from: start, to: end, envs: ordered)
        }
    }

    package static let rest = "(others)"

    private func read<Result>(_ body: (Database) throws -> Result) throws(LedgerProblem) -> Result {
        do {
            return try queue.read(body)
        } catch {
            throw LedgerProblem("can't read the ledger \(queue.path): \(error)")
        }
    }
}

// MARK: Which rows

extension LedgerReader {
    private static func oldest(_ db: Database) throws -> [LedgerLevel: Int64] {
        var oldest: [LedgerLevel: Int64] = [:]
        for level in LedgerLevel.allCases {
            oldest[level] = try Int64.fetchOne(db, sql: "SELECT min(at) FROM \(level.table)")
        }
        return oldest
    }

    private struct Gap {
        let level: Int64
        let start: Int64
        let stop: Int64
    }

    private static func range(_ db: Database, _ from: Int64, _ to: Int64, _ now: Int64) throws -> LedgerRange {
        let oldest = try oldest(db)
        let gaps = try Row.fetchAll(db, sql: "SELECT level, start, stop FROM gaps").map {
            Gap(level: $0[0], start: $0[1], stop: $0[2])
        }
        return LedgerRange(
            from: from, to: to, now: now,
            oldest: { level in
                // Where even days begin later, there is nothing before it to lose.
                guard let first = oldest[level] else { return nil }
                guard level < .days, let day = oldest[.days], first - level.seconds < day + LedgerLevel.days.seconds
                else { return first }
                return .min
            },
            isWhole: { level, start, end in
                !gaps.contains { $0.level == level.rawValue && $0.start < end && $0.stop > start }
            })
    }

    /// The steps of a picture.
    private static func step(_ db: Database, _ from: Int64, _ to: Int64) throws -> LedgerLevel {
        let length = to - from
        let oldest = try oldest(db)
        var level: LedgerLevel = length <= 6 * 3600 ? .minutes : length <= 14 * 86400 ? .hours : .days
        while level < .days, (oldest[level] ?? .max) > level.start(of: from),
            oldest[.days] ?? .max < level.start(of: from), let coarser = LedgerLevel(rawValue: level.rawValue + 1)
        {
            level = coarser
        }
        return level
    }

    private static func owners(_ db: Database) throws -> [Int64: FlowNames] {
        var owners: [Int64: FlowNames] = [:]
        for row in try Row.fetchAll(db, sql: "SELECT id, instance, env, app, org FROM owners") {
            owners[row[0]] = FlowNames(instance: row[1], env: row[2], app: row[3], org: row[4])
        }
        return owners
    }
}

// MARK: What they come to

extension LedgerReader {
    private struct Found {
        let rows: [ReportRow]
        /// Of all groups, also those that are not in `rows`.
        let count: Int
        let total: ReportSums
    }

    /// Takes each group once.
    private struct Finder<Key> {
        private var largest: LargestOf<(key: Key, sums: ReportSums)>
        private var total = ReportSums()
        private var count = 0

        /// - Parameter precedes: among groups of the same volume.
        init(_ top: Int, precedes: @escaping (Key, Key) -> Bool) {
            largest = LargestOf(top) { a, b in
                a.sums.bytes != b.sums.bytes ? a.sums.bytes > b.sums.bytes : precedes(a.key, b.key)
            }
        }

        mutating func add(_ key: Key, _ sums: ReportSums) {
            total.add(sums)
            count += 1
            largest.add((key, sums))
        }

        func found(_ row: (Key, ReportSums) -> ReportRow) -> Found {
            Found(rows: largest.sorted.map { row($0.key, $0.sums) }, count: count, total: total)
        }
    }

    private static func eachSum(
        _ db: Database, _ rollup: LedgerRollup, _ level: LedgerLevel, _ start: Int64, _ end: Int64,
        _ body: (_ at: Int64, _ key: Int64, ReportSums) -> Void
    ) throws {
        let statement = try LedgerStatement(
            db,
            """
            SELECT at, key, connections, bytes_out, bytes_in, first, last FROM sums
            WHERE level = ? AND what = ? AND at >= ? AND at < ?
            """)
        for (place, value) in [Int64(level.rawValue), rollup.rawValue, start, end].enumerated() {
            statement.bind(Int32(place + 1), value)
        }
        try statement.each { row in
            let at = row.integer(0)
            body(at, row.integer(1), row.sums(2, at: at))
        }
    }

    private static func sums(_ db: Database, _ rollup: LedgerRollup, _ range: LedgerRange) throws
        -> [Int64: ReportSums]
    {
        var found: [Int64: ReportSums] = [:]
        for part in range.parts {
            try eachSum(db, rollup, part.level, part.start, part.end) { _, key, sums in
                found[key, default: ReportSums()].add(sums)
            }
        }
        return found
    }

    private static func byOwner(_ db: Database, _ range: LedgerRange, _ group: ReportGroup, _ top: Int) throws -> Found
    {
        let owners = try owners(db)
        var found: [FlowNames: ReportSums] = [:]
        for (owner, sums) in try sums(db, .owner, range) {
            var key = owners[owner] ?? FlowNames()
            if group != .instance { key.instance = "" }
            if group == .org { (key.env, key.app) = ("", "") }
            found[key, default: ReportSums()].add(sums)
        }
        let order = { (names: FlowNames) in (names.instance, names.env, names.org, names.app) }
        var finder = Finder<FlowNames>(top) { order($0) < order($1) }
        for (key, sums) in found { finder.add(key, sums) }
        return finder.found { key, sums in
            let name = group == .instance ? key.instance : group == .env ? key.env : key.org
            return ReportRow(name: name, org: key.org, app: key.app, env: key.env, sums: sums)
        }
    }

    private static func byService(_ db: Database, _ range: LedgerRange, _ top: Int) throws -> Found {
        var finder = Finder<Int64>(top, precedes: <)
        for (service, sums) in try sums(db, .service, range) { finder.add(service, sums) }
        return finder.found { ReportRow(name: service($0), sums: $1) }
    }

    private static func byDestination(_ db: Database, _ range: LedgerRange, _ top: Int) throws -> Found {
        var finder = Finder<IPAddress>(top, precedes: <)
        var merge = try DestinationMerge(db, range)
        try merge.run { finder.add($0, $1) }
        return finder.found { ReportRow(name: $0 == .unspecified ? rest : "\($0)", sums: $1) }
    }

    /// `443/tcp`, from port × 256 + protocol.
    private static func service(_ value: Int64) -> String {
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

/// The first `limit` of what is added, in an order, without keeping all of it.
struct LargestOf<Element> {
    private let limit: Int
    private let precedes: (Element, Element) -> Bool
    private var kept: [Element] = []
    /// The last of those that were the first when there was a look last; nil: there was none.
    private var bar: Element?

    init(_ limit: Int, by precedes: @escaping (Element, Element) -> Bool) {
        self.limit = max(0, limit)
        self.precedes = precedes
    }

    mutating func add(_ element: Element) {
        if let bar, !precedes(element, bar) { return }
        kept.append(element)
        if kept.count >= max(1024, 4 * limit) { shorten() }
    }

    private mutating func shorten() {
        kept.sort(by: precedes)
        guard kept.count > limit else { return }
        kept.removeLast(kept.count - limit)
        bar = kept.last
    }

    var sorted: [Element] {
        var copy = self
        copy.shorten()
        return copy.kept
    }
}
