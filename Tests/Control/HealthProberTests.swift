import CLinux
import FilterBackendSelect
import Foundation
import Glibc
import Pipeline
import Synchronization
import TestSupport
import Testing

@testable import PipelineHealth

/// The prober on real sockets of this process: every way in which a backend can answer, or not.
@Suite("health: the prober")
struct HealthProberTests {
    /// A cell, a backend that does as told, and a prober for it.
    private final class Bench: @unchecked Sendable {
        let cell = UnsafeMutablePointer<BackendCell>.allocate(capacity: 1)
        private let condition = NSCondition()
        private var lines: [String] = []
        private(set) var prober: HealthProber?

        init(
            _ endpoint: Endpoint, _ probe: HealthSettings.Probe, proxy: Bool = false, timeout: TimeSpan = .seconds(5),
            rise: UInt32 = 1, fall: UInt32 = 1
        ) throws {
            cell.initialize(to: BackendCell(endpoint))
            let settings = HealthStateTests.settings(
                probe: probe, interval: .milliseconds(100), jitter: 0, timeout: timeout, rise: rise, fall: fall)
            let target = ProbeTarget(
                key: .init(endpoint: endpoint, usesProxy: proxy), cell: UnsafePointer(cell), settings: settings,
                instance: "i_1")
            prober = HealthProber.start(.init(testing: [target])) { [weak self] in self?.add($0) }.prober
            guard prober != nil else { throw NotStarted() }
        }

        deinit {
            prober?.stop()
            cell.deinitialize(count: 1)
            cell.deallocate()
        }

        private func add(_ line: [UInt8]) {
            condition.withLock {
                lines.append(String(decoding: line, as: UTF8.self))
                condition.broadcast()
            }
        }

        /// The first line with this event.
        func event(_ name: String) -> String? {
            let end = Date(timeIntervalSinceNow: 30)
            return condition.withLock {
                while true {
                    if let line = lines.first(where: { $0.contains("\"event\":\"\(name)\"") }) { return line }
                    guard condition.wait(until: end) else { return nil }
                }
            }
        }

        /// The status once `isReached` says so.
        func status(_ isReached: (ProbeStatus) -> Bool) -> ProbeStatus? {
            let reached = try? awaitValue("a status") { prober?.statuses().first { isReached($0) } }
            return reached ?? prober?.statuses().first
        }
    }

    /// A listener on ::1 whose every connection is served by `serve`, one after the other.
    private final class Backend: @unchecked Sendable {
        let endpoint: Endpoint
        private let listener: Int32

        init(_ serve: @escaping @Sendable (Int32) -> Void) throws {
            var at = cl_endpoint(high: 0, low: 1, port: 0)
            var options = cl_listen_options()
            options.backlog = 16
            listener = cl_listen(&at, &options)
            try #require(listener >= 0)
            try #require(cl_local_endpoint(listener, &at) == 0)
            endpoint = Endpoint(IPAddress(high: at.high, low: at.low), at.port)
            let listener = listener
            Thread.detachNewThread {
                while true {
                    cl_wait_readable(listener, 3_600_000_000_000)
                    var peer = cl_endpoint()
                    let accepted = cl_accept(listener, &peer)
                    if accepted == -11 { continue }
                    guard accepted >= 0 else { return }
                    serve(accepted)
                }
            }
        }

        deinit { shutdown(listener, Int32(SHUT_RDWR)) }

        static func say(_ text: String, to fd: Int32) {
            let bytes = Array(text.utf8)
            _ = bytes.withUnsafeBytes { cl_send(fd, $0.baseAddress, $0.count, nil, 0) }
        }
        /// What the prober sent, once at least one byte is there; waits for the end if told to.
        static func read(_ fd: Int32, toEnd: Bool = false) -> [UInt8] {
            var all: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 4096)
            while true {
                cl_wait_readable(fd, 5_000_000_000)
                let count = buffer.withUnsafeMutableBytes { cl_receive(fd, $0.baseAddress, $0.count) }
                if count > 0 { all += buffer.prefix(count) }
                if count <= 0 || !toEnd { return all }
            }
        }
    }

    private struct NotStarted: Error {}

    private static func close(_ fd: Int32) { _ = cl_close(fd) }

    @Test("tcp: a listener is up, a port that refuses is down, and comes back when something listens")
    func tcp() throws {
        let backend = try Backend { Self.close($0) }
        let bench = try Bench(backend.endpoint, .tcp)
        #expect(bench.status { $0.verdict == .up }?.last == .good)
        let gone = Endpoint(backend.endpoint.address, try #require(OwnedPort.take()))
        let refusing = try Bench(gone, .tcp, fall: 2)
        let line = try #require(refusing.event("backend_down"))
        #expect(line.contains("\"reason\":\"refused\",\"probes\":2") && line.contains("\"backend\":\"\(gone)\""))
        #expect(refusing.cell.pointee.probe.load(ordering: .relaxed) == BackendCell.Probe.down.rawValue)
    }

    @Test("expect: bytes that match, bytes that don't, none in time, an end")
    func expect() throws {
        let greeting = try Backend {
            Backend.say("220 mail\r\n", to: $0)
            _ = Backend.read($0, toEnd: true)
            Self.close($0)
        }
        let good = try Bench(greeting.endpoint, .expect(Array("220".utf8)))
        #expect(good.status { $0.verdict == .up }?.last == .good)
        let bad = try Bench(greeting.endpoint, .expect(Array("+OK".utf8)))
        #expect(bad.event("backend_down")?.contains("\"reason\":\"unexpected answer\"") == true)
        let mute = try Backend {
            _ = Backend.read($0, toEnd: true)
            Self.close($0)
        }
        let slow = try Bench(mute.endpoint, .expect(Array("220".utf8)), timeout: .milliseconds(80))
        #expect(slow.event("backend_down")?.contains("\"reason\":\"timeout\"") == true)
        let closing = try Backend { Self.close($0) }
        let ended = try Bench(closing.endpoint, .expect(Array("220".utf8)))
        #expect(ended.event("backend_down")?.contains("\"reason\":\"closed without an answer\"") == true)
    }

    @Test("a probe ends by a reset: the backend sees no FIN, and this node keeps no TIME_WAIT")
    func endsByReset() throws {
        let ends = Mutex<[Int]>([])
        let backend = try Backend { fd in
            var byte: UInt8 = 0
            cl_wait_readable(fd, 5_000_000_000)
            let count = cl_receive(fd, &byte, 1)
            ends.withLock { $0.append(count) }
            Self.close(fd)
        }
        let bench = try Bench(backend.endpoint, .tcp)
        // A probe is good before the backend has accepted it.
        _ = bench.status { $0.goodInARow >= 3 && ends.withLock { $0.count } >= 2 }
        bench.prober?.stop()
        let seen = ends.withLock { $0 }
        #expect(seen.count >= 2 && seen.allSatisfy { $0 == -104 }, "\(seen)")
    }

    @Test("R18: on a v2 route the backend gets a LOCAL header first, then the probe proper")
    func local() throws {
        let seen = Mutex<[[UInt8]]>([])
        let backend = try Backend { fd in
            let bytes = Backend.read(fd)
            seen.withLock { $0.append(bytes) }
            let hello: [UInt8] = [0x16, 3, 3, 0, 4, 2, 0, 0, 0]
            _ = hello.withUnsafeBytes { cl_send(fd, $0.baseAddress, $0.count, nil, 0) }
            Self.close(fd)
        }
        let bench = try Bench(backend.endpoint, .tls(serverName: "a.example"), proxy: true)
        let status = bench.status { $0.verdict == .up }
        #expect(status?.proxy == .accepted && status?.last == .good)
        #expect(bench.cell.pointee.proxy.load(ordering: .relaxed) == 1)
        let first = try #require(seen.withLock { $0.first })
        #expect(
            first.prefix(4) == [0x0D, 0x0A, 0x0D, 0x0A] && first.count > 16 && first[12] == 0x20 && first[16] == 0x16)
    }

    @Test("R18: a backend that hangs up on the header is proxy_rejected, and not for that down")
    func rejected() throws {
        let backend = try Backend { fd in
            _ = Backend.read(fd)
            Self.close(fd)
        }
        let bench = try Bench(backend.endpoint, .tcp, proxy: true)
        let line = try #require(bench.event("backend_proxy_rejected"))
        #expect(line.contains("\"proxy_v2\":true,\"probe\":\"good\""))
        let status = bench.status { $0.proxy == .rejected }
        #expect(status?.verdict == .up && status?.proxy == .rejected)
        #expect(bench.cell.pointee.proxy.load(ordering: .relaxed) == 2)
        #expect(bench.cell.pointee.proxyRejections.load(ordering: .relaxed) >= 1)
    }

    @Test("R27: more targets than places: each gets its turn, and no more descriptors than planned")
    func manyTargets() throws {
        // Nobody accepts, but the kernel does until the queue is full: some are good, some time out; all are judged.
        let count = HealthProber.inFlightLimit * 2
        let cells = UnsafeMutablePointer<BackendCell>.allocate(capacity: count)
        for index in 0..<count { (cells + index).initialize(to: BackendCell(Endpoint(.unspecified, 0))) }
        defer {
            cells.deinitialize(count: count)
            cells.deallocate()
        }
        let mute = try Backend { fd in
            _ = Backend.read(fd, toEnd: true)
            Self.close(fd)
        }
        let settings = HealthStateTests.settings(
            probe: .expect([1]), interval: .milliseconds(200), timeout: .milliseconds(100), fall: 1, rate: 100_000)
        let targets = (0..<count).map { index in
            ProbeTarget(
                key: .init(
                    endpoint: Endpoint(IPAddress(v4: 0x7F00_0000 | UInt32(index + 1)), mute.endpoint.port),
                    usesProxy: false), cell: UnsafePointer(cells + index), settings: settings, instance: "i")
        }
        guard let prober = HealthProber.start(.init(testing: targets), write: { _ in }).prober else {
            throw NotStarted()
        }
        try awaitUntil("all are judged") { prober.statuses().allSatisfy { $0.last != nil } }
        let statuses = prober.statuses()
        prober.stop()
        #expect(statuses.count == count && statuses.allSatisfy { $0.last != nil })
        #expect(prober.statuses().isEmpty)
    }
}
