import CLinux
import Foundation
import Glibc
import Pipeline
import TestSupport
import Testing

@testable import PipelineAdmin
@testable import PipelineNode

/// A syslog daemon of the test's, which reads when the test says so.
private final class Daemon {
    let descriptor: Int32
    let address: SyslogSettings.Address
    private(set) var received: [String] = []

    init(unix path: String) throws {
        unlink(path)
        let made = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var place = sockaddr_un()
        place.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &place.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
        try #require(Daemon.bind(made, &place) == 0)
        (descriptor, address) = (made, .unix(path))
    }

    /// - Parameter port: 0: any.
    init(port: UInt16) throws {
        let made = socket(AF_INET6, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var place = sockaddr_in6()
        place.sin6_family = sa_family_t(AF_INET6)
        place.sin6_addr = in6addr_loopback
        place.sin6_port = port.bigEndian
        var own = cl_endpoint()
        try #require(Daemon.bind(made, &place) == 0)
        try #require(cl_local_endpoint(made, &own) == 0)
        (descriptor, address) = (made, .udp(Endpoint(IPAddress(high: own.high, low: own.low), own.port)))
    }

    private static func bind<Address>(_ descriptor: Int32, _ place: inout Address) -> Int32 {
        withUnsafePointer(to: &place) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.bind(descriptor, $0, socklen_t(MemoryLayout<Address>.size))
            }
        }
    }

    deinit { close(descriptor) }

    func take() -> [String] {
        var room = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = recv(descriptor, &room, room.count, Int32(MSG_DONTWAIT))
            guard count > 0 else { return received }
            received.append(String(decoding: room[..<count], as: UTF8.self))
        }
    }
}

@Suite("Syslog: a daemon that is away, slow or started again costs lines, and nothing else", .serialized)
struct SyslogWriterTests {
    /// The text behind the header.
    private func texts(_ messages: [String]) -> [String] {
        messages.map { String($0.split(separator: " ").last ?? "") }
    }
    private func numbered(_ range: Range<Int>) -> [String] { range.map { "n\($0)" } }

    @Test("every line is a datagram, in order; a slow daemon is waited for, without a loss")
    func slow() throws {
        let site = try WriterSite()
        let daemon = try Daemon(unix: site.path("log"))
        try site.use(connections: .syslog(SyslogSettings(daemon.address)))
        for number in 0..<2000 { site.say("n\(number)") }
        // The kernel queues `net.unix.max_dgram_qlen` of them.
        try awaitUntil("the daemon's queue is full") {
            LogReport(site.writer).problems.isEmpty && site.writer.out.counts.waiting > 0
        }
        try awaitUntil("all of them") { daemon.take().count == 2000 }
        #expect(texts(daemon.received) == numbered(0..<2000))
        #expect(daemon.received[0].hasPrefix("<29>"))
        #expect(site.writer.out.counts.dropped == 0)
        #expect(site.writer.flush(patience: 60_000))
    }

    @Test("a stuck daemon: what has no room is dropped and counted, and the next says how many")
    func stuck() throws {
        let site = try WriterSite()
        let daemon = try Daemon(unix: site.path("log"))
        try site.use(connections: .syslog(SyslogSettings(daemon.address)))
        let line = Array((String(repeating: "x", count: 999) + "\n").utf8)
        var taken = 0
        for _ in 0..<3000 where site.writer.out.append(line) { taken += 1 }
        #expect(taken < 3000 && site.writer.out.counts.dropped == UInt64(3000 - taken))
        try awaitUntil("it is said") { site.has("err", "log_failed") }
        try awaitUntil("what was taken, and how many were not") { daemon.take().count == taken + 1 }
        let mark = try #require(daemon.received.last)
        #expect(mark.contains("\"event\":\"lines_dropped\"") && mark.contains("\"count\":\(3000 - taken)}"))
        try awaitUntil("it is said") { site.has("err", "log_recovered") }
    }

    @Test("a daemon that hangs is told of before any line is lost, and when it goes on")
    func hung() throws {
        let site = try WriterSite()
        let daemon = try Daemon(unix: site.path("log"))
        try site.use(connections: .syslog(SyslogSettings(daemon.address)))
        for number in 0..<2000 { site.say("n\(number)") }
        try awaitUntil("it is said") { site.has("err", "log_failed") }
        #expect(site.writer.out.counts.dropped == 0)
        #expect(site.text("err").contains("its reader is stuck or too slow"))
        #expect(LogReport(site.writer).problems.first?.contains("0 lines were dropped") == true)
        try awaitUntil("all of them") { daemon.take().count == 2000 }
        try awaitUntil("it is said") { site.has("err", "log_recovered") }
        #expect(LogReport(site.writer).problems == [])
        let recovered = try #require(site.lines("err").first { $0.contains("log_recovered") })
        #expect(recovered.contains("\"dropped\":0}"), "\(recovered)")
        #expect(texts(daemon.received) == numbered(0..<2000))
    }

    @Test("a daemon that is not there at first, and goes and comes: nothing that was not handed over is lost")
    func restarted() throws {
        let site = try WriterSite()
        let path = site.path("log")
        try site.use(connections: .syslog(SyslogSettings(.unix(path))))
        for number in 0..<10 { site.say("n\(number)") }
        try awaitUntil("that it is away") { site.has("err", "log_failed") }
        #expect(LogReport(site.writer).problems.first?.contains("no syslog daemon is there") == true)
        var daemon: Daemon? = try Daemon(unix: path)
        try awaitUntil("all of them") { daemon?.take().count == 10 }
        #expect(texts(daemon?.received ?? []) == numbered(0..<10))
        try awaitUntil("that it is back") { site.has("err", "log_recovered") }
        // As a restart does: the socket goes, and another comes at its path.
        daemon = nil
        for number in 10..<20 { site.say("n\(number)") }
        try awaitUntil("that it is away") { site.lines("err").count { $0.contains("log_failed") } == 2 }
        let next = try Daemon(unix: path)
        try awaitUntil("the rest") { next.take().count == 10 }
        #expect(texts(next.received) == numbered(10..<20))
        #expect(site.writer.out.counts.dropped == 0)
        #expect(site.writer.flush(patience: 60_000))
    }

    @Test("a daemon that ends while its queue is full: the rest goes to the next one, in order")
    func stuckThenGone() throws {
        let site = try WriterSite()
        let path = site.path("log")
        var daemon: Daemon? = try Daemon(unix: path)
        try site.use(connections: .syslog(SyslogSettings(.unix(path))))
        for number in 0..<2000 { site.say("n\(number)") }
        try awaitUntil("its queue is full") { site.writer.out.counts.waiting > 0 }
        let before = site.writer.out.counts.waiting
        daemon = nil
        try awaitUntil("that it is away") { site.has("err", "log_failed") }
        #expect(site.writer.out.counts.waiting > 0 && site.writer.out.counts.waiting <= before)
        let next = try Daemon(unix: path)
        try awaitUntil("the last") { next.take().last?.hasSuffix(" n1999") == true }
        #expect(texts(next.received) == Array(numbered(0..<2000).suffix(next.received.count)))
        withExtendedLifetime(daemon) {}
    }

    @Test("a socket of streams in the place of a daemon's is said for what it is")
    func streams() throws {
        let site = try WriterSite()
        let listener = cl_unix_listen(site.path("log"), 0o600, 1)
        defer { close(listener) }
        try site.use(connections: .syslog(SyslogSettings(.unix(site.path("log")))))
        site.say("n0")
        try awaitUntil("why not") { site.text("err").contains("it is no socket for datagrams") }
    }

    @Test("UDP: refused datagrams are counted, it is said once, and once they are taken again nothing more is lost")
    func refused() throws {
        let site = try WriterSite()
        var daemon: Daemon? = try Daemon(port: 0)
        let address = try #require(daemon?.address)
        guard case .udp(let endpoint) = address else { return }
        try site.use(connections: .syslog(SyslogSettings(address)))
        site.say("n0")
        try awaitUntil("the first") { daemon?.take().count == 1 }
        #expect(daemon?.received[0].hasPrefix("<29>1 ") == true)
        daemon = nil
        var number = 1
        try awaitUntil("that it is away") {
            site.say("n\(number)")
            number += 1
            return site.has("err", "log_failed")
        }
        let back = try Daemon(port: endpoint.port)
        try awaitUntil("it counts as there") {
            site.say("n\(number)")
            number += 1
            return site.has("err", "log_recovered")
        }
        for _ in 0..<100 {
            site.say("n\(number)")
            number += 1
        }
        #expect(site.writer.flush(patience: 60_000))
        let got = texts(back.take().filter { !$0.contains("lines_dropped") })
        let lost = Int(site.writer.out.counts.dropped)
        // ICMP says of each that nobody took it, on this machine at least.
        #expect(lost > 0 && got == Array(numbered(0..<number).suffix(got.count)) && got.count == number - 1 - lost)
        let marks = back.received.filter { $0.contains("lines_dropped") }
        #expect(marks.count == 1 && marks[0].contains("\"count\":\(lost)}"), "\(marks), \(lost)")
        #expect(site.lines("err").count { $0.contains("log_failed") } == 1)
        let recovered = try #require(site.lines("err").first { $0.contains("log_recovered") })
        #expect(recovered.contains("\"dropped\":\(lost),\"more_possible\":true"), "\(recovered), \(lost)")
        #expect(recovered.contains("only some losses are known"))
    }

    @Test("events to syslog: that they can't be sent is said on standard error")
    func events() throws {
        let site = try WriterSite()
        try site.use(events: .syslog(SyslogSettings(.unix(site.path("log")))))
        try awaitUntil("they go there") { site.has("err", "log_opened") }
        site.writer.error.append(Array("hello\n".utf8))
        try awaitUntil("that it is away") { site.has("err", "log_failed") }
        let daemon = try Daemon(unix: site.path("log"))
        try awaitUntil("it is there") { daemon.take().contains { $0.hasSuffix(": hello") } }
        try awaitUntil("that it is back") { site.has("err", "log_recovered") }
    }

    @Test("from a stuck daemon to a file: what waits is not lost, and nothing is sent twice")
    func away() throws {
        let site = try WriterSite()
        let daemon = try Daemon(unix: site.path("log"))
        try site.use(connections: .syslog(SyslogSettings(daemon.address)))
        for number in 0..<2000 { site.say("n\(number)") }
        try awaitUntil("it is stuck") { site.writer.out.counts.waiting > 0 }
        try site.use(connections: .file(site.path("file")))
        #expect(site.writer.flush(patience: 60_000))
        #expect(texts(daemon.take()) + site.lines("file") == numbered(0..<2000))
    }

    @Test("a line that no datagram can carry is dropped, and holds up nobody")
    func tooLong() throws {
        let site = try WriterSite()
        let daemon = try Daemon(port: 0)
        try site.use(connections: .syslog(SyslogSettings(daemon.address)))
        site.say(String(repeating: "x", count: 70_000))
        site.say("n0")
        try awaitUntil("the next") { daemon.take().count == 1 }
        #expect(texts(daemon.received) == ["n0"] && site.writer.out.counts.dropped == 1)
    }
}
