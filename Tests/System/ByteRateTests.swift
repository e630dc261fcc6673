import Foundation
import TestSupport
import Testing

/// Counts bytes from many threads, and says when they passed given marks.
private final class Meter: @unchecked Sendable {
    private let condition = NSCondition()
    private var count = 0
    private var passed: [Int: UInt64] = [:]
    private let marks: [Int]

    init(marks: [Int]) { self.marks = marks }

    func add(_ bytes: Int) {
        condition.withLock {
            count += bytes
            for mark in marks where count >= mark && passed[mark] == nil {
                passed[mark] = DispatchTime.now().uptimeNanoseconds
                condition.broadcast()
            }
        }
    }

    var total: Int { condition.withLock { count } }

    /// When it passed, in seconds of the monotonic clock.
    func wait(for mark: Int, _ deadline: Deadline = Deadline()) throws -> Double {
        try condition.withLock {
            while true {
                if let at = passed[mark] { return Double(at) / 1e9 }
                guard condition.wait(until: deadline.date) else {
                    throw Failure("only \(count) of \(mark) bytes came in time")
                }
            }
        }
    }
}

/// Byte rates of a limit, as a real relay keeps them (R20).
@Suite("Byte rates")
struct ByteRateTests {
    private static let rate = 2 << 20
    private static let burst = 64 << 10
    /// Measured between these two, so that neither the burst nor the sockets' buffers count.
    private static let (first, last) = (2 << 20, 8 << 20)

    @Test(
        "2 MiB/s each way, shared by six connections on two workers: never more, and nearly as much; who waits costs next to nothing"
    )
    func sharedRate() throws {
        let (up, down) = (Meter(marks: [Self.first, Self.last]), Meter(marks: [Self.first, Self.last]))
        let chunk = pattern(65536)
        let pour = { @Sendable (socket: Socket) in
            while (try? socket.send(chunk, Deadline(seconds: 60))) != nil {}
        }
        let drink = { @Sendable (socket: Socket, meter: Meter) in
            while case .bytes(let bytes)? = try? socket.receive() { meter.add(bytes.count) }
        }
        let server = try Server { socket in
            Thread.detachNewThread { pour(socket) }
            drink(socket, up)
        }
        let entry = Place("::1", try FreePort.take())
        let limit = """

            limit shared {
                key         client/128
                bytes_up    2MiB/s burst 64KiB
                bytes_down  2MiB/s burst 64KiB
                table       1k
            }

            """
        let node = try Node(
            ConfigText(
                workers: 2, rawListeners: [entry], firstStages: ["rate_limit shared"],
                routes: [RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [server.place])], more: limit
            ).description)
        let opened = Double(DispatchTime.now().uptimeNanoseconds) / 1e9
        let clients = try (0..<6).map { _ in try Socket.connect(to: entry) }
        for client in clients {
            Thread.detachNewThread { pour(client) }
            Thread.detachNewThread { drink(client, down) }
        }
        defer { for client in clients { client.reset() } }
        _ = try up.wait(for: Self.first)
        let begin = try down.wait(for: Self.first)
        let before = try node.processorSeconds
        for (name, meter) in [("up", up), ("down", down)] {
            let seconds = try meter.wait(for: Self.last) - meter.wait(for: Self.first)
            let measured = Double(Self.last - Self.first) / seconds
            print("bytes_\(name) 2MiB/s: \(Int(measured)) bytes/s over \(seconds) s")
            // By all the time that there was: whoever looks late finds more, and has had more time too. S21: the rate, its burst,
            // and one read a connection.
            let allowed = Double(Self.rate) * (try meter.wait(for: Self.last) - opened) + Double(Self.burst + 6 * 65536)
            #expect(Double(Self.last) <= allowed, "\(name): \(Self.last) of \(allowed) bytes")
            // How near it comes is the machine's doing as well: what a worker that is not run leaves is lost but for the burst.
            #expect(measured > 0.7 * Double(Self.rate), "\(name): \(measured) bytes a second")
        }
        let elapsed = Double(DispatchTime.now().uptimeNanoseconds) / 1e9 - begin
        let used = try node.processorSeconds - before
        print("the node used \(used) s of processor time in \(elapsed) s")
        #expect(used < 0.5 * elapsed)
    }

    private static let shared = """

        limit shared {
            key         client/128
            bytes_up    1MiB/s burst 4KiB
            bytes_down  1MiB/s burst 4KiB
            table       1k
        }

        """

    private static func node(_ server: Server, workers: Int) throws -> (Node, Place) {
        let entry = Place("::1", try FreePort.take())
        let node = try Node(
            ConfigText(
                workers: workers, rawListeners: [entry], firstStages: ["rate_limit shared"],
                routes: [RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [server.place])], more: shared
            ).description)
        return (node, entry)
    }

    /// Sends on its own; answers what it is sent.
    private static func source() throws -> Server {
        try Server { socket in
            let first = try socket.receive(exactly: 1)
            let chunk = pattern(65536)
            if first == [0] { while (try? socket.send(chunk, Deadline(seconds: 60))) != nil {} }
            while case .bytes(let bytes) = try socket.receive() { try socket.send(bytes) }
        }
    }

    @Test("R20: a small exchange beside twenty bulk streams of the same key waits for none of them to be served first")
    func smallBesideBulk() throws {
        let server = try Self.source()
        let (node, entry) = try Self.node(server, workers: 1)
        let meter = Meter(marks: [1 << 20])
        let bulk = try (0..<20).map { _ in try Socket.connect(to: entry) }
        for client in bulk {
            try client.send([0])
            Thread.detachNewThread {
                while case .bytes(let bytes)? = try? client.receive(atMost: 65536) { meter.add(bytes.count) }
            }
        }
        defer { for client in bulk { client.reset() } }
        _ = try meter.wait(for: 1 << 20)
        let small = try Socket.connect(to: entry)
        try small.send([1])
        var times: [Double] = []
        for _ in 0..<15 {
            let begin = DispatchTime.now().uptimeNanoseconds
            try small.send("ping")
            #expect(try small.receive(exactly: 4) == Array("ping".utf8))
            times.append(Double(DispatchTime.now().uptimeNanoseconds - begin) / 1e9)
        }
        let median = times.sorted()[times.count / 2]
        print("a small exchange beside twenty bulk streams: \(median) s, at most \(times.max() ?? 0) s")
        // One that waits for the twenty takes more than a second.
        #expect(median < 0.6, "\(times)")
        withExtendedLifetime(node) {}
    }

    @Test("R20: three streams on two workers have even shares of one rate")
    func evenShares() throws {
        let server = try Self.source()
        let (node, entry) = try Self.node(server, workers: 2)
        // As many as it takes for both workers to have some: shares are even whichever has which.
        let meters = (0..<5).map { _ in Meter(marks: [256 << 10]) }
        let clients = try meters.map { meter in
            let client = try Socket.connect(to: entry)
            try client.send([0])
            Thread.detachNewThread {
                while case .bytes(let bytes)? = try? client.receive(atMost: 65536) { meter.add(bytes.count) }
            }
            return client
        }
        defer { for client in clients { client.reset() } }
        for meter in meters { _ = try meter.wait(for: 256 << 10) }
        let before = meters.map(\.total)
        let shares = { zip(meters, before).map { $0.total - $1 } }
        let began = Deadline.now()
        // The rate is 1 MiB a second.
        try awaitUntil("5 MiB have come") { shares().reduce(0, +) >= 5 << 20 }
        let (come, seconds) = (shares(), Double(Deadline.now() - began) / 1e9)
        print("five streams' shares of a rate, in bytes: \(come), in \(seconds) s")
        #expect(Double(come.max() ?? 0) <= 1.5 * Double(come.min() ?? 0), "\(come)")
        // And most of it is used: 5 s, where nothing else runs.
        #expect(seconds < 20, "\(come)")
        withExtendedLifetime(node) {}
    }

    /// nginx as a relay of streams: each to one server, at the rate that it gives each connection.
    private static func nginx(_ entry: Place, to server: Place, rate: String) throws -> Child {
        let folder = try TemporaryFolder()
        let config = try folder.write(
            "nginx.conf",
            """
            load_module modules/ngx_stream_module.so;
            \(geteuid() == 0 ? "user root;" : "") daemon off; master_process off; pid \(folder.path)/pid;
            error_log stderr warn;
            events { worker_connections 64; }
            stream { server { listen \(entry); proxy_pass \(server); proxy_download_rate \(rate); } }
            """)
        let child = try Child("nginx", ["-p", "/usr/share/nginx", "-c", config, "-e", "stderr"])
        try waitForListener(at: entry, child)
        return child
    }

    @Test("R20: a rate for each connection, as nginx's `proxy_download_rate`, beside a rate that they share")
    func eachConnection() throws {
        let server = try Self.source()
        let (ours, theirs) = (Place("::1", try FreePort.take()), Place("::1", try FreePort.take()))
        let limits = """

            limit each {
                key         connection
                bytes_down  1MiB/s burst 64KiB
                table       1k
            }
            limit all {
                key         listener
                bytes_down  2560KiB/s burst 64KiB
                table       8
            }

            """
        let node = try Node(
            ConfigText(
                workers: 2, rawListeners: [ours], firstStages: ["rate_limit each", "rate_limit all"],
                routes: [RouteText(host: nil, id: "rt_raw", port: ours.port, backends: [server.place])], more: limits
            ).description)
        let nginx = try Self.nginx(theirs, to: server.place, rate: "1m")
        let (first, last) = (512 << 10, 2560 << 10)
        let entries = [ours, ours, theirs, theirs]
        let meters = entries.map { _ in Meter(marks: [first, last]) }
        let opened = Double(DispatchTime.now().uptimeNanoseconds) / 1e9
        let clients = try zip(entries, meters).map { entry, meter in
            let client = try Socket.connect(to: entry)
            try client.send([0])
            Thread.detachNewThread {
                while case .bytes(let bytes)? = try? client.receive(atMost: 65536) { meter.add(bytes.count) }
            }
            return client
        }
        defer { for client in clients { client.reset() } }
        let rates = try meters.map { Double(last - first) / (try $0.wait(for: last) - $0.wait(for: first)) }
        print(
            "1 MiB/s for each connection: ours \(rates[..<2].map(Int.init)), nginx \(rates[2...].map(Int.init)) bytes/s"
        )
        for meter in meters[..<2] {
            let allowed = Double(1 << 20) * (try meter.wait(for: last) - opened) + Double(65536 + 65536)
            #expect(Double(last) <= allowed)
        }
        // Each has a rate of its own: one that they share would give each a half.
        for rate in rates { #expect(rate > 0.6 * Double(1 << 20), "\(rates)") }
        let (mine, other) = (rates[0] + rates[1], rates[2] + rates[3])
        #expect(mine / other > 0.6 && mine / other < 1.7, "\(rates)")
        withExtendedLifetime((node, nginx)) {}
    }
}
