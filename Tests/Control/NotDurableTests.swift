import Glibc
import Pipeline
import PipelineRouting
import TestSupport
import Testing

@testable import PipelineLastGood
@testable import PipelineNode
@testable import PipelineState

@Suite("R23: a disk that takes nothing: what takes away is in force all the same, and nothing else is")
struct NotDurableTests {
    private static let faults = [ENOSPC, EDQUOT, EIO, EROFS]

    private func env(_ id: String, suspended: Bool = false) -> String {
        "{\"env_id\":\"\(id)\",\"app_id\":\"a\",\"org_id\":\"o\"\(suspended ? ",\"suspended\":true" : "")}"
    }
    private func instance(_ id: String, _ env: String, _ status: String = "ready") -> String {
        "{\"instance_id\":\"\(id)\",\"env_id\":\"\(env)\",\"process_type\":\"w\",\"overlay_ipv6\":\"fd00::\(id)\","
            + "\"status\":\"\(status)\"}"
    }
    private func route(_ id: String, _ env: String, port: Int = 10000, _ more: String = "") -> String {
        "{\"route_id\":\"\(id)\",\"env_id\":\"\(env)\",\"listen_port\":\(port),\"protocol_hint\":\"tcp_raw\","
            + "\"backend_process_type\":\"w\",\"backend_port\":80\(more)}"
    }
    private func document(
        _ revision: Int, envs: [String]? = nil, instances: [String]? = nil, routes: [String]? = nil
    ) -> String {
        let envs = envs ?? [env("e"), env("f"), env("g")]
        let instances = instances ?? [instance("1", "e"), instance("2", "f"), instance("3", "e")]
        let routes = routes ?? [route("r", "e"), route("s", "f", port: 10001), route("t", "g", port: 10002)]
        return "{\"format\":\"pipelined.state/1\",\"revision\":\(revision),\"envs\":[\(envs.joined(separator: ","))],"
            + "\"instances\":[\(instances.joined(separator: ","))],\"routes\":[\(routes.joined(separator: ","))]}"
    }
    private func change(_ revision: Int, base: Int? = nil, put: String = "", delete: String = "") -> String {
        "{\"format\":\"pipelined.change/1\",\"revision\":\(revision),\(base.map { "\"base\":\($0)," } ?? "")"
            + "\"put\":{\(put)},\"delete\":{\(delete)}}"
    }

    private func site() throws -> GroupSite {
        let site = try GroupSite()
        try site.push(document(1))
        try site.answered(1)
        #expect(site.outcomes(1...1) == ["applied"])
        return site
    }

    /// `r acme/… 10000 2`: each route with its owner and how many backends it has; `-` for one that is withdrawn.
    private func served(_ routing: RoutingState) -> [String] {
        let suspended = routing.suspended.envs
        return routing.snapshot.listing().map { route in
            let isOut = suspended.contains { $0.split(separator: " ").first == Substring(route.owner) }
            return "\(route.id) \(route.owner) \(route.backends.count)\(isOut || route.isWithdrawn ? " -" : "")"
        }.sorted()
    }
    private let whole = ["r o/a/e 2", "s o/a/f 1", "t o/a/g 0"]

    @Test(
        "each kind of it: lost readiness, suspension, a removed instance, route and env; what else was asked for is not",
        arguments: faults)
    func kinds(_ error: Int32) throws {
        let site = try site()
        #expect(served(site.node.routing) == whole)
        site.fail(error)
        try site.push(
            change(
                2, base: 1,
                put: "\"instances\":[\(instance("1", "e", "draining")),\(instance("9", "f"))],"
                    + "\"envs\":[\(env("f", suspended: true))],\"routes\":[\(route("u", "f", port: 10003))]",
                delete: "\"instances\":[\"3\"],\"routes\":[\"r\"],\"envs\":[\"g\"]"))
        try site.answered(2)
        let answer = try site.answers[2].unwrap("an answer")
        #expect(answer.outcome == .partly(isDurable: false) && answer.revision == 1)
        for words in ["not durable", "5 objects", "nothing else of it is", "send it again"] {
            #expect(answer.message.contains(words), "\(answer.message)")
        }
        #expect(!answer.message.contains("nothing was changed"), "\(answer.message)")
        #expect(served(site.node.routing) == ["r o/a/e 0 -", "s o/a/f 1 -", "t o/a/g 0 -"])
        #expect(site.node.desired?.notDurable?.objects == 5 && site.kept.map { $0.changesInMemory > 0 } ?? false)
        // A restart knows nothing of it.
        #expect(served(try site.restored()) == whole)
        // A lookup of what there is goes on, and what gives is refused.
        try site.push(change(3, base: 1, put: "\"routes\":[\(route("u", "f", port: 10003))]"))
        try site.answered(3)
        #expect(site.outcomes(3...3) == ["refused"])
        #expect(site.answers[3]?.message.contains("nothing was changed") ?? false)
        #expect(site.answers[3]?.message.contains("takes nothing but what takes away") ?? false)
    }

    @Test(
        "once the disk takes it, it is durable, by itself; the update is sent again then, and is whole",
        arguments: faults)
    func again(_ error: Int32) throws {
        let site = try site()
        site.fail(error)
        let update = change(2, base: 1, put: "\"envs\":[\(env("f", suspended: true))]", delete: "\"routes\":[\"r\"]")
        for number in 2...3 {
            try site.push(update)
            try site.answered(number)
        }
        // What is in force already is not taken away twice.
        #expect(site.outcomes(2...3) == ["in part", "refused"] && site.node.desired?.notDurable?.objects == 2)
        site.fail(nil)
        try awaitUntil("it is durable") {
            site.turn()
            return site.node.desired?.notDurable == nil
        }
        #expect(site.kept?.changesInMemory == 0)
        #expect(served(try site.restored()) == ["r o/a/e 2 -", "s o/a/f 1 -", "t o/a/g 0"])
        try site.push(update)
        try site.answered(4)
        #expect(site.outcomes(4...4) == ["applied"] && site.answers[4]?.revision == 2)
        #expect(served(site.node.routing) == ["s o/a/f 1 -", "t o/a/g 0"])
        #expect(served(try site.restored()) == ["s o/a/f 1 -", "t o/a/g 0"])
    }

    @Test(
        "R5: what is removed without being durable frees nothing: who waits for it has it once it is",
        arguments: [ENOSPC, EIO])
    func frees(_ error: Int32) throws {
        let site = try site()
        try site.push(change(2, put: "\"routes\":[\(route("waits", "f"))]"))
        try site.answered(2)
        #expect(site.outcomes(2...2) == ["quarantined"])
        site.fail(error)
        let update = change(3, base: 2, delete: "\"routes\":[\"r\"]")
        try site.push(update)
        try site.answered(3)
        #expect(site.outcomes(3...3) == ["in part"] && served(site.node.routing).contains("r o/a/e 2 -"))
        #expect(!served(site.node.routing).contains { $0.hasPrefix("waits") })
        site.fail(nil)
        try site.push(update)
        try site.answered(4)
        #expect(site.outcomes(4...4) == ["applied"] && served(site.node.routing).contains("waits o/a/f 1"))
        #expect(served(try site.restored()).contains("waits o/a/f 1"))
        site.turn()
        #expect(site.node.desired?.notDurable == nil)
    }

    @Test("a sender that goes on behind what was refused: what takes away is taken; the rest needs what it stands on")
    func behind() throws {
        let site = try site()
        site.fail(ENOSPC)
        try site.push(change(2, base: 1, put: "\"routes\":[\(route("u", "f", port: 10003))]"))
        try site.answered(2)
        // In a group of its own, and two in one.
        try site.push(change(3, base: 2, put: "\"instances\":[\(instance("1", "e", "failed"))]"))
        try site.answered(3)
        try site.push(change(4, base: 3, put: "\"instances\":[\(instance("3", "e", "failed"))]"))
        try site.push(change(5, base: 4, put: "\"orgs\":[{\"org_id\":\"o\",\"suspended\":true}]"))
        try site.answered(5)
        // Nobody has sent this one's base.
        try site.push(change(9, base: 8, put: "\"instances\":[\(instance("2", "f", "failed"))]"))
        try site.answered(6)
        #expect(site.outcomes(2...6) == ["refused", "in part", "in part", "in part", "refused"])
        #expect(site.answers[6]?.message.contains("stands on revision 8, but revision 1 is applied") ?? false)
        #expect(served(site.node.routing)[0] == "r o/a/e 0" && site.node.routing.suspended.orgs == ["o"])
        site.fail(nil)
        try site.push(change(6, base: 5, put: "\"routes\":[\(route("v", "f", port: 10004))]"))
        try site.answered(7)
        #expect(site.outcomes(7...7) == ["refused"])
        #expect(site.answers[7]?.message.contains("stands on revision 5, but revision 1 is applied") ?? false)
        try site.push(document(6, routes: [route("r", "e")]))
        try site.answered(8)
        #expect(site.outcomes(8...8) == ["applied"] && served(site.node.routing) == ["r o/a/e 2"])
    }

    @Test("R29: of what waits behind a held update, what takes away is in force, and the update itself does not wait")
    func held() throws {
        let site = try site()
        try site.push(document(2, routes: []))
        try site.answered(2)
        #expect(site.outcomes(2...2) == ["held"])
        site.fail(ENOSPC)
        try site.push(change(3, base: 2, put: "\"instances\":[\(instance("1", "e", "failed")),\(instance("9", "f"))]"))
        try site.answered(3)
        #expect(site.outcomes(3...3) == ["in part"] && site.held.waiting == 0)
        #expect(served(site.node.routing)[0] == "r o/a/e 1")
        // A guard holds before the disk is asked, so that a mistake takes nothing away.
        #expect(site.node.desired?.notDurable?.objects == 1)
        // What is confirmed is meant.
        #expect(try site.confirm(site.held.head.unwrap("what is held").id) == 4)
        try site.answered(4)
        #expect(site.outcomes(4...4) == ["in part"] && served(site.node.routing).allSatisfy { $0.hasSuffix("-") })
        #expect(!site.held.isEmpty)
    }

    @Test("a whole document, of which what it does not have is taken away; instances that drain keep their grace")
    func documents() throws {
        let site = try site()
        site.fail(EROFS)
        try site.push(
            document(
                2, instances: [instance("1", "e", "draining"), instance("2", "f")],
                routes: [route("s", "f", port: 10001), route("t", "g", port: 10002)]))
        try site.answered(2)
        #expect(site.outcomes(2...2) == ["in part"])
        #expect(served(site.node.routing) == ["r o/a/e 0 -", "s o/a/f 1", "t o/a/g 0"])
        #expect(site.answers[2]?.message.contains("read-only") ?? false)
    }

    @Test("the end tries a last time; what the disk does not take then is said, and gone")
    func ended() throws {
        for error in [nil, ENOSPC] as [Int32?] {
            let site = try site()
            site.fail(ENOSPC)
            try site.push(change(2, base: 1, delete: "\"routes\":[\"r\"]"))
            try site.answered(2)
            site.fail(error)
            site.node.updates?.close(.stopping)
            site.node.endUpdates()
            #expect(served(try site.restored()).contains(error == nil ? "r o/a/e 2 -" : "r o/a/e 2"))
        }
    }
}
