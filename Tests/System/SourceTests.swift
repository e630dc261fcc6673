import Foundation
import Glibc
import Synchronization
import TestSupport
import Testing

/// `source ADDRESS`: where connections to backends come from, with HAProxy's `source` beside it. 127.0.0.0/8 is this host's
/// as a whole.
@Suite("Source addresses of connections to backends")
struct SourceTests {
    private func config(
        _ entry: Place, _ server: Place, stage: String = "", lines: [String] = [], settings: [String] = [],
        more: String = ""
    ) -> String {
        ConfigText(
            settings: settings, rawListeners: [entry],
            backend: "round_robin" + (stage.isEmpty ? "" : ", source \(stage)"),
            routes: [RouteText(id: "rt", port: entry.port, backends: [server], more: lines)], more: more
        ).description
    }

    /// Says where a connection comes from, in a line, and then what it is told.
    private static func mirror() throws -> Server {
        try Server("127.0.0.1") { socket in
            try socket.send("\(try socket.peer.host)\n")
            while case .bytes(let chunk) = try socket.receive() { try socket.send(chunk) }
            socket.finish()
        }
    }

    private func line(_ client: Socket) throws -> String {
        var text: [UInt8] = []
        while text.last != UInt8(ascii: "\n") { text += try client.receive(exactly: 1) }
        return String(decoding: text.dropLast(), as: UTF8.self)
    }

    /// Where the backend sees a new connection come from.
    private func visit(_ entry: Place) throws -> String { try line(try Socket.connect(to: entry)) }

    @Test("one address: the backend sees it, as behind HAProxy's `source`; a reload changes it for new connections")
    func one() throws {
        let server = try Self.mirror()
        let entries = try (0..<2).map { _ in Place("127.0.0.1", try FreePort.take()) }
        let node = try Node(config(entries[0], server.place, lines: ["source 127.0.0.5"]))
        let peer = try HAProxy(
            """
            defaults
                mode tcp
                timeout connect 5s
                timeout client 30s
                timeout server 30s
            listen raw
                bind \(entries[1])
                server s \(server.place) source 127.0.0.5
            """, ready: entries[1])
        #expect(try visit(entries[0]) == "127.0.0.5")
        #expect(try visit(entries[1]) == "127.0.0.5")
        let held = try Socket.connect(to: entries[0])
        #expect(try line(held) == "127.0.0.5")
        #expect(try node.reload(config(entries[0], server.place, lines: ["source 127.0.0.6"])).isEvent("reloaded"))
        #expect(try visit(entries[0]) == "127.0.0.6")
        try held.send("still")
        #expect(try held.receive(exactly: 5) == Array("still".utf8))
        #expect(try node.reload(config(entries[0], server.place)).isEvent("reloaded"))
        #expect(try visit(entries[0]) == "127.0.0.1")
        withExtendedLifetime(peer) {}
    }

    @Test("a range takes turns; a route's own holds before its block's, that before the stage's, and `off` before all")
    func range() throws {
        let server = try Self.mirror()
        let entry = Place("127.0.0.1", try FreePort.take())
        let node = try Node(config(entry, server.place, stage: "127.0.0.16/30 127.0.0.40-127.0.0.41"))
        var seen: [String] = []
        for _ in 0..<12 { seen.append(try visit(entry)) }
        let all = ["127.0.0.16", "127.0.0.17", "127.0.0.18", "127.0.0.19", "127.0.0.40", "127.0.0.41"]
        #expect(seen == all + all)
        let block = "backends web {\n    backend  \(server.place)\n    source   127.0.0.50\n}\n"
        func text(_ line: String) -> String {
            var route = RouteText(id: "rt", port: entry.port, backends: [], more: ["backends web"])
            if !line.isEmpty { route.more.append(line) }
            return ConfigText(
                rawListeners: [entry], backend: "round_robin, source 127.0.0.16", routes: [route], more: block
            ).description
        }
        for (line, source) in [("", "127.0.0.50"), ("source 127.0.0.60", "127.0.0.60"), ("source off", "127.0.0.1")] {
            #expect(try node.reload(text(line)).isEvent("reloaded"))
            #expect(try visit(entry) == source)
        }
    }

    @Test("S24: sockets that are used again stay with their source address")
    func reuse() throws {
        let server = try ManualServer("127.0.0.1", keepsSyns: true)
        let entry = Place("127.0.0.1", try FreePort.take())
        let folder = try TemporaryFolder()
        let admin = "\(folder.path)/admin.sock"
        let node = try Node(
            config(
                entry, server.place, lines: ["source 127.0.0.2 127.0.0.3"],
                settings: ["admin unix:\(admin)", "idle_upstream_sockets 128 per worker"]))
        var last: [String: Syn] = [:]
        for number in 0..<20 {
            let client = try Socket.connect(to: entry)
            try client.send("request \(number)")
            let backend = try server.accept()
            let (source, syn) = (try backend.peer.host, try backend.syn)
            #expect(source == "127.0.0.\(2 + number % 2)")
            for (other, earlier) in last {
                #expect(earlier.foretells(syn) == (other == source), "\(number) from \(other)")
            }
            last[source] = syn
            _ = try backend.receive(exactly: "request \(number)".utf8.count)
            client.reset()
            _ = try backend.receiveToEnd()
        }
        #expect(try NodeStatus.total("upstream_sockets_reused", admin) == 18)
        withExtendedLifetime(node) {}
    }

    private final class Seen: Sendable {
        private let held = Mutex("")
        var value: String {
            get { held.withLock { $0 } }
            set { held.withLock { $0 = newValue } }
        }
    }

    @Test("probes of a block come from its source; with `source client` from the node's own address")
    func probes() throws {
        let seen = Seen()
        let server = try Server("127.0.0.1") { socket in
            seen.value = try socket.peer.host
            try socket.send("220 ready\r\n")
            _ = try socket.receiveToEnd()
        }
        let entry = Place("127.0.0.1", try FreePort.take())
        // It waits for the server's word, so that the server has a peer to ask for.
        let health = "health web {\n    probe     expect \"220\"\n    interval  100ms\n}\n"
        func text(_ source: String) -> String {
            ConfigText(
                rawListeners: [entry], backend: "round_robin, health web",
                routes: [RouteText(id: "rt", port: entry.port, backends: [server.place], more: ["source \(source)"])],
                more: health
            ).description
        }
        // The first one is not there.
        let node = try Node(text("192.0.2.77 127.0.0.9"))
        try awaitUntil("a probe from the source") { seen.value == "127.0.0.9" }
        guard geteuid() == 0 else { return }
        #expect(try node.reload(text("client")).isEvent("reloaded"))
        try awaitUntil("a probe from the node's own address") { seen.value == "127.0.0.1" }
    }

    @Test(
        "R13: a loopback address can send to no other host: our own lack, held against no backend",
        .enabled(if: Namespace.obstacle == nil))
    func loopback() throws {
        // A host that there is a way to: without one it would be the backend that can't be reached.
        let other = try Namespace()
        let (host, link) = ("198.18.77.1", other.link)
        try Namespace.run("ip", ["route", "add", "\(host)/32", "dev", link])
        let folder = try TemporaryFolder()
        let admin = "\(folder.path)/admin.sock"
        let entry = Place("127.0.0.1", try FreePort.take())
        let node = try Node(
            config(
                entry, Place(host, 80), lines: ["source 127.0.0.7"], settings: ["admin unix:\(admin)"]))
        let client = try Socket.connect(to: entry)
        #expect(try client.receiveToEnd().ending == .reset)
        #expect(try node.log(of: try client.local).reason == "backend.no_source node")
        let backends = try (Admin.json(["backends"], admin)["backends"] as? [[String: Any]]).unwrap("backends")
        #expect(backends.count == 1 && backends[0]["failures"] as? Int == 0, "\(backends)")
    }
}

/// Addresses and ports that are not there, in a network of the test's own.
@Suite(
    "Source addresses that go, and ports that run out",
    .enabled(if: Namespace.obstacle == nil, "no network namespace here"))
struct SourceShortageTests {
    private let namespace: Namespace
    private let server: ManualServer
    private let folder: TemporaryFolder

    private var admin: String { "\(folder.path)/admin.sock" }
    private var entry: Place { Place(namespace.host, 8080) }
    private func address(_ last: String) -> String { String(namespace.host.dropLast()) + last }

    init() throws {
        namespace = try Namespace()
        server = try ManualServer(namespace.near)
        folder = try TemporaryFolder()
    }

    @Test("a stage's source holds for routes of desired state")
    func desiredState() throws {
        try add("5")
        try folder.write(
            "state.json",
            """
            {"format":"pipelined.state/1","revision":1,
             "envs":[{"env_id":"env_a","app_id":"shop","org_id":"acme"}],
             "instances":[{"instance_id":"i_a","env_id":"env_a","process_type":"db","overlay_ipv6":"\(namespace.near)",
               "node_id":"elsewhere","status":"ready"}],
             "routes":[{"route_id":"rt","env_id":"env_a","listen_port":8080,"protocol_hint":"tcp_raw",
               "backend_process_type":"db","backend_port":\(server.place.port)}]}
            """)
        let config = ConfigText(
            rawListeners: [entry], backend: "round_robin, source \(address("5"))", more: "routes file state.json\n")
        let node = try Node(config.description, folder: folder, in: namespace.name)
        #expect(try visit() == address("5"))
        withExtendedLifetime(node) {}
    }

    private func node(_ source: String) throws -> Node {
        let route = RouteText(id: "rt", port: entry.port, backends: [server.place], more: ["source \(source)"])
        return try Node(
            ConfigText(
                settings: ["admin unix:\(admin)", "idle_upstream_sockets 128 per worker"], rawListeners: [entry],
                routes: [route]
            ).description, folder: folder, in: namespace.name)
    }

    /// A short connection; where the backend saw it come from.
    private func visit() throws -> String {
        let client = try Socket.connect(to: entry)
        try client.send("hello")
        let backend = try server.accept()
        let source = try backend.peer.host
        _ = try backend.receive(exactly: 5)
        client.reset()
        _ = try backend.receiveToEnd()
        return source
    }

    private func add(_ last: String) throws { try namespace.ip("-6 addr add \(address(last))/64 dev eth0 nodad") }
    private func remove(_ last: String) throws { try namespace.ip("-6 addr del \(address(last))/64 dev eth0") }

    private var problems: [String] { get throws { try Admin.json(["status"], admin)["problems"] as? [String] ?? [] } }

    private func failures() throws -> Int? {
        try (Admin.json(["backends"], admin)["backends"] as? [[String: Any]])?.first?["failures"] as? Int
    }

    @Test("R13: an address that goes is our own lack and an event, not the backend's fault; back, it serves again")
    func goes() throws {
        try add("5")
        let node = try node(address("5"))
        for _ in 0..<3 { #expect(try visit() == address("5")) }
        try remove("5")
        let event = try node.child.wait("source_missing") { lines in lines.first { $0.isEvent("source_missing") } }
        #expect(event.text.contains(address("5")) && event.text.contains("ip addr add"), "\(event.text)")
        #expect(event.text.contains("connections that need one of them are refused (`backend.no_source`)"))
        #expect(try problems.contains { $0.contains(address("5")) && $0.contains("not on this host") })
        // The sockets that wait are bound to it, and IPv6 would send from it all the same.
        for _ in 0..<3 {
            let client = try Socket.connect(to: entry)
            let place = try client.local
            try? client.send("hello")
            #expect(try client.receiveToEnd().ending == .reset)
            #expect(try node.log(of: place).reason == "backend.no_source node")
        }
        #expect(try failures() == 0)
        try add("5")
        try node.waitForEvent("source_back")
        #expect(try visit() == address("5"))
        #expect(try problems.isEmpty)
    }

    @Test("of two addresses the one that is there serves; the other one takes its turns again when it is back")
    func others() throws {
        try add("5")
        let node = try node("\(address("5")) \(address("6"))")
        let event = try node.child.wait("source_missing") { lines in lines.first { $0.isEvent("source_missing") } }
        #expect(event.text.contains("connections come from the others"), "\(event.text)")
        for _ in 0..<4 { #expect(try visit() == address("5")) }
        try add("6")
        try node.waitForEvent("source_back")
        #expect(Set([try visit(), try visit()]) == [address("5"), address("6")])
    }

    @Test("R27: one connect tries 64 addresses; where more are missing in a row, later connections reach the others")
    func many() throws {
        // Of 80, the last one is there.
        try add("8f")
        let node = try node("\(address("40"))-\(address("8f"))")
        for number in 0..<20 {
            let client = try Socket.connect(to: entry)
            guard number >= 16 else {
                #expect(try client.receiveToEnd().ending == .reset, "\(number)")
                #expect(try node.log(of: try client.local).reason == "backend.no_source node")
                continue
            }
            #expect(try server.accept().peer.host == address("8f"), "\(number)")
        }
    }

    @Test("`limits.source_ports` once no address has a port left to the backend: as many connections as all have")
    func ports() throws {
        try add("5")
        try add("6")
        let range = "echo 40000 40004 > /proc/sys/net/ipv4/ip_local_port_range"
        try Namespace.run("ip", ["netns", "exec", namespace.name, "sh", "-c", range])
        let node = try node("\(address("5"))-\(address("6")) \(address("7"))")
        var held: [(Socket, Socket)] = []
        for _ in 0..<10 { held.append((try Socket.connect(to: entry), try server.accept())) }
        let counts = try Dictionary(grouping: held.map { try $0.1.peer.host }, by: { $0 }).mapValues(\.count)
        #expect(counts == [address("5"): 5, address("6"): 5])
        let client = try Socket.connect(to: entry)
        #expect(try client.receiveToEnd().ending == .reset)
        #expect(try node.log(of: try client.local).reason == "limits.source_ports node")
        #expect(try failures() == 0)
        let (last, itsBackend) = held.removeLast()
        let (source, place) = (try itsBackend.peer.host, try last.local)
        last.reset()
        _ = try itsBackend.receiveToEnd()
        #expect(try node.log(of: place).reason == "relay.reset client")
        #expect(try visit() == source, "where a port is free again")
    }
}
