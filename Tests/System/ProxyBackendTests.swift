import Foundation
import TestSupport
import Testing

/// nginx and HAProxy read our PROXY v2 header and say whom they believe the client to be (R16).
@Suite("Backends learn the true client")
struct ProxyBackendTests {
    static let hosts = ["::1", "127.0.0.1"]

    /// One TLS handshake and request from a source that the test chose; what the client saw.
    private func request(_ entry: Place, from source: Place, name: String) throws -> String {
        let child = try Child(
            "openssl",
            ["s_client", "-connect", entry.description, "-bind", source.description, "-servername", name, "-ign_eof"])
        try? child.write("GET / HTTP/1.0\r\n\r\n")
        try child.waitForExit()
        return child.output
    }

    @Test("R16: nginx logs the client's address and port, of IPv6 and IPv4", arguments: hosts)
    func nginxLogsClient(host: String) throws {
        let folder = try TemporaryFolder()
        let certificate = try Certificate.make("api.example.com", in: folder)
        let backend = Place("::1", try FreePort.take())
        let nginx = try Nginx(
            seen:
                "[$proxy_protocol_addr]:$proxy_protocol_port to [$proxy_protocol_server_addr]:$proxy_protocol_server_port",
            http: """
                server {
                    listen \(backend) ssl proxy_protocol;
                    ssl_protocols TLSv1.2 TLSv1.3;
                    ssl_certificate \(certificate.certificateFile); ssl_certificate_key \(certificate.keyFile);
                    location / { return 200 "you are $proxy_protocol_addr port $proxy_protocol_port.\\n"; }
                }
                """, ready: backend)
        let entry = Place(host, try FreePort.take())
        let route = RouteText(
            host: "api.example.com", id: "rt_api", port: entry.port, backends: [backend], proxy: true)
        let node = try Node(ConfigText(tlsListeners: [entry], routes: [route]).description)
        let source = Place(host, try FreePort.take())
        let seen = try request(entry, from: source, name: "api.example.com")
        #expect(seen.contains("you are \(source.host) port \(source.port)."), "\(seen)")
        // It logs when it is done, and the client may be before.
        try awaitUntil("nginx's line of the client: \(nginx.seen)") {
            nginx.seen.contains("[\(source.host)]:\(source.port) to [\(entry.host)]:\(entry.port)")
        }
        let line = try node.log(of: source)
        #expect(line.route == "rt_api" && line.backend == backend.description)
    }

    @Test("R16: HAProxy logs the client's address and port, of IPv6 and IPv4", arguments: hosts)
    func haproxyLogsClient(host: String) throws {
        let folder = try TemporaryFolder()
        let certificate = try Certificate.make("api.example.com", in: folder)
        try folder.write(
            "both.pem",
            String(contentsOfFile: certificate.certificateFile, encoding: .utf8)
                + String(contentsOfFile: certificate.keyFile, encoding: .utf8))
        let backend = Place("::1", try FreePort.take())
        let haproxy = try HAProxy(
            """
            global
                log stdout format raw local0
            defaults
                mode http
                timeout client 30s
                timeout server 30s
                timeout connect 5s
            frontend api
                bind \(backend.host):\(backend.port) accept-proxy ssl crt \(folder.path)/both.pem
                log global
                log-format "seen %ci|%cp to %[dst]|%[dst_port] name %[fc_pp_authority]"
                http-request return status 200 content-type text/plain lf-string "you are %ci port %cp.\\n"

            """, ready: backend)
        let entry = Place(host, try FreePort.take())
        let route = RouteText(
            host: "api.example.com", id: "rt_api", port: entry.port, backends: [backend], proxy: true)
        let config = ConfigText(tlsListeners: [entry], routes: [route]).description
        let node = try Node(config.replacing("    proxy_v2\n", with: "    proxy_v2 tlv authority\n"))
        let source = Place(host, try FreePort.take())
        let seen = try request(entry, from: source, name: "api.example.com")
        #expect(seen.contains("you are \(source.host) port \(source.port)."), "\(seen)")
        let line = try haproxy.child.wait("whom it served") { lines in
            lines.first { $0.text.contains("seen \(source.host)|") }
        }
        #expect(
            line.text.contains(
                "seen \(source.host)|\(source.port) to \(entry.host)|\(entry.port) name api.example.com"),
            "\(line.text)")
        #expect(try node.log(of: source).route == "rt_api")
    }

    @Test("R16: a backend that asks for no header gets none, from the same listener")
    func noHeaderUnlessAsked() throws {
        let plain = try Server.echo()
        let proxied = try ManualServer()
        let entry = Place("::1", try FreePort.take())
        let routes = [
            RouteText(host: "plain.example.com", id: "rt_plain", port: entry.port, backends: [plain.place]),
            RouteText(host: "api.example.com", id: "rt_api", port: entry.port, backends: [proxied.place], proxy: true),
        ]
        let node = try Node(ConfigText(tlsListeners: [entry], routes: routes).description)
        let first = try Socket.connect(to: entry)
        let hello = clientHello("plain.example.com")
        try first.send(hello)
        #expect(try first.receive(exactly: hello.count) == hello)
        let second = try Socket.connect(to: entry)
        try second.send(clientHello("api.example.com"))
        let backend = try proxied.accept()
        let bytes = try backend.receive(exactly: 52 + clientHello("api.example.com").count)
        #expect(Array(bytes.dropFirst(52)) == clientHello("api.example.com"))
        // The header is not counted as the client's bytes.
        second.reset()
        let line = try node.log("the line of rt_api") { $0.route == "rt_api" }
        #expect(line.bytesToBackend == clientHello("api.example.com").count)
    }

    /// A config whose routes send version 1, also from pipelines that know both.
    private func asVersion1(_ config: ConfigText) -> String {
        config.description.replacing("proxy_protocol v2", with: "proxy_protocol v1")
            .replacing("    proxy_v2\n", with: "    proxy_v2\n    proxy_v1\n")
    }

    @Test(
        "R16: v1 as well: nginx and HAProxy say who the client is, of IPv6 and IPv4; both also take the node's UNKNOWN",
        arguments: hosts)
    func version1(host: String) throws {
        let (first, second) = (Place("::1", try FreePort.take()), Place("::1", try FreePort.take()))
        let nginx = try Nginx(
            seen:
                "[$proxy_protocol_addr]:$proxy_protocol_port to [$proxy_protocol_server_addr]:$proxy_protocol_server_port",
            http: """
                server {
                    listen \(first) proxy_protocol;
                    location / { return 200 "you are $proxy_protocol_addr port $proxy_protocol_port.\\n"; }
                }
                """, ready: first)
        let haproxy = try HAProxy(
            """
            defaults
                mode http
                timeout client 30s
                timeout server 30s
                timeout connect 5s
            frontend api
                bind \(second.host):\(second.port) accept-proxy
                http-request return status 200 content-type text/plain lf-string "you are %ci port %cp.\\n"

            """, ready: second)
        let entries = [Place(host, try FreePort.take()), Place(host, try FreePort.take())]
        let routes = zip(entries, [first, second]).enumerated().map { index, places in
            RouteText(host: nil, id: "rt_\(index)", port: places.0.port, backends: [places.1], proxy: true)
        }
        var config = ConfigText(rawListeners: entries, routes: routes)
        config.backend = "round_robin, health web"
        config.more = "health web {\n    probe http /\n    interval 200ms\n}\n"
        let node = try Node(asVersion1(config))
        for (number, entry) in entries.enumerated() {
            let client = try Socket.connect(to: entry)
            try client.send("GET / HTTP/1.0\r\n\r\n")
            let answer = String(decoding: try client.receiveToEnd().bytes, as: UTF8.self)
            #expect(answer.contains("you are \(host) port "), "\(answer)")
            client.finish()
            #expect(try node.log("its line") { $0.route == "rt_\(number)" }.backend != nil)
        }
        #expect(nginx.seen.contains("[\(host)]:"))
        #expect(
            !node.child.lines.contains { $0.isEvent("backend_down") || $0.isEvent("proxy_rejected") },
            "\(haproxy.child.output)")
    }

    @Test(
        "R16: the line is the first that the backend sees; a route of v1 without the stage is refused with what to add")
    func version1Bytes() throws {
        let server = try ManualServer()
        let entry = Place("::1", try FreePort.take())
        let config = ConfigText(
            rawListeners: [entry],
            routes: [RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [server.place], proxy: true)])
        let node = try Node(asVersion1(config))
        let client = try Socket.connect(to: entry)
        try client.send("hello")
        let backend = try server.accept()
        let wanted = "PROXY TCP6 ::1 ::1 \(try client.local.port) \(entry.port)\r\nhello"
        #expect(try backend.receive(exactly: wanted.utf8.count) == Array(wanted.utf8))
        client.reset()
        let line = try node.log("its line") { $0.route == "rt_raw" }
        #expect(line.bytesToBackend == 5)
        let path = try node.folder.write(
            "wrong.pipeline", config.description.replacing("proxy_protocol v2", with: "proxy_protocol v1"))
        let check = try Binary.run(["check", path])
        #expect(check.exit == .code(1))
        #expect((check.out + check.error).contains("has no proxy_v1 stage"), "\(check)")
    }
}
