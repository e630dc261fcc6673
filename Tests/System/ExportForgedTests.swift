import FilterEgressAccounting
import Glibc
import Pipeline
import TestSupport
import Testing

@testable import PipelineExport

/// ICMP that somebody else than a router on the way makes: a workload knows its node's address and the collector's, and can
/// try all ports.
@Suite("IPFIX over UDP: ICMP that quotes nothing that was sent", .enabled(if: geteuid() == 0, "needs raw sockets"))
struct ExportForgedTests {
    /// A collector that learns where its exporter sends from.
    private final class Inbox {
        let port: UInt16
        private let fd: Int32
        private(set) var exporter: UInt16 = 0

        init() throws {
            let fd = socket(AF_INET, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
            self.fd = fd
            guard fd >= 0 else { throw Failure(call: "socket") }
            let place = Place("127.0.0.1", 0)
            guard try place.withAddress({ bind(fd, $0, $1) }) == 0 else { throw Failure(call: "bind") }
            var own = sockaddr_in()
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let named = withUnsafeMutablePointer(to: &own) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(fd, $0, &length) }
            }
            guard named == 0 else { throw Failure(call: "getsockname") }
            port = UInt16(bigEndian: own.sin_port)
        }
        deinit { close(fd) }

        func receive() throws -> [UInt8] {
            var polled = pollfd(fd: fd, events: Int16(POLLIN), revents: 0)
            guard poll(&polled, 1, Deadline().milliseconds) > 0 else { throw Failure("no datagram in time") }
            var room = [UInt8](repeating: 0, count: 65536)
            var peer = sockaddr_in()
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let count = withUnsafeMutablePointer(to: &peer) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    recvfrom(fd, &room, room.count, 0, $0, &length)
                }
            }
            guard count >= 0 else { throw Failure(call: "receive") }
            exporter = UInt16(bigEndian: peer.sin_port)
            return Array(room[..<count])
        }

        /// Reads until it has so many records more; all messages.
        func receive(records: Int, _ reader: inout IPFIXReader) throws -> [[UInt8]] {
            var (messages, left) = ([[UInt8]](), records)
            while left > 0 {
                let message = try receive()
                messages.append(message)
                left -= try reader.read(message).records.count
            }
            return messages
        }

        /// That its port is unreachable, or another code, as loopback delivers it before the call returns.
        func forge(_ quote: some Sequence<UInt8>, code: UInt8 = 3) throws {
            let quote = Array(quote)
            let total = UInt16(28 + quote.count)
            func big(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 255)] }
            func summed(_ bytes: [UInt8], at place: Int) -> [UInt8] {
                var (bytes, sum) = (bytes, UInt32(0))
                for (index, byte) in bytes.enumerated() { sum += UInt32(byte) << (index % 2 == 0 ? 8 : 0) }
                while sum > 0xFFFF { sum = sum >> 16 + sum & 0xFFFF }
                bytes.replaceSubrange(place..<place + 2, with: big(~UInt16(truncatingIfNeeded: sum)))
                return bytes
            }
            let ip = summed([0x45, 0] + big(total) + [0, 1, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1], at: 10)
            let udp = big(exporter) + big(port) + big(UInt16(8 + quote.count)) + [0, 0]
            let icmp = summed([3, code, 0, 0, 0, 0, 0, 0] + ip + udp + quote, at: 2)
            let raw = socket(AF_INET, Int32(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue), Int32(IPPROTO_ICMP))
            guard raw >= 0 else { throw Failure(call: "raw socket") }
            defer { close(raw) }
            let count = try Place("127.0.0.1", 0).withAddress { sendto(raw, icmp, icmp.count, 0, $0, $1) }
            guard count == icmp.count else { throw Failure(call: "sendto") }
        }
    }

    @Test("records go on and none counts as lost; what quotes a datagram that was sent is believed")
    func forged() throws {
        let inbox = try Inbox()
        let loopback = IPAddress(v4: 0x7F00_0001)
        let exporter = try ExportTests.start(
            ExportSettings(transport: .udp, collector: Endpoint(loopback, inbox.port)))
        defer { exporter.stop() }
        var reader = IPFIXReader()
        exporter.enqueue(ExportTests.flows(20))
        let header = try inbox.receive(records: 20, &reader).last.unwrap("a message").prefix(16)
        var sent = 20
        /// One of those that quote too little, or what was never sent.
        func tries(_ quote: [UInt8], _ code: UInt8) throws {
            for _ in 0..<20 { try inbox.forge(quote, code: code) }
            exporter.enqueue(ExportTests.flows(3))
            // Many more than the socket has room for, while it sends.
            for _ in 0..<2000 { try inbox.forge(quote, code: code) }
            exporter.enqueue(ExportTests.flows(3))
            _ = try inbox.receive(records: 6, &reader)
            sent += 6
            try ExportTests.wait(exporter, "sent") { $0.sent == UInt64(sent) }
            let now = exporter.statistics
            #expect(now.lost == 0 && now.failures == 0 && now.error == 0 && now.isConnected, "\(now)")
        }
        var other = Array(header)
        other[11] ^= 0x55
        for quote in [[], Array(header.prefix(11)), other, [UInt8](repeating: 0, count: 16)] {
            for code in [1, 3] as [UInt8] { try tries(quote, code) }
        }
        #expect(exporter.statistics.waiting == 0)
        try inbox.forge(header)
        try ExportTests.wait(exporter, "one that is quoted is lost") { $0.failures == 1 }
        let now = exporter.statistics
        #expect(now.lost > 0 && now.lost <= 20 && now.error == ECONNREFUSED, "\(now)")
    }

    @Test("a message goes, though somebody's ICMP waits at the socket")
    func pendingError() throws {
        let inbox = try Inbox()
        let queue = ExportQueue(limit: 100)
        let collector = Endpoint(IPAddress(v4: 0x7F00_0001), inbox.port)
        var session = ExportSession(ExportSettings(transport: .udp, collector: collector), queue)
        defer { session.close() }
        var reader = IPFIXReader()
        for round in 1...4 as ClosedRange<UInt64> {
            #expect(queue.enqueue(ExportTests.flows(1)) == 1)
            // Before the socket has heard of it. Of the first one nobody knows the port.
            if round > 1 { try inbox.forge([]) }
            _ = session.advance(Instant(nanoseconds: round), wallClock: round)
            _ = try inbox.receive(records: 1, &reader)
            let now = queue.statistics
            #expect(now.sent == round && now.lost == 0 && now.failures == 0, "\(now)")
        }
    }
}
