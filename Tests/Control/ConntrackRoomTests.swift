import CLinux
import FilterCatalog
import Foundation
import Glibc
import Pipeline
import PipelineLanguage
import PipelineRuntime
import Synchronization
import TestSupport
import Testing

@testable import PipelineExport
@testable import PipelineIntercept
@testable import PipelineNode
@testable import PipelineText

/// A full table of connections: where the kernel lets no namespace set its own `nf_conntrack_max`, with a `/proc` that says so.
@Suite("conntrack: how full the kernel's table is") struct ConntrackRoomTests {
    private final class Proc {
        let root = NSTemporaryDirectory() + "conntrack-\(UUID().uuidString)"
        var room: ConntrackRoom { ConntrackRoom(root: root) }

        init(count: Int, max: Int = 1000) throws {
            try set("sys/net/netfilter/nf_conntrack_max", "\(max)\n")
            try set(count: count)
            try set(
                "thread-self/net/stat/nf_conntrack",
                "entries  clashres found drop early_drop\n000003e8  00000000 00000000 0000000a 00000001\n"
                    + "000003e8  00000000 00000000 00000010 00000002\n")
        }
        deinit { try? FileManager.default.removeItem(atPath: root) }

        func set(count: Int) throws { try set("sys/net/netfilter/nf_conntrack_count", "\(count)\n") }

        private func set(_ path: String, _ text: String) throws {
            let url = URL(fileURLWithPath: root + "/proc/" + path)
            try FileManager.default.createDirectory(
                at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
            try text.write(to: url, atomically: true, encoding: .utf8)
        }
    }

    private let start = Instant(nanoseconds: 1_000_000_000_000)

    @Test("what the kernel says is read; without conntrack there is nothing") func reading() throws {
        let (proc, unlimited) = (try Proc(count: 7), try Proc(count: 7, max: 0))
        #expect(proc.room.read() == .init(count: 7, most: 1000, dropped: 26))
        #expect(unlimited.room.read() == nil)
        #expect(ConntrackRoom(root: "/nowhere").read() == nil)
        withExtendedLifetime((proc, unlimited)) {}
    }

    @Test("it is full from 90 % on, and no longer below 80 %") func gap() {
        var fullness = ConntrackFullness()
        let changes = [899, 900, 1000, 800, 799, 850, 899, 900].map { (count: UInt64) in
            (fullness.look(.init(count: count, most: 1000)), fullness.isFull)
        }
        #expect(changes.map(\.0) == [false, true, false, false, true, false, false, true])
        #expect(changes.map(\.1) == [false, true, true, true, false, false, false, true])
    }

    @Test("from 95 % on, and for a minute after, failed connects are this host's own affair") func shortage() throws {
        let proc = try Proc(count: 949)
        var shortage = ConntrackShortage(proc.room)
        for (count, second, isShort) in [(949, 0, false), (950, 1, true), (10, 60, true), (10, 61, false)] {
            try proc.set(count: count)
            let answer = shortage.isShort(start + .seconds(UInt32(second)))
            #expect(answer == isShort, "\(count) after \(second) s")
        }
        var none = ConntrackShortage(ConntrackRoom(root: "/nowhere"))
        let answer = none.isShort(start)
        #expect(!answer)
    }

    @Test(
        "while it is full nobody is refused for what fails; the kernel's real one is read as well",
        .enabled(if: Sandbox.isPossible, "needs root, network namespaces and nft"))
    func unreachable() throws {
        let config =
            "node n {\nintercept interface vm*\n}\npipeline out {\nanti_spoof source assigned\n"
            + "backend original_destination\n}\nlisten [::]:1 transparent via out\nlisten 0.0.0.0:1 transparent via out\n"
        let program = try #require(compile(Array(config.utf8), file: "t", catalog: catalog).program)
        let rules = try EgressRules(program)
        try Sandbox.run { _ in
            try Sandbox.command("nft", [rules.nftables])
            let real = try #require(ConntrackRoom().read())
            let text = try String(contentsOfFile: "/proc/sys/net/netfilter/nf_conntrack_max", encoding: .utf8)
            #expect("\(real.most)\n" == text && real.most > real.count, "a number of several digits is read whole")
            let proc = try Proc(count: 950)
            let paths = UnreachablePaths(
                ControlLog(LogStream(capacity: 4096, wake: {})), ConntrackShortage(proc.room, calm: .zero))
            paths.update(program)
            defer { paths.stop() }
            var record = ConnectionRecord()
            record.destination = Endpoint(IPAddress(high: 0xFD << 56, low: 1), 443)
            record.unreachableFor = .seconds(30)
            record.endedAt = cl_wall_clock()
            paths.enqueue(record)
            try awaitUntil("it is dropped") { paths.counts.dropped == 1 }
            #expect(paths.counts.added == 0)
            try proc.set(count: 949)
            paths.enqueue(record)
            try awaitUntil("it is added") { paths.counts.added == 1 }
            #expect(paths.counts.dropped == 1)
            withExtendedLifetime(proc) {}
        }
    }

    @Test(
        "it is said once that it is full, and once that there is room",
        .enabled(if: Sandbox.isPossible, "needs root, network namespaces and nft"))
    func said() throws {
        try Sandbox.run { _ in
            let proc = try Proc(count: 899)
            let lines = Mutex<[String]>([])
            var settings = ConntrackSettings()
            settings.interval = .milliseconds(50)
            let (collector, error) = ConntrackCollector.start(
                settings, room: proc.room, instance: { _ in nil }, emit: { _ in },
                write: { line in lines.withLock { $0.append(String(decoding: line, as: UTF8.self)) } })
            let running = try #require(collector, "errno \(error)")
            let dumps = { (more: UInt64) in
                let before = running.statistics.dumps
                try awaitUntil("\(more) dumps") { running.statistics.dumps >= before + more }
            }
            try dumps(2)
            #expect(!running.statistics.isTableFull)
            try proc.set(count: 900)
            try dumps(4)
            #expect(running.statistics.isTableFull)
            #expect(running.statistics.table == .init(count: 900, most: 1000, dropped: 26))
            try proc.set(count: 799)
            try dumps(4)
            #expect(!running.statistics.isTableFull)
            running.stop()
            withExtendedLifetime(proc) {}
            let said = lines.withLock { $0 }.filter { !$0.contains("no_counters") }
            #expect(said.count == 2, "\(said)")
            #expect(said.first?.contains(#""event":"conntrack_full""#) == true)
            #expect(said.first?.contains(#""count":900,"max":1000,"dropped":26"#) == true, "\(said)")
            #expect(said.last?.contains(#""event":"conntrack_room""#) == true)
        }
    }
}
