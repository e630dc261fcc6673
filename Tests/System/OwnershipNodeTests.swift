import Foundation
import Glibc
import TestSupport
import Testing

@Suite("Whose a name is, on a node that runs and one that starts")
struct OwnershipNodeTests {
    /// Two envs, each with an instance that says whose it is.
    private struct Site {
        let folder: TemporaryFolder
        let admin: String
        let (tls, raw): (Place, Place)
        let server: Server

        init() throws {
            folder = try TemporaryFolder()
            admin = "\(folder.path)/admin.sock"
            server = try Server.echo()
            (tls, raw) = (Place("::1", try FreePort.take()), Place("::1", try FreePort.take()))
        }

        func route(_ id: String, _ env: String, _ name: String, more: String = "") -> String {
            """
            {"route_id":"\(id)","env_id":"\(env)","hostname":"\(name)","listen_port":\(tls.port),
             "protocol_hint":"tls_passthrough","backend_process_type":"w","backend_port":\(server.place.port)\(more)}
            """
        }

        func rawRoute(_ more: String) -> String {
            """
            {"route_id":"rt_raw","env_id":"a","hostname":"db.example.com","listen_port":\(raw.port),
             "protocol_hint":"tcp_raw","backend_process_type":"w","backend_port":\(server.place.port)\(more)}
            """
        }

        func state(_ revision: Int, _ routes: [String], hostnames: String = "") throws {
            try folder.write(
                "state.json",
                """
                {"format":"pipelined.state/1","revision":\(revision),
                 "envs":[{"env_id":"a","app_id":"app","org_id":"org"},{"env_id":"b","app_id":"app","org_id":"org"}],
                 "instances":[{"instance_id":"i","env_id":"a","process_type":"w","overlay_ipv6":"::1","status":"ready"}],
                 "hostnames":[\(hostnames)],
                 "routes":[\(routes.joined(separator: ","))]}
                """)
        }

        func start() throws -> Node {
            let config = ConfigText(
                settings: ["admin unix:\(admin)"], tlsListeners: [tls], rawListeners: [raw],
                more: "routes file state.json\n")
            return try Node(config.description, folder: folder)
        }

        /// The reason why a client that asks for this name is refused; nil: it is served.
        func refusal(_ name: String, _ node: Node) throws -> String? {
            let client = try Socket.connect(to: tls)
            let local = try client.local
            let hello = clientHello(name)
            try client.send(hello)
            guard (try? client.receive(exactly: hello.count)) == hello else { return try node.log(of: local).reason }
            client.finish()
            _ = try client.receiveToEnd()
            return nil
        }

        func json(_ words: [String]) throws -> [String: Any] {
            let out = try Binary.run(words + ["--admin", admin, "--json"]).out
            return try (JSONSerialization.jsonObject(with: Data(out.utf8)) as? [String: Any]).unwrap()
        }

        func problems() throws -> String {
            (try json(["status"])["problems"] as? [String] ?? []).joined(separator: "\n")
        }
    }

    @Test("R5: who runs keeps a name, a start gives it to nobody, an entry of hostnames decides, all by any order")
    func names() throws {
        let site = try Site()
        let name = "app.example.com"
        let (mine, theirs) = (site.route("rt_a", "a", name), site.route("rt_b", "b", name))
        try site.state(1, [mine])
        let node = try site.start()
        #expect(try site.refusal(name, node) == nil)
        // Another env's claim, on top.
        try site.state(2, [theirs, mine])
        try node.reload(revision: 2)
        #expect(try site.refusal(name, node) == nil)
        #expect(try site.problems().contains("org/app/a") && site.problems().contains("org/app/b"))
        node.child.signal(SIGTERM)
        try node.child.waitForExit()
        let started = try site.start()
        #expect(try site.refusal(name, started) == "backend.no_route client")
        #expect(try site.problems().contains("rt_a") && site.problems().contains("rt_b"))
        try site.state(3, [theirs, mine], hostnames: "{\"hostname\":\"\(name)\",\"env_id\":\"a\",\"claimed\":1041}")
        try started.reload(revision: 3)
        #expect(try site.refusal(name, started) == nil)
        // An old route that is edited to the name gets nothing.
        try site.state(4, [theirs], hostnames: "{\"hostname\":\"\(name)\",\"env_id\":\"a\",\"claimed\":1041}")
        try started.reload(revision: 4)
        #expect(try site.refusal(name, started) == "backend.no_route client")
    }

    @Test("R16: an update that disagrees about the PROXY header refuses by name; status, routes and log say so")
    func mismatch() throws {
        let site = try Site()
        let (v2, expects) = (",\"proxy_protocol\":\"v2\"", ",\"backend_expects_proxy_protocol\":true")
        try site.state(1, [site.rawRoute(v2 + expects), site.route("rt_a", "a", "app.example.com")])
        let node = try site.start()
        let served = try Socket.connect(to: site.raw)
        #expect(try served.receive(exactly: 52).prefix(4) == [0x0D, 0x0A, 0x0D, 0x0A])
        for (revision, more) in [(2, expects), (3, v2)] {
            try site.state(revision, [site.rawRoute(more), site.route("rt_a", "a", "app.example.com", more: more)])
            try node.reload(revision: revision)
            let client = try Socket.connect(to: site.raw)
            let local = try client.local
            #expect((try? client.receiveToEnd().bytes) ?? [] == [])
            #expect(try node.log(of: local).reason == "backend.proxy_mismatch node")
            #expect(try site.refusal("app.example.com", node) == "backend.proxy_mismatch node")
            let routes = try (try site.json(["routes"])["routes"] as? [[String: Any]]).unwrap()
            #expect(Set(routes.map { $0["proxy"] as? String }) == ["mismatch"])
            #expect(Set(routes.map { $0["hostname"] as? String }) == ["app.example.com", "db.example.com"])
            #expect(try site.problems().contains("backend.proxy_mismatch"))
        }
        // The connection from before goes on.
        try served.send("x")
        #expect(try served.receive(exactly: 1) == [0x78])
        node.child.signal(SIGTERM)
        served.reset()
        try node.child.waitForExit()
        let started = try site.start()
        #expect(try site.refusal("app.example.com", started) == "backend.proxy_mismatch node")
    }
}
