import Foundation
import Glibc
import TestSupport
import Testing

/// A Unix stream socket that blocks, for what a well-behaved client never does.
final class UnixSocket: @unchecked Sendable {
    let fd: Int32

    init(connect path: String) throws {
        fd = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard try UnixSocket.with(path, { Glibc.connect(fd, $0, $1) }) == 0 else {
            throw Failure(call: "connect to \(path)")
        }
    }

    /// Leaves a socket file that nobody answers on.
    static func leaveStale(_ path: String) throws {
        let fd = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard try with(path, { bind(fd, $0, $1) }) == 0 else { throw Failure(call: "bind \(path)") }
        close(fd)
    }

    private static func with(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) throws -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        withUnsafeMutableBytes(of: &address.sun_path) { room in
            for (index, byte) in bytes.prefix(room.count - 1).enumerated() { room[index] = byte }
        }
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }

    deinit { close(fd) }

    func send(_ text: String) {
        let bytes = Array(text.utf8)
        _ = Glibc.send(fd, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    /// All until the node closes.
    func receiveToEnd() -> String {
        var result: [UInt8] = []
        var room = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = recv(fd, &room, room.count, 0)
            guard count > 0 else { return String(decoding: result, as: UTF8.self) }
            result += room[..<count]
        }
    }
}

@Suite("The admin socket of a running node")
struct AdminTests {
    struct Site {
        let node: Node
        let entry: Place
        let server: Server
        let admin: String

        init(prepare: (String) throws -> Void = { _ in }) throws {
            let folder = try TemporaryFolder()
            admin = "\(folder.path)/admin.sock"
            try prepare(admin)
            server = try Server.echo()
            entry = Place("::1", try FreePort.take())
            node = try Node(
                ConfigText(
                    settings: ["admin unix:\(admin)"], workers: 2, tlsListeners: [entry],
                    routes: [
                        RouteText(host: "a.example.com", id: "rt_a", port: entry.port, backends: [server.place]),
                        RouteText(
                            host: "p.example.com", id: "rt_p", port: entry.port, backends: [server.place], proxy: true),
                    ]
                ).description, folder: folder)
        }

        func ask(_ words: [String]) throws -> (exit: Child.Exit, out: String, error: String) {
            try Binary.run(words + ["--admin", admin])
        }

        func json(_ words: [String]) throws -> [String: Any] {
            let answer = try ask(words + ["--json"])
            let object = try JSONSerialization.jsonObject(with: Data(answer.out.utf8))
            return try (object as? [String: Any]).unwrap("object: \(answer.out)")
        }

        func connectOnce() throws {
            let client = try Socket.connect(to: entry)
            let hello = clientHello("a.example.com")
            try client.send(hello)
            _ = try client.receive(exactly: hello.count)
            client.finish()
            _ = try client.receiveToEnd()
        }
    }

    @Test("status, routes and backends say what the node does, as tables and as JSON")
    func reports() throws {
        let site = try Site()
        try site.connectOnce()
        _ = try site.node.logs(1)
        let status = try site.json(["status"])
        #expect(status["status"] as? String == "serving")
        #expect(status["routes"] as? Int == 2)
        #expect((status["workers"] as? [[String: Any]])?.count == 2)
        let listeners = try (status["listeners"] as? [[String: Any]]).unwrap()
        #expect(listeners.map { $0["address"] as? String } == [site.entry.description])
        #expect(listeners.map { $0["status"] as? String } == ["open"])
        let reasons = try (status["reasons"] as? [[String: Any]]).unwrap()
        #expect(reasons.contains { $0["reason"] as? String == "relay.closed client" && $0["count"] as? Int == 1 })

        let routes = try (try site.json(["routes"])["routes"] as? [[String: Any]]).unwrap()
        #expect(routes.map { $0["id"] as? String } == ["rt_a", "rt_p"])
        #expect(routes.map { $0["proxy"] as? String } == ["off", "unknown"])
        #expect(routes.map { $0["connections"] as? Int } == [1, 0])
        #expect(routes.map { $0["backends"] as? Int } == [1, 1])
        #expect((routes[0]["bytes_to_backend"] as? Int ?? 0) > 0)

        let backends = try (try site.json(["backends"])["backends"] as? [[String: Any]]).unwrap()
        #expect(backends.map { $0["address"] as? String } == [site.server.place.description])
        #expect(backends.first?["routes"] as? [String] == ["rt_a", "rt_p"])

        for command in ["status", "routes", "backends"] {
            let table = try site.ask([command])
            #expect(table.exit == .code(0))
            #expect(
                table.out.contains(command == "status" ? "LISTENER" : site.server.place.description)
                    || command == "routes")
        }
        #expect(try site.ask(["routes"]).out.contains("a.example.com"))
    }

    @Test("explain asks the running node, and says what the backends make of our PROXY header")
    func explains() throws {
        let site = try Site()
        let to = ["--to", site.entry.description, "--from", "[2600::1]:4000"]
        let answer = try site.ask(["explain"] + to + ["--sni", "p.example.com"])
        #expect(answer.exit == .code(0), "\(answer.out)\(answer.error)")
        #expect(answer.out.contains("PROXY header: unknown"), "\(answer.out)")
        let refused = try site.ask(["explain", "--json"] + to + ["--sni", "nobody.example.com"])
        #expect(refused.exit == .code(1))
        #expect(refused.out.contains("\"outcome\":\"refused\""))
    }

    @Test("exit code 3 if nobody answers; what to do is said")
    func unreachable() throws {
        let answer = try Binary.run(["status", "--admin", "/nonexistent/admin.sock"])
        #expect(answer.exit == .code(3))
        #expect(answer.error.contains("there is no such socket"))
    }

    @Test(
        "the socket is its owner's alone; one that was left over is replaced, one that answers or is no socket is not")
    func socketFile() throws {
        let site = try Site { try UnixSocket.leaveStale($0) }
        var status = stat()
        #expect(stat(site.admin, &status) == 0)
        #expect(status.st_mode & 0o777 == 0o600)
        let second = try Binary.run(["run", site.node.config])
        #expect(second.exit == .code(1))
        #expect(second.error.contains("another process answers on it"), "\(second.error)")
        #expect(try site.ask(["status"]).exit == .code(0))
        let folder = try TemporaryFolder()
        let file = try folder.write("file", "precious")
        let config = try folder.write(
            "c.pipeline",
            ConfigText(settings: ["admin unix:\(file)"], tlsListeners: [Place("::1", try FreePort.take())]).description)
        let third = try Binary.run(["run", config])
        #expect(third.exit == .code(1))
        #expect(third.error.contains("is not a socket"), "\(third.error)")
        #expect(try String(contentsOfFile: file, encoding: .utf8) == "precious")
        site.node.child.signal(SIGTERM)
        try site.node.child.waitForExit()
        #expect(access(site.admin, F_OK) != 0)
    }

    @Test("R27: clients that send nothing, nonsense or too much are bounded, and the node answers others meanwhile")
    func hostileClients() throws {
        let site = try Site()
        let silent = try (0..<31).map { _ in try UnixSocket(connect: site.admin) }
        #expect(try site.ask(["status"]).exit == .code(0))
        // The one that asked may be counted still: one of these has the last place, or none.
        let more = try (0..<3).map { _ in try UnixSocket(connect: site.admin) }.map { $0.receiveToEnd() }
        #expect(more.count { $0.contains("serves 32 admin clients, which is the limit") } >= 2, "\(more)")
        // Five idle seconds, and they are gone.
        #expect(silent[0].receiveToEnd() == "")
        #expect(more.allSatisfy { $0.isEmpty || $0.contains("serves 32 admin clients, which is the limit") }, "\(more)")
        for (request, answer) in [
            ("nonsense\n", "the request is not a JSON object"), ("{\"command\":\"fly\"}\n", "there is no command"),
            ("{}\n", "has no command"), ("{\"command\":\"status\",\"command\":\"status\"}\n", "occurs twice"),
            ("{\"command\":\"explain\",\"to\":\"x\"}\n", "to is missing, or is not an address"),
            ("{\"command\":\"status\",\"format\":1}\n", "this format is unknown"),
        ] {
            let client = try UnixSocket(connect: site.admin)
            client.send(request)
            let said = client.receiveToEnd()
            #expect(said.contains(answer) && said.hasPrefix("{\"error\":"), "\(request) \(said)")
        }
        let large = try UnixSocket(connect: site.admin)
        large.send(String(repeating: " ", count: 70_000))
        #expect(large.receiveToEnd().contains("more than 65536 bytes"))
        try site.connectOnce()
    }

    @Test("a request without its line break is answered once the client is done with it")
    func halfClosed() throws {
        let site = try Site()
        let client = try UnixSocket(connect: site.admin)
        client.send("{\"command\":\"status\"}")
        shutdown(client.fd, Int32(SHUT_WR))
        #expect(client.receiveToEnd().hasPrefix("{\"node\":\"test\""))
    }
}
