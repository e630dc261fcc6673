import CLinux
import Foundation
import Glibc
import Pipeline
import PipelineFlows
import Synchronization
import TestSupport
import Testing

@testable import PipelineExport

/// The collector on a kernel's conntrack, in a network namespace of its own.
@Suite(
    "conntrack: the collector", .enabled(if: Sandbox.isPossible, "needs root, network namespaces and nft"), .serialized)
struct ConntrackCollectorTests {
    /// What the collector gave, summed by key.
    private final class Sums: @unchecked Sendable {
        private let condition = NSCondition()
        private var sums: [FlowKey: FlowRecord] = [:]
        private var sequences: Set<UInt64> = []
        private var lines: [String] = []

        func add(_ records: [FlowRecord]) {
            condition.withLock {
                for record in records {
                    if !sequences.insert(record.sequence).inserted {
                        lines.append("sequence \(record.sequence) came twice")
                    }
                    guard var sum = sums[record.key] else {
                        sums[record.key] = record
                        continue
                    }
                    sum.connections += record.connections
                    sum.bytesOut += record.bytesOut
                    sum.bytesIn += record.bytesIn
                    sums[record.key] = sum
                }
                condition.broadcast()
            }
        }
        func say(_ line: [UInt8]) {
            condition.withLock {
                lines.append(String(decoding: line, as: UTF8.self))
                condition.broadcast()
            }
        }
        var all: [FlowKey: FlowRecord] { condition.withLock { sums } }
        var said: [String] { condition.withLock { lines } }

        /// The sum of a key once it has this many connections and bytes out, or after half a minute.
        func wait(_ isReached: ([FlowKey: FlowRecord], [String]) -> Bool) -> Bool {
            let end = Date(timeIntervalSinceNow: 30)
            return condition.withLock {
                while !isReached(sums, lines) { guard condition.wait(until: end) else { return false } }
                return true
            }
        }
    }

    private static func settings(buffer: Int = 16 << 20) -> ConntrackSettings {
        var settings = ConntrackSettings()
        settings.interval = .milliseconds(200)
        settings.receiveBuffer = buffer
        return settings
    }

    private static let us = [IPAddress(high: 0xFD77 << 48, low: 0x10), IPAddress(v4: 0x0A4D_0001)]
    private static let them = [IPAddress(high: 0xFD77 << 48, low: 0x20), IPAddress(v4: 0x0A4D_0002)]

    private static func keys(_ version: Int) -> (udp: FlowKey, icmp: FlowKey) {
        let number = UInt32(version)
        let icmp: (port: UInt16, proto: UInt8) = version == 0 ? (0x8000, 58) : (0x0800, 1)
        return (
            FlowKey(instance: number, source: us[version], destination: them[version], port: 9000, proto: 17),
            FlowKey(
                instance: number, source: us[version], destination: them[version], port: icmp.port, proto: icmp.proto)
        )
    }

    private func start(_ settings: ConntrackSettings, _ sums: Sums) throws -> ConntrackCollector {
        let (collector, error) = ConntrackCollector.start(
            settings, instance: { Self.us.firstIndex(of: $0).map { UInt32($0) } }, emit: { sums.add($0) },
            write: { sums.say($0) })
        return try #require(collector, "errno \(error)")
    }

    /// Statistics have no event of their own: they are polled.
    private func wait(_ collector: ConntrackCollector, _ isReached: (ConntrackCollector.Statistics) -> Bool) -> Bool {
        (try? awaitUntil("statistics") { isReached(collector.statistics) }) != nil
    }

    @Test("R21: UDP and ICMP, IPv6 and IPv4, under the right address, equal to what was sent") func volumes() throws {
        try Sandbox.run { sandbox in
            try sandbox.setCounting(true)
            let sums = Sums()
            let collector = try start(Self.settings(), sums)
            #expect(wait(collector) { $0.dumps > 0 })
            for version in 0..<2 {
                let inbox = try Datagrams(version, Self.them[version], 9000)
                let outbox = try Datagrams(version, Self.us[version], 4000)
                for _ in 0..<50 { try outbox.send(100, to: Self.them[version], 9000) }
                for _ in 0..<20 { try inbox.send(300, to: Self.us[version], 4000) }
                for _ in 0..<10 { try Datagrams.echo(version, from: Self.us[version], to: Self.them[version]) }
                // Begun by an outsider, and answered by nobody.
                try inbox.send(77, to: Self.us[version], 4001)
            }
            let keys = (0..<2).map { ConntrackCollectorTests.keys($0) }
            let isThere = sums.wait { all, _ in
                keys.allSatisfy { (all[$0.udp]?.bytesIn ?? 0) > 0 && all[$0.icmp] != nil }
            }
            #expect(isThere)
            collector.stop()
            for (version, key) in keys.enumerated() {
                // IP and UDP headers: 48 bytes, or 28.
                let headers: UInt64 = version == 0 ? 48 : 28
                let udp = try #require(sums.all[key.udp])
                let icmp = try #require(sums.all[key.icmp])
                #expect(
                    udp.bytesOut == 50 * (100 + headers) && udp.bytesIn == 20 * (300 + headers) && udp.connections == 1)
                // ICMP's header is as long as UDP's.
                #expect(icmp.bytesOut == 10 * (56 + headers) && icmp.bytesIn == icmp.bytesOut && icmp.connections == 1)
                let begun = FlowKey(
                    instance: UInt32(version), source: Self.us[version], destination: Self.them[version], port: 4001,
                    proto: 17)
                let outside = try #require(sums.all[begun])
                #expect(outside.bytesIn == 77 + headers && outside.bytesOut == 0 && outside.connections == 0)
            }
            #expect(sums.all.keys.allSatisfy { Self.us.contains($0.source) } && sums.said.isEmpty, "\(sums.said)")
        }
    }

    @Test(
        "R21: 5,000 short flows a second for two seconds, and then 10,000 ends at once that overrun the socket: every byte once"
    )
    func shortFlows() throws {
        try Sandbox.run { sandbox in
            try sandbox.setCounting(true)
            let sums = Sums()
            let collector = try start(Self.settings(buffer: 8192), sums)
            #expect(wait(collector) { $0.dumps > 0 })
            let inbox = try Datagrams(0, Self.them[0], 9000)
            let key = FlowKey(instance: 0, source: Self.us[0], destination: Self.them[0], port: 9000, proto: 17)
            func burst(_ ports: Range<UInt16>) throws {
                var pace = Pace(perSecond: 20)
                for port in ports {
                    if port % 250 == 0 { pace.wait() }
                    try Datagrams(0, Self.us[0], port).send(100, to: Self.them[0], 9000)
                }
            }
            func isReached(_ count: UInt32) -> Bool {
                sums.wait { all, _ in
                    all[key].map { $0.connections >= count && $0.bytesOut >= UInt64(count) * 148 } == true
                }
            }
            try burst(10_000..<20_000)
            #expect(isReached(10_000), "\(sums.all) \(collector.statistics)")
            try sandbox.flush()
            #expect(wait(collector) { $0.overruns > 0 }, "the ends did not overrun it: \(collector.statistics)")
            #expect(wait(collector) { $0.tracked == 0 }, "\(collector.statistics)")
            try burst(20_000..<22_000)
            #expect(isReached(12_000), "\(sums.all) \(collector.statistics)")
            collector.stop()
            let sum = try #require(sums.all[key])
            #expect(sum.connections == 12_000 && sum.bytesOut == 12_000 * 148 && sum.bytesIn == 0)
            #expect(
                collector.statistics.brokenDumps == 0 && collector.statistics.unreadable == 0 && sums.said.isEmpty,
                "\(collector.statistics)")
            withExtendedLifetime(inbox) {}
        }
    }

    @Test("R21: an end between two dumps is counted with its last bytes; what a former run may have counted is not")
    func endsAndBaseline() throws {
        try Sandbox.run { sandbox in
            try sandbox.setCounting(true)
            try sandbox.setEarlyEvents()
            let inbox = try Datagrams(0, Self.them[0], 9000)
            let outbox = try Datagrams(0, Self.us[0], 4000)
            try outbox.send(100, to: Self.them[0], 9000)
            var settings = Self.settings()
            settings.interval = .seconds(3600)
            let sums = Sums()
            let collector = try start(settings, sums)
            #expect(wait(collector) { $0.dumps == 1 && $0.baselined == 1 })
            try outbox.send(200, to: Self.them[0], 9000)
            try Datagrams(0, Self.us[0], 4001).send(300, to: Self.them[0], 9000)
            try sandbox.flush()
            collector.stop()
            let sum = try #require(sums.all.first)
            #expect(sums.all.count == 1 && sum.value.connections == 1)
            #expect(sum.value.bytesOut == 248 + 348, "\(sum.value) \(collector.statistics)")
            withExtendedLifetime(inbox) {}
        }
    }

    @Test("R28: the kernel refuses to show its table: said once, a problem until it does again, and nothing is lost")
    func refused() throws {
        try Sandbox.run { sandbox in
            try sandbox.setCounting(true)
            let sums = Sums()
            let may = Atomic<Bool>(true)
            // Its closures run on its own thread, and capabilities are a thread's.
            let (started, error) = ConntrackCollector.start(
                Self.settings(),
                instance: {
                    NetAdmin.set(may.load(ordering: .acquiring))
                    return Self.us.firstIndex(of: $0).map { UInt32($0) }
                }, emit: { sums.add($0) }, write: { sums.say($0) })
            let collector = try #require(started, "errno \(error)")
            #expect(wait(collector) { $0.dumps > 0 })
            let inbox = try Datagrams(0, Self.them[0], 9000)
            let outbox = try Datagrams(0, Self.us[0], 4000)
            try outbox.send(100, to: Self.them[0], 9000)
            #expect(wait(collector) { $0.tracked == 1 && $0.refusal == 0 && $0.lastDump > 0 })
            may.store(false, ordering: .releasing)
            #expect(wait(collector) { $0.refusal == EPERM && $0.brokenDumps > 3 }, "\(collector.statistics)")
            #expect(sums.said.count == 1, "\(sums.said)")
            #expect(sums.said.first?.contains("\"event\":\"conntrack_failed\"") == true)
            #expect(sums.said.first?.contains("CAP_NET_ADMIN") == true)
            try outbox.send(100, to: Self.them[0], 9000)
            may.store(true, ordering: .releasing)
            // Ends are still heard.
            try sandbox.flush()
            let whole = collector.statistics.dumps
            #expect(wait(collector) { $0.refusal == 0 && $0.dumps > whole }, "\(collector.statistics)")
            collector.stop()
            let key = FlowKey(instance: 0, source: Self.us[0], destination: Self.them[0], port: 9000, proto: 17)
            #expect(sums.all[key]?.bytesOut == 2 * 148 && sums.all[key]?.connections == 1, "\(sums.all)")
            #expect(sums.said.count == 1, "\(sums.said)")
            withExtendedLifetime(inbox) {}
        }
    }

    @Test("a kernel that doesn't count: said once, with what to do") func noCounters() throws {
        try Sandbox.run { sandbox in
            try sandbox.setCounting(false)
            let sums = Sums()
            let collector = try start(Self.settings(), sums)
            try Datagrams(0, Self.us[0], 4000).send(10, to: Self.us[0], 4000)
            #expect(sums.wait { _, lines in !lines.isEmpty })
            #expect(wait(collector) { $0.dumps > 5 })
            collector.stop()
            #expect(sums.said.count == 1 && sums.said.first?.contains("nf_conntrack_acct=1") == true, "\(sums.said)")
        }
    }
}
