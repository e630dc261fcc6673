import Foundation
import Glibc
import TestSupport
import Testing

@Suite("R23, R25, R29: what holds for every update holds for a watched file")
struct WatchedRoutesRulesTests {
    @Test(
        "a guard holds what takes all away, a lower revision is refused; a reload confirms either",
        arguments: [true, false])
    func guards(keepsState: Bool) throws {
        let site = try WatchSite(keepsState: keepsState)
        try site.put("state.json", site.document(5, site.one))
        let node = try site.start("file state.json watch")
        let empty = "{\"format\":\"pipelined.state/1\",\"revision\":6,\"envs\":[],\"instances\":[],\"routes\":[]}"
        try site.put("state.json", empty)
        try site.awaitProblem("reload --confirm")
        #expect(try site.asks() == "1")
        // What is in force is no problem any more.
        try site.put("state.json", site.document(5, site.one))
        try site.awaitFine("what is in force is back")
        try site.put("state.json", site.document(4, site.two))
        try site.awaitProblem("revision 4, but 5 is applied")
        #expect(try site.asks() == "1")
        #expect(try Binary.run(["reload", "--confirm", "--admin", site.admin]).exit == .code(0))
        #expect(try site.asks() == "2")
        try site.awaitFine("it was confirmed")
        // The watch goes on from there.
        try site.put("state.json", site.document(5, site.one))
        try site.awaitServed("1")
        try site.put("state.json", empty)
        try site.awaitProblem("reload --confirm")
        #expect(try Binary.run(["reload", "--confirm", "--admin", site.admin]).exit == .code(0))
        try awaitUntil("all is gone") { try site.status["routes"] as? Int == 0 }
        try site.awaitFine()
        guard keepsState else { return }
        try awaitUntil("the journal has who was held, and who was refused") {
            let journal = try Binary.run(["audit", "--json", "--actor", "file", site.data]).out
            return journal.contains("\"outcome\":\"held\"") && journal.contains("\"outcome\":\"rejected\"")
        }
        _ = node
    }

    @Test("a bad object is quarantined and named, until it is good", arguments: [true, false])
    func quarantine(keepsState: Bool) throws {
        let site = try WatchSite(keepsState: keepsState)
        try site.put("state.json", site.document(1, site.one))
        let node = try site.start("file state.json watch")
        let bad = ",{\"route_id\":\"bad\",\"env_id\":\"nobody\",\"listen_port\":1}"
        let unnamed = ",{\"route_id\":7,\"env_id\":\"e\",\"listen_port\":1}"
        try site.put("state.json", site.document(2, site.two, more: bad + unnamed))
        try site.awaitServed("2")
        try awaitUntil("both are named") {
            let problems = try site.problems
            return problems.contains { $0.contains("\"bad\"") || $0.contains("bad") }
                && problems.contains { $0.contains("route_id") }
        }
        try site.put("state.json", site.document(3, site.one))
        try site.awaitServed("1")
        try site.awaitFine()
        _ = node
    }

    @Test("R23: a node whose watched file is away starts from what it had; the file is in force once it is there")
    func start() throws {
        let site = try WatchSite(keepsState: true)
        try site.put("state.json", site.document(1, site.one))
        var node = try site.start("file state.json watch")
        #expect(try site.asks() == "1")
        Glibc.kill(node.child.pid, SIGKILL)
        _ = try node.child.waitForExit()
        try site.remove("state.json")
        node = try site.start("file state.json watch")
        #expect(try site.asks() == "1")
        try awaitUntil("it is said") { try site.problems.contains { $0.contains("not in force") } }
        try site.write("state.json", site.document(2, site.two))
        try site.awaitServed("2")
        try awaitUntil("it is over") { try site.problems.allSatisfy { !$0.contains("not in force") } }
        // As it is after the end of a node, too.
        node.child.signal(SIGTERM)
        #expect(try node.child.waitForExit() == .code(0))
        node = try site.start("file state.json watch")
        #expect(try site.asks() == "2")
        try site.put("state.json", site.document(3, site.one))
        try site.awaitServed("1")
        withExtendedLifetime(node) {}
    }

    @Test("a reload begins and ends the watch, and names another file", arguments: [true, false])
    func reloads(keepsState: Bool) throws {
        let site = try WatchSite(keepsState: keepsState)
        try site.put("state.json", site.document(1, site.one))
        let node = try site.start("file state.json")
        #expect(try site.watch == nil)
        #expect(try node.reload(site.config("file state.json watch")).isEvent("reloaded"))
        try site.put("state.json", site.document(2, site.two))
        try site.awaitServed("2")
        try site.put("other.json", site.document(3, site.one))
        #expect(try node.reload(site.config("file other.json watch")).isEvent("reloaded"))
        #expect(try site.asks() == "1")
        // The one that was watched before is nothing to it.
        try site.put("state.json", site.document(9, site.one))
        try site.put("other.json", site.document(4, site.two))
        try site.awaitServed("2")
        #expect(try site.status["revision"] as? Int == 4)
        #expect(try node.reload(site.config("file other.json")).isEvent("reloaded"))
        #expect(try site.watch == nil)
    }

    @Test(
        "no inotify instances left: the file is looked at each second, which is said, and watched once there are some",
        .enabled(if: Child.find("unshare") != nil && Child.find("nsenter") != nil, "needs unshare and nsenter"),
        arguments: ["instances", "watches"])
    func limits(kind: String) throws {
        let site = try WatchSite(keepsState: true)
        try site.put("state.json", site.document(1, site.one))
        let limit = "/proc/sys/user/max_inotify_\(kind)"
        let node = try site.start(
            "file state.json watch",
            launcher: ["unshare", "--user", "--map-root-user", "sh", "-c", "echo 0 > \(limit) && exec \"$0\" \"$@\""])
        #expect(node.child.lines.contains { $0.isEvent("routes_polled") })
        #expect(try site.problems.contains { $0.contains("looked at each second") && $0.contains("raise the limit") })
        #expect(try site.watch.unwrap("routes_watch")["by"] as? String == "polling")
        try site.put("state.json", site.document(2, site.two))
        try site.awaitServed("2")
        try site.write("state.json", site.document(3, site.one))
        try site.awaitServed("1")
        let enter = ["--user", "--target", "\(node.child.pid)", "sh", "-c", "echo 100 > \(limit)"]
        #expect(try Binary.run(enter, by: "nsenter").exit == .code(0))
        try node.waitForEvent("routes_watched")
        try site.awaitFine()
        try site.put("state.json", site.document(4, site.two))
        try site.awaitServed("2")
        #expect(try site.watch.unwrap("routes_watch")["by"] as? String == "events")
    }
}
