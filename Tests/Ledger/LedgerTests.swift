import FilterEgressAccounting
import Foundation
import Pipeline
import PipelineFlows
import Synchronization
import Testing

@testable import PipelineLedger

/// A directory of a test's own.
final class Scratch {
    let path: String
    init() throws {
        path = FileManager.default.temporaryDirectory.appendingPathComponent("ledger-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }
    deinit { try? FileManager.default.removeItem(atPath: path) }
    var ledger: LedgerSettings { LedgerSettings(path: path + "/ledger.db") }
}

final class Heard {
    var events: [LedgerEvent] = []
}

let noon: Int64 = 1_790_000_000 / 86400 * 86400 + 43200

/// Growth at a time, of the instance with that address.
func record(
    _ sequence: UInt64, source: UInt32 = 1, destination: UInt32 = 100, bytes: UInt64 = 10, at: Int64 = noon,
    origin: UInt16 = 0
) -> FlowRecord {
    FlowRecord(
        key: FlowKey(
            instance: .max, source: IPAddress(v4: source), destination: IPAddress(v4: destination), port: 443, proto: 6),
        connections: 1, bytesOut: bytes, bytesIn: bytes * 2, firstSeen: UInt64(at) * 1_000_000_000,
        lastSeen: UInt64(at) * 1_000_000_000, origin: origin, sequence: sequence)
}

func fakeIdentity(_ instance: UInt32, _ source: IPAddress) -> FlowNames {
    let number = source.v4Bits
    return FlowNames(instance: "i\(number)", env: "env\(number % 3)", app: "app", org: "org\(number % 2)")
}

extension LedgerReader {
    func report(by group: ReportGroup, from: Int64, to: Int64, now: Int64, top: Int) throws(LedgerProblem)
        -> Report
    {
        var question = ReportQuestion(by: [group], from: from, to: to, now: now)
        question.top = top
        return try report(question)
    }
}

extension Report {
    /// Of the first dimension.
    var names: [String] { rows.map { $0.name(question.by[0]) } }
}

@Suite("Ledger")
struct LedgerTests {
    private func total(_ settings: LedgerSettings, _ level: LedgerLevel) throws -> Int64 {
        try LedgerFile.open(settings.path, isReadOnly: true).read {
            try $0.integer("SELECT sum(bytes_out) FROM \(level.table)") ?? 0
        }
    }

    @Test("R21: growth is in one row of each level, and adds up")
    func levels() throws {
        let scratch = try Scratch()
        let store = try LedgerStore(scratch.ledger) { _ in }
        #expect(store.write([record(1), record(2), record(3, at: noon + 61)], identity: fakeIdentity, now: noon))
        #expect(store.write([record(4, at: noon + 4000)], identity: fakeIdentity, now: noon))
        let database = try LedgerFile.open(scratch.ledger.path, isReadOnly: true)
        let counts = try database.read { db in
            try LedgerLevel.allCases.map { try db.integer("SELECT count(*) FROM \($0.table)") ?? 0 }
        }
        #expect(counts == [3, 2, 1])
        for level in LedgerLevel.allCases { #expect(try total(scratch.ledger, level) == 40) }
    }

    @Test("a ledger is for the node and its group alone, one that is made and one that was open to all")
    func permissions() throws {
        let scratch = try Scratch()
        let mode = { (suffix: String) throws in
            let attributes = try FileManager.default.attributesOfItem(atPath: scratch.ledger.path + suffix)
            return (attributes[.posixPermissions] as? Int ?? 0) & 0o777
        }
        do {
            let store = try LedgerStore(scratch.ledger) { _ in }
            for suffix in ["", "-wal", "-shm"] { #expect(try mode(suffix) == 0o640, "\(suffix)") }
            withExtendedLifetime(store) {}
        }
        try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: scratch.ledger.path)
        let store = try LedgerStore(scratch.ledger) { _ in }
        for suffix in ["", "-wal", "-shm"] { #expect(try mode(suffix) == 0o640, "\(suffix)") }
        withExtendedLifetime(store) {}
    }

    @Test("R21: a batch that is tried again counts once; a new run's sequences are its own")
    func once() throws {
        let scratch = try Scratch()
        let batch = [record(1), record(2, origin: 7)]
        do {
            let store = try LedgerStore(scratch.ledger, run: 5) { _ in }
            #expect(store.write(batch, identity: fakeIdentity, now: noon))
            #expect(store.write(batch + [record(2)], identity: fakeIdentity, now: noon))
            #expect(try total(scratch.ledger, .days) == 30)
        }
        let next = try LedgerStore(scratch.ledger, run: 6) { _ in }
        #expect(next.write(batch, identity: fakeIdentity, now: noon))
        #expect(try total(scratch.ledger, .days) == 50)
    }

    @Test("what is older than its level keeps is removed, the coarser levels keep it")
    func retention() throws {
        let scratch = try Scratch()
        let store = try LedgerStore(scratch.ledger) { _ in }
        #expect(store.write([record(1)], identity: fakeIdentity, now: noon))
        #expect(store.write([record(2, at: noon + 3 * 86400)], identity: fakeIdentity, now: noon + 3 * 86400))
        #expect(try total(scratch.ledger, .minutes) == 10)
        #expect(try total(scratch.ledger, .hours) == 20)
        let late = noon + 40 * 86400
        #expect(store.write([record(3, at: late)], identity: fakeIdentity, now: late))
        #expect(try total(scratch.ledger, .hours) == 10)
        #expect(try total(scratch.ledger, .days) == 30)
    }

    @Test("a full disk costs the finest detail first, is said, and is over by itself")
    func full() throws {
        let scratch = try Scratch()
        let heard = Heard()
        let store = try LedgerStore(scratch.ledger) { heard.events.append($0) }
        var sequence: UInt64 = 0
        func batch(_ count: Int, at: Int64) -> [FlowRecord] {
            (0..<count).map { place in
                sequence += 1
                return record(sequence, destination: UInt32(place), at: at)
            }
        }
        #expect(store.write(batch(2000, at: noon), identity: fakeIdentity, now: noon))
        try store.execute("PRAGMA max_page_count = 1")  // As many as there are.
        let refused = batch(20000, at: noon + 60)
        #expect(!store.write(refused, identity: fakeIdentity, now: noon + 60))
        #expect(heard.events.map(\.event) == ["ledger_degraded", "ledger_degraded", "ledger_failed"])
        #expect(store.detail == .days)
        #expect(!FileManager.default.fileExists(atPath: scratch.ledger.path + "-reserve"))
        try store.execute("PRAGMA max_page_count = 1000000")
        // What was written of it counts once.
        let all = refused + batch(1, at: noon + 180)
        #expect(store.write(all, identity: fakeIdentity, now: noon + 200))
        #expect(heard.events.last?.event == "ledger_recovered")
        #expect(store.detail == .minutes)
        #expect(FileManager.default.fileExists(atPath: scratch.ledger.path + "-reserve"))
        #expect(try total(scratch.ledger, .days) == 220_010)
        // Some of it is by the day only: an hour of it can't be told, and the whole day is.
        let reader = try LedgerReader(scratch.ledger.path)
        for group in ReportGroup.allCases {
            let report = try reader.report(by: group, from: noon + 60, to: noon + 3600, now: noon + 86400, top: 5)
            #expect(report.from == noon - 43200 && report.to == noon + 43200)
            #expect(report.total.bytesOut == 220_010, "\(group)")
        }
    }

    /// A database of format 1, as the first version of this program wrote it.
    private func writeFormat1(_ path: String) throws {
        let database = try LedgerDatabase(path)
        try database.write { db in
            try db.execute("PRAGMA application_id = \(0x706C_6467); PRAGMA user_version = 1")
            try db.execute(
                """
                CREATE TABLE owners(
                    id INTEGER PRIMARY KEY, instance TEXT NOT NULL, env TEXT NOT NULL, app TEXT NOT NULL,
                    org TEXT NOT NULL, UNIQUE(instance, env, app, org));
                CREATE TABLE marks(
                    run INTEGER NOT NULL, origin INTEGER NOT NULL, sequence INTEGER NOT NULL,
                    PRIMARY KEY(run, origin)) WITHOUT ROWID;
                INSERT INTO owners VALUES (1, 'i1', 'env1', 'app', 'org1'), (2, 'i2', 'env2', 'app', 'org0');
                """)
            for level in LedgerLevel.allCases {
                try db.execute(
                    """
                    CREATE TABLE \(level.table)(
                        at INTEGER NOT NULL, owner INTEGER NOT NULL, destination BLOB NOT NULL, port INTEGER NOT NULL,
                        proto INTEGER NOT NULL, connections INTEGER NOT NULL, bytes_out INTEGER NOT NULL,
                        bytes_in INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
                        PRIMARY KEY(at, owner, destination, port, proto)) WITHOUT ROWID
                    """)
                let at = level.start(of: noon)
                try db.execute(
                    """
                    INSERT INTO \(level.table) VALUES
                        (\(at), 1, x'C6336401', 443, 6, 2, 1000, 50, \(noon + 3), \(noon + 40)),
                        (\(at), 1, x'20010DB8000000000000000000000001', 53, 17, 1, 10, 20, \(noon), \(noon)),
                        (\(at), 2, x'C6336401', 443, 6, 1, 5, 5, \(noon + 1), \(noon + 50))
                    """)
            }
        }
    }

    /// Format 2 had the owner before the destination.
    private static let toFormat2 =
        LedgerLevel.allCases.map { level in
            """
            ALTER TABLE \(level.table) RENAME TO newer;
            CREATE TABLE \(level.table)(
                at INTEGER NOT NULL, owner INTEGER NOT NULL, destination BLOB NOT NULL, service INTEGER NOT NULL,
                connections INTEGER NOT NULL, bytes_out INTEGER NOT NULL, bytes_in INTEGER NOT NULL,
                first INTEGER NOT NULL, last INTEGER NOT NULL,
                PRIMARY KEY(at, owner, destination, service)) WITHOUT ROWID;
            INSERT INTO \(level.table) SELECT at, owner, destination, service, connections, bytes_out, bytes_in, first,
                last FROM newer;
            DROP TABLE newer;
            """
        }.joined() + "DROP TABLE pairs; PRAGMA user_version = 2"

    @Test("a ledger of format 1 is brought up to date by the node, and says the same; a report alone leaves it")
    func migration() throws {
        let scratch = try Scratch()
        try writeFormat1(scratch.ledger.path)
        let problem = #expect(throws: LedgerProblem.self) { try LedgerReader(scratch.ledger.path) }
        #expect(problem?.description.contains("format 1") == true)
        let heard = Heard()
        let store = try LedgerStore(scratch.ledger) { heard.events.append($0) }
        #expect(heard.events.map(\.event) == ["ledger_migrating", "ledger_migrated"])
        let reader = try LedgerReader(scratch.ledger.path)
        func report(_ group: ReportGroup) throws -> Report {
            try reader.report(by: group, from: noon, to: noon + 60, now: noon + 86400, top: 5)
        }
        let destinations = try report(.destination)
        #expect(destinations.names == ["198.51.100.1", "2001:db8::1"])
        #expect(
            destinations.rows[0].sums
                == ReportSums(connections: 3, bytesOut: 1005, bytesIn: 55, first: noon + 1, last: noon + 50))
        #expect(try report(.port).names == ["443/tcp", "53/udp"])
        #expect(try report(.instance).names == ["i1", "i2"])
        for group in ReportGroup.allCases { #expect(try report(group).total == destinations.total) }
        #expect(store.write([record(1)], identity: fakeIdentity, now: noon))
        #expect(try report(.env).total.connections == 5)
        // Once.
        _ = try LedgerStore(scratch.ledger) { heard.events.append($0) }
        #expect(heard.events.count == 2)
        try store.execute(Self.toFormat2)
        _ = try LedgerStore(scratch.ledger) { heard.events.append($0) }
        #expect(heard.events.count == 4 && heard.events.last?.message.contains("from format 2") == true)
        for group in ReportGroup.allCases { #expect(try report(group).total.connections == 5, "\(group)") }
        #expect(try report(.destination).names == ["198.51.100.1", "0.0.0.100", "2001:db8::1"])
    }

    @Test("a damaged ledger is set aside with its reason, and a new one begun")
    func damage() throws {
        let scratch = try Scratch()
        try Data(repeating: 0x41, count: 8192).write(to: URL(fileURLWithPath: scratch.ledger.path))
        let heard = Heard()
        let store = try LedgerStore(scratch.ledger) { heard.events.append($0) }
        #expect(heard.events.map(\.event) == ["ledger_set_aside"])
        #expect(store.write([record(1)], identity: fakeIdentity, now: noon))
        let names = try FileManager.default.contentsOfDirectory(atPath: scratch.path)
        #expect(names.contains { $0.hasPrefix("ledger.db.damaged-") })
    }

    @Test("somebody else's database, and one of a newer format, are left alone")
    func foreign() throws {
        let scratch = try Scratch()
        do {
            let store = try LedgerStore(scratch.ledger) { _ in }
            try store.execute("PRAGMA user_version = \(LedgerSchema.version + 1)")
        }
        #expect(throws: LedgerProblem.self) { try LedgerStore(scratch.ledger) { _ in } }
        let other = LedgerSettings(path: scratch.path + "/other.db")
        do {
            let store = try LedgerStore(other) { _ in }
            try store.execute("PRAGMA application_id = 1")
        }
        #expect(throws: LedgerProblem.self) { try LedgerStore(other) { _ in } }
        #expect(FileManager.default.fileExists(atPath: other.path))
    }

    @Test("a ledger that is being made is not ready yet, whenever in its making it is read: never SQLite's own words")
    func beingMade() throws {
        let scratch = try Scratch()
        let folder = scratch.path
        let path = { @Sendable (round: Int) in folder + "/made-\(round).db" }
        let rounds = 60
        let isOver = Atomic<Bool>(false)
        let made = Atomic<Int>(0)
        let group = DispatchGroup()
        group.enter()
        Thread.detachNewThread {
            for round in 0..<rounds {
                // Written to as well, and closed: then its log goes.
                let store = try? LedgerStore(LedgerSettings(path: path(round))) { _ in }
                _ = store?.write([record(1)], identity: fakeIdentity, now: noon)
                made.store(round + 1, ordering: .releasing)
            }
            isOver.store(true, ordering: .releasing)
            group.leave()
        }
        var problems: Set<String> = []
        var reports = 0
        while !isOver.load(ordering: .acquiring) {
            let current = made.load(ordering: .acquiring)
            do throws(LedgerProblem) {
                _ = try LedgerReader(path(current)).report(by: .env, from: 0, to: noon * 2, now: noon * 2, top: 3)
                reports += 1
            } catch { problems.insert(error.description.replacing(path(current), with: "PATH")) }
        }
        group.wait()
        for problem in problems {
            #expect(
                problem.hasPrefix("there is no ledger at PATH") || problem.contains("PATH is not ready yet"),
                "\(problem)")
        }
        #expect(reports > 0 && !problems.isEmpty)
        // An empty file, and a database without tables.
        try Data().write(to: URL(fileURLWithPath: scratch.path + "/empty.db"))
        #expect(throws: LedgerProblem.self) { try LedgerReader(scratch.path + "/empty.db") }
    }
}
