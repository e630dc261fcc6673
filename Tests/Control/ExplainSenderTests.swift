import Pipeline
import PipelineInspect
import TestSupport
import Testing

/// R17: what `explain` says of senders of PROXY headers, and of those who are none.
@Suite("explain: PROXY headers")
struct ExplainSenderTests {
    private static let config = """
        set lbs { 2001:db8:10::/48 }
        pipeline tls {
            anti_spoof  require from @lbs, accept from 2001:db8:20::/48, refuse others
            address     deny 203.0.113.0/24
            sni         timeout 3s
            backend     round_robin
            proxy_v2    tlv route, tlv unique_id, pass_through
        }
        pipeline raw {
            anti_spoof  accept from @lbs, refuse others
            backend     round_robin
        }
        listen [::]:443   tls_passthrough  via tls
        listen [::]:5432  tcp_raw          via raw

        """
        + Fixture.route(
            "a.example.com", id: "rt_a", more: "proxy_protocol v2\n    backend_expects_proxy_protocol true")
        + Fixture.route("b.example.com", id: "rt_b") + Fixture.route(nil, id: "rt_db", port: 5432)

    private func explain(_ port: Int, from: String, _ bytes: [UInt8]) throws -> Explanation {
        let node = try #require(Fixture.load(ExplainSenderTests.config).node)
        return Explainer(node).explain(
            to: try #require(Endpoint("[2001:db8::1]:\(port)")), from: try #require(Endpoint("[\(from)]:9")),
            bytes: bytes)
    }

    private let hello = SyntheticHello.hello(serverName: Array("a.example.com".utf8))
    private func header(_ source: String) -> [UInt8] {
        Array("PROXY TCP6 \(source) 2001:db8::1 40000 443\r\n".utf8)
    }
    private func why(_ explanation: Explanation, _ keyword: String) -> String {
        explanation.steps.last { $0.keyword == keyword }?.why ?? "no step"
    }

    @Test("a sender's header: the client that it names goes through the rest")
    func believed() throws {
        let explanation = try explain(443, from: "2001:db8:10::1", header("2600::7") + hello)
        #expect(explanation.outcome == .relayed)
        #expect(
            why(explanation, "anti_spoof")
                == "2001:db8:10::1 must send a PROXY header: its v1 header of 42 bytes says that "
                + "the client is [2600::7]:40000 and went to [2001:db8::1]:443")
        #expect(why(explanation, "address").contains("source 2600::7"))
        #expect(why(explanation, "sni") == "the ClientHello asks for a.example.com")
        #expect(
            why(explanation, "proxy_v2") == "PROXY v2 header: client [2600::7]:40000, destination [2001:db8::1]:443, "
                + "a unique id, route rt_a, 0 of the sender's TLVs")
    }

    @Test(
        "what is refused, and why",
        arguments: [
            (
                "2001:db8:10::1", "", "header_missing",
                "2001:db8:10::1 must send a PROXY header: the first bytes are something else"
            ),
            (
                "2600::1", "PROXY ", "spoofed",
                "the first bytes are a PROXY header's signature, which 2600::1 may not send"
            ),
            (
                "2001:db8:20::1", "PROXY TCP9\r\n", "header_malformed",
                "2001:db8:20::1 may send a PROXY header: what it sent does not have the fields of its protocol, one "
                    + "space apart"
            ),
        ])
    func refused(from: String, start: String, reason: String, text: String) throws {
        let explanation = try explain(443, from: from, Array(start.utf8) + hello)
        #expect(explanation.outcome == .refused(reason: "anti_spoof.\(reason) client"))
        #expect(why(explanation, "anti_spoof") == text)
    }

    @Test("who may send a header and does not is the client; so is everyone else")
    func plain() throws {
        let sender = try explain(443, from: "2001:db8:20::1", hello)
        #expect(sender.outcome == .relayed)
        #expect(
            why(sender, "anti_spoof")
                == "2001:db8:20::1 may send a PROXY header: the first bytes are not a header, so the client is the "
                + "peer itself")
        let stranger = try explain(443, from: "2600::1", hello)
        #expect(stranger.outcome == .relayed)
        #expect(why(stranger, "anti_spoof") == "the first bytes are not a PROXY header")
    }

    @Test("R16, R1: our header has the destination that the sender's names, and the route is the listener's")
    func destination() throws {
        let header = Array("PROXY TCP4 192.0.2.1 192.0.2.2 40000 8443\r\n".utf8)
        let explanation = try explain(443, from: "2001:db8:10::1", header + hello)
        #expect(explanation.outcome == .relayed && explanation.route == "rt_a")
        #expect(
            why(explanation, "anti_spoof")
                .hasSuffix("says that the client is 192.0.2.1:40000 and went to 192.0.2.2:8443"))
        #expect(
            why(explanation, "proxy_v2")
                .hasPrefix("PROXY v2 header: client 192.0.2.1:40000, destination 192.0.2.2:8443"))
    }

    @Test("R17: on a TLS listener, a silent stranger keeps its gate beyond the deadline; half a header is refused")
    func silentOnTLS() throws {
        let config = """
            pipeline tls {
                anti_spoof  refuse others
                sni         timeout 3s
                backend     round_robin
            }
            listen [::]:443  tls_passthrough  via tls

            """
        let node = try #require(Fixture.load(config + Fixture.route("a.example.com", id: "rt_a")).node)
        let (to, from) = (FilterHarness.endpoint("[2001:db8::1]:443"), FilterHarness.endpoint("[2600::1]:9"))
        let silent = Explainer(node).explain(to: to, from: from, bytes: [])
        #expect(silent.outcome == .relayed)
        #expect(silent.steps.filter { $0.keyword == "anti_spoof" }.map(\.answer) == [.waits(bytes: 1), .passes])
        #expect(
            why(silent, "anti_spoof") == "nothing came in time; the first bytes are checked when they come")
        let half = Explainer(node).explain(to: to, from: from, bytes: Array("PROX".utf8))
        #expect(half.outcome == .refused(reason: "anti_spoof.spoofed client"))
    }

    @Test("R17: on a raw listener a stranger waits for nothing, a silent sender until its deadline")
    func raw() throws {
        let stranger = try explain(5432, from: "2600::1", [])
        #expect(stranger.outcome == .relayed)
        #expect(stranger.steps.filter { $0.keyword == "anti_spoof" }.map(\.answer) == [.waits(bytes: 1)])
        let sender = try explain(5432, from: "2001:db8:10::1", [])
        #expect(sender.outcome == .relayed)
        #expect(sender.steps.filter { $0.keyword == "anti_spoof" }.map(\.answer) == [.waits(bytes: 1), .passes])
        #expect(
            why(sender, "anti_spoof")
                .hasSuffix("none came in time, so the client is the peer itself, and a later one is refused"))
        let partial = try explain(5432, from: "2001:db8:10::1", Array("PROXY TCP6".utf8))
        #expect(partial.outcome == .refused(reason: "anti_spoof.header_timeout client"))
        #expect(why(partial, "anti_spoof").hasSuffix("10 bytes within 3000 ms are not a complete header"))
    }
}
