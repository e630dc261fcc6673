import Foundation
import Glibc
import TestSupport
import Testing

/// R30 on a running node that is told by pushes.
@Suite("R30: suspended envs and orgs on a node")
struct SuspensionTests {
    private struct Site {
        let folder: TemporaryFolder
        let tls: Place
        let raw: Place
        let full: Place
        let (sibling, other): (Place, Place)
        let one: Server
        var admin: String { folder.path + "/admin.sock" }

        init() throws {
            folder = try TemporaryFolder()
            let ports = try (0..<5).map { _ in Place("::1", try FreePort.take()) }
            (tls, raw, full, sibling, other) = (ports[0], ports[1], ports[2], ports[3], ports[4])
            one = try Server.echo()
        }

        /// Beside what is pushed, blocks of an env of the same org, and of another one.
        func start() throws -> Node {
            let blocks = [("sibling", sibling, "o/a/c"), ("other", other, "p/a/z")].map { id, place, owner in
                RouteText(id: id, owner: owner, port: place.port, backends: [one.place])
            }
            return try Node(
                ConfigText(
                    settings: ["admin unix:\(admin)", "state \(folder.path)/data", "drain_timeout 1s"], workers: 2,
                    sniff: "timeout 60s, max 16KiB", tlsListeners: [tls], rawListeners: [raw, full, sibling, other],
                    routes: blocks
                ).description + "\nroutes push\n", folder: folder)
        }

        func env(_ id: String, org: String = "o", _ more: String = "") -> String {
            "{\"env_id\":\"\(id)\",\"app_id\":\"a\",\"org_id\":\"\(org)\"\(more)}"
        }

        private func instance(_ id: String, _ env: String) -> String {
            "{\"instance_id\":\"\(id)\",\"env_id\":\"\(env)\",\"process_type\":\"w\",\"overlay_ipv6\":\"::1\","
                + "\"status\":\"ready\"}"
        }

        private func route(_ id: String, _ env: String, _ port: UInt16, _ server: Server, _ more: String) -> String {
            "{\"route_id\":\"\(id)\",\"env_id\":\"\(env)\",\"listen_port\":\(port),\"backend_process_type\":\"w\","
                + "\"backend_port\":\(server.place.port),\(more)}"
        }

        /// A name, a raw port, and one with a queue.
        var document: String {
            let isRaw = "\"protocol_hint\":\"tcp_raw\""
            let named = { (name: String) in "\"protocol_hint\":\"tls_passthrough\",\"hostname\":\"\(name)\"" }
            let routes = [
                route("r_name", "e", tls.port, one, named("e.example.com")),
                route("r_raw", "e", raw.port, one, isRaw),
                route(
                    "r_full", "e", full.port, one,
                    isRaw + ",\"max_connections\":1,\"queue\":5,\"queue_timeout_seconds\":60"),
            ]
            return "{\"format\":\"pipelined.state/1\",\"revision\":1,\"envs\":[\(env("e"))],"
                + "\"instances\":[\(instance("i", "e"))],\"routes\":[\(routes.joined(separator: ","))]}"
        }

        func change(_ revision: Int, put: String = "", delete: String = "") throws {
            let text =
                "{\"format\":\"pipelined.change/1\",\"revision\":\(revision),\"needs\":[\"suspended\",\"orgs\"],"
                + "\"put\":{\(put)},\"delete\":{\(delete)}}"
            try apply(text)
        }

        func apply(_ text: String) throws {
            let answer = try Binary.run(["apply", "-", "--admin", admin], input: text)
            guard answer.exit == .code(0) else { throw Failure("\(answer)") }
        }

        func open(_ place: Place) throws -> Socket {
            let client = try Socket.connect(to: place)
            try client.send("ping")
            guard try client.receive(exactly: 4) == Array("ping".utf8) else { throw Failure("no echo") }
            return client
        }

        func ask(_ place: Place, _ bytes: [UInt8] = []) throws -> Socket {
            let client = try Socket.connect(to: place)
            try client.send(bytes)
            return client
        }

        var status: [String: Any] { get throws { try Admin.json(["status"], admin) } }
    }

    private func reason(_ client: Socket, _ node: Node) throws -> String {
        let place = try client.local
        guard try client.receiveToEnd().ending == .reset else { throw Failure("no reset") }
        return try node.log(of: place).reason
    }

    @Test("old ones end with a reset, new ones are refused by name, and all of it is back at once; over a SIGKILL too")
    func envAndOrg() throws {
        let site = try Site()
        var node = try site.start()
        try site.apply(site.document)
        let words = [
            ("\"envs\":[\(site.env("e", ",\"suspended\":true"))]", "\"envs\":[\(site.env("e"))]", ""),
            ("\"orgs\":[{\"org_id\":\"o\",\"suspended\":true}]", "", "\"orgs\":[\"o\"]"),
        ]
        for (index, (suspend, put, delete)) in words.enumerated() {
            let old = try site.open(site.raw)
            let stranger = try site.open(site.other)
            let sibling = try site.open(site.sibling)
            // One that has its place, and one that waits for it.
            let holder = try site.open(site.full)
            let waiting = try site.ask(site.full)
            try awaitUntil("one waits") { try NodeStatus.total("connections_queued", site.admin) == 1 }
            let name = try site.ask(site.tls, Array(clientHello("e.example.com").dropLast()))
            try awaitUntil("it is sniffed") { try NodeStatus.total("connections_sniffing", site.admin) == 1 }
            let asked = Date()
            try site.change(10 * index + 2, put: suspend)
            for client in [old, holder, waiting] {
                let place = try client.local
                #expect(try reason(client, node) == "drain.suspended node")
                #expect(try node.log(of: place).seconds(after: asked) < 20)
            }
            // Whose hello comes now is refused as a new one is.
            try name.send(Array(clientHello("e.example.com").suffix(1)))
            #expect(try reason(name, node) == "backend.suspended node")
            for _ in 0..<4 { #expect(try reason(try site.ask(site.raw), node) == "backend.suspended node") }
            // Of its org's other env only with the org, and of another org never.
            if index == 1 {
                #expect(try reason(sibling, node) == "drain.suspended node")
                #expect(try reason(try site.ask(site.sibling), node) == "backend.suspended node")
            }
            for client in index == 0 ? [stranger, sibling] : [stranger] {
                try client.send("more")
                #expect(try client.receive(exactly: 4) == Array("more".utf8))
            }
            let explained = try Binary.run(
                ["explain", "--admin", site.admin, "--to", "\(site.raw)", "--from", "[::1]:9"])
            for part in ["is suspended", "backend.suspended"] { #expect(explained.out.contains(part), "\(explained)") }
            #expect(try Binary.run(["routes", "--admin", site.admin]).out.contains("1/1 suspended"))
            let said = try Binary.run(["status", "--admin", site.admin]).out
            #expect(said.contains(index == 0 ? "suspended: env o/a/e" : "suspended: org o"), "\(said)")
            // It is remembered.
            Glibc.kill(node.child.pid, SIGKILL)
            _ = try node.child.waitForExit()
            node = try site.start()
            #expect(try reason(try site.ask(site.raw), node) == "backend.suspended node")
            try site.change(10 * index + 3, put: put, delete: delete)
            try site.open(site.raw).finish()
            let status = try (try site.status["suspended"] as? [String: Any]).unwrap("suspended")
            #expect(status["envs"] as? Int == 0 && status["orgs"] as? Int == 0)
        }
    }

    @Test(
        "egress: a suspended instance's connections end, on both listeners, new ones are refused, the others' go on",
        .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
    func egress() throws {
        let lab = try EgressLab()
        let server = try lab.startServer()
        let node = try lab.startNode()
        defer { withExtendedLifetime(server) {} }
        let open = { (host: String, to: Place) in try lab.inside(host) { try Socket.connect(to: to) } }
        let (old, oldV4) = (try open(lab.alpha, EgressLab.v6), try open(lab.alpha, EgressLab.v4))
        let other = try open(lab.beta, EgressLab.v6)
        let state = EgressLab.state.replacing("\"revision\":1", with: "\"revision\":2").replacing(
            "\"org_id\":\"acme\"}", with: "\"org_id\":\"acme\",\"suspended\":true}")
        try lab.folder.write("state.json", state)
        try node.reload(revision: 2)
        for client in [old, oldV4] {
            #expect(try reason(client, node) == "drain.suspended node")
            #expect(try node.log(of: client.local).instance == "i_alpha")
        }
        let refused = try open(lab.alpha, EgressLab.v6)
        #expect(try reason(refused, node) == "anti_spoof.suspended node")
        #expect(try node.log(of: refused.local).owner == "acme/shop/env_a")
        #expect(other.isQuiet)
        #expect(try lab.curl(lab.beta, EgressLab.v6).exit == .code(0))
        try lab.folder.write("state.json", EgressLab.state.replacing("\"revision\":1", with: "\"revision\":3"))
        try node.reload(revision: 3)
        #expect(try lab.curl(lab.alpha, EgressLab.v6).exit == .code(0))
    }
}
