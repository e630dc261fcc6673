import Foundation
import Glibc
import TestSupport
import Testing

/// What probes make of servers of others' making, and of fakes where their protocol is the only thing at hand.
@Suite("Probes of real servers")
struct ProbeServersTests {
    /// A node whose only backend is probed.
    private struct Site {
        let node: Node
        let backend: Place
        private let admin: String

        init(_ backend: Place, _ lines: [String]) throws {
            let folder = try TemporaryFolder()
            admin = "\(folder.path)/admin"
            self.backend = backend
            let entry = Place("::1", try FreePort.take())
            let all = lines + ["interval 200ms", "timeout 200ms", "fall 2", "rise 1"]
            let health = "\nhealth web {\n" + all.map { "    \($0)\n" }.joined() + "}\n"
            node = try Node(
                ConfigText(
                    settings: ["admin unix:\(admin)"], rawListeners: [entry], backend: "round_robin, health web",
                    routes: [RouteText(id: "rt", port: entry.port, backends: [backend])], more: health
                ).description, folder: folder)
        }

        /// Awaits a probe's verdict. `up` is the verdict of the first good one.
        func isUp() throws {
            try awaitUntil("\(backend) is up") {
                let rows = try Admin.json(["backends"], admin)["backends"] as? [[String: Any]]
                return rows?.first?["probe"] as? String == "up"
            }
        }

        /// The event that says so.
        func goesDown(_ number: Int = 1) throws -> String { try node.event("backend_down", of: backend, number).text }
    }

    // MARK: HTTP

    private static func nginx(_ place: Place, _ more: String = "") throws -> Nginx {
        try Nginx(
            seen: "$request $host $http_user_agent",
            http: """
                server {
                    listen \(place);
                    location = /ok { return 200 fine; }
                    location = /sick { return 503; }
                    location = /moved { return 301 /ok; }
                }
                server { listen \(place); server_name app.example.com; location / { return 204; } }
                \(more)
                """, ready: place)
    }

    @Test("http: nginx is up by its status, and down by another, which the event shows")
    func http() throws {
        let place = Place("::1", try FreePort.take())
        let nginx = try Self.nginx(place)
        try Site(place, ["probe http /ok"]).isUp()
        try Site(place, ["probe http /moved"]).isUp()
        try Site(place, ["probe http /sick expect 503"]).isUp()
        try Site(place, ["probe http / host app.example.com expect 204-204"]).isUp()
        let sick = try Site(place, ["probe http /sick"]).goesDown()
        #expect(
            sick.contains("\"reason\":\"HTTP status\"") && sick.contains("\"answer\":\"HTTP/1.1 503 Service"), "\(sick)"
        )
        let other = try Site(place, ["probe http /moved expect 200-299"]).goesDown()
        #expect(other.contains("\"answer\":\"HTTP/1.1 301 Moved Permanently\""), "\(other)")
        #expect(nginx.seen.contains("GET /ok HTTP/1.1 ") && nginx.seen.contains(" pipelined-probe"))
    }

    @Test("port and address: a backend is up as what is probed for it says, and the event names that place")
    func elsewhere() throws {
        let place = Place("::1", try FreePort.take())
        let nginx = try Self.nginx(place)
        // Nobody listens at the backend's own port.
        let dead = Place("fd00::dead", try FreePort.take())
        try Site(dead, ["probe http /ok", "port \(place.port)", "address ::1"]).isUp()
        let down = try Site(dead, ["probe http /sick", "port \(place.port)", "address ::1"]).goesDown()
        #expect(down.contains("\"probed\":\"\(place)\""), "\(down)")
        #expect(!nginx.child.hasEnded)
    }

    @Test("R18: a probe elsewhere sends no header, whatever the backend's routes do")
    func elsewhereWithoutHeader() throws {
        let place = Place("::1", try FreePort.take())
        let nginx = try Self.nginx(place)
        let entry = Place("::1", try FreePort.take())
        let backend = try Server.echo()
        let health = "\nhealth web {\n    probe http /sick\n    port \(place.port)\n    interval 200ms\n    fall 1\n}\n"
        let node = try Node(
            ConfigText(
                rawListeners: [entry], backend: "round_robin, health web",
                routes: [RouteText(id: "rt", port: entry.port, backends: [backend.place], proxy: true)], more: health
            ).description)
        // With one, nginx would answer 400.
        #expect(try node.event("backend_down", of: backend.place).text.contains("HTTP/1.1 503"))
        #expect(!nginx.child.hasEnded && !node.child.lines.contains { $0.isEvent("backend_proxy_rejected") })
    }

    // MARK: Databases

    private static func hasAll(_ programs: String...) -> Bool { programs.allSatisfy { Child.find($0) != nil } }

    private static func redis(_ place: Place, _ more: [String] = []) throws -> Child {
        let child = try Child(
            "redis-server",
            ["--port", "\(place.port)", "--bind", place.host, "--save", "", "--appendonly", "no"] + more)
        try waitForListener(at: place, child)
        return child
    }

    @Test(
        "redis: a real one is up, with a password too, and down while it takes no more clients",
        .enabled(if: hasAll("redis-server")))
    func redis() throws {
        let (open, locked) = (Place("::1", try FreePort.take()), Place("::1", try FreePort.take()))
        let servers = try [
            Self.redis(open, ["--maxclients", "1"]), Self.redis(locked, ["--requirepass", "secret"]),
        ]
        let site = try Site(open, ["probe redis"])
        try site.isUp()
        try Site(locked, ["probe redis"]).isUp()
        // The only client that it takes.
        let client = try awaitValue("a client that it takes") {
            let client = try Socket.connect(to: open)
            try? client.send("PING\r\n")
            guard case .bytes(let answer) = try client.receive(atMost: 1), answer == Array("+".utf8) else {
                return nil as Socket?
            }
            return client
        }
        let down = try site.goesDown()
        #expect(down.contains("answers that it is not ready") && down.contains("-ERR max number of clients"), "\(down)")
        client.finish()
        _ = try site.node.event("backend_up", of: open)
        #expect(servers.allSatisfy { !$0.hasEnded })
    }

    @Test(
        "mysql: a real MariaDB is up, by its greeting and by a login, and down with too many connections",
        .enabled(if: hasAll("mariadbd")))
    func mysql() throws {
        let folder = try TemporaryFolder()
        let place = Place("::1", try FreePort.take())
        let server = try Child(
            "mariadbd",
            [
                "--no-defaults", "--user=root", "--datadir=\(folder.path)", "--skip-grant-tables",
                "--bind-address=::1", "--port=\(place.port)", "--socket=\(folder.path)/s", "--max-connections=10",
                "--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M", "--aria-log-file-size=8388608",
                "--connect-timeout=60",
            ])
        try waitForListener(at: place, server, Deadline(seconds: 60))
        try Site(place, ["probe mysql"]).isUp()
        let site = try Site(place, ["probe mysql user pipelined"])
        try site.isUp()
        var clients: [Socket] = []
        while clients.count < 32 {
            let client = try Socket.connect(to: place)
            clients.append(client)
            // The fifth byte: 10 greets, 255 refuses.
            if try client.receive(exactly: 5).last == 255 { break }
        }
        let down = try site.goesDown()
        #expect(down.contains("answers that it is not ready") && down.contains("Too many connections"), "\(down)")
        clients = []
        _ = try site.node.event("backend_up", of: place)
        #expect(!server.hasEnded)
    }

    @Test(
        "postgresql: a real one is up whoever may log in, and down while it shuts down",
        .enabled(if: hasAll("initdb", "setpriv") && getpwnam("postgres") != nil))
    func postgresql() throws {
        let folder = try TemporaryFolder()
        chmod(folder.path, 0o711)
        let user = try #require(getpwnam("postgres"))
        let data = "\(folder.path)/data"
        try FileManager.default.createDirectory(atPath: data, withIntermediateDirectories: false)
        chown(data, user.pointee.pw_uid, user.pointee.pw_gid)
        let asUser = getuid() == 0 ? ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"] : []
        func start(_ words: [String]) throws -> Child {
            let all = asUser + words
            return try Child(all[0], Array(all.dropFirst()))
        }
        guard
            try start(["initdb", "-D", data, "-A", "trust", "--no-sync"]).waitForExit(Deadline(seconds: 60)) == .code(0)
        else { throw Failure("initdb") }
        let place = Place("::1", try FreePort.take())
        let server = try start([
            "postgres", "-D", data, "-c", "listen_addresses=::1", "-c", "port=\(place.port)", "-c", "fsync=off", "-c",
            "unix_socket_directories=",
        ])
        try waitForListener(at: place, server, Deadline(seconds: 60))
        // Nobody has that name: it says so, and so it lives.
        try Site(place, ["probe postgresql"]).isUp()
        let site = try Site(place, ["probe postgresql user postgres"])
        try site.isUp()
        // A session, which a smart shutdown waits for.
        let client = try Socket.connect(to: place)
        try client.send([0, 0, 0, 23, 0, 3, 0, 0] + Array("user".utf8) + [0] + Array("postgres".utf8) + [0, 0])
        #expect(try client.receive(exactly: 1) == Array("R".utf8))
        server.signal(SIGTERM)
        let down = try site.goesDown()
        #expect(down.contains("answers that it is not ready"), "\(down)")
        client.finish()
    }

    @Test("postgresql, by its manual (a fake): one that starts is not ready; any other refusal is a living server")
    func postgresqlFake() throws {
        let error = { (code: String) -> [UInt8] in
            let fields = Array("SFATAL".utf8) + [0] + Array("C\(code)".utf8) + [0] + Array("Mno".utf8) + [0, 0]
            return [UInt8(ascii: "E"), 0, 0, 0, UInt8(fields.count + 4)] + fields
        }
        let serving = { (answer: [UInt8]) in
            try Server { socket in
                _ = try socket.receive(exactly: 8)
                try socket.send(answer)
                _ = try? socket.receiveToEnd()
            }
        }
        let (starting, refusing) = (try serving(error("57P03")), try serving(error("28000")))
        let down = try Site(starting.place, ["probe postgresql"]).goesDown()
        #expect(down.contains("answers that it is not ready"), "\(down)")
        try Site(refusing.place, ["probe postgresql"]).isUp()
    }

    // MARK: Lines

    @Test("smtp, by RFC 5321 (a fake): greeting, EHLO, QUIT; a busy one is down")
    func smtp() throws {
        let heard = Flag()
        let server = try Server { socket in
            try socket.send("220-mail.example.com ESMTP\r\n220 ready\r\n")
            guard try socket.receive(exactly: 17) == Array("EHLO mx.example\r\n".utf8) else { return }
            try socket.send("250-mail.example.com\r\n250-PIPELINING\r\n250 HELP\r\n")
            guard try socket.receive(exactly: 6) == Array("QUIT\r\n".utf8) else { return }
            heard.set()
            try socket.send("221 bye\r\n")
            socket.finish()
        }
        try Site(server.place, ["probe smtp name mx.example"]).isUp()
        try awaitUntil("it was told all of it") { heard.isSet }
        let busy = try Server.saying("421 too busy\r\n")
        let down = try Site(busy.place, ["probe smtp"]).goesDown()
        #expect(down.contains("\"answer\":\"421 too busy\""), "\(down)")
    }

    @Test("send and expect, in turns: a server that answers by lines is up, one that answers otherwise is down")
    func exchange() throws {
        let server = try Server { socket in
            guard try socket.receive(exactly: 6) == Array("STAT\r\n".utf8) else { return }
            try socket.send("OK 3 things\r\n")
            guard try socket.receive(exactly: 3) == [0x00, 0xFF, 0x0A] else { return }
            try socket.send([0xFE, 0x0A])
            _ = try? socket.receiveToEnd()
        }
        let first = #"probe send "STAT\r\n" expect "OK "#
        try Site(server.place, [first + #"" send "\0\xFF\n" expect "\xFE""#]).isUp()
        let down = try Site(server.place, [first + #"4""#]).goesDown()
        #expect(down.contains("\"reason\":\"unexpected answer\"") && down.contains("\"answer\":\"OK 3"), "\(down)")
    }

    // MARK: Bad input

    @Test("R27: a peer that sends without end is cut, one that sends a byte a time ends at the timeout")
    func hostile() throws {
        let sent = Counted()
        let flood = try Server { socket in
            let chunk = [UInt8](repeating: 0x31, count: 1 << 16)
            while true {
                try socket.send(chunk)
                sent.add(chunk.count)
            }
        }
        let down = try Site(flood.place, ["probe http"]).goesDown()
        #expect(down.contains("unexpected answer"))
        // What fits into the two sockets' buffers, and a few times that for the probes since.
        #expect(sent.value < 200 << 20, "\(sent.value)")
        let slow = try Server { socket in
            for byte in "HTTP/1.1 ".utf8 { try socket.send([byte]) }
            _ = try? socket.receiveToEnd()
        }
        #expect(try Site(slow.place, ["probe http"]).goesDown().contains("\"reason\":\"timeout\""))
    }

    private final class Counted: @unchecked Sendable {
        private let lock = NSLock()
        private var count = 0
        func add(_ more: Int) { lock.withLock { count += more } }
        var value: Int { lock.withLock { count } }
    }
}
