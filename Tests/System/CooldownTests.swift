import Foundation
import Glibc
import TestSupport
import Testing

/// R31 on a running node: an address that goes from one env to another.
@Suite("R31: cooldowns on a node")
struct CooldownTests {
    private struct Site {
        let folder: TemporaryFolder
        let entry: Place
        let server: Server
        let clock: NodeClock
        let keeps: Bool
        var admin: String { folder.path + "/admin.sock" }

        init(keeps: Bool) throws {
            folder = try TemporaryFolder()
            entry = Place("::1", try FreePort.take())
            server = try Server.saying("f")
            // More than a cooldown.
            clock = try NodeClock("6s")
            self.keeps = keeps
        }

        /// - Parameter revision: of the file, from 1; the first has the address with `e`, later ones with `f`.
        func write(_ revision: Int) throws { try folder.write("state.json", document(revision)) }

        private func document(_ revision: Int) -> String {
            let env = { (id: String) in "{\"env_id\":\"\(id)\",\"app_id\":\"a\",\"org_id\":\"o\"}" }
            let owner = revision == 1 ? "e" : "f"
            return "{\"format\":\"pipelined.state/1\",\"revision\":\(revision),\"envs\":[\(env("e")),\(env("f"))],"
                + "\"instances\":[{\"instance_id\":\"i_\(owner)\",\"env_id\":\"\(owner)\",\"process_type\":\"w\","
                + "\"overlay_ipv6\":\"::1\",\"status\":\"ready\"}],\"routes\":[{\"route_id\":\"r\",\"env_id\":\"f\","
                + "\"listen_port\":\(entry.port),\"protocol_hint\":\"tcp_raw\",\"backend_process_type\":\"w\","
                + "\"backend_port\":\(server.place.port)}]}"
        }

        func start(_ cooldown: String) throws -> Node {
            var settings = ["admin unix:\(admin)", "cooldown \(cooldown)", "drain_timeout 1s"]
            if keeps { settings.append("state \(folder.path)/data") }
            return try Node(
                ConfigText(settings: settings, rawListeners: [entry], more: clock.config).description
                    + "\nroutes file state.json\n", folder: folder)
        }

        func ask(_ node: Node) throws -> String {
            let client = try Socket.connect(to: entry)
            let place = try client.local
            let said = String(decoding: try client.receiveToEnd().bytes, as: UTF8.self)
            return said.isEmpty ? try node.log(of: place).reason : said
        }

        var cooldown: [String: Any] {
            get throws { try (try Admin.json(["status"], admin)["cooldown"] as? [String: Any]).unwrap("cooldown") }
        }
    }

    @Test("it is refused, named, and served by itself once the time is over", arguments: [false, true])
    func waits(keeps: Bool) throws {
        let site = try Site(keeps: keeps)
        try site.write(1)
        let node = try site.start("4s")
        #expect(try site.ask(node) == "backend.no_backend upstream")
        try site.write(2)
        try node.reload(revision: 2)
        let first = try site.ask(node)
        // A machine that stood still between the two has its time over.
        if first != "f" {
            #expect(first == "backend.no_backend upstream")
        }
        try site.clock.pass(node)
        try node.waitForEvent("cooldown_over")
        #expect(try site.ask(node) == "f")
        #expect(try site.cooldown["waiting"] as? Int == 0)
        let problems = try Admin.json(["status"], site.admin)["problems"] as? [String]
        #expect(problems == [], "\(problems ?? [])")
    }

    @Test("over a SIGKILL it goes on; who waits is named in status, with whose it was; 0s serves at once")
    func restarts() throws {
        let site = try Site(keeps: true)
        try site.write(1)
        var node = try site.start("1h")
        try site.write(2)
        try node.reload(revision: 2)
        for _ in 0..<2 {
            #expect(try site.ask(node) == "backend.no_backend upstream")
            let addresses = try site.cooldown["addresses"] as? [[String: Any]]
            #expect(addresses?.first?["address"] as? String == "::1")
            #expect(
                addresses?.first?["last_owner"] as? String == "o/a/e"
                    && addresses?.first?["owner"] as? String == "o/a/f")
            let text = try Binary.run(["status", "--admin", site.admin]).out
            #expect(text.contains("problem: ::1 was o/a/e's, and is not served for o/a/f for another "), "\(text)")
            Glibc.kill(node.child.pid, SIGKILL)
            _ = try node.child.waitForExit()
            node = try site.start("1h")
        }
        Glibc.kill(node.child.pid, SIGKILL)
        _ = try node.child.waitForExit()
        node = try site.start("0s")
        #expect(try site.ask(node) == "f")
    }
}
