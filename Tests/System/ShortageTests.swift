import Foundation
import TestSupport
import Testing

/// What this node lacks is told as such: it ends no stream as if it were whole, and is held against no backend (R13, R15, R28).
@Suite("This node's own shortage", .serialized)
struct ShortageTests {
    private static func start(_ backends: [Place], in namespace: String? = nil, entry: Place? = nil) throws -> (
        Node, Place, String
    ) {
        let folder = try TemporaryFolder()
        let admin = "\(folder.path)/admin.sock"
        let entry = try entry ?? Place("::1", try FreePort.take())
        let health = """

            health web {
                probe  off
                eject  after 1 for 60s
            }

            """
        let config = ConfigText(
            settings: ["admin unix:\(admin)", "connect_timeout 1s"], rawListeners: [entry],
            backend: "round_robin, health web",
            routes: [RouteText(host: nil, id: "rt_raw", port: entry.port, backends: backends)], more: health)
        return (try Node(config.description, folder: folder, in: namespace), entry, admin)
    }

    /// Has a call of the node fail from now on, as `strace -e inject=` says it.
    private static func inject(_ rule: String, _ node: Node) throws -> Child {
        let call = rule.prefix { $0 != ":" }
        let tracer = try Child(
            "strace",
            [
                "-f", "-qq", "-o", "/dev/null", "-p", "\(node.child.pid)", "-e", "trace=\(call)", "-e",
                "inject=\(rule)",
            ])
        try awaitUntil("the node is traced") {
            let status = try String(contentsOfFile: "/proc/\(node.child.pid)/status", encoding: .utf8)
            guard !tracer.hasEnded else { throw Failure("strace:\n\(tracer.output)") }
            let tasks = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(node.child.pid)/task")
            return try !status.contains("TracerPid:\t0\n")
                && tasks.allSatisfy {
                    let task = "/proc/\(node.child.pid)/task/\($0)/status"
                    return try !String(contentsOfFile: task, encoding: .utf8).contains("TracerPid:\t0\n")
                }
        }
        return tracer
    }

    private static let tracing: String? = {
        guard geteuid() == 0 else { return "needs root" }
        return Child.find("strace") == nil ? "strace is missing: run make deps" : nil
    }()

    @Test(
        "R15, R28: no memory for a write ends the stream by resets, and says why",
        .enabled(if: tracing == nil, "\(tracing ?? "")"))
    func noMemoryToSend() throws {
        let server = try ManualServer()
        let (node, entry, _) = try Self.start([server.place])
        let client = try Socket.connect(to: entry)
        let place = try client.local
        let backend = try server.accept()
        try backend.send("before")
        #expect(try client.receive(exactly: 6) == Array("before".utf8))
        let tracer = try Self.inject("sendto:error=ENOBUFS", node)
        try backend.send("after")
        #expect(try client.receiveToEnd().ending == .reset)
        #expect(try backend.receiveToEnd().ending == .reset)
        #expect(try node.log(of: place).reason == "limits.kernel_memory node")
        withExtendedLifetime(tracer) {}
    }

    @Test(
        "R15: no memory for a splice is no end: the stream goes on by copies, whole",
        .enabled(if: tracing == nil, "\(tracing ?? "")"))
    func noMemoryToSplice() throws {
        let server = try ManualServer()
        let (node, entry, _) = try Self.start([server.place])
        let client = try Socket.connect(to: entry)
        let place = try client.local
        let backend = try server.accept()
        try backend.send("before")
        #expect(try client.receive(exactly: 6) == Array("before".utf8))
        let tracer = try Self.inject("splice:error=ENOMEM", node)
        let bytes = pattern(8 << 20)
        let sent = concurrently {
            try backend.send(bytes)
            backend.finish()
        }
        let seen = try client.receiveToEnd()
        _ = try sent.value()
        #expect(seen.bytes == bytes && seen.ending == .fin)
        client.finish()
        #expect(try node.log(of: place).reason == "relay.closed upstream")
        withExtendedLifetime(tracer) {}
    }

    @Test(
        "R12, R13: no memory for a socket, and it is no backend's fault",
        .enabled(if: tracing == nil, "\(tracing ?? "")"),
        arguments: ["socket:error=ENOBUFS", "connect:error=ENOMEM", "connect:error=EPERM"])
    func noMemoryToConnect(rule: String) throws {
        let server = try Server.saying("hello")
        let (node, entry, admin) = try Self.start([server.place])
        let tracer = try Self.inject(rule, node)
        let client = try Socket.connect(to: entry)
        let place = try client.local
        #expect(try client.receiveToEnd().ending == .reset)
        let line = try node.log(of: place)
        #expect(line.reason == (rule.hasSuffix("EPERM") ? "backend.forbidden node" : "limits.kernel_memory node"))
        tracer.signal(SIGTERM)
        try tracer.waitForExit()
        // It was not ejected, so it is there at once.
        #expect(try Socket.connect(to: entry).receiveToEnd().bytes == Array("hello".utf8))
        let backends = try (Admin.json(["backends"], admin)["backends"] as? [[String: Any]]).unwrap("backends")
        #expect(backends.count == 1 && backends[0]["failures"] as? Int == 0, "\(backends)")
    }

    @Test(
        "R13: what a rule of this node forbids is no backend's fault, and the next one is tried",
        .enabled(if: Namespace.obstacle == nil, "no network namespace here"))
    func forbidden() throws {
        let namespace = try Namespace()
        try namespace.ip("-6 route add prohibit fd99::/64")
        let server = try namespace.concurrently { [host = namespace.host] in try Server.echo(host) }.value()
        let entry = Place(namespace.host, try FreePort.take())
        let prohibited = Place("fd99::1", 80)
        let (node, _, admin) = try Self.start([prohibited, server.place], in: namespace.name, entry: entry)
        for _ in 0..<4 {
            let client = try Socket.connect(to: entry)
            try client.send("x")
            #expect(try client.receive(exactly: 1) == Array("x".utf8))
        }
        let backends = try (Admin.json(["backends"], admin)["backends"] as? [[String: Any]]).unwrap("backends")
        let failures = backends.compactMap { $0["failures"] as? Int }
        #expect(failures == [0, 0], "\(backends)")
        withExtendedLifetime(node) {}
    }
}
