import Foundation
import TestSupport
import Testing

/// A raw site whose connections wait for a place of a limit.
struct QueueSite {
    let node: Node
    let entry: Place
    let admin: String
    private let config: @Sendable (Place) -> ConfigText

    init(_ host: String = "::1", _ config: @escaping @Sendable (Place) -> ConfigText) throws {
        let folder = try TemporaryFolder()
        entry = Place(host, try FreePort.take())
        admin = "\(folder.path)/admin.sock"
        self.config = config
        node = try Node(QueueSite.text(config(entry), admin), folder: folder)
    }

    private static func text(_ config: ConfigText, _ admin: String) -> String {
        var text = config
        text.settings.append("admin unix:\(admin)")
        return text.description
    }

    func reload(_ config: ConfigText) throws {
        let line = try node.reload(QueueSite.text(config, admin))
        guard line.isEvent("reloaded") else { throw Failure(line.text) }
    }

    func waitUntil(queued count: Int) throws {
        try awaitUntil("\(count) wait") { try NodeStatus.total("connections_queued", admin) == count }
    }

    /// Connects, says its name, and returns once it waits as the `count`th.
    func queue(_ name: String, as count: Int, from source: Place? = nil) throws -> Socket {
        let client = try Socket.connect(to: entry, from: source)
        try client.send(name)
        try waitUntil(queued: count)
        return client
    }

    /// One route with one server, and lines of its own.
    static func route(_ entry: Place, _ server: Place, max: Int = 1, _ lines: String...) -> ConfigText {
        ConfigText(
            rawListeners: [entry],
            routes: [
                RouteText(id: "rt", port: entry.port, backends: [], more: ["backend \(server) max \(max)"] + lines)
            ])
    }
}

extension LogLine {
    var queuedMilliseconds: Int? {
        guard let range = description.range(of: "\"queued_ms\":") else { return nil }
        return Int(description[range.upperBound...].prefix(while: \.isNumber))
    }
}

@Suite("Waiting for a place (`queue N for T`)") struct QueueTests {
    /// Who is served next: the one byte that it said.
    private func next(_ server: ManualServer) throws -> (name: String, socket: Socket) {
        let socket = try server.accept()
        return (String(decoding: try socket.receive(exactly: 1), as: UTF8.self), socket)
    }

    @Test("those that wait are served in order, as places come free; the log says how long each waited")
    func order() throws {
        let server = try ManualServer()
        let site = try QueueSite { QueueSite.route($0, server.place, "queue 10 for 1m") }
        let first = try Socket.connect(to: site.entry)
        try first.send("0")
        var served = try next(server)
        let waiting = try (1...5).map { try site.queue("\($0)", as: $0) }
        let text = try Binary.run(["routes", "--admin", site.admin]).out
        #expect(text.contains("1 +5 queued"), "\(text)")
        #expect(try Binary.run(["backends", "--admin", site.admin]).out.contains("1 +5 queued"))
        let rows = try Admin.json(["routes"], site.admin)["routes"] as? [[String: Any]]
        #expect(rows?.first?["queued"] as? Int == 5 && rows?.first?["queue"] as? Int == 10, "\(rows ?? [])")
        let why = try Binary.run([
            "explain", "--to", "\(site.entry)", "--from", "[::1]:9", "--admin", site.admin,
        ]).out
        #expect(why.contains("5 of at most 10 wait for a place, each for 1m at most"), "\(why)")
        #expect(why.contains("backend.backends_queue_timeout upstream"), "\(why)")
        var order = [served.name]
        let places = try [first, waiting[0], waiting[3]].map { try $0.local }
        for (client, left) in zip([first] + waiting, (0..<5).reversed()) {
            client.reset()
            served = try next(server)
            order.append(served.name)
            try site.waitUntil(queued: left)
        }
        #expect(order == ["0", "1", "2", "3", "4", "5"])
        try served.socket.send("x")
        #expect(try waiting[4].receive(exactly: 1) == Array("x".utf8))
        let lines = try places.map { try site.node.log(of: $0) }
        #expect(
            lines[0].queuedMilliseconds == nil && lines[1...].allSatisfy { $0.queuedMilliseconds != nil }, "\(lines)")
        #expect(lines.allSatisfy { $0.reason == "relay.reset client" && $0.attempts == 1 })
    }

    /// A limit, the lines that set it to one, and its name in reasons.
    static let limits = [("route", "client"), ("group", "client"), ("backends", "upstream")]

    private func config(_ limit: String, _ entry: Place, _ server: Place, _ queue: String) -> ConfigText {
        switch limit {
        case "route":
            return ConfigText(
                rawListeners: [entry],
                routes: [
                    RouteText(
                        id: "rt", port: entry.port, backends: [server], more: ["max_connections 1", "queue \(queue)"])
                ])
        default:
            let line = limit == "group" ? "backend \(server)\n    max_connections 1" : "backend \(server) max 1"
            return ConfigText(
                rawListeners: [entry],
                routes: [RouteText(id: "rt", port: entry.port, backends: [], more: ["backends web"])],
                more: "\nbackends web {\n    \(line)\n    queue \(queue)\n}\n")
        }
    }

    @Test("beyond N, and after T: refused by a reset, with reasons that name the limit", arguments: limits)
    func bounds(limit: String, side: String) throws {
        let server = try ManualServer()
        let site = try QueueSite { config(limit, $0, server.place, "2 for 3s") }
        let first = try Socket.connect(to: site.entry)
        try first.send("0")
        let served = try next(server)
        let waiting = try (1...2).map { try site.queue("\($0)", as: $0) }
        let refused = try Socket.connect(to: site.entry)
        #expect(try refused.receiveToEnd().ending == .reset)
        let line = try site.node.log(of: refused.local)
        #expect(line.reason == "backend.\(limit)_queue_full \(side)" && line.queuedMilliseconds == nil, "\(line)")
        for client in waiting {
            #expect(try client.receiveToEnd().ending == .reset)
            let line = try site.node.log(of: client.local)
            let queued = line.queuedMilliseconds ?? 0
            #expect(line.reason == "backend.\(limit)_queue_timeout \(side)" && line.attempts == 0, "\(line)")
            #expect(
                queued >= 2999 && line.durationMilliseconds >= 3000 && queued <= line.durationMilliseconds, "\(line)")
        }
        // The one that has the place has noticed nothing, and its place is had again.
        try served.socket.send("x")
        #expect(try first.receive(exactly: 1) == Array("x".utf8))
        let last = try site.queue("3", as: 1)
        first.reset()
        #expect(try next(server).name == "3")
        withExtendedLifetime(last) {}
    }

    @Test("R27: networks of clients take turns: who comes behind 20 of another one's is served by the second place")
    func fairness() throws {
        let server = try ManualServer("127.0.0.1")
        let site = try QueueSite("127.0.0.1") { QueueSite.route($0, server.place, "queue 100 for 1m") }
        func connect(_ name: String, as count: Int, from host: String) throws -> Socket {
            try site.queue(name, as: count, from: Place(host, 0))
        }
        var holder = try Socket.connect(to: site.entry)
        try holder.send("0")
        _ = try next(server)
        let greedy = try (1...20).map { try connect("g", as: $0, from: "127.0.0.2") }
        let quiet = try ["a", "b"].enumerated().map { try connect($1, as: 21 + $0, from: "127.0.0.\(3 + $0)") }
        var order = ""
        for count in 0..<4 {
            holder.reset()
            let served = try next(server)
            order += served.name
            holder = served.name == "g" ? greedy[count == 0 ? 0 : 1] : quiet[served.name == "a" ? 0 : 1]
        }
        #expect(order == "gabg")
    }

    @Test("R28: a client that resets while it waits is gone at once, and a TLS client that closes; others go on")
    func leavers() throws {
        let server = try ManualServer()
        let entry = Place("::1", try FreePort.take())
        let folder = try TemporaryFolder()
        let admin = "\(folder.path)/admin.sock"
        var config = QueueSite.route(entry, server.place, "queue 10 for 1m")
        config.settings.append("admin unix:\(admin)")
        let name = Place("::1", try FreePort.take())
        config.tlsListeners = [name]
        config.routes.append(
            RouteText(
                host: "app.example.com", id: "rt_tls", port: name.port, backends: [server.place],
                more: ["max_connections 1", "queue 10 for 1m"]))
        let node = try Node(config.description, folder: folder)
        func waitUntil(queued count: Int) throws {
            try awaitUntil("\(count) wait") { try NodeStatus.total("connections_queued", admin) == count }
        }
        let first = try Socket.connect(to: entry)
        try first.send("0")
        _ = try next(server)
        let gone = try Socket.connect(to: entry)
        try gone.send("1")
        // Half-closed: it has asked all that it wants.
        let half = try Socket.connect(to: entry)
        try half.send("2")
        half.finish()
        try waitUntil(queued: 2)
        let (began, place) = (Deadline.now(), try gone.local)
        gone.reset()
        try waitUntil(queued: 1)
        #expect(Deadline.now() - began < 1_000_000_000)
        let line = try node.log(of: place)
        #expect(line.reason == "backend.queue_abandoned client" && line.backend == nil, "\(line)")
        first.reset()
        let served = try next(server)
        #expect(served.name == "2")
        try served.socket.send("answer")
        served.socket.finish()
        #expect(try half.receiveToEnd().bytes == Array("answer".utf8))

        var held: [Socket] = []
        let tls = try (0..<3).map { _ in try Socket.connect(to: name) }
        for (index, client) in tls.enumerated() {
            try client.send(clientHello("app.example.com"))
            if index == 0 { held.append(try server.accept()) } else { try waitUntil(queued: index) }
        }
        tls[1].finish()
        try waitUntil(queued: 1)
        let closed = try node.log(of: tls[1].local)
        #expect(
            closed.reason == "backend.queue_abandoned client" && closed.serverName == "app.example.com", "\(closed)")
        #expect(closed.route == "rt_tls" && tls[2].isQuiet)
        withExtendedLifetime(held) {}
    }

    @Test(
        "a reload while some wait: a larger limit serves them, weight 0 refuses them, and so does a route that is gone")
    func reloads() throws {
        let server = try ManualServer()
        let site = try QueueSite { QueueSite.route($0, server.place, "queue 10 for 1m") }
        let first = try Socket.connect(to: site.entry)
        try first.send("0")
        _ = try next(server)
        var waiting = try (1...4).map { try site.queue("\($0)", as: $0) }
        // One more place.
        try site.reload(QueueSite.route(site.entry, server.place, max: 2, "queue 10 for 1m"))
        #expect(try next(server).name == "1")
        try site.waitUntil(queued: 3)
        // A second server.
        let other = try ManualServer()
        try site.reload(
            QueueSite.route(site.entry, server.place, max: 2, "backend \(other.place) max 1", "queue 10 for 1m"))
        #expect(try next(other).name == "2")
        try site.waitUntil(queued: 2)
        // None that takes anybody.
        try site.reload(
            ConfigText(
                rawListeners: [site.entry],
                routes: [
                    RouteText(
                        id: "rt", port: site.entry.port, backends: [],
                        more: ["backend \(server.place) weight 0", "max_connections 1", "queue 10 for 1m"])
                ]))
        for client in waiting[2...] {
            #expect(try client.receiveToEnd().ending == .reset)
            #expect(try site.node.log(of: client.local).reason == "backend.no_healthy_backend upstream")
        }
        // Its route is another one: who waits for that of before is told so.
        try site.reload(QueueSite.route(site.entry, server.place, max: 2, "queue 10 for 1m"))
        waiting.append(try site.queue("5", as: 1))
        var text = QueueSite.route(site.entry, server.place, max: 2, "queue 10 for 1m")
        text.routes[0].id = "rt_new"
        try site.reload(text)
        let last = waiting[waiting.count - 1]
        #expect(try last.receiveToEnd().ending == .reset)
        #expect(try site.node.log(of: last.local).reason == "backend.route_changed node")
    }

    @Test("a queue that a reload takes away refuses those that wait, as anybody")
    func removed() throws {
        let server = try ManualServer()
        let site = try QueueSite { QueueSite.route($0, server.place, "queue 10 for 1m") }
        let first = try Socket.connect(to: site.entry)
        try first.send("0")
        _ = try next(server)
        let waiting = try (1...3).map { try site.queue("\($0)", as: $0) }
        try site.reload(QueueSite.route(site.entry, server.place))
        for client in waiting {
            #expect(try client.receiveToEnd().ending == .reset)
            #expect(try site.node.log(of: client.local).reason == "backend.backends_full upstream")
        }
        withExtendedLifetime(first) {}
    }

    @Test("every backend goes down while some wait: they are refused; probes bring it back, and the next are served")
    func down() throws {
        let place = Place("::1", try FreePort.take())
        let stays: @Sendable (Socket) throws -> Void = { socket in
            guard case .bytes(let name) = try socket.receive() else { return }
            try socket.send(name)
            _ = try socket.receiveToEnd()
        }
        var server: Server? = try Server(port: place.port, serve: stays)
        let site = try QueueSite {
            var config = QueueSite.route($0, place, "queue 10 for 1m", "health web")
            config.more = "\nhealth web {\n    probe tcp\n    interval 100ms\n    fall 1\n    rise 1\n}\n"
            return config
        }
        let first = try Socket.connect(to: site.entry)
        try first.send("0")
        #expect(try first.receive(exactly: 1) == Array("0".utf8))
        let waiting = try (1...3).map { try site.queue("\($0)", as: $0) }
        server = nil
        for client in waiting {
            #expect(try client.receiveToEnd().ending == .reset)
            #expect(try site.node.log(of: client.local).reason == "backend.no_healthy_backend upstream")
        }
        server = try Server(port: place.port, serve: stays)
        _ = try site.node.event("backend_up", of: place)
        let last = try site.queue("4", as: 1)
        first.reset()
        #expect(try last.receive(exactly: 1) == Array("4".utf8))
        withExtendedLifetime(server) {}
    }

    @Test("a node that drains serves those that wait")
    func drain() throws {
        let server = try ManualServer()
        let site = try QueueSite { QueueSite.route($0, server.place, "queue 10 for 1m") }
        let first = try Socket.connect(to: site.entry)
        try first.send("0")
        _ = try next(server)
        let waiting = try site.queue("1", as: 1)
        site.node.child.signal(SIGTERM)
        try site.node.waitForEvent("draining")
        first.reset()
        #expect(try next(server).name == "1")
        let place = try waiting.local
        waiting.reset()
        #expect(try site.node.log(of: place).reason == "relay.reset client")
    }

    @Test("two routes with a queue each and one backend: a route that always has somebody waiting starves no other")
    func twoQueues() throws {
        let server = try ManualServer()
        let other = Place("::1", try FreePort.take())
        let site = try QueueSite { entry in
            var config = QueueSite.route(entry, server.place, "queue 50 for 1m")
            config.workers = 2
            config.rawListeners.append(other)
            config.routes.append(
                RouteText(
                    id: "rt_other", port: other.port, backends: [],
                    more: ["backend \(server.place) max 1", "queue 50 for 1m"]))
            return config
        }
        var clients: [String: Socket] = [:]
        var holder = try Socket.connect(to: site.entry)
        try holder.send("0")
        _ = try next(server)
        var letters = 0
        func come() throws {
            let client = try Socket.connect(to: site.entry)
            let letter = "\("abcdefghijklmnopqrstuvwxyz".dropFirst(letters % 26).prefix(1))"
            letters += 1
            try client.send(letter)
            clients[letter] = client
        }
        for _ in 0..<8 { try come() }
        try site.waitUntil(queued: 8)
        let quiet = try Socket.connect(to: other)
        try quiet.send("Q")
        try site.waitUntil(queued: 9)
        let deadline = Deadline()
        var (served, count) = ("", 0)
        while served != "Q", !deadline.hasPassed {
            holder.reset()
            served = try next(server).name
            count += 1
            guard served != "Q" else { break }
            holder = try clients.removeValue(forKey: served).unwrap("client \(served)")
            try come()
        }
        #expect(served == "Q", "not within \(count) places")
    }
}
