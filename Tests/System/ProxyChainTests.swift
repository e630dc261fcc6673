import Foundation
import TestSupport
import Testing

/// HAProxy and nginx in front of a node, behind it, and on both sides: each reads what the other writes (R16, R17).
@Suite("PROXY headers between nodes and HAProxy and nginx")
struct ProxyChainTests {
    static let hosts = ["::1", "127.0.0.1"]

    /// An HAProxy that relays what comes at `entry` to `next`, with a header.
    private func front(_ entry: Place, _ next: Place, _ options: String) throws -> HAProxy {
        try HAProxy(
            """
            defaults
                mode tcp
                timeout client 30s
                timeout server 30s
                timeout connect 5s
            frontend entry
                bind \(entry.host):\(entry.port)
                unique-id-format id-%ci-%cp
                default_backend next
            backend next
                server node \(next.host):\(next.port) \(options)

            """, ready: entry)
    }

    /// An HAProxy that reads headers, speaks HTTP and says what it has read.
    private func back(_ entry: Place, _ options: String = "") throws -> HAProxy {
        try HAProxy(
            """
            defaults
                mode http
                timeout client 30s
                timeout server 30s
                timeout connect 5s
            frontend entry
                bind \(entry.host):\(entry.port) accept-proxy \(options)
                http-request return status 200 content-type text/plain lf-string \
            "from %[src]|%[src_port] to %[dst]|%[dst_port] name=%[fc_pp_authority] id=%[fc_pp_unique_id] hex=%[fc_pp_unique_id,hex].\\n"

            """, ready: entry)
    }

    private func get(_ place: Place, from source: Place) throws -> String {
        let client = try Socket.connect(to: place, from: source)
        try client.send("GET / HTTP/1.0\r\n\r\n")
        return String(decoding: try client.receiveToEnd().bytes, as: UTF8.self)
    }

    private func rawNode(_ entry: Place, _ backend: Place, stage: String, proxy: String? = nil) throws -> Node {
        let route = RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [backend], proxy: proxy != nil)
        return try Node(
            ConfigText(
                rawListeners: [entry], firstStages: [stage], proxy: proxy ?? "proxy_v2", routes: [route]
            ).description)
    }

    @Test(
        "R17: HAProxy in front names the client by send-proxy and send-proxy-v2", arguments: hosts,
        ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
    func haproxyInFront(host: String, options: String) throws {
        let echo = try Server.echo()
        let node = Place("::1", try FreePort.take())
        let running = try rawNode(node, echo.place, stage: "anti_spoof require from ::1, refuse others, timeout 60s")
        let entry = Place(host, try FreePort.take())
        let haproxy = try front(entry, node, options)
        let source = Place(host, try FreePort.take())
        let client = try Socket.connect(to: entry, from: source)
        let payload = pattern(100_000)
        try client.send(payload)
        #expect(try client.receive(exactly: payload.count) == payload)
        client.finish()
        #expect(try client.receiveToEnd().bytes == [])
        let line = try running.log("the line of \(source)") { $0.client == source.description }
        #expect(line.peer != line.client && line.bytesToBackend == payload.count, "\(line)")
        withExtendedLifetime(haproxy) {}
    }

    @Test("R17: HAProxy in front of a TLS listener: routed by the hello behind the header", arguments: hosts)
    func haproxyBeforeTLS(host: String) throws {
        let echo = try Server.echo()
        let node = Place("::1", try FreePort.take())
        let route = RouteText(host: "a.example.com", id: "rt_a", port: node.port, backends: [echo.place])
        let running = try Node(
            ConfigText(
                tlsListeners: [node], firstStages: ["anti_spoof accept from ::1, refuse others, timeout 60s"],
                routes: [route]
            ).description)
        let entry = Place(host, try FreePort.take())
        let haproxy = try front(entry, node, "send-proxy-v2")
        let source = Place(host, try FreePort.take())
        let client = try Socket.connect(to: entry, from: source)
        let hello = clientHello("a.example.com")
        try client.send(hello)
        #expect(try client.receive(exactly: hello.count) == hello)
        client.finish()
        let line = try running.log("the line of \(source)") { $0.client == source.description }
        #expect(line.route == "rt_a" && line.serverName == "a.example.com")
        withExtendedLifetime(haproxy) {}
    }

    @Test("R16: HAProxy behind reads the authority and the unique id, checks the checksum, and skips the ids")
    func haproxyReadsTLVs() throws {
        let folder = try TemporaryFolder()
        let certificate = try Certificate.make("api.example.com", in: folder)
        try folder.write(
            "both.pem",
            String(contentsOfFile: certificate.certificateFile, encoding: .utf8)
                + String(contentsOfFile: certificate.keyFile, encoding: .utf8))
        let backend = Place("::1", try FreePort.take())
        let haproxy = try back(backend, "ssl crt \(folder.path)/both.pem")
        let entry = Place("::1", try FreePort.take())
        let route = RouteText(
            host: "api.example.com", id: "rt_api", port: entry.port, backends: [backend], proxy: true)
        let proxy = "proxy_v2 tlv authority, tlv alpn, tlv unique_id, tlv crc32c, tlv route, tlv env, tlv org 0xEF"
        let node = try Node(ConfigText(tlsListeners: [entry], proxy: proxy, routes: [route]).description)
        let source = Place("::1", try FreePort.take())
        let child = try Child(
            "openssl",
            [
                "s_client", "-connect", entry.description, "-bind", source.description, "-servername",
                "api.example.com", "-alpn", "http/1.1", "-ign_eof",
            ])
        try? child.write("GET / HTTP/1.0\r\n\r\n")
        try child.waitForExit()
        let line = try node.log(of: source)
        let id = try line.uniqueID.unwrap("unique id in \(line)")
        #expect(
            child.output.contains("from ::1|\(source.port) to ::1|\(entry.port) name=api.example.com"),
            "\(child.output)")
        #expect(child.output.contains("hex=\(id.uppercased())."), "\(id): \(child.output)")
        withExtendedLifetime(haproxy) {}
    }

    @Test("R16: nginx behind reads a header with every TLV of ours")
    func nginxReadsTLVs() throws {
        let backend = Place("::1", try FreePort.take())
        let nginx = try Nginx(
            seen: "$proxy_protocol_addr",
            http: """
                server {
                    listen \(backend) proxy_protocol;
                    location / { return 200 "you are $proxy_protocol_addr port $proxy_protocol_port.\\n"; }
                }
                """, ready: backend)
        let entry = Place("127.0.0.1", try FreePort.take())
        let node = try rawNode(
            entry, backend, stage: "anti_spoof refuse others",
            proxy: "proxy_v2 tlv unique_id, tlv crc32c, tlv route, tlv env, tlv org")
        let source = Place("127.0.0.1", try FreePort.take())
        let said = try get(entry, from: source)
        #expect(said.contains("you are 127.0.0.1 port \(source.port)."), "\(said)")
        #expect(try node.log(of: source).route == "rt_raw")
        withExtendedLifetime(nginx) {}
    }

    @Test(
        "R16, R17: HAProxy, a node that passes TLVs on, HAProxy: the last sees the client and the first's unique id",
        arguments: hosts)
    func chain(host: String) throws {
        let last = Place("::1", try FreePort.take())
        let behind = try back(last)
        let middle = Place("::1", try FreePort.take())
        let node = try rawNode(
            middle, last, stage: "anti_spoof require from ::1, refuse others, timeout 60s",
            proxy: "proxy_v2 pass_through, tlv crc32c, tlv route")
        let first = Place(host, try FreePort.take())
        let before = try front(first, middle, "send-proxy-v2 proxy-v2-options crc32c,unique-id")
        let source = Place(host, try FreePort.take())
        let said = try get(first, from: source)
        // Where the client went is what the first has said, too: so an IPv4 client stays one.
        #expect(
            said.contains(
                "from \(host)|\(source.port) to \(host)|\(first.port) name= id=id-\(host)-\(source.port) "),
            "\(said)")
        let line = try node.log("the line of \(source)") { $0.client == source.description }
        #expect(line.reason.hasPrefix("relay."))
        withExtendedLifetime((behind, before)) {}
    }
}
