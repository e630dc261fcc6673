import FilterEgressAccounting
import Foundation
import Pipeline
import PipelineFlows
import Testing

@testable import PipelineLedger

/// Reports against a sum over the records themselves.
@Suite("Ledger: filters, two dimensions, and the sum of owner and service")
struct LedgerQuestionTests {
    /// Some growth, and how much: who scans has more services than a bucket has rows for.
    private struct Made {
        let records: [FlowRecord]
        static let end = noon + 2 * 86400

        init(seed: UInt64) {
            records = (0..<3000 as Range<UInt64>).map { number in
                let random = Hashing.mix(seed << 32 | number)
                let owner = UInt32(random % 6)
                var next = record(
                    number + 1, source: owner, destination: UInt32(random >> 8 & 15), bytes: random >> 40 & 0xFFF,
                    at: noon + Int64(random >> 16 & 0x1FFFF))
                let isScan = owner == 0
                let usual: [UInt64] = [25, 53, 443, 8080, 9000]
                next.key.port = UInt16(isScan ? 1000 + number : usual[Int(random >> 52 & 0xFFF) % 5])
                // Late: its rows are many by then.
                if isScan, number % 10 == 9 { next.key.port = 25 }
                next.key.proto = next.key.port == 53 ? 17 : 6
                return next
            }
        }

        func write(_ settings: LedgerSettings) throws -> LedgerStore {
            let store = try LedgerStore(settings) { _ in }
            for start in stride(from: 0, to: records.count, by: 500) {
                #expect(store.write(Array(records[start..<start + 500]), identity: fakeIdentity, now: Made.end))
            }
            return store
        }
    }

    /// What a row is, as text; and what it comes to.
    private func expected(_ question: ReportQuestion, _ records: [FlowRecord]) -> [String: ReportSums] {
        var found: [String: ReportSums] = [:]
        var pairs: [String: Set<String>] = [:]
        for record in records {
            let owner = fakeIdentity(0, record.key.source)
            let service = ReportService(port: record.key.port, proto: record.key.proto)
            guard question.fits(owner), question.fits(service.value),
                question.destination.map({ $0 == record.key.destination }) ?? true
            else { continue }
            let row = ReportRow(owner, destination: record.key.destination, service: service)
            let name = name(row, question)
            found[name, default: ReportSums()].add(
                ReportSums(
                    connections: Int64(record.connections), bytesOut: Int64(record.bytesOut),
                    bytesIn: Int64(record.bytesIn), first: Int64(record.firstSeen / 1_000_000_000),
                    last: Int64(record.lastSeen / 1_000_000_000)))
            pairs[name, default: []].insert("\(record.key.destination) \(service.text)")
        }
        if question.order == .destinations {
            for (name, pairs) in pairs { found[name]?.destinations = Int64(pairs.count) }
        }
        return found
    }

    /// An env is its org, its app and its id.
    private func name(_ row: ReportRow, _ question: ReportQuestion) -> String {
        question.by.map { group in
            group == .env ? row.owner.owner.path : group == .app ? "\(row.owner.org)/\(row.owner.app)" : row.name(group)
        }.joined(separator: " ")
    }

    private func check(_ question: ReportQuestion, _ reader: LedgerReader, _ records: [FlowRecord]) throws {
        let report = try reader.report(question)
        let expected = expected(question, records)
        let found = Dictionary(report.rows.map { (name($0, question), $0.sums) }) { first, _ in first }
        #expect(found == expected, "\(question)")
        #expect(report.rows.count == expected.count && report.others == 0)
        #expect(report.total.bytesOut == expected.values.reduce(0) { $0 + $1.bytesOut })
        #expect(report.total.connections == expected.values.reduce(0) { $0 + $1.connections })
        let figures = report.rows.map { row in
            switch question.order {
            case .bytes: row.sums.bytes
            case .connections: row.sums.connections
            case .destinations: row.sums.destinations
            }
        }
        #expect(figures == figures.sorted(by: >))
    }

    private static let filters: [@Sendable (inout ReportQuestion) -> Void] = [
        { _ in }, { $0.instance = "i3" }, { $0.org = "org1" }, { $0.app = "org0/app" }, { $0.env = "org1/app/env2" },
        { $0.port = 25 }, { $0.port = 443 }, { $0.port = 1004 }, { $0.proto = 17 },
        { $0.destination = IPAddress(v4: 7) },
        { ($0.org, $0.port) = ("org0", 25) }, { ($0.instance, $0.destination) = ("i1", IPAddress(v4: 3)) },
    ]

    @Test("what fits all filters counts, whatever a report is by and sorted by")
    func filters() throws {
        let scratch = try Scratch()
        let made = Made(seed: 1)
        let store = try made.write(scratch.ledger)
        let reader = try LedgerReader(scratch.ledger.path)
        let pairs = ReportGroup.allCases.flatMap { first in ReportGroup.allCases.map { [first, $0] } }
        for by in ReportGroup.allCases.map({ [$0] }) + pairs where Set(by).count == by.count {
            for (place, filter) in Self.filters.enumerated() {
                for order in ReportQuestion.Order.allCases where place == 0 || order != .connections {
                    var question = ReportQuestion(by: by, from: noon - 43200, to: Made.end, now: Made.end)
                    (question.top, question.order) = (10_000, order)
                    filter(&question)
                    // Of who scans, ports that nobody asked for are told together.
                    let isBounded =
                        by.contains(.port) && !question.asksService && order != .destinations
                        && !by.contains(.destination) && question.destination == nil
                        && (place > 0 || by.contains { $0.isOwner })
                    if isBounded, question.instance == nil { continue }
                    try check(question, reader, made.records)
                }
            }
        }
        withExtendedLifetime(store) {}
    }

    @Test("an owner's services have 64 rows a bucket and those of well-known ports, the rest is one; nothing is lost")
    func bounded() throws {
        let scratch = try Scratch()
        let made = Made(seed: 9)
        let store = try made.write(scratch.ledger)
        let reader = try LedgerReader(scratch.ledger.path)
        var question = ReportQuestion(by: [.instance, .port], from: noon - 43200, to: noon + 43200, now: Made.end)
        question.top = 10_000
        let report = try reader.report(question)
        let scanned = report.rows.filter { $0.owner.instance == "i0" }
        #expect(scanned.count == 64 + 1 + 1)
        #expect(scanned.contains { $0.service == .rest })
        let day = made.records.filter { $0.lastSeen < UInt64(noon + 43200) * 1_000_000_000 }
        #expect(report.total.bytesOut == day.reduce(0) { $0 + Int64($1.bytesOut) })
        let mail = day.filter { $0.key.source.v4Bits == 0 && $0.key.port == 25 }
        #expect(!mail.isEmpty)
        #expect(
            scanned.first { $0.service?.port == 25 }?.sums.bytesOut == mail.reduce(0) { $0 + Int64($1.bytesOut) })
        withExtendedLifetime(store) {}
    }

    @Test("a ledger of format 3 gets its sums of owner and service, and says the same as one that had them")
    func migrated() throws {
        let scratch = try Scratch()
        let made = Made(seed: 4)
        var store: LedgerStore? = try made.write(scratch.ledger)
        let question = ReportQuestion(by: [.instance, .port], from: noon - 43200, to: Made.end, now: Made.end)
        func reports() throws -> [Report] {
            let reader = try LedgerReader(scratch.ledger.path)
            return try Self.filters.map { filter in
                var question = question
                filter(&question)
                question.top = 10_000
                // Which of many get the rows of who scans is by when they came: they are not compared.
                let report = try reader.report(question)
                return Report(
                    question, from: report.from, to: report.to,
                    rows: report.rows.filter { $0.owner.instance != "i0" || $0.service?.port == 25 }, others: 0,
                    total: report.total)
            }
        }
        let before = try reports()
        try store?.execute("DROP TABLE pairs; PRAGMA user_version = 3")
        store = nil
        let problem = #expect(throws: LedgerProblem.self) { try LedgerReader(scratch.ledger.path) }
        #expect(problem?.description.contains("(format 3): a node that starts with it converts it to format 4") == true)
        let heard = Heard()
        store = try LedgerStore(scratch.ledger) { heard.events.append($0) }
        #expect(heard.events.map(\.event) == ["ledger_migrating", "ledger_migrated"])
        #expect(try reports() == before)
        withExtendedLifetime(store) {}
    }

    @Test("rows of owner and service go with their bucket")
    func pruned() throws {
        let scratch = try Scratch()
        let store = try Made(seed: 2).write(scratch.ledger)
        let late = noon + 500 * 86400
        #expect(store.write([record(9999, at: late)], identity: fakeIdentity, now: late))
        for _ in 0..<40 { #expect(store.write([], identity: fakeIdentity, now: late)) }
        var left: [Int64] = []
        try LedgerFile.open(scratch.ledger.path, isReadOnly: true).read { db in
            try db.statement("SELECT DISTINCT at FROM pairs").each { left.append($0.integer(0)) }
        }
        #expect(left.allSatisfy { $0 > late - 86400 * 2 }, "\(left)")
    }

    @Test("who has a name that several have is asked whose it is, and nobody's sums are shown")
    func ambiguous() throws {
        let scratch = try Scratch()
        let store = try LedgerStore(scratch.ledger) { _ in }
        let orgs = ["acme", "globex", ""]
        let records = (0..<3 as Range<UInt32>).map { record(UInt64($0) + 1, source: $0) }
        #expect(
            store.write(
                records,
                identity: { _, source in
                    let org = orgs[Int(source.v4Bits)]
                    return org.isEmpty
                        ? FlowNames(instance: "\(source)") : FlowNames(instance: "i", env: "e", app: "a", org: org)
                }, now: noon))
        let reader = try LedgerReader(scratch.ledger.path)
        var question = ReportQuestion(by: [.port], from: noon, to: noon + 60, now: noon + 60)
        func said(_ change: (inout ReportQuestion) -> Void) -> String {
            var question = question
            change(&question)
            do throws(LedgerProblem) { return "\(try reader.report(question).total.connections)" } catch {
                return error.description
            }
        }
        let whose = "acme/a/e, globex/a/e: name its owner: write an env as ORG/APP/ENV"
        #expect(said { $0.env = "e" } == "env e is ambiguous, it exists in \(whose)")
        #expect(said { $0.instance = "i" }.hasPrefix("instance i is ambiguous, it exists in acme/a/e, globex/a/e"))
        #expect(
            said { $0.app = "a" }
                == "app a is ambiguous, it exists in acme/a, globex/a: name its owner: write an app as ORG/APP")
        #expect(said { ($0.instance, $0.env) = ("i", "acme/a/e") } == "1")
        #expect(said { $0.app = "globex/a" } == "1" && said { $0.org = "acme" } == "1")
        #expect(said { $0.org = ReportQuestion.unknown } == "1" && said { $0.instance = "0.0.0.2" } == "1")
        #expect(said { $0.instance = "nobody" } == "0")
        question.order = .destinations
        #expect(said { $0.env = "e" }.hasPrefix("env e is ambiguous"))
    }
}
