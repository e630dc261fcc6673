import FilterEgressAccounting
import Foundation
import Glibc
import Pipeline
import PipelineFlows
import Testing

@testable import PipelineLedger

/// A file system of its own, of a size of its own. Needs root.
private final class SmallDisk {
    let path: String

    init(megabytes: Int) throws {
        path = FileManager.default.temporaryDirectory.appendingPathComponent("ledger-disk-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        guard mount("tmpfs", path, "tmpfs", 0, "size=\(megabytes)m") == 0 else {
            try? FileManager.default.removeItem(atPath: path)
            throw LedgerProblem("no tmpfs: error \(errno)")
        }
    }

    deinit {
        umount2(path, Int32(MNT_DETACH))
        try? FileManager.default.removeItem(atPath: path)
    }

    static var isPossible: Bool { (try? SmallDisk(megabytes: 1)) != nil }

    /// Leaves nothing to anybody else.
    func fill() throws {
        let file = open(path + "/others", O_WRONLY | O_CREAT | O_APPEND, 0o600)
        defer { close(file) }
        let block = [UInt8](repeating: 1, count: 4096)
        while write(file, block, block.count) > 0 {}
    }

    func grow(megabytes: Int) { _ = mount("tmpfs", path, "tmpfs", UInt(MS_REMOUNT), "size=\(megabytes)m") }

    func empty() { unlink(path + "/others") }
}

@Suite("A ledger on a disk that is full", .enabled(if: SmallDisk.isPossible, "needs root, and a tmpfs"))
struct LedgerDiskTests {
    private final class Writer {
        let store: LedgerStore
        let heard = Heard()
        private var sequence: UInt64 = 0
        private var waiting: [FlowRecord] = []
        /// What was handed over, whether it is written or waits.
        private(set) var bytes: Int64 = 0

        init(_ settings: LedgerSettings) throws {
            let heard = heard
            store = try LedgerStore(settings) { heard.events.append($0) }
        }

        /// As the flows thread does it: what isn't written waits, and is tried again with what comes.
        func write(_ count: Int, at: Int64, spread: UInt64 = 1_000_000) -> Bool {
            for _ in 0..<count {
                sequence += 1
                waiting.append(
                    record(
                        sequence, source: UInt32(sequence % 50),
                        destination: UInt32(truncatingIfNeeded: Hashing.mix(sequence) % spread), at: at))
                bytes += 10
            }
            guard store.write(waiting, identity: fakeIdentity, now: at) else { return false }
            waiting = []
            return true
        }
        var events: [String] { heard.events.map(\.event) }
    }

    private func totals(_ path: String) throws -> [Int64] {
        try LedgerFile.open(path, isReadOnly: true).read { db in
            #expect(try db.text("PRAGMA quick_check") == "ok")
            return try LedgerLevel.allCases.map {
                try db.integer("SELECT sum(bytes_out) FROM \($0.table)") ?? 0
            }
        }
    }

    @Test(
        "R21: others fill the disk: minutes go first and it is said, nothing of the days is lost, and full detail comes back"
    )
    func others() throws {
        let disk = try SmallDisk(megabytes: 64)
        let settings = LedgerSettings(path: disk.path + "/ledger.db")
        let writer = try Writer(settings)
        for second in 0..<120 as Range<Int64> { #expect(writer.write(500, at: noon + second)) }
        #expect(writer.events == [])
        try disk.fill()
        // New rows must find room for some minutes, though nobody gives any.
        var second: Int64 = 120
        while !writer.events.contains("ledger_degraded"), second < 1000 {
            #expect(writer.write(500, at: noon + second))
            second += 1
        }
        let event = try #require(writer.heard.events.first)
        #expect(event.event == "ledger_degraded")
        #expect(event.message.contains("recorded only by hour and day"), "\(event.message)")
        for _ in 0..<200 {
            #expect(writer.write(500, at: noon + second))
            second += 1
        }
        #expect(!writer.events.contains("ledger_failed"), "\(writer.heard.events)")
        #expect(writer.store.detail > .minutes)
        var totals = try totals(settings.path)
        #expect(totals[0] < totals[2] && totals[2] == writer.bytes, "\(totals)")
        disk.empty()
        second += 120
        #expect(writer.write(500, at: noon + second))
        #expect(writer.events.last == "ledger_recovered" && writer.store.detail == .minutes)
        totals = try self.totals(settings.path)
        #expect(totals[2] == writer.bytes)
        let reader = try LedgerReader(settings.path)
        for group in ReportGroup.allCases {
            // The hour has minutes that are missing: it is told whole.
            let report = try reader.report(by: group, from: noon + 60, to: noon + 7200, now: noon + 86400, top: 3)
            #expect(report.from <= noon && report.total.bytesOut == writer.bytes, "\(group)")
        }
    }

    @Test("full detail comes back without traffic, once there is room and not before")
    func idle() throws {
        let disk = try SmallDisk(megabytes: 48)
        let writer = try Writer(LedgerSettings(path: disk.path + "/ledger.db"))
        for second in 0..<60 as Range<Int64> { #expect(writer.write(500, at: noon + second)) }
        try disk.fill()
        var second: Int64 = 60
        while !writer.events.contains("ledger_degraded"), second < 1000 {
            _ = writer.write(500, at: noon + second)
            second += 1
        }
        #expect(writer.events.last == "ledger_degraded")
        writer.store.tick(now: noon + second + 120)
        #expect(writer.events.last == "ledger_degraded")
        disk.empty()
        writer.store.tick(now: noon + second + 240)
        #expect(writer.events.last == "ledger_recovered" && writer.store.detail == .minutes)
    }

    @Test(
        "R21: the ledger itself fills the disk: it goes on by days, then says that it can't, and loses nothing that waits"
    )
    func own() throws {
        let disk = try SmallDisk(megabytes: 40)
        let settings = LedgerSettings(path: disk.path + "/ledger.db")
        let writer = try Writer(settings)
        var second: Int64 = 0
        // Every key is new, for an hour, at a rate that no such disk can hold.
        while !writer.events.contains("ledger_failed"), second < 400 {
            _ = writer.write(3000, at: noon + second * 9, spread: 1 << 31)
            second += 1
        }
        #expect(writer.events.filter { $0 == "ledger_degraded" }.count == 2)
        #expect(writer.events.last == "ledger_failed")
        #expect(try totals(settings.path)[2] <= writer.bytes)
        let reader = try LedgerReader(settings.path)
        _ = try reader.report(by: .destination, from: noon, to: noon + 60, now: noon + 86400, top: 3)
        // Somebody gives it a larger one.
        disk.grow(megabytes: 400)
        #expect(writer.write(1, at: noon + second * 9 + 120))
        #expect(writer.events.last == "ledger_recovered")
        #expect(try totals(settings.path)[2] == writer.bytes)
    }
}
