import Foundation
import TestSupport
import Testing

/// R17: only listed senders write PROXY headers. Whoever else sends one, in whatever way and however late, never gets a byte
/// of it to a backend, and no ordinary client waits for that.
@Suite("R17: ten ways of a stranger's header")
struct StrangerHeaderTests {
    /// How a header is sent. "Behind silence" is after the deadline of a TLS listener, and after the greeting of a server
    /// that speaks first: the client waits for whichever comes.
    enum Way: CaseIterable {
        case whole, bytewise, split, withFin, halfThenFin
        case acrossDeadline, behindSilence, bytewiseBehindSilence, splitBehindSilence, withFinBehindSilence

        func send(_ header: [UInt8], half: Int, on client: Socket) {
            // The node may close before the last byte: then the rest can't be sent.
            func send(_ bytes: some Sequence<UInt8>) { try? client.send(Array(bytes)) }
            switch self {
            case .acrossDeadline: send(header.prefix(half))
            case .behindSilence, .bytewiseBehindSilence, .splitBehindSilence, .withFinBehindSilence: break
            case .whole, .bytewise, .split, .withFin, .halfThenFin: return sendAtOnce(header, half, client)
            }
            _ = client.becomesReadable(Deadline())
            switch self {
            case .acrossDeadline: send(header.dropFirst(half))
            case .bytewiseBehindSilence: for byte in header { send([byte]) }
            case .splitBehindSilence:
                send(header.prefix(half))
                send(header.dropFirst(half))
            case .withFinBehindSilence: try? client.sendAndFinish(header)
            default: send(header)
            }
        }

        private func sendAtOnce(_ header: [UInt8], _ half: Int, _ client: Socket) {
            switch self {
            case .bytewise: for byte in header { try? client.send([byte]) }
            case .split:
                try? client.send(Array(header.prefix(half)))
                try? client.send(Array(header.dropFirst(half)))
            case .withFin: try? client.sendAndFinish(header)
            case .halfThenFin: try? client.sendAndFinish(Array(header.prefix(half)))
            default: try? client.send(header)
            }
        }
    }

    /// A header, and where to cut it within its signature.
    static let headers: [(bytes: [UInt8], half: Int)] = [
        (Array("PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\n".utf8), 3),
        (bytes(hex: "0d0a0d0a000d0a515549540a2111000cc0000201c000020204d201bb") ?? [], 7),
    ]

    enum Listener: CaseIterable {
        case raw, oneName, twoNames, allowsNonTLS, sniFirst, dedicatedIPv4
    }

    static let greeting = Array("220 ready\r\n".utf8)

    /// Greets, sends back what comes, and keeps it.
    struct Recorder: Sendable {
        private let streams: Streams
        let server: Server

        private final class Streams: @unchecked Sendable {
            private let lock = NSLock()
            private var all: [[UInt8]] = []
            var seen: [[UInt8]] { lock.withLock { all.filter { !$0.isEmpty } } }
            func open() -> Int {
                lock.withLock {
                    all.append([])
                    return all.count - 1
                }
            }
            func add(_ chunk: [UInt8], to stream: Int) { lock.withLock { all[stream] += chunk } }
        }

        init() throws {
            let streams = Streams()
            self.streams = streams
            server = try Server { socket in
                let stream = streams.open()
                try socket.send(StrangerHeaderTests.greeting)
                while case .bytes(let chunk) = try socket.receive() {
                    streams.add(chunk, to: stream)
                    try socket.send(chunk)
                }
                socket.finish()
            }
        }

        /// What came on each connection on which anything came.
        var seen: [[UInt8]] { streams.seen }
    }

    struct Site {
        let recorder: Recorder
        let node: Node
        let entry: Place
        let listener: Listener

        init(_ listener: Listener, timeout: String, stage: String = "anti_spoof refuse others") throws {
            self.listener = listener
            recorder = try Recorder()
            let folder = try TemporaryFolder()
            let port = try FreePort.take()
            let address = "127.88.\(getpid() >> 8 & 255).\(getpid() & 255)"
            entry = Place(listener == .dedicatedIPv4 ? address : "::1", port)
            var config = ConfigText(sniff: "timeout \(timeout)", firstStages: [stage])
            let route = { [recorder] (host: String?, id: String) in
                RouteText(
                    host: host, id: id, port: port, backends: [recorder.server.place],
                    allowsNonTLS: listener == .allowsNonTLS || listener == .sniFirst)
            }
            switch listener {
            case .raw:
                config.rawListeners = [entry]
                config.routes = [route(nil, "rt_raw")]
            case .oneName, .allowsNonTLS: config.routes = [route("a.example.com", "rt_a")]
            case .twoNames: config.routes = [route("a.example.com", "rt_a"), route("b.example.com", "rt_b")]
            case .sniFirst:
                config.routes = [route("a.example.com", "rt_a")]
                (config.firstStages, config.proxy) = ([], stage)
            case .dedicatedIPv4:
                try folder.write("state.json", Site.state(address, port, recorder.server.place.port))
                config.more = "expose dedicated_ipv4 ports \(port) tls_passthrough via tls\nroutes file state.json\n"
            }
            // The pipeline needs a listener besides the dedicated address.
            if listener == .dedicatedIPv4 {
                config.tlsListeners = [Place("::1", port)]
            } else if listener != .raw {
                config.tlsListeners = [entry]
            }
            node = try Node(config.description, folder: folder)
        }

        private static func state(_ address: String, _ port: UInt16, _ backend: UInt16) -> String {
            """
            {"format":"pipelined.state/1","revision":1,
             "envs":[{"env_id":"env_a","app_id":"shop","org_id":"acme","ipv4_address":"\(address)"}],
             "instances":[{"instance_id":"i_a","env_id":"env_a","process_type":"w","overlay_ipv6":"::1","status":"ready"}],
             "routes":[{"route_id":"rt_a","env_id":"env_a","hostname":"a.example.com","listen_port":\(port),
              "protocol_hint":"tls_passthrough","backend_process_type":"w","backend_port":\(backend),
              "ipv4_required":true}]}
            """
        }

        /// What an ordinary client sends here.
        var ordinary: [UInt8] { listener == .raw ? Array("QUIT\r\n".utf8) : clientHello("a.example.com") }

        /// An ordinary client gets the greeting and its own bytes back.
        func serveOrdinary() throws {
            let client = try Socket.connect(to: entry)
            if listener != .raw { try client.send(ordinary) }
            #expect(try client.receive(exactly: StrangerHeaderTests.greeting.count) == StrangerHeaderTests.greeting)
            if listener == .raw { try client.send(ordinary) }
            #expect(try client.receive(exactly: ordinary.count) == ordinary)
            client.finish()
            #expect(try client.receiveToEnd().bytes == [])
        }
    }

    @Test("none reaches a backend", arguments: Listener.allCases)
    func noneReaches(listener: Listener) throws {
        let site = try Site(listener, timeout: "300ms")
        let strangers = Way.allCases.flatMap { way in
            StrangerHeaderTests.headers.map { header in
                (
                    way, header,
                    concurrently {
                        let client = try Socket.connect(to: site.entry)
                        way.send(header.bytes, half: header.half, on: client)
                        return (try client.local, try client.receiveToEnd().bytes)
                    }
                )
            }
        }
        for (way, header, end) in strangers {
            let (place, answer) = try end.value()
            let line = try site.node.log(of: place)
            if way == .halfThenFin {
                // It ends before it is a signature: it may pass, where anything may that is no hello, and is no header.
                #expect(line.bytesToBackend <= header.half, "\(way): \(line)")
                continue
            }
            #expect(answer.isEmpty || answer == StrangerHeaderTests.greeting, "\(way): \(answer)")
            #expect(line.bytesToBackend == 0, "\(way): \(line)")
            let allowed = ["anti_spoof.spoofed client"] + (listener == .twoNames ? ["sni.timeout client"] : [])
            #expect(allowed.contains(line.reason), "\(way): \(line)")
        }
        try site.serveOrdinary()
        let halves = StrangerHeaderTests.headers.map { Array($0.bytes.prefix($0.half)) }
        for stream in site.recorder.seen { #expect(stream == site.ordinary || halves.contains(stream), "\(stream)") }
        #expect(site.recorder.seen.contains(site.ordinary))
    }

    @Test(
        "none delays an ordinary client: not by a byte that is awaited, nor by strangers who are",
        arguments: Listener.allCases)
    func noneDelays(listener: Listener) throws {
        // Were anybody waited for, it would be for longer than this test has patience.
        let site = try Site(listener, timeout: "60s")
        let silent = try Socket.connect(to: site.entry)
        let halves = try StrangerHeaderTests.headers.map { header in
            let client = try Socket.connect(to: site.entry)
            try client.send(Array(header.bytes.prefix(header.half)))
            return client
        }
        for _ in 0..<3 { try site.serveOrdinary() }
        #expect(site.recorder.seen == [[UInt8]](repeating: site.ordinary, count: 3))
        withExtendedLifetime((silent, halves)) {}
    }

    @Test(
        "an ordinary client that is silent beyond the deadline is served all the same",
        arguments: [Listener.oneName, .dedicatedIPv4])
    func lateOrdinary(listener: Listener) throws {
        let site = try Site(listener, timeout: "300ms")
        let client = try Socket.connect(to: site.entry)
        #expect(try client.receive(exactly: StrangerHeaderTests.greeting.count) == StrangerHeaderTests.greeting)
        // The first bytes are looked at as they come: what begins like a signature is held until it is none.
        try client.send("P")
        try client.send("RINT")
        #expect(try client.receive(exactly: 5) == Array("PRINT".utf8))
        client.finish()
        #expect(try client.receiveToEnd().bytes == [])
    }

    /// As an NLB does it in front of a server that speaks first: the header comes with the client's first bytes.
    @Test(
        "a listed sender's header after the deadline is closed by name, and is never payload",
        arguments: [Listener.raw, .oneName])
    func lateSender(listener: Listener) throws {
        let site = try Site(
            listener, timeout: "300ms", stage: "anti_spoof accept from ::1, refuse others, timeout 300ms")
        let late: [Way] = [.behindSilence, .bytewiseBehindSilence, .splitBehindSilence, .withFinBehindSilence]
        for way in late {
            for header in StrangerHeaderTests.headers {
                let client = try Socket.connect(to: site.entry)
                let place = try client.local
                way.send(header.bytes + site.ordinary, half: header.half, on: client)
                #expect(try client.receiveToEnd().bytes == StrangerHeaderTests.greeting)
                let line = try site.node.log(of: place)
                #expect(
                    line.reason == "anti_spoof.header_timeout client" && line.bytesToBackend == 0, "\(way): \(line)")
                #expect(line.client == place.description, "\(line)")
            }
        }
        #expect(site.recorder.seen == [])
        // Who sends none is served, late or not.
        let client = try Socket.connect(to: site.entry)
        #expect(try client.receive(exactly: StrangerHeaderTests.greeting.count) == StrangerHeaderTests.greeting)
        try client.send(site.ordinary)
        #expect(try client.receive(exactly: site.ordinary.count) == site.ordinary)
    }
}
