import Foundation
import Pipeline
import PipelineInspect
import PipelineLanguage
import PipelineNode
import PipelineRouting
import Testing

/// Pairs in `Plans`: `before.pipeline` (with `routes.json`, or `kept.json`: what was applied last), and what is new:
/// `new.pipeline` or `new.json`. `plan.txt` and `plan.json` say what comes out, with the exit code behind the text.
/// `PIPELINED_UPDATE_GOLDEN=1 swift test --filter PlanTests` writes them anew; read each line.
@Suite("`plan`: what a change would do, by the code that does it") struct PlanTests {
    private static let updates = ProcessInfo.processInfo.environment["PIPELINED_UPDATE_GOLDEN"] == "1"
    private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("Plans").path
    static let pairs = ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).sorted()

    private struct NoPlan: Error { let text: String }

    private static func bytes(_ pair: String, _ name: String) -> [UInt8]? {
        FileManager.default.contents(atPath: "\(folder)/\(pair)/\(name)").map { Array($0) }
    }

    private static func base(_ pair: String) throws -> PlanBase {
        let config = try #require(bytes(pair, "before.pipeline"))
        let kept = try bytes(pair, "kept.json").map { document in
            let lines = "{\"config\":\"\",\"program\":\"\",\"keeps\":true,\"source\":\"push\",\"at\":1"
            let revision = document.withUnsafeBufferPointer { StateUpdate.read($0, as: .document).update?.revision }
            return try PlanGround(Array("\(lines),\"revision\":\(revision ?? 0)}\n{\"end\":true}\n".utf8) + document)
        }
        let (base, loaded) = PlanBase.load(
            config, file: "\(folder)/\(pair)/before.pipeline", kept: kept?.kept)
        return try #require(base, "\(loaded.diagnosticText)")
    }

    private static func plan(_ pair: String, live: LiveConnections? = nil) throws -> NodePlan {
        let base = try base(pair)
        base.live = live
        do throws(PlanFailure) {
            if let state = bytes(pair, "new.json") { return try base.plan(state: state, file: "new.json") }
            let config = bytes(pair, "new.pipeline") ?? []
            return try base.plan(config: config, file: "\(folder)/\(pair)/new.pipeline")
        } catch {
            switch error {
            case .refused(let why): throw NoPlan(text: why)
            case .config(let compilation):
                throw NoPlan(text: render(compilation.diagnostics, source: compilation.source))
            }
        }
    }

    @Test("each pair gives its plan", arguments: pairs) func golden(_ pair: String) throws {
        let plan = try Self.plan(pair)
        let exit = plan.ownershipChanges > 0 ? 4 : 0
        for (name, text) in [("plan.txt", plan.text + "exit \(exit)\n"), ("plan.json", plan.json + "\n")] {
            let path = "\(Self.folder)/\(pair)/\(name)"
            if Self.updates { try text.write(toFile: path, atomically: true, encoding: .utf8) }
            #expect(try String(contentsOfFile: path, encoding: .utf8) == text, "\(pair)/\(name)")
        }
    }

    @Test("there are ten at least, and nothing that a plan reads is changed by it") func found() throws {
        #expect(Self.pairs.count >= 10)
    }

    @Test("a plan counts the connections that a change touches, by route and by backend") func counts() throws {
        var live = LiveConnections()
        live.routes = ["rt_app": 12, "rt_db": 3]
        live.backends = ["[fd00::10]:8443": 15]
        let moved = try Self.plan("name-moves", live: live)
        #expect(moved.changes.first { $0.kind == .ownership }?.connections == 12)
        #expect(moved.text.contains("acme/shop/prod -> acme/shop/staging (12 connections)"), "\(moved.text)")
        #expect(!moved.text.contains("not counted"))
        let removed = try Self.plan("change", live: live)
        #expect(removed.text.contains("its connections have 30 s (3 connections)"), "\(removed.text)")
        live.routes["rt_bolt"] = 2
        let suspended = try Self.plan("suspended", live: live).changes.filter { $0.kind == .suspension }
        #expect(suspended.map(\.subject) == ["bolt", "acme/shop/prod", "acme/shop/staging"])
        #expect(suspended.map(\.connections) == [2, 12, nil] && suspended.map(\.what) == ["org", "env", "env"])
        let drained = try Self.plan("held", live: live)
        #expect(drained.text.contains("[fd00::10]:8443: its connections have 20 s (15 connections)"), "\(drained.text)")
    }

    @Test("what would be refused has no plan, and says why: an older revision, another base, a document that is none")
    func refusals() throws {
        for (pair, new, part) in [
            (
                "change", "{\"format\":\"pipelined.change/1\",\"base\":7,\"delete\":{\"routes\":[\"rt_db\"]}}",
                "stands on revision 7"
            ),
            (
                "change",
                "{\"format\":\"pipelined.state/1\",\"revision\":40,\"envs\":[],\"instances\":[],\"routes\":[]}",
                "revision 40, but 41"
            ),
            ("name-moves", "{\"format\":\"pipelined.change/1\",\"put\":{}}", "pipelined.change"),
            (
                "stages", "{\"format\":\"pipelined.state/1\",\"envs\":[],\"instances\":[],\"routes\":[]}",
                "takes no routes but its own"
            ),
            ("change", "{", "expected"),
        ] {
            let base = try Self.base(pair)
            do throws(PlanFailure) {
                _ = try base.plan(state: Array(new.utf8), file: "new.json")
                Issue.record("\(pair): a plan came out")
            } catch {
                guard case .refused(let why) = error else {
                    Issue.record("\(error)")
                    continue
                }
                #expect(why.contains(part), "\(why)")
            }
        }
        let base = try Self.base("stages")
        #expect(throws: PlanFailure.self) { try base.plan(config: Array("listen\n".utf8), file: "new.pipeline") }
    }

    @Test("what a node answers and a plan reads is cut anywhere: never a plan from half of it") func cutGround() throws
    {
        let whole = Array(
            ("{\"config\":\"/c\",\"program\":\"1\",\"keeps\":true,\"source\":\"push\",\"revision\":3,\"at\":1}\n"
                + "{\"route\":\"rt\",\"connections\":2}\n{\"applied\":4,\"id\":\"7274\",\"record\":\"010000000000\"}\n"
                + "{\"end\":true}\n"
                + "{\"format\":\"pipelined.state/1\",\"revision\":3,\"envs\":[],\"instances\":[],\"routes\":[]}\n").utf8
        )
        #expect(try PlanGround(whole).live.routes == ["rt": 2])
        // Without the line break at its end it is whole all the same.
        for length in 0..<whole.count - 1 {
            #expect(throws: PlanGround.Fault.self, "\(length)") { try PlanGround(Array(whole[..<length])) }
        }
    }
}
