import Foundation
import TestSupport
import Testing

/// R27: a client that says nothing is in every limit that goes by its address, and takes nobody's place.
@Suite("Clients that say nothing")
struct SilentClientTests {
    private static let limit = "limit tested {\n    key client/128\n    concurrent 3\n    table 1k\n}\n"

    private static let sniff = "timeout 60s, max 16KiB"

    private func config(
        _ entry: Place, _ backend: Place, settings: [String] = [], stages: [String], more: String = ""
    ) -> String {
        let route = RouteText(host: "a.example.com", id: "rt_a", port: entry.port, backends: [backend])
        return ConfigText(
            settings: settings, sniff: Self.sniff, tlsListeners: [entry], firstStages: stages, routes: [route],
            more: more
        ).description
    }

    /// As many connections of each reason as there are, once `count` have ended. None has lived on to its deadline.
    private func ends(_ node: Node, _ count: Int) throws -> [String: Int] {
        let lines = try node.logs(count)
        #expect(lines.values.allSatisfy { $0.durationMilliseconds < 60_000 })
        return Dictionary(lines.values.map { ($0.reason, 1) }, uniquingKeysWith: +)
    }

    @Test(
        "a limit counts them at accept, wherever it stands and whoever is believed",
        arguments: [
            ["anti_spoof refuse others", "rate_limit tested"],
            ["anti_spoof accept from 2001:db8:10::/48, refuse others", "rate_limit tested"],
            ["anti_spoof accept from 2001:db8:10::/48, refuse others", "sni \(sniff)", "rate_limit tested"],
        ])
    func counted(stages: [String]) throws {
        let echo = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        var text = config(entry, echo.place, stages: stages, more: Self.limit)
        // The chain has its own `sni` already.
        if let own = stages.first(where: { $0.hasPrefix("sni ") }) {
            text = text.replacingOccurrences(of: "    \(own)\n    backend", with: "    backend")
        }
        let node = try Node(text)
        let clients = try (0..<10).map { _ in try Socket.connect(to: entry) }
        #expect(try ends(node, 7) == ["rate_limit.too_many_connections client": 7])
        #expect(clients.count == 10)
    }

    @Test("R17: of a listed sender's connections each counts for the client that its header names")
    func senders() throws {
        let echo = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        let stages = ["anti_spoof accept from ::1, refuse others, timeout 60s", "rate_limit tested"]
        let node = try Node(config(entry, echo.place, stages: stages, more: Self.limit))
        let hello = clientHello("a.example.com")
        var clients: [Socket] = []
        for client in 0..<2 {
            for number in 0..<4 {
                let socket = try Socket.connect(to: entry)
                clients.append(socket)
                let header = "PROXY TCP6 2001:db8::\(client + 1) 2001:db8::1 \(number + 1) 443\r\n"
                try socket.send(Array(header.utf8) + hello)
                guard number < 3 else { continue }
                #expect(try socket.receive(exactly: hello.count) == hello)
            }
        }
        let lines = try node.logs(2)
        #expect(lines.values.allSatisfy { $0.reason == "rate_limit.too_many_connections client" })
        #expect(Set(lines.values.compactMap(\.client)) == ["[2001:db8::1]:4", "[2001:db8::2]:4"])
    }

    @Test("an address that may not come is refused before it has said anything")
    func address() throws {
        let echo = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        let stages = ["anti_spoof accept from 2001:db8:10::/48, refuse others", "address deny ::1/128"]
        let node = try Node(config(entry, echo.place, stages: stages))
        let client = try Socket.connect(to: entry)
        #expect(try client.receiveToEnd().bytes == [])
        let line = try node.log(of: client.local)
        #expect(line.reason == "address.denied_source client" && line.durationMilliseconds < 60_000, "\(line)")
    }

    @Test("without any limit: a newcomer makes the oldest silent ones of the largest network go, and nobody else")
    func room() throws {
        let echo = try Server.echo()
        // By IPv4, where each address of 127.0.0.0/8 is a network of its own.
        let entry = Place("127.0.0.1", try FreePort.take())
        let node = try Node(
            config(entry, echo.place, settings: ["unrouted 40 per worker"], stages: ["anti_spoof refuse others"]))
        let quiet = try Socket.connect(to: entry, from: Place("127.0.0.2", 0))
        let greedy = try (0..<60).map { _ in try Socket.connect(to: entry, from: Place("127.0.0.3", 0)) }
        #expect(try node.logs(21).count == 21)
        let late = try Socket.connect(to: entry, from: Place("127.0.0.4", 0))
        _ = try node.logs(22)
        let hello = clientHello("a.example.com")
        for client in [quiet, late] {
            try client.send(hello)
            #expect(try client.receive(exactly: hello.count) == hello)
        }
        let lines = try node.logs(22)
        #expect(lines.count == 22)
        for client in greedy.prefix(22) {
            #expect(lines[try client.local.description]?.reason == "limits.unrouted node")
        }
        #expect(lines.values.allSatisfy { $0.peer?.hasPrefix("127.0.0.3:") == true })
    }

    @Test("when no place is left for a connection, those who say nothing make room")
    func slots() throws {
        let echo = try Server.echo()
        let entry = Place("127.0.0.1", try FreePort.take())
        let node = try Node(
            config(entry, echo.place, settings: ["connections 20 per worker"], stages: ["anti_spoof refuse others"]))
        let hello = clientHello("a.example.com")
        var served: [Socket] = []
        let silent = try (0..<10).map { _ in try Socket.connect(to: entry, from: Place("127.0.0.3", 0)) }
        for number in 0..<20 {
            let client = try Socket.connect(to: entry, from: Place("127.0.0.\(10 + number)", 0))
            try client.send(hello)
            #expect(try client.receive(exactly: hello.count) == hello)
            served.append(client)
        }
        #expect(try ends(node, 10) == ["limits.unrouted node": 10])
        // What runs goes on, and nobody is left who could make room.
        let last = try Socket.connect(to: entry, from: Place("127.0.0.99", 0))
        #expect(try node.log(of: last.local).reason == "limits.connections node")
        for client in served {
            try client.send("on")
            #expect(try client.receive(exactly: 2) == Array("on".utf8))
        }
        #expect(silent.count == 10)
    }

    @Test(
        "silent ones of one source that their port alone has routed make room, and those of few don't",
        arguments: [true, false])
    func routed(isRaw: Bool) throws {
        let arrived = DispatchSemaphore(value: 0)
        let echo = try Server { socket in
            arrived.signal()
            while case .bytes(let chunk) = try socket.receive() { try socket.send(chunk) }
        }
        let isRouted = { (count: Int) in (0..<count).allSatisfy { _ in arrived.wait(timeout: .now() + 30) == .success }
        }
        let entry = Place("127.0.0.1", try FreePort.take())
        let route = RouteText(host: isRaw ? nil : "a.example.com", id: "rt_a", port: entry.port, backends: [echo.place])
        let node = try Node(
            ConfigText(
                settings: ["connections 40 per worker"], sniff: "timeout 100ms", tlsListeners: isRaw ? [] : [entry],
                rawListeners: isRaw ? [entry] : [], routes: [route]
            ).description)
        let few = try (0..<10).map { _ in try Socket.connect(to: entry, from: Place("127.0.0.2", 0)) }
        // In waves below the cap of those that wait.
        var greedy: [Socket] = []
        #expect(isRouted(10))
        for _ in 0..<3 {
            for _ in 0..<10 { greedy.append(try Socket.connect(to: entry, from: Place("127.0.0.3", 0))) }
            #expect(isRouted(10))
        }
        let hello = clientHello("a.example.com")
        var served: [Socket] = []
        for number in 0..<14 {
            let client = try Socket.connect(to: entry, from: Place("127.0.0.\(10 + number)", 0))
            try client.send(hello)
            #expect(try client.receive(exactly: hello.count) == hello)
            served.append(client)
        }
        #expect(try ends(node, 14) == ["limits.unrouted node": 14])
        let lines = try node.logs(14)
        #expect(lines.values.allSatisfy { $0.peer?.hasPrefix("127.0.0.3:") == true })
        for client in few + served {
            try client.send(hello)
            #expect(try client.receive(exactly: hello.count) == hello)
        }
    }
}
