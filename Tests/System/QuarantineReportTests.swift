import Foundation
import Glibc
import TestSupport
import Testing

@Suite("R24: what is quarantined, by owner and text")
struct QuarantineReportTests {
    @Test("routes and instances that are not in force as they are wanted, with why, after a restart as well")
    func quarantined() throws {
        let site = try WatchSite(keepsState: true)
        let other = "{\"env_id\":\"f\",\"app_id\":\"b\",\"org_id\":\"p\"}"
        let stolen =
            ",{\"route_id\":\"s\",\"env_id\":\"f\",\"listen_port\":\(site.entry.port),\"protocol_hint\":\"tcp_raw\","
            + "\"hostname\":\"db.example.com\",\"backend_process_type\":\"w\",\"backend_port\":1}"
        let nobody = ",{\"route_id\":\"n\",\"env_id\":\"none\",\"listen_port\":1}"
        try site.put("state.json", site.document(1, site.one))
        var node = try site.start("file state.json watch")
        // Whoever is there keeps the port.
        let text = site.document(2, site.one, more: stolen + nobody)
            .replacing("\"envs\":[", with: "\"envs\":[\(other),")
        try site.put("state.json", text)
        try awaitUntil("both wait") {
            let state = try site.status["desired_state"] as? [String: Any]
            return state?["otherwise"] as? Int == 2
        }
        let ask = { (words: [String]) in
            try Admin.json(["routes", "--state", "quarantined"] + words, site.admin)
        }
        let ids = { (words: [String]) in
            try (ask(words)["routes"] as? [[String: Any]]).unwrap("routes").compactMap { $0["id"] as? String }
        }
        for _ in 0..<2 {
            #expect(try ids([]) == ["n", "s"])
            #expect(
                try ids(["--owner", "p/b/f"]) == ["s"] && ids(["--owner", "p"]) == ["s"] && ids(["--owner", "o"]) == [])
            #expect(try ids(["--text", "DB.example"]) == ["s"] && ids(["--text", "is missing"]) == ["n"])
            let row = try (ask(["--text", "db."])["routes"] as? [[String: Any]])?.first.unwrap("row")
            #expect(row?["in_force"] as? String == "nothing" && row?["owner"] as? String == "p/b/f")
            #expect((row?["why"] as? [String])?.first?.contains("belongs to the raw route of o/a/e") == true)
            let table = try Binary.run(["routes", "--state", "quarantined", "--admin", site.admin])
            #expect(
                table.exit == .code(0) && table.out.contains("p/b/f") && table.out.contains("(unknown)"), "\(table)")
            #expect(try Admin.json(["routes", "--owner", "o/a/e"], site.admin)["count"] as? Int == 1)
            #expect(try Admin.json(["backends", "--state", "quarantined"], site.admin)["count"] as? Int == 0)
            Glibc.kill(node.child.pid, SIGKILL)
            _ = try node.child.waitForExit()
            node = try site.start("file state.json watch")
        }
        #expect(try Binary.run(["routes", "--state", "lost", "--admin", site.admin]).exit != .code(0))
    }

    @Test("a node that keeps nothing says that it has no list")
    func none() throws {
        let site = try WatchSite(keepsState: false)
        try site.put("state.json", site.document(1, site.one))
        let node = try site.start("file state.json")
        let answer = try Binary.run(["routes", "--state", "quarantined", "--admin", site.admin])
        #expect(answer.exit == .code(1) && answer.out.contains("keeps no desired state"), "\(answer)")
        withExtendedLifetime(node) {}
    }
}
