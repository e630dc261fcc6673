import CLinux
import FilterEgressAccounting
import Foundation
import Pipeline
import PipelineFlows
import Synchronization
import TestSupport
import Testing

@testable import PipelineLedger

/// R21: a process that writes is killed, over and over, in the middle of whatever it does.
///
/// The child says in a file what it has handed to the queues, and when; a written byte outlives the process. What the
/// ledger has must be no more than that, and all of it but the last 5 s.
@Suite("Ledger and SIGKILL", .serialized)
struct LedgerCrashTests {
    private static let kills = ProcessInfo.processInfo.environment["LEDGER_KILLS"].flatMap { Int($0) } ?? 4

    @Test("R21: at most 5 s are lost to a SIGKILL, nothing is counted twice, the ledger opens")
    func killed() async throws {
        let scratch = try Scratch()
        let path = scratch.ledger.path
        let sent = scratch.path + "/sent"
        var lost: UInt64 = 0
        var everything: UInt64 = 0
        for round in 0..<Self.kills {
            let before = try Self.total(path)
            try Data().write(to: URL(fileURLWithPath: sent))
            // Long enough for a transaction or three, and ended anywhere in them.
            let life = 1.1 + (Double(round) * 0.377_777).truncatingRemainder(dividingBy: 1.9)
            await #expect(processExitsWith: .signal(SIGKILL)) {
                [path = path as String, sent = sent as String, life = life as Double] in
                try LedgerCrashTests.writeUntilKilled(path, sent, life)
            }
            let lines = try String(contentsOfFile: sent, encoding: .utf8).split(separator: "\n")
            let entries = lines.compactMap { line -> (at: UInt64, total: UInt64)? in
                let parts = line.split(separator: " ").compactMap { UInt64($0) }
                return parts.count == 2 ? (parts[0], parts[1]) : nil
            }
            let last = try #require(entries.last)
            let recorded = try UInt64(Self.total(path) - before)
            #expect(recorded <= last.total, "round \(round): counted twice")
            let due = entries.last { $0.at + 5_000_000_000 <= last.at }?.total ?? 0
            #expect(recorded >= due, "round \(round): \(due - recorded) lost")
            lost = max(lost, last.at - (entries.first { $0.total > recorded }?.at ?? last.at))
            everything += recorded
        }
        #expect(everything > 0)
        print("\(Self.kills) kills; the most that was lost: \(lost / 1_000_000) ms")
    }

    private static func total(_ path: String) throws -> Int64 {
        guard FileManager.default.fileExists(atPath: path) else { return 0 }
        return try LedgerFile.open(path).read { db in
            let levels = try LedgerLevel.allCases.map {
                try db.integer("SELECT sum(connections) FROM \($0.table)") ?? 0
            }
            #expect(Set(levels).count == 1)
            #expect(try db.text("PRAGMA quick_check") == "ok")
            return levels[0]
        }
    }

    /// 2,000 records a second, each of one connection, until the process kills itself, whatever its other thread is at.
    fileprivate static func writeUntilKilled(_ path: String, _ sent: String, _ life: Double) throws {
        let queues = FlowQueues()
        guard let queue = queues.claim() else { exit(1) }
        let thread = try FlowThread.start(LedgerSettings(path: path), queues: queues, identity: fakeIdentity) { _ in }
        let file = open(sent, O_WRONLY | O_APPEND)
        let end = Deadline(seconds: life)
        var pace = Pace(perSecond: 100)
        var total: UInt64 = 0
        while thread.recordsWritten < .max {
            pace.wait()
            for _ in 0..<20 {
                total += 1
                let at = cl_wall_clock()
                // Before the record is handed over: it may be written at once.
                let line = Array("\(cl_now()) \(total)\n".utf8)
                _ = line.withUnsafeBytes { write(file, $0.baseAddress, $0.count) }
                var next = record(0, source: UInt32(total % 50), destination: UInt32(total % 5000))
                next.firstSeen = at
                next.lastSeen = at
                try awaitUntil("room in the queue") { queue.pointee.push(next) }
            }
            if end.hasPassed { kill(getpid(), SIGKILL) }
        }
    }
}
