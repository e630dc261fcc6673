import FilterEgressAccounting
import Foundation
import Glibc
import Pipeline
import TestSupport
import Testing

@testable import PipelineExport

/// Records sent by UDP to a collector that is not there: what the network says of them is counted.
@Suite("IPFIX over UDP: a collector that is away") struct ExportLossTests {
    private static let loopback = IPAddress(high: 0, low: 1)

    private func start(_ place: Place, _ lines: ExportTests.Lines = .init()) throws -> FlowExporter {
        let address = try IPAddress(place.host).unwrap("an address in \(place)")
        return try ExportTests.start(ExportSettings(transport: .udp, collector: Endpoint(address, place.port)), lines)
    }

    @Test("closed, opened, closed again: each record arrives or is counted as lost, and never both")
    func reopened() throws {
        let place = Place("::1", try FreePort.take())
        let lines = ExportTests.Lines()
        let exporter = try start(place, lines)
        let count = 900
        exporter.enqueue(ExportTests.flows(count))
        try ExportTests.wait(exporter, "an error was heard") { $0.failures > 0 }
        var now = exporter.statistics
        #expect(now.lost > 0 && now.lost == now.sent && now.waiting == count - Int(now.sent), "\(now)")
        #expect(!now.isConnected && now.error == ECONNREFUSED)
        let lostFirst = Int(now.lost)
        // It is tried with templates alone: nothing more is lost.
        try ExportTests.wait(exporter, "tried again") { $0.failures > 1 }
        #expect(exporter.statistics.lost == now.lost)

        var inbox: UDPSocket? = try UDPSocket(at: place)
        var reader = IPFIXReader()
        var numbers: [UInt64] = []
        var expected: UInt32?
        while numbers.count < count - lostFirst {
            let read = try reader.read(try inbox.unwrap().receive())
            #expect(read.sequence == expected ?? UInt32(lostFirst), "sequence numbers go on, and tell of what was lost")
            expected = read.sequence + UInt32(read.records.count)
            numbers += try read.records.map { try $0.number(1).unwrap() - 1 }
        }
        #expect(numbers == (lostFirst..<count).map { UInt64($0) })
        _ = try lines.wait("export_connected")
        now = exporter.statistics
        #expect(now.sent == UInt64(count) && now.lost == UInt64(lostFirst) && now.waiting == 0 && now.isConnected)

        inbox = nil
        exporter.enqueue(ExportTests.flows(5))
        try ExportTests.wait(exporter, "heard while there is nothing to send") { $0.lost == UInt64(lostFirst) + 5 }
        _ = try lines.wait("export_failed", count: 2)
        exporter.enqueue(ExportTests.flows(7))
        exporter.stop(patience: .milliseconds(10))
        now = exporter.statistics
        #expect(now.sent == UInt64(count) + 5 && now.lost == UInt64(lostFirst) + 12 && now.waiting == 0, "\(now)")
        #expect(lines.all.count { $0.contains("export_connected") } == 1, "\(lines.all)")
    }

    @Test("heard at the end as well")
    func atTheEnd() throws {
        let exporter = try start(Place("::1", try FreePort.take()))
        exporter.enqueue(ExportTests.flows(10))
        exporter.stop()
        let now = exporter.statistics
        #expect(now.lost == 10 && now.waiting == 0, "\(now)")
    }

    @Test("what a UDP collector says is not waited for: it could keep the exporter busy") func speaks() throws {
        let place = Place("::1", try FreePort.take())
        let inbox = try UDPSocket(at: place)
        let queue = ExportQueue(limit: 10)
        var session = ExportSession(
            ExportSettings(transport: .udp, collector: Endpoint(Self.loopback, place.port)), queue)
        #expect(queue.enqueue(ExportTests.flows(1)) == 1)
        let wish = session.advance(Instant(nanoseconds: 1), wallClock: 1)
        // Errors are heard whatever a socket is waited for.
        #expect(wish.item?.wants == 0 && wish.until == nil)
        _ = try inbox.receive()
        session.close()
    }

    @Test(
        "a host that is away on its own link is told of by the kernel, both families",
        .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"),
        arguments: ["fd10:1::77", "10.81.1.77"])
    func hostAway(address: String) throws {
        let lab = try EgressLab()
        let exporter = try lab.inside(lab.alpha) { try start(Place(address, 4739)) }
        exporter.enqueue(ExportTests.flows(200))
        try ExportTests.wait(exporter, "nobody has the address") { $0.lost == 200 }
        let now = exporter.statistics
        #expect(now.sent == 200 && !now.isConnected && now.error == EHOSTUNREACH, "\(now)")
        exporter.stop()
    }

    @Test(
        "a host that says nothing: nobody knows, and `lost` is 0",
        .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
    func silent() throws {
        let lab = try EgressLab()
        try lab.run(
            in: lab.node,
            [
                "nft",
                """
                table inet silent {
                  chain c {
                    type filter hook input priority filter
                    udp dport 4739 counter drop
                  }
                }
                """,
            ])
        let exporter = try lab.inside(lab.alpha) { try start(Place("fd10:1::1", 4739)) }
        exporter.enqueue(ExportTests.flows(200))
        try ExportTests.wait(exporter, "sent") { $0.sent == 200 }
        try awaitUntil("all were dropped") {
            let listing = try lab.run(in: lab.node, ["nft", "list", "table", "inet", "silent"])
            let packets = listing.firstMatch(of: #/packets (\d+)/#).flatMap { UInt64($0.output.1) }
            return packets == exporter.statistics.messages
        }
        exporter.stop()
        #expect(exporter.statistics.lost == 0 && exporter.statistics.failures == 0)
    }
}
