import Foundation
import TestSupport
import Testing

/// PostgreSQL's clients ask for TLS before they say a name: the node answers, routes by the name, and asks the backend
/// for the same (ADR 0097).
@Suite("TLS behind an SSLRequest")
struct StartTLSPostgreSQLTests {
    static let request: [UInt8] = [0, 0, 0, 8, 4, 0xD2, 0x16, 0x2F]
    static let startup: [UInt8] = [0, 0, 0, 9, 0, 3, 0, 0, 0]

    private func config(
        _ entry: Place, stage: String = "starttls postgresql", _ routes: String
    ) -> ConfigText {
        ConfigText(sniff: "timeout 10s", tlsListeners: [entry], firstStages: [stage], more: routes)
    }

    private func route(
        _ id: String, _ entry: Place, _ backend: Place, host: String = "", owner: String = "acme/shop/prod",
        more: String = ""
    ) -> String {
        """
        route \(host.isEmpty ? "" : "\(host) "){
            id       \(id)
            owner    \(owner)
            listen   \(entry.port)
            backend  \(backend)
            \(more)
        }

        """
    }

    @Test(
        "R5: two tenants' servers on one port, by name; a name that is nobody's, and none, reach neither",
        .enabled(if: PostgreSQLServer.isInstalled))
    func tenants() throws {
        let (one, two) = (
            try PostgreSQLServer(certificate: "a.example.com"), try PostgreSQLServer(certificate: "b.example.com")
        )
        let entry = Place("127.0.0.1", try FreePort.take())
        let node = try Node(
            config(
                entry,
                route("rt_a", entry, one.place, host: "a.example.com", owner: "acme/a/prod")
                    + route("rt_b", entry, two.place, host: "b.example.com", owner: "umbrella/b/prod")
            ).description)
        let query = "select ssl, inet_server_port() from pg_stat_ssl where pid = pg_backend_pid()"
        func ask(_ host: String, _ mode: String = "require", _ more: String = "") throws -> String {
            try PostgreSQLServer.query(query, host: host, at: entry, sslmode: mode, more)
        }
        #expect(try ask("a.example.com") == "t|\(one.place.port)")
        #expect(try ask("b.example.com") == "t|\(two.place.port)")
        // A bulk answer, and a certificate that the client checks.
        #expect(
            try PostgreSQLServer.query(
                "select length(string_agg(md5(i::text), '')) from generate_series(1, 50000) i", host: "a.example.com",
                at: entry, sslmode: "require") == "1600000")
        let line = try node.log("a session") { $0.route == "rt_a" }
        #expect(line.reason.hasPrefix("relay.") && line.sniff == "ok" && line.serverName == "a.example.com", "\(line)")
        let wrong = try ask("c.example.com")
        #expect(wrong.contains("error"), "\(wrong)")
        _ = try node.log("a refusal") { $0.reason == "backend.no_route client" && $0.serverName == "c.example.com" }
        #expect(try ask("a.example.com", "require", "sslsni=0").contains("error"))
        _ = try node.log("a client without a name") { $0.reason == "sni.no_sni client" }
        #expect(try ask("a.example.com", "disable").contains("error"))
        _ = try node.log("a client without TLS") { $0.reason == "sni.not_tls client" }
    }

    @Test(
        "a session without TLS goes to its own route beside; cancel requests too",
        .enabled(if: PostgreSQLServer.isInstalled))
    func plain() throws {
        let (one, two) = (try PostgreSQLServer(certificate: "a.example.com"), try PostgreSQLServer())
        let entry = Place("127.0.0.1", try FreePort.take())
        let node = try Node(
            config(
                entry,
                route("rt_a", entry, one.place, host: "a.example.com")
                    + route("rt_plain", entry, two.place, owner: "acme/plain/prod", more: "when protocol postgresql")
            ).description)
        let query = "select inet_server_port()"
        for (mode, port) in [("require", one.place.port), ("prefer", one.place.port), ("disable", two.place.port)] {
            let seen = try PostgreSQLServer.query(query, host: "a.example.com", at: entry, sslmode: mode)
            #expect(seen == "\(port)", "\(mode)")
        }
        let cancel = try Socket.connect(to: entry)
        let place = try cancel.local
        try cancel.send([0, 0, 0, 16, 4, 0xD2, 0x16, 0x2E, 0, 0, 0, 1, 0, 0, 0, 1])
        #expect(try cancel.receiveToEnd().bytes == [])
        cancel.finish()
        #expect(try node.log(of: place).route == "rt_plain")
    }

    @Test("openssl's client, TLS 1.2 and 1.3, and TLS from the first byte, as PostgreSQL 17 has it")
    func openssl() throws {
        let folder = try TemporaryFolder()
        let certificate = try Certificate.make("a.example.com", in: folder)
        // It speaks TLS from the first byte alone: with a request for TLS in front, no handshake would come about.
        let direct = Place("127.0.0.1", try FreePort.take())
        let server = try Child(
            "openssl",
            ["s_server", "-accept", direct.description, "-www", "-quiet", "-cert", certificate.certificateFile]
                + ["-key", certificate.keyFile, "-alpn", "postgresql"])
        try waitForListener(at: direct, server)
        let asked = try Server("127.0.0.1") { socket in
            // A server that wants the request, and hands on to the one above.
            guard try socket.receive(exactly: 8) == Self.request else { return }
            try socket.send("S")
            let inner = try Socket.connect(to: direct)
            try relay(socket, inner)
        }
        let entry = Place("127.0.0.1", try FreePort.take())
        let node = try Node(
            config(
                entry,
                route("rt_asked", entry, asked.place, host: "a.example.com")
                    + route("rt_direct", entry, direct, host: "d.example.com")
            ).description)
        for version in ["-tls1_2", "-tls1_3"] {
            for (name, more) in [
                ("a.example.com", ["-starttls", "postgres"]), ("d.example.com", ["-alpn", "postgresql"]),
            ] {
                let child = try Child(
                    "openssl", ["s_client", "-connect", entry.description, "-servername", name, version] + more)
                child.closeInput()
                try child.waitForExit()
                #expect(child.output.contains("subject=CN = a.example.com"), "\(name) \(version): \(child.output)")
            }
        }
        #expect(try node.log("direct") { $0.route == "rt_direct" }.sniff == "ok")
        withExtendedLifetime(server) {}
    }

    @Test("what a backend does in place of an answer has its reason, and nothing of it reaches the client")
    func backends() throws {
        let cases: [(answer: [UInt8]?, isHeld: Bool, reason: String)] = [
            (Array("N".utf8), true, "starttls.backend_refused upstream"),
            (Array("EFATAL".utf8), true, "starttls.backend_refused upstream"),
            (Array("SX".utf8), true, "starttls.backend_malformed upstream"),
            (Array("HTTP/1.1 400 Bad Request".utf8), true, "starttls.backend_malformed upstream"),
            ([], false, "starttls.backend_closed upstream"),
            (nil, false, "starttls.backend_closed upstream"),
            ([], true, "starttls.backend_timeout upstream"),
        ]
        for (answer, isHeld, reason) in cases {
            let server = try Server { socket in
                _ = try socket.receive(exactly: 8)
                guard let answer else { return socket.reset() }
                try socket.send(answer)
                if isHeld { _ = try socket.receiveToEnd() }
            }
            let entry = Place("::1", try FreePort.take())
            let node = try Node(
                config(
                    entry, stage: "starttls postgresql, backend_timeout 300ms",
                    route("rt", entry, server.place, host: "a.example.com")
                ).description)
            let client = try Socket.connect(to: entry)
            let place = try client.local
            try client.send(Self.request)
            #expect(try client.receive(exactly: 1) == Array("S".utf8))
            try client.send(clientHello("a.example.com"))
            #expect(try client.receiveToEnd().bytes == [], "\(reason)")
            let line = try node.log(of: place)
            #expect(line.reason == reason && line.route == "rt", "\(line)")
            #expect(line.bytesToClient == 0 && line.bytesToBackend == 0, "\(line)")
        }
    }

    @Test("CVE-2021-23214: what comes with the request is refused, and no backend hears of it")
    func pipelined() throws {
        let server = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        let node = try Node(
            config(
                entry,
                route("rt", entry, server.place, host: "a.example.com")
                    + route("rt_plain", entry, server.place, more: "when protocol plain")
            ).description)
        for (first, second, reason) in [
            (Self.request + clientHello("a.example.com"), [], "starttls.pipelined client"),
            (Self.request + Self.startup, [], "starttls.pipelined client"),
            (Self.request, Self.startup, "sni.not_tls client"),
            (Self.request, Array("GET / HTTP/1.0\r\n\r\n".utf8), "sni.not_tls client"),
            (Self.request, Self.request, "sni.not_tls client"),
        ] {
            let client = try Socket.connect(to: entry)
            let place = try client.local
            try client.send(first)
            if !second.isEmpty {
                #expect(try client.receive(exactly: 1) == Array("S".utf8))
                try client.send(second)
            }
            #expect(try client.receiveToEnd().bytes == [])
            let line = try node.log(of: place)
            #expect(line.reason == reason && line.backend == nil, "\(line)")
        }
    }

    @Test("R16, R17: byte by byte, behind a PROXY header, and with one to the backend before the request")
    func headers() throws {
        let hello = clientHello("a.example.com")
        let headerLength = 16 + 36
        let server = try Server { socket in
            let header = try socket.receive(exactly: headerLength)
            let request = try socket.receive(exactly: 8)
            guard request == Self.request else { return }
            try socket.send("S")
            let seen = try socket.receive(exactly: hello.count)
            try socket.send(header + seen)
            socket.finish()
        }
        let entry = Place("::1", try FreePort.take())
        let stages = ["anti_spoof require from trusted, refuse others", "starttls postgresql"]
        let text = ConfigText(
            sniff: "timeout 10s", tlsListeners: [entry],
            firstStages: stages,
            more: "set trusted { ::1/128 }\n\n"
                + route(
                    "rt", entry, server.place, host: "a.example.com",
                    more: "proxy_protocol v2\n    backend_expects_proxy_protocol true"))
        let node = try Node(text.description.replacing("from trusted", with: "from @trusted"))
        let client = try Socket.connect(to: entry)
        let place = try client.local
        for byte in Array("PROXY TCP6 2001:db8::7 2001:db8::1 4000 5432\r\n".utf8) + Self.request {
            try client.send([byte])
        }
        #expect(try client.receive(exactly: 1) == Array("S".utf8))
        for byte in hello { try client.send([byte]) }
        let (bytes, _) = try client.receiveToEnd()
        client.finish()
        #expect(bytes.count == headerLength + hello.count && Array(bytes.suffix(hello.count)) == hello)
        // Where the line's source stands in a v2 header of IPv6.
        #expect(Array(bytes.dropFirst(16).prefix(2)) == [0x20, 0x01])
        let line = try node.log(of: place)
        #expect(line.route == "rt" && line.bytesToBackend == hello.count, "\(line)")
    }

    @Test("R13: a client that goes while its backend thinks ends it")
    func clientLeaves() throws {
        let backend = try ManualServer()
        let entry = Place("::1", try FreePort.take())
        let node = try Node(
            config(
                entry, stage: "starttls postgresql, backend_timeout 60s",
                route("rt", entry, backend.place, host: "a.example.com")
            ).description)
        let client = try Socket.connect(to: entry)
        let place = try client.local
        try client.send(Self.request)
        #expect(try client.receive(exactly: 1) == Array("S".utf8))
        try client.send(clientHello("a.example.com"))
        let held = try backend.accept()
        #expect(try held.receive(exactly: 8) == Self.request)
        client.reset()
        #expect(try node.log(of: place).reason == "backend.abandoned client")
    }

    @Test("explain: a request, what comes with it, and a name")
    func explain() throws {
        let entry = Place("::1", try FreePort.take())
        let folder = try TemporaryFolder()
        let file = try folder.write(
            "config",
            config(entry, route("rt", entry, Place("fd00::1", 5432), host: "a.example.com")).description)
        func explain(_ more: [String]) throws -> String {
            try Binary.run(["explain", file, "--to", "\(entry)", "--from", "[2001:db8::1]:40000"] + more).out
        }
        let hello = try explain(["--sni", "a.example.com"])
        #expect(hello.contains("no request for TLS") && hello.contains("rt"), "\(hello)")
        let hex = try folder.write("request", "")
        try Data(Self.request).write(to: URL(fileURLWithPath: hex))
        #expect(try explain(["--bytes", hex]).contains("is told to begin"))
        try Data(Self.request + clientHello("a.example.com")).write(to: URL(fileURLWithPath: hex))
        #expect(try explain(["--bytes", hex]).contains("starttls.pipelined client"))
    }
}

/// Bytes both ways until both sides have ended.
func relay(_ one: Socket, _ two: Socket) throws {
    let there = Thread {
        while let chunk = try? one.receive(), case .bytes(let bytes) = chunk, (try? two.send(bytes)) != nil {}
        two.finish()
    }
    there.start()
    while case .bytes(let bytes) = try two.receive() { try one.send(bytes) }
    one.finish()
}
