import Pipeline
import PipelineInspect
import PipelineNode
import Testing

@Suite("explain: an egress node") struct ExplainEgressTests {
    private static let config = """
        node n1 {
            intercept  interface vm*
        }
        set platform { fd00::/8 }
        set services { fd00::a }
        pipeline outbound {
            anti_spoof  source assigned
            address     allow to @services, deny to @platform
            backend     original_destination
            account
        }
        listen [::]:15001     transparent  via outbound
        routes file state.json
        """

    private func explain(_ from: String, _ to: String) throws -> Explanation {
        let state = Array(Fixture.state("").utf8)
        let loaded = ConfigLoader.load(Array(Self.config.utf8), file: "t") { _ in state }
        let node = try #require(loaded.node, "\(loaded.diagnosticText)")
        return Explainer(node).explain(
            to: try #require(Endpoint(to)), from: try #require(Endpoint(from)), bytes: [])
    }

    @Test("R19: an instance's connection to anywhere goes on, and it is said whose it is") func relayed() throws {
        let explanation = try explain("[fd00::a]:40000", "[2001:db8:9::2]:443")
        #expect(explanation.outcome == .relayed)
        #expect(explanation.instance == "i_a")
        #expect(explanation.owner?.path == "acme/shop/env_a")
        #expect(explanation.text.hasPrefix("listener    [::]:15001 transparent via outbound (line "))
        #expect(explanation.text.hasSuffix("result      relayed to [2001:db8:9::2]:443\n"))
        #expect(explanation.json.contains("\"instance\":\"i_a\""))
        #expect(explanation.json.contains("\"hint\":\"transparent\""))
    }

    @Test(
        "what the stages and the runtime refuse",
        arguments: [
            ("[fd00::c]:40000", "[2001:db8:9::2]:443", "anti_spoof.spoofed_source client"),
            ("[fd00::a]:40000", "[fd00::b]:443", "address.denied_destination client"),
            ("[fd00::a]:40000", "[::]:15001", "intercept.loop client"),
        ])
    func refused(_ from: String, _ to: String, _ reason: String) throws {
        #expect(try explain(from, to).outcome == .refused(reason: reason))
    }

    @Test("the platform's listed part is open") func listed() throws {
        #expect(try explain("[fd00::b]:40000", "[fd00::a]:443").outcome == .relayed)
    }

    @Test("the other family is not this listener's") func otherFamily() throws {
        #expect(try explain("10.0.0.1:40000", "192.0.2.1:443").outcome == .noListener)
    }
}
