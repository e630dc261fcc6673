import Foundation
import GRDB
import Pipeline
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

@Suite("Ledger")
struct LedgerTests {
    private func total(_ settings: LedgerSettings, _ level: LedgerLevel) throws -> Int64 {
        try LedgerFile.open(settings.path, isReadOnly: true).read {
            try Int64.fetchOne($0, sql: "SELECT sum(bytes_out) FROM \(level.table)") ?? 0
        }
    }

    @Test("R21: growth is in one row of each level, and adds up")
    func levels() throws {
        let scratch = try Scratch()
        let store = try LedgerStore(scratch.ledger) { _ in }
        #expect(store.write([record(1), record(2), record(3, at: noon + 61)], identity: fakeIdentity, now: noon))
        #expect(store.write([record(4, at: noon + 4000)], identity: fakeIdentity, now: noon))
        let queue = try LedgerFile.open(scratch.ledger.path, isReadOnly: true)
        let counts = try queue.read { db in
            try LedgerLevel.allCases.map { try Int.fetchOne(db, sql: "SELECT count(*) FROM \($0.table)") ?? 0 }
        }
        #expect(counts == [3, 2, 1])
        for level in LedgerLevel.allCases { #expect(try total(scratch.ledger, level) == 40) }
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
        // A little fits where the oldest minute was.
        let little = batch(100, at: noon + 120)
        #expect(store.write(little, identity: fakeIdentity, now: noon + 61))
        #expect(store.detail == .days)
        try store.execute("PRAGMA max_page_count = 1000000")
        #expect(store.write(batch(1, at: noon + 180), identity: fakeIdentity, now: noon + 200))
        #expect(heard.events.last?.event == "ledger_recovered")
        #expect(store.detail == .minutes)
        #expect(try total(scratch.ledger, .days) == 21010)
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
            try store.execute("PRAGMA user_version = 2")
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
}
