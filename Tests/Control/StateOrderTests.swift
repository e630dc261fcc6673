import PipelineRouting
import Testing

@testable import PipelineNode

@Suite("R22: revisions of one source go on, and nothing is forgotten by mistake")
struct StateOrderTests {
    private func reading(
        _ revision: UInt64?, env: String? = "e", path: String = "routes.json"
    ) throws -> StateOrder.Reading {
        let envs = env.map { "{\"env_id\":\"\($0)\",\"app_id\":\"a\",\"org_id\":\"o\"}" } ?? ""
        let text = """
            {"format":"pipelined.state/1",\(revision.map { "\"revision\":\($0)," } ?? "")
             "envs":[\(envs)],"instances":[],"routes":[]}
            """
        let document = try #require(StateDocument.parse(text).document)
        return StateOrder.Reading(document, Array(text.utf8), path: path)
    }

    @Test("a lower revision of the same file is refused, of another file it is not compared, and none never is")
    func lower() throws {
        var order = StateOrder()
        order.applied(try reading(42))
        let refusal = try #require(order.refusal(of: try reading(41), isConfirmed: false))
        #expect(refusal.contains("revision 41") && refusal.contains("42 is applied") && refusal.contains("--confirm"))
        // Who restores a backup says that going back is meant, and goes on from there.
        #expect(order.refusal(of: try reading(41), isConfirmed: true) == nil)
        for fine in [try reading(42), try reading(43), try reading(nil), try reading(1, path: "other.json")] {
            #expect(order.refusal(of: fine, isConfirmed: false) == nil)
        }
        // One without does not make an older one new again.
        order.applied(try reading(nil))
        #expect(order.refusal(of: try reading(41), isConfirmed: false) != nil)
    }

    @Test("the same revision with other content is told apart from the same document again")
    func reused() throws {
        var order = StateOrder()
        order.applied(try reading(42))
        #expect(!order.isReused(by: try reading(42)))
        #expect(order.isReused(by: try reading(42, env: "f")))
        #expect(!order.isReused(by: try reading(43, env: "f")))
        #expect(!order.isReused(by: try reading(nil, env: "f")))
        #expect(!order.isReused(by: try reading(42, env: "f", path: "other.json")))
    }

    @Test("three empty lists are refused where they would take something away, unless it is meant")
    func empty() throws {
        var order = StateOrder()
        let empty = try reading(43, env: nil)
        #expect(order.refusal(of: empty, isConfirmed: false) == nil, "a node that has nothing yet")
        order.applied(try reading(42))
        #expect(order.refusal(of: empty, isConfirmed: false)?.contains("reload --confirm") == true)
        #expect(order.refusal(of: empty, isConfirmed: true) == nil)
        order.applied(empty)
        #expect(order.refusal(of: try reading(44, env: nil), isConfirmed: false) == nil, "it is empty by now")
    }
}
