import FilterEgressAccounting
import Foundation
import Glibc
import Pipeline
import Testing

@testable import PipelineLedger

@Suite("Ledger: files that go, or are written over, under the writer")
struct LedgerWatchTests {
    private func overwrite(_ path: String, from offset: Int, _ count: Int) throws {
        let file = try #require(FileHandle(forWritingAtPath: path))
        try file.seek(toOffset: UInt64(offset))
        try file.write(contentsOf: Data(repeating: 0x5A, count: count))
        try file.close()
    }

    /// A ledger whose pages are in its file, and some still in its log.
    private func store(_ scratch: Scratch, _ heard: Heard) throws -> LedgerStore {
        let store = try LedgerStore(scratch.ledger) { heard.events.append($0) }
        for batch in 0..<20 as Range<UInt64> {
            let records = (0..<200 as Range<UInt64>).map { record(batch * 200 + $0 + 1, destination: UInt32($0)) }
            #expect(store.write(records, identity: fakeIdentity, now: noon))
        }
        try store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        #expect(store.write([record(9000)], identity: fakeIdentity, now: noon))
        store.tick(now: noon)
        #expect(heard.events.isEmpty && !store.isLost)
        return store
    }

    private func names(_ scratch: Scratch) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: scratch.path)
    }

    @Test("one that is written over is set aside, from wherever it is damaged", arguments: [0, 4096, 40_000])
    func overwritten(offset: Int) throws {
        let scratch = try Scratch()
        let heard = Heard()
        let store = try store(scratch, heard)
        try overwrite(scratch.ledger.path, from: offset, 60_000)
        store.tick(now: noon + 1)
        #expect(store.isLost && heard.events.map(\.event) == ["ledger_set_aside"], "\(heard.events)")
        #expect(!store.write([record(9001)], identity: fakeIdentity, now: noon))
        #expect(try names(scratch).contains { $0.hasPrefix("ledger.db.damaged-") })
        let next = try LedgerStore(scratch.ledger) { heard.events.append($0) }
        #expect(next.write([record(1)], identity: fakeIdentity, now: noon))
        #expect(heard.events.count == 1)
    }

    @Test("one whose pages are all in its log is healed from there")
    func healed() throws {
        let scratch = try Scratch()
        let heard = Heard()
        let store = try LedgerStore(scratch.ledger) { heard.events.append($0) }
        #expect(store.write([record(1)], identity: fakeIdentity, now: noon))
        try overwrite(scratch.ledger.path, from: 0, 100_000)
        store.tick(now: noon + 1)
        #expect(!store.isLost && heard.events.map(\.event) == ["ledger_changed"], "\(heard.events)")
        try? FileManager.default.removeItem(atPath: scratch.ledger.path + "-wal")
        store.tick(now: noon + 2)
        let report = try LedgerReader(scratch.ledger.path).report(
            by: .env, from: noon, to: noon + 60, now: noon + 60, top: 3)
        #expect(report.total.connections == 1)
    }

    @Test("one that is cut off is set aside")
    func cut() throws {
        for size in [0, 100, 8192] as [off_t] {
            let scratch = try Scratch()
            let heard = Heard()
            let store = try store(scratch, heard)
            truncate(scratch.ledger.path, size)
            store.tick(now: noon + 1)
            #expect(store.isLost && heard.events.map(\.event) == ["ledger_set_aside"], "\(size): \(heard.events)")
        }
    }

    @Test("one that is removed or replaced is noticed, and what is there then is not touched")
    func removed() throws {
        let scratch = try Scratch()
        let heard = Heard()
        let first = try store(scratch, heard)
        unlink(scratch.ledger.path)
        first.tick(now: noon + 1)
        #expect(first.isLost && heard.events.last?.message.contains("was removed while in use") == true)
        let second = try store(scratch, Heard())
        let other = scratch.path + "/other"
        try Data("somebody's".utf8).write(to: URL(fileURLWithPath: other))
        rename(other, scratch.ledger.path)
        second.tick(now: noon + 1)
        #expect(second.isLost)
        #expect(try String(contentsOfFile: scratch.ledger.path, encoding: .utf8) == "somebody's")
    }

    @Test("one whose log is removed gets what was in it, and is opened again")
    func logRemoved() throws {
        let scratch = try Scratch()
        let heard = Heard()
        let store = try store(scratch, heard)
        unlink(scratch.ledger.path + "-wal")
        store.tick(now: noon + 1)
        #expect(store.isLost && heard.events.last?.message.contains("lost its log") == true)
        let report = try LedgerReader(scratch.ledger.path).report(
            by: .env, from: noon, to: noon + 60, now: noon + 60, top: 3)
        #expect(report.total.connections == 4001)
    }

    @Test("what another program writes by SQLite is no damage")
    func touched() throws {
        let scratch = try Scratch()
        let heard = Heard()
        let store = try store(scratch, heard)
        let other = try LedgerDatabase(scratch.ledger.path)
        func execute(_ sql: String) throws { try other.execute(sql) }
        try execute("DELETE FROM gaps; PRAGMA wal_checkpoint(TRUNCATE)")
        try store.execute("VACUUM")
        try execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.tick(now: noon + 1)
        #expect(!store.isLost && heard.events.map(\.event) == ["ledger_changed"], "\(heard.events)")
        store.tick(now: noon + 2)
        #expect(heard.events.count == 1)
    }

    @Test("what another node writes, which drains or took over, is no news to either")
    func shared() throws {
        let scratch = try Scratch()
        let (heard, heardLater) = (Heard(), Heard())
        let store = try store(scratch, heard)
        let later = try LedgerStore(scratch.ledger) { heardLater.events.append($0) }
        for second in 1...9 as ClosedRange<Int64> {
            // The one that drains writes seldom, but the other's pages move into the file by its looks as well.
            if second % 3 == 0 {
                #expect(store.write([record(9000 + UInt64(second))], identity: fakeIdentity, now: noon + second))
            }
            #expect(later.write([record(UInt64(second))], identity: fakeIdentity, now: noon + second))
            try later.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            store.tick(now: noon + second)
            try store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            later.tick(now: noon + second)
        }
        #expect(heard.events.isEmpty && heardLater.events.isEmpty, "\(heard.events), \(heardLater.events)")
        let report = try LedgerReader(scratch.ledger.path).report(
            by: .env, from: noon, to: noon + 60, now: noon + 60, top: 3)
        #expect(report.total.connections == 4001 + 9 + 3)
    }

    @Test("what is no regular file is no ledger, to read or to write; one that is empty holds nothing so far")
    func kinds() throws {
        let scratch = try Scratch()
        let pipe = scratch.path + "/pipe"
        #expect(mkfifo(pipe, 0o600) == 0)
        for path in [pipe, "/dev/zero", "/dev/null", scratch.path] {
            let read = #expect(throws: LedgerProblem.self) { try LedgerReader(path) }
            let write = #expect(throws: LedgerProblem.self) { try LedgerStore(LedgerSettings(path: path)) { _ in } }
            for problem in [read, write] {
                #expect(problem?.description == "\(path) is not a ledger of pipelined: it is not a regular file")
            }
        }
        let empty = scratch.path + "/empty"
        try Data().write(to: URL(fileURLWithPath: empty))
        let problem = #expect(throws: LedgerProblem.self) { try LedgerReader(empty) }
        #expect(problem?.description.contains("not ready yet: it is still empty") == true)
    }

    @Test("a ledger that no node has open is read as it lies: nothing beside it is made")
    func atRest() throws {
        let scratch = try Scratch()
        do { _ = try store(scratch, Heard()) }
        try FileManager.default.removeItem(atPath: scratch.ledger.path + "-reserve")
        #expect(try names(scratch) == ["ledger.db"])
        let reader = try LedgerReader(scratch.ledger.path)
        func count() throws -> Int64 {
            try reader.report(by: .env, from: noon, to: noon + 60, now: noon + 60, top: 3).total.connections
        }
        #expect(try count() == 4001)
        #expect(try names(scratch) == ["ledger.db"])
        // A node begins with it while it is read.
        let store = try LedgerStore(scratch.ledger) { _ in }
        #expect(store.write([record(1)], identity: fakeIdentity, now: noon))
        #expect(try count() == 4002)
    }
}
