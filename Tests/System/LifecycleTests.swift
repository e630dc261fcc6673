import Foundation
import Glibc
import TestSupport
import Testing

/// Start and stop of a node: what it waits for, and what it says.
@Suite("A node starts whole, and stops gracefully")
struct LifecycleTests {
    struct Site {
        let node: Node
        let entry: Place
        let server: ManualServer

        init(settings: [String] = []) throws {
            server = try ManualServer()
            entry = Place("::1", try FreePort.take())
            let route = RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [server.place])
            node = try Node(
                ConfigText(settings: settings, workers: 2, rawListeners: [entry], routes: [route]).description)
        }

        /// A connection that is through to the backend.
        func connect() throws -> (client: Socket, backend: Socket) {
            let client = try Socket.connect(to: entry)
            let backend = try server.accept()
            try client.send("hello")
            _ = try backend.receive(exactly: 5)
            return (client, backend)
        }
    }

    @Test(
        "SIGTERM: no new connections, open ones go on to their own end, then the node ends with 0",
        arguments: [SIGTERM, SIGINT])
    func drains(signal: Int32) throws {
        let site = try Site()
        let (client, backend) = try site.connect()
        let place = try client.local
        site.node.child.signal(signal)
        try site.node.waitForEvent("draining")
        // Who comes before the workers have heard of it is still served; from then on, nobody is.
        let deadline = Deadline()
        while let early = try? Socket.connect(to: site.entry) {
            early.reset()
            guard !deadline.hasPassed else { throw Failure("a draining node still accepts") }
        }
        try backend.send("still here")
        #expect(try client.receive(exactly: 10) == Array("still here".utf8))
        client.finish()
        #expect(try backend.receiveToEnd().ending == .fin)
        backend.finish()
        #expect(try client.receiveToEnd().ending == .fin)
        #expect(try site.node.child.waitForExit() == .code(0))
        #expect(try site.node.log(of: place).reason == "relay.closed client")
    }

    @Test("The config of `make run` is fine, and formatted", arguments: [["check"], ["fmt", "--check"]])
    func demoConfig(command: [String]) throws {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let result = try Binary.run(command + [root.appending(path: "config/demo/demo.pipeline").path])
        #expect(result.exit == .code(0), "\(result.out)\n\(result.error)")
    }

    @Test("SIGTERM without connections ends at once")
    func endsWhenIdle() throws {
        // At its end, or at `drain_timeout`, which no test waits for.
        let site = try Site(settings: ["drain_timeout 1h"])
        site.node.child.signal(SIGTERM)
        #expect(try site.node.child.waitForExit() == .code(0))
    }

    @Test("A second SIGTERM ends at once: open connections are reset, and logged")
    func secondSignalEnds() throws {
        let site = try Site()
        let (client, backend) = try site.connect()
        let place = try client.local
        site.node.child.signal(SIGTERM)
        try site.node.waitForEvent("draining")
        #expect(client.isQuiet)
        site.node.child.signal(SIGTERM)
        #expect(try client.receiveToEnd().ending == .reset)
        #expect(try backend.receiveToEnd().ending == .reset)
        #expect(try site.node.child.waitForExit() == .code(0))
        #expect(try site.node.log(of: place).reason == "admin.killed node")
    }

    @Test("The drain ends at drain_timeout: what is still open is reset, and named")
    func drainDeadline() throws {
        let site = try Site(settings: ["drain_timeout 500ms"])
        let (client, backend) = try site.connect()
        let place = try client.local
        site.node.child.signal(SIGTERM)
        #expect(try client.receiveToEnd().ending == .reset)
        #expect(try backend.receiveToEnd().ending == .reset)
        #expect(try site.node.child.waitForExit() == .code(0))
        #expect(try site.node.log(of: place).reason == "drain.deadline node")
    }

    @Test("R27: beyond the limit of connections the newest is reset, and what runs goes on")
    func refusesBeyondLimit() throws {
        let server = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        let route = RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [server.place])
        let folder = try TemporaryFolder()
        let admin = "\(folder.path)/admin.sock"
        let node = try Node(
            ConfigText(
                settings: ["connections 2 per worker", "admin unix:\(admin)"], workers: 1, rawListeners: [entry],
                routes: [route]
            ).description)
        var held: [Socket] = []
        for _ in 0..<2 {
            let client = try Socket.connect(to: entry)
            try client.send("a")
            _ = try client.receive(exactly: 1)
            held.append(client)
        }
        let third = try Socket.connect(to: entry)
        let place = try third.local
        #expect(try third.receiveToEnd().ending == .reset)
        let line = try node.log(of: place)
        #expect(line.reason == "limits.connections node")
        #expect(line.description.contains("\"id\":3,"), "every accept has a number: \(line)")
        let told = try Admin.json(["explain", "--to", entry.description] + ["--from", "[2001:db8::9]:4000"], admin)
        #expect(told["reason"] as? String == "limits.connections node", "\(told)")
        for client in held {
            try client.send("b")
            #expect(try client.receive(exactly: 1) == Array("b".utf8))
        }
    }

    @Test("R27: a thousand connections come and go, and no descriptor stays behind")
    func leavesNoDescriptor() throws {
        let server = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        let route = RouteText(host: "a.example.com", id: "rt_a", port: entry.port, backends: [server.place])
        let node = try Node(
            ConfigText(settings: ["spare_sockets 0 per worker"], tlsListeners: [entry], routes: [route]).description)
        func once(_ number: Int) throws {
            let client = try Socket.connect(to: entry)
            let hello = clientHello(number % 5 == 4 ? "nobody.example.com" : "a.example.com")
            try client.send(hello)
            guard number % 5 < 4 else {
                #expect(try client.receiveToEnd().bytes == [])
                return
            }
            #expect(try client.receive(exactly: hello.count) == hello)
            if number % 5 == 3 { client.reset() } else { client.finish() }
            if number % 5 < 3 { #expect(try client.receiveToEnd().ending == .fin) }
        }
        try once(0)
        _ = try node.logs(1)
        try node.settle()
        let before = try node.descriptorCount
        for number in 1...1000 { try once(number) }
        _ = try node.logs(1001)
        try awaitUntil("as many descriptors as before, \(before)") { try node.descriptorCount <= before }
    }
}
