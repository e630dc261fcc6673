import FilterEgressAccounting
import Foundation
import Glibc
import Pipeline
import PipelineFlows
import TestSupport
import Testing

@testable import PipelineExport

/// Flow records as they leave the node, read by the programs that operators have: nfdump's collector, and tshark.
@Suite("IPFIX export", .serialized) struct ExportTests {
    static func flows(_ count: Int, from first: Int = 0) -> [ExportFlow] {
        let names = FlowNames(instance: "i-0123456789abcdef", env: "env_prod", app: "app_shop", org: "org_acme")
        return (first..<first + count).map { number in
            let isIPv4 = number % 2 == 0
            var proto: UInt8 = number % 3 == 0 ? 17 : 6
            if number % 7 == 0 { proto = isIPv4 ? 1 : 58 }
            let low = UInt64(number & 0xFFFF)
            var source = IPAddress(v4: 0x0A00_0001)
            var destination = IPAddress(v4: 0xC633_0000 | UInt32(low))
            if !isIPv4 {
                source = IPAddress(high: 0xFD00_0000_0000_0000, low: 1)
                destination = IPAddress(high: 0x2001_0DB8_0000_0000, low: low)
            }
            let key = FlowKey(
                instance: 0, source: source, destination: destination, port: UInt16(truncatingIfNeeded: number),
                proto: proto)
            let wall = UInt64(time(nil)) * 1_000_000_000
            return ExportFlow(
                FlowRecord(
                    key: key, connections: 1, bytesOut: UInt64(number) + 1, bytesIn: UInt64(number) * 3 + 5,
                    firstSeen: wall - 5_000_000_000, lastSeen: wall, origin: 0, sequence: UInt64(number)), names)
        }
    }
    static func bytesOut(_ flows: [ExportFlow]) -> UInt64 { flows.reduce(0) { $0 + $1.record.bytesOut } }
    static func bytesIn(_ flows: [ExportFlow]) -> UInt64 { flows.reduce(0) { $0 + $1.record.bytesIn } }

    /// Log lines of an exporter.
    final class Lines: @unchecked Sendable {
        private let condition = NSCondition()
        private var lines: [String] = []
        func add(_ line: [UInt8]) {
            condition.withLock {
                lines.append(String(decoding: line, as: UTF8.self))
                condition.broadcast()
            }
        }
        func wait(_ event: String, count: Int = 1, _ deadline: Deadline = Deadline()) throws -> String {
            try condition.withLock {
                while true {
                    let found = lines.filter { $0.contains("\"event\":\"\(event)\"") }
                    if found.count >= count { return found[count - 1] }
                    guard condition.wait(until: deadline.date) else { throw Failure("no \(event) in time: \(lines)") }
                }
            }
        }
        var all: [String] { condition.withLock { lines } }
    }

    static func start(_ settings: ExportSettings, _ lines: Lines = Lines()) throws -> FlowExporter {
        let (exporter, error) = FlowExporter.start(settings) { lines.add($0) }
        return try exporter.unwrap("exporter (\(error))")
    }

    /// Statistics have no event of their own: they are polled.
    static func wait(_ exporter: FlowExporter, _ what: String, _ isReached: (ExportStatistics) -> Bool) throws {
        try awaitUntil("\(what): \(exporter.statistics)") { isReached(exporter.statistics) }
    }

    @Test("nfcapd takes every record over UDP: totals equal, no sequence error, nothing it complains of")
    func nfcapd() throws {
        let collector = try NFCollector()
        var settings = ExportSettings(
            transport: .udp, collector: Endpoint(IPAddress(v4: 0x7F00_0001), collector.port))
        settings.templates = .seconds(1)
        let exporter = try Self.start(settings)
        let flows = Self.flows(20_000)
        // No more at a time than its socket takes without being read: what is lost there is nobody's mistake.
        for start in stride(from: 0, to: flows.count, by: 500) {
            #expect(exporter.enqueue(Array(flows[start..<start + 500])) == 500)
            try Self.wait(exporter, "all sent") { $0.sent == UInt64(start + 500) }
            try collector.waitUntilRead()
        }
        exporter.stop()
        try collector.finish()
        let said = collector.child.output
        #expect(said.contains("Flows: 20000"), "\(said)")
        #expect(said.contains("Sequence Errors: 0, Bad Packets: 0"), "\(said)")
        for word in ["error:", "warn", "skip", "unknown", "malformed", "not enough", "corrupt"] {
            #expect(!said.lowercased().contains(word), "\(said)")
        }
        let rows = try collector.rows(["%pr", "%sa", "%da", "%dp", "%ibyt", "%obyt", "%it", "%ic"])
        #expect(rows.count == flows.count)
        #expect(rows.reduce(0) { $0 + (UInt64($1[4]) ?? 0) } == Self.bytesOut(flows))
        #expect(rows.reduce(0) { $0 + (UInt64($1[5]) ?? 0) } == Self.bytesIn(flows))
        let third = try rows.first { $0[4] == "4" }.unwrap("the fourth record")
        #expect(third[1] == "fd00::1" && third[2] == "2001:db8::3" && third[3] == "3" && third[5] == "14", "\(third)")
        #expect(exporter.statistics.lost == 0 && exporter.statistics.dropped == 0 && exporter.statistics.waiting == 0)
    }

    @Test(
        "tshark decodes every message, with nothing malformed or remarked on",
        arguments: ExportSettings.Transport.allCases)
    func tshark(transport: ExportSettings.Transport) throws {
        let port = try FreePort.take()
        let protocolName = transport.rawValue
        let fields: [String] = [
            "udp.length", "cflow.sequence", "cflow.octets", "cflow.enterprise_private_entry", "_ws.expert.message",
            "_ws.malformed",
        ]
        var options: [String] = ["-i", "lo", "-l", "-n", "-f", "\(protocolName) port \(port)"]
        options += ["-d", "\(protocolName).port==\(port),cflow", "-T", "fields"]
        for field in fields { options += ["-e", field] }
        let tshark = try Child("tshark", options)
        // The capture has no event for its beginning: it is knocked at until it shows something.
        let knock = try UDPSocket()
        let listener = try Socket.listen(at: Place("::1", port))
        let inbox = try UDPSocket(at: Place("::1", port))
        try awaitUntil("tshark sees something: \(tshark.output)") {
            if transport == .udp {
                try knock.send([1], to: Place("::1", port))
            } else {
                _ = try Socket.connect(to: Place("::1", port))
            }
            return tshark.lines.contains { $0.stream == .out }
        }
        let count = 3000
        let flows = Self.flows(count)
        let exporter = try Self.start(
            ExportSettings(transport: transport, collector: Endpoint(IPAddress(high: 0, low: 1), port)))
        let reading = concurrently { () -> Int in
            var total = 0
            while transport == .tcp {
                let taken = try listener.accept()
                let end = try taken.receiveToEnd()
                total += end.bytes.count
                if !end.bytes.isEmpty { break }
            }
            return total
        }
        exporter.enqueue(flows)
        try Self.wait(exporter, "all sent") { $0.sent == UInt64(count) }
        exporter.stop()
        if transport == .tcp { #expect(try reading.value() > count * 100) }
        let rows = try tshark.wait("\(count) records") { lines -> [[Substring]]? in
            let rows = lines.filter { $0.stream == .out }
                .map { $0.text.split(separator: "\t", omittingEmptySubsequences: false) }
                .filter { $0.count == fields.count && !$0[2].isEmpty }
            return rows.reduce(0) { $0 + $1[2].split(separator: ",").count / 2 } >= count ? rows : nil
        }
        let octets = rows.flatMap { $0[2].split(separator: ",").compactMap { UInt64($0) } }
        #expect(octets.count == 2 * count)
        #expect(stride(from: 0, to: octets.count, by: 2).reduce(0) { $0 + octets[$1] } == Self.bytesOut(flows))
        #expect(stride(from: 1, to: octets.count, by: 2).reduce(0) { $0 + octets[$1] } == Self.bytesIn(flows))
        // What it remarks on in TCP itself (a window that is full) is no matter of ours.
        let remarks = rows.flatMap { $0[4].split(separator: ",") }.filter { remark in
            !["TCP", "Connection", "segment", "ACK"].contains { remark.contains($0) }
        }
        #expect(remarks.isEmpty && rows.allSatisfy { $0[5].isEmpty }, "\(remarks)")
        #expect(rows.allSatisfy { $0[3].split(separator: ",").count == $0[2].split(separator: ",").count * 2 })
        withExtendedLifetime(inbox) {}
    }

    @Test("TCP: a broken connection is a new session, with templates and sequence numbers of its own; no record twice")
    func reconnect() throws {
        let place = Place("::1", try FreePort.take())
        let listener = try Socket.listen(at: place)
        let lines = Lines()
        let exporter = try Self.start(
            ExportSettings(transport: .tcp, collector: Endpoint(IPAddress(high: 0, low: 1), place.port)), lines)
        var first: Socket? = try listener.accept()
        var streams: [Socket] = []
        var numbers: [UInt64] = []
        for session in 0..<2 {
            let stream = try session == 0 ? first.unwrap() : listener.accept()
            if session == 1 { streams.append(stream) }
            var reader = IPFIXReader()
            var expected: UInt32 = 0
            for batch in 0..<2 {
                exporter.enqueue(Self.flows(900, from: session * 1800 + batch * 900))
                var got = 0
                while got < 900 {
                    let read = try reader.read(try receiveMessage(stream))
                    #expect(read.sequence == expected && read.length <= 65535 && read.domain == 1)
                    #expect(read.sets.contains(2) == (expected == 0), "templates once, first")
                    expected += UInt32(read.records.count)
                    got += read.records.count
                    numbers += try read.records.map { try $0.number(1).unwrap() - 1 }
                }
            }
            if session == 0 {
                first?.finish()
                first = nil
                _ = try lines.wait("export_failed")
            }
        }
        #expect(numbers == (0..<3600).map { UInt64($0) })
        #expect(exporter.statistics.failures == 1 && exporter.statistics.sent == 3600)
        _ = try lines.wait("export_connected")
        exporter.stop()
        withExtendedLifetime(streams) {}
    }

    /// The next whole IPFIX message of a stream.
    private func receiveMessage(_ stream: Socket) throws -> [UInt8] {
        let head = try stream.receive(exactly: 4)
        let length = Int(head[2]) << 8 | Int(head[3])
        return try head + stream.receive(exactly: length - 4)
    }

    @Test("R27: a collector that is away: the queue keeps the oldest, the rest is counted, and what was kept arrives")
    func away() throws {
        let place = Place("::1", try FreePort.take())
        var settings = ExportSettings(transport: .tcp, collector: Endpoint(IPAddress(high: 0, low: 1), place.port))
        settings.queue = 1000
        let lines = Lines()
        let exporter = try Self.start(settings, lines)
        #expect(exporter.enqueue(Self.flows(800)) == 800)
        #expect(try lines.wait("export_failed").contains("Connection refused"))
        #expect(exporter.enqueue(Self.flows(800, from: 800)) == 200)
        #expect(exporter.enqueue(Self.flows(5, from: 1600)) == 0)
        var statistics = exporter.statistics
        #expect(statistics.dropped == 605 && statistics.waiting == 1000 && !statistics.isConnected)
        let listener = try Socket.listen(at: place)
        let stream = try listener.accept()
        var reader = IPFIXReader()
        var numbers: [UInt64] = []
        while numbers.count < 1000 {
            numbers += try reader.read(try receiveMessage(stream)).records.map { try $0.number(1).unwrap() - 1 }
        }
        #expect(numbers == (0..<1000).map { UInt64($0) })
        try Self.wait(exporter, "empty") { $0.waiting == 0 }
        #expect(exporter.enqueue(Self.flows(1, from: 7)) == 1, "there is room again")
        exporter.stop()
        statistics = exporter.statistics
        #expect(statistics.sent == 1001 && statistics.lost == 0 && statistics.dropped == 605)
    }

    @Test("stopped while the collector is away: what waits is counted as lost, and nothing waits for it")
    func stopped() throws {
        let port = try FreePort.take()
        let exporter = try Self.start(
            ExportSettings(transport: .tcp, collector: Endpoint(IPAddress(high: 0, low: 1), port)))
        exporter.enqueue(Self.flows(500))
        exporter.stop(patience: .milliseconds(100))
        #expect(exporter.statistics.lost == 500 && exporter.statistics.waiting == 0 && exporter.statistics.sent == 0)
    }

    @Test(
        "UDP: templates come again in time; sequence numbers go on; no datagram is too long"
    )
    func templatesAgain() throws {
        let place = Place("::1", try FreePort.take())
        var settings = ExportSettings(transport: .udp, collector: Endpoint(IPAddress(high: 0, low: 1), place.port))
        settings.templates = .milliseconds(200)
        let exporter = try Self.start(settings)
        let inbox = try UDPSocket(at: place)
        var reader = IPFIXReader()
        var expected: UInt32 = 0
        var templates = 0
        var sent = 0
        let deadline = Deadline()
        while templates < 3 {
            guard !deadline.hasPassed else { throw Failure("templates came \(templates) times") }
            exporter.enqueue(Self.flows(20, from: sent))
            sent += 20
            while expected < sent {
                let datagram = try inbox.receive()
                #expect(datagram.count <= 1400)
                let read = try reader.read(datagram)
                #expect(read.sequence == expected)
                expected += UInt32(read.records.count)
                if read.sets.contains(2) { templates += 1 }
            }
        }
        exporter.stop()
    }
}

/// A UDP socket that blocks, with a deadline.
final class UDPSocket: @unchecked Sendable {
    private let fd: Int32

    init(at place: Place? = nil) throws {
        fd = socket(AF_INET6, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard fd >= 0 else { throw Failure(call: "socket") }
        guard let place else { return }
        guard try place.withAddress({ bind(fd, $0, $1) }) == 0 else { throw Failure(call: "bind \(place)") }
    }
    deinit { close(fd) }

    func send(_ bytes: [UInt8], to place: Place) throws {
        let count = try place.withAddress { sendto(fd, bytes, bytes.count, 0, $0, $1) }
        guard count == bytes.count else { throw Failure(call: "send to \(place)") }
    }

    func receive(_ deadline: Deadline = Deadline()) throws -> [UInt8] {
        var polled = pollfd(fd: fd, events: Int16(POLLIN), revents: 0)
        guard poll(&polled, 1, deadline.milliseconds) > 0 else { throw Failure("no datagram in time") }
        var room = [UInt8](repeating: 0, count: 65536)
        let count = recv(fd, &room, room.count, 0)
        guard count >= 0 else { throw Failure(call: "receive") }
        return Array(room[..<count])
    }
}
