import Foundation
import TestSupport
import Testing

/// TLS by name and by ALPN, SSH, PostgreSQL and plain HTTP on one port: real clients and servers, HAProxy and nginx beside
/// this node in one run (ADR 0096).
@Suite("One port, several protocols")
struct OnePortTests {
    /// Two nginx servers of one name, one with HTTP/2 and one without, and one without TLS.
    struct Web {
        let nginx: Nginx
        let (h2, h1, plain): (Place, Place, Place)
        private let folder: TemporaryFolder

        init() throws {
            folder = try TemporaryFolder()
            let certificate = try Certificate.make("app.example.com", in: folder)
            (h2, h1, plain) = (try Self.place(), try Self.place(), try Self.place())
            let tls =
                "ssl_certificate \(certificate.certificateFile); ssl_certificate_key \(certificate.keyFile);"
            nginx = try Nginx(
                seen: "$request",
                http: """
                    server { listen \(h2) ssl http2; \(tls) location / { return 200 "two"; } }
                    server { listen \(h1) ssl; \(tls) location / { return 200 "one"; } }
                    server { listen \(plain); location / { return 200 "plain"; } }
                    """, ready: plain)
        }

        static func place() throws -> Place { Place("127.0.0.1", try FreePort.take()) }

        /// The answer and HTTP's version, as curl has them.
        static func ask(_ entry: Place, _ options: [String], scheme: String = "https") throws -> String {
            let name = "app.example.com"
            let child = try Child(
                "curl",
                [
                    "-sk", "--max-time", "20", "--resolve", "\(name):\(entry.port):\(entry.host)", "-w",
                    " %{http_version}", "\(scheme)://\(name):\(entry.port)/",
                ] + options)
            try child.waitForExit(Deadline(seconds: 60))
            return child.output.trimmingCharacters(in: .whitespacesAndNewlines)
        }
    }

    private func config(_ entry: Place, _ routes: String, sniff: String = "timeout 10s, max 16KiB") -> String {
        ConfigText(sniff: sniff, tlsListeners: [entry], more: routes).description
    }

    private func route(
        _ id: String, _ entry: Place, _ backend: Place, host: String = "", owner: String = "acme/shop/prod",
        when: String?
    ) -> String {
        """
        route \(host.isEmpty ? "" : "\(host) "){
            id       \(id)
            owner    \(owner)
            listen   \(entry.port)
        \(when.map { "    when     \($0)\n" } ?? "")    backend  \(backend)
        }

        """
    }

    @Test(
        "HTTP/2 and HTTP/1.1 of one name, SSH and plain HTTP: the same as HAProxy; nginx knows TLS from the rest alone",
        .enabled(
            if: SSHServer.isInstalled && ["haproxy", "nginx", "curl"].allSatisfy { Child.find($0) != nil },
            "needs openssh-server"))
    func besidePeers() throws {
        let (web, ssh) = (try Web(), try SSHServer())
        let haproxy = (entry: try Web.place(), ready: try Web.place())
        let runningHAProxy = try HAProxy(
            """
            defaults
                mode tcp
                timeout connect 5s
                timeout client 20s
                timeout server 20s
            listen ready
                bind \(haproxy.ready)
                tcp-request connection reject
            frontend port
                bind \(haproxy.entry)
                tcp-request inspect-delay 10s
                tcp-request content accept if { req.ssl_hello_type 1 }
                tcp-request content accept if { req.payload(0,4) -m str SSH- }
                tcp-request content accept if HTTP
                use_backend ssh if { req.payload(0,4) -m str SSH- }
                use_backend h2 if { req.ssl_sni app.example.com } { req.ssl_alpn h2 }
                use_backend h1 if { req.ssl_sni app.example.com }
                use_backend plain if HTTP
            backend ssh
                server s \(ssh.place)
            backend h2
                server s \(web.h2)
            backend h1
                server s \(web.h1)
            backend plain
                server s \(web.plain)
            """, ready: haproxy.ready)
        let nginx = (entry: try Web.place(), ready: try Web.place())
        let runningNginx = try Nginx(
            stream: """
                map $ssl_preread_alpn_protocols $tls { "~\\bh2\\b" \(web.h2); default \(web.h1); }
                map $ssl_preread_protocol $pool { "" \(ssh.place); default $tls; }
                server { listen \(nginx.entry); ssl_preread on; proxy_pass $pool; }
                server { listen \(nginx.ready); return ""; }
                """, ready: nginx.ready)
        let entry = try Web.place()
        let node = try Node(
            config(
                entry,
                route("rt_h2", entry, web.h2, host: "app.example.com", when: "alpn h2")
                    + route("rt_h1", entry, web.h1, host: "app.example.com", when: nil)
                    + route("rt_ssh", entry, ssh.place, owner: "acme/ops/prod", when: "protocol ssh")
                    + route("rt_plain", entry, web.plain, owner: "acme/web/prod", when: "protocol plain")))
        for (name, entry) in [("HAProxy", haproxy.entry), ("nginx", nginx.entry), ("this node", entry)] {
            #expect(try Web.ask(entry, ["--http2"]) == "two 2", "\(name)")
            #expect(try Web.ask(entry, ["--http1.1"]) == "one 1.1", "\(name)")
            #expect(try Web.ask(entry, ["--no-alpn"]) == "one 1.1", "\(name)")
            #expect(try ssh.run("echo hello", at: entry) == "hello", "\(name)")
            let plain = try Web.ask(entry, ["--http0.9"], scheme: "http")
            #expect((plain == "plain 1.1") == (name != "nginx"), "\(name): \(plain)")
        }
        for id in ["rt_h2", "rt_h1", "rt_ssh", "rt_plain"] {
            let line = try node.log("a line of \(id)") { $0.route == id }
            #expect(line.sniff == (id.hasPrefix("rt_h") ? "ok" : "not_tls"), "\(line)")
        }
        withExtendedLifetime((runningHAProxy, runningNginx)) {}
    }

    @Test(
        "openssl's choice of ALPN decides, first come first served, and what has no route is refused",
        .enabled(if: Child.find("nginx") != nil))
    func alpnByOpenSSL() throws {
        let web = try Web()
        let entry = try Web.place()
        let node = try Node(
            config(
                entry,
                route("rt_h2", entry, web.h2, host: "app.example.com", when: "alpn h2")
                    + route("rt_h1", entry, web.h1, host: "app.example.com", when: "alpn http/1.1")))
        func negotiated(_ alpn: String?) throws -> String? {
            let child = try Child(
                "openssl",
                ["s_client", "-connect", entry.description, "-servername", "app.example.com"]
                    + (alpn.map { ["-alpn", $0] } ?? []))
            child.closeInput()
            try child.waitForExit()
            return child.lines.map(\.text).first { $0.hasPrefix("ALPN protocol: ") }
                .map { String($0.dropFirst("ALPN protocol: ".count)) }
        }
        #expect(try negotiated("h2,http/1.1") == "h2")
        #expect(try node.log("the first") { $0.route == "rt_h2" }.backend == "\(web.h2)")
        #expect(try negotiated("http/1.1,h2") == "http/1.1")
        #expect(try node.log("the second") { $0.route == "rt_h1" }.backend == "\(web.h1)")
        for alpn in [nil, "imap"] { #expect(try negotiated(alpn) == nil) }
        #expect(
            try node.log("a refusal") { $0.reason == "backend.no_route client" }.serverName == "app.example.com")
    }

    @Test(
        "PostgreSQL beside TLS: a session, with and without TLS, which client and server agree on through us",
        .enabled(if: PostgreSQLServer.isInstalled && Child.find("nginx") != nil))
    func postgresql() throws {
        let (web, database) = (try Web(), try PostgreSQLServer(certificate: "db.example.com"))
        let entry = try Web.place()
        let node = try Node(
            config(
                entry,
                route("rt_web", entry, web.h1, host: "app.example.com", when: nil)
                    + route("rt_db", entry, database.place, owner: "acme/db/prod", when: "protocol postgresql")))
        let query = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
        #expect(try PostgreSQLServer.query(query, at: entry, sslmode: "require") == "t")
        #expect(try PostgreSQLServer.query(query, at: entry, sslmode: "disable") == "f")
        #expect(try Web.ask(entry, []) == "one 1.1")
        let line = try node.log("a session") { $0.route == "rt_db" }
        #expect(line.reason.hasPrefix("relay.") && line.sniff == "not_tls", "\(line)")
    }

    @Test("silence goes to the route that takes it once the time is over, and a client that speaks never does")
    func silence() throws {
        let (mail, echo) = (try Server.saying("220 mail.example.com\r\n"), try Server.echo())
        let entry = Place("::1", try FreePort.take())
        let node = try Node(
            config(
                entry,
                route("rt_mail", entry, mail.place, when: "protocol silent")
                    + route("rt_tls", entry, echo.place, host: "a.example.com", when: nil), sniff: "timeout 300ms"))
        let client = try Socket.connect(to: entry)
        let place = try client.local
        #expect(try client.receive(exactly: 4) == Array("220 ".utf8))
        client.finish()
        let line = try node.log(of: place)
        #expect(line.route == "rt_mail" && line.sniff == "timeout" && line.durationMilliseconds >= 300, "\(line)")
        let speaking = try Socket.connect(to: entry)
        let other = try speaking.local
        try speaking.send("EHLO x\r\n")
        #expect(try speaking.receiveToEnd().bytes == [])
        #expect(try node.log(of: other).reason == "sni.not_tls client")
    }

    @Test(
        "R16: the PROXY header comes before SSH's first bytes; R6, R28: what no route takes is refused, by its reason")
    func headerAndRefusals() throws {
        let seen = try ManualServer()
        let entry = Place("::1", try FreePort.take())
        let node = try Node(
            config(
                entry,
                """
                route {
                    id       rt_ssh
                    owner    acme/ops/prod
                    listen   \(entry.port)
                    when     protocol ssh
                    backend  \(seen.place)
                    proxy_protocol v2
                    backend_expects_proxy_protocol true
                }

                """))
        let client = try Socket.connect(to: entry)
        // A byte at a time: the mark is known at the fourth.
        for byte in Array("SSH-2.0-x\r\n".utf8) { try client.send([byte]) }
        let server = try seen.accept()
        let bytes = try server.receive(exactly: 52 + 11)
        #expect(bytes.starts(with: [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A, 0x21]))
        #expect(bytes.suffix(11) == Array("SSH-2.0-x\r\n".utf8))
        client.finish()
        for (first, reason) in [
            (Array("GET / HTTP/1.1\r\n\r\n".utf8), "sni.not_tls client"),
            ([0, 0, 0, 8, 4, 0xD2, 0x16, 0x2F], "sni.not_tls client"), (clientHello(nil), "sni.no_sni client"),
            (clientHello("a.example.com"), "backend.no_route client"),
        ] {
            let refused = try Socket.connect(to: entry)
            let place = try refused.local
            try refused.send(first)
            #expect(try refused.receiveToEnd().bytes == [])
            #expect(try node.log(of: place).reason == reason)
        }
    }

    @Test("a reload adds and removes routes by protocol; routes and explain show them")
    func reload() throws {
        let (one, two) = (try Server.saying("one"), try Server.saying("two"))
        let entry = Place("::1", try FreePort.take())
        let folder = try TemporaryFolder()
        let admin = folder.path + "/admin.sock"
        func text(_ routes: String) -> String {
            ConfigText(settings: ["admin unix:\(admin)"], tlsListeners: [entry], more: routes).description
        }
        let tls = route("rt_tls", entry, one.place, host: "a.example.com", when: nil)
        let node = try Node(text(tls), folder: folder)
        func ask(_ bytes: [UInt8]) throws -> String {
            let client = try Socket.connect(to: entry)
            try client.send(bytes)
            return String(decoding: try client.receiveToEnd().bytes, as: UTF8.self)
        }
        let ssh = Array("SSH-2.0-x\r\n".utf8)
        #expect(try ask(ssh) == "")
        let both = tls + route("rt_ssh", entry, two.place, when: "protocol ssh")
        #expect(try node.reload(text(both)).isEvent("reloaded"))
        #expect(try ask(ssh) == "two")
        #expect(try ask(clientHello("a.example.com")) == "one")
        let listed = try (Admin.json(["routes"], admin)["routes"] as? [[String: Any]]).unwrap("routes")
        #expect(listed.compactMap { $0["when"] as? String } == ["protocol ssh"], "\(listed)")
        #expect(try Binary.run(["routes", "--admin", admin]).out.contains("(protocol ssh)"))
        let file = try folder.write("first", "SSH-2.0-x\r\n")
        let explained = try Binary.run([
            "explain", node.config, "--to", "\(entry)", "--from", "[2001:db8::1]:40000", "--bytes", file,
        ])
        #expect(explained.out.contains("the first bytes are SSH, and a route takes that"), "\(explained)")
        #expect(explained.out.contains("rt_ssh"), "\(explained)")
        #expect(try node.reload(text(tls)).isEvent("reloaded"))
        #expect(try ask(ssh) == "")
    }
}
