import FilterCatalog
import Foundation
import Pipeline
import PipelineControl
import PipelineLanguage
import Testing

@Suite("egress rules") struct EgressRulesTests {
    private func rules(
        _ listens: [String], node: String = "intercept interface vm* tap0", backend: String = "original_destination"
    ) throws -> EgressRules {
        let text =
            "node n {\n\(node)\n}\npipeline out {\nanti_spoof source assigned\nbackend \(backend)\n}\n"
            + listens.map { "listen \($0) via out\n" }.joined()
        let compilation = compile(Array(text.utf8), file: "t", catalog: catalog)
        return try EgressRules(try #require(compilation.program, "\(compilation.diagnostics.map(\.message))"))
    }

    @Test("transparent, both families") func transparent() throws {
        let rules = try rules(["[::]:15001 transparent", "0.0.0.0:15001 transparent"])
        #expect(
            rules.nftables == """
                table inet pipelined
                delete table inet pipelined
                table inet pipelined {
                    chain to_sockets {
                        type filter hook prerouting priority mangle; policy accept;
                        meta l4proto != tcp return
                        meta mark 0x7069 return
                        socket transparent 1 socket wildcard 0 meta mark set 0x706a accept
                        iifname "vm*" jump to_listener
                        iifname "tap0" jump to_listener
                    }
                    chain to_listener {
                        fib daddr type { local, broadcast, multicast, anycast } return
                        meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :15001 meta mark set 0x706a accept
                        meta nfproto ipv4 meta l4proto tcp tproxy ip to :15001 meta mark set 0x706a accept
                    }
                }

                """)
        #expect(
            rules.routing.map { $0.command.joined(separator: " ") } == [
                "ip -6 route replace local ::/0 dev lo table 28778",
                "ip -6 rule add fwmark 0x706a table 28778 priority 28778",
                "ip -4 route replace local 0.0.0.0/0 dev lo table 28778",
                "ip -4 rule add fwmark 0x706a table 28778 priority 28778",
            ])
    }

    @Test("redirect, one family, a mark of the operator's") func redirect() throws {
        let rules = try rules(["[::]:15002 redirect"], node: "intercept interface vm*\nmark 0x100")
        #expect(
            rules.nftables == """
                table inet pipelined
                delete table inet pipelined
                table inet pipelined {
                    chain to_redirect {
                        type nat hook prerouting priority dstnat; policy accept;
                        meta l4proto != tcp return
                        meta mark 0x100 return
                        iifname "vm*" jump to_listener_port
                    }
                    chain to_listener_port {
                        fib daddr type { local, broadcast, multicast, anycast } return
                        meta nfproto ipv6 meta l4proto tcp redirect to :15002
                    }
                }

                """)
        #expect(rules.routing.isEmpty)
    }

    @Test("from instance behind redirect: answers to instances come to our sockets") func asInstance() throws {
        let rules = try rules(["[::]:15002 redirect"], backend: "original_destination from instance")
        #expect(rules.nftables.contains("socket transparent 1 socket wildcard 0 meta mark set 0x706a accept"))
        #expect(!rules.nftables.contains("tproxy"))
        #expect(rules.routing.count == 2)
    }

    @Test("a listener on one address is named whole") func oneAddress() throws {
        let rules = try rules(["[fd00::1]:15001 transparent", "10.0.0.1:15002 redirect"])
        #expect(rules.nftables.contains("tproxy ip6 to [fd00::1]:15001 "))
        #expect(rules.nftables.contains("dnat ip to 10.0.0.1:15002"))
    }

    @Test("what there can be no rules for") func problems() throws {
        #expect(throws: EgressRules.Problem.self) { try rules(["[::]:15001 transparent"], node: "") }
        #expect(throws: EgressRules.Problem.self) {
            try rules(["[::]:15001 transparent", "[::]:15002 redirect"])
        }
        let plain = compile(
            Array("pipeline p {\nbackend\n}\nlisten [::]:1 tcp_raw via p\n".utf8), file: "t", catalog: catalog)
        #expect(throws: EgressRules.Problem.self) { try EgressRules(try #require(plain.program)) }
    }

    @Test("the script quotes what a shell would take for its own, and says where it comes from") func script() throws {
        let script = try rules(["[::]:15001 transparent"]).script
        #expect(script.hasPrefix("#!/bin/sh\n"))
        #expect(script.contains("nft -f - <<'EOF'\n"))
        #expect(
            script.contains(
                "ip -6 rule show fwmark 0x706a table 28778 | grep -q . || ip -6 rule add fwmark 0x706a table 28778"))
    }

    @Test("R21: where conntrack counts, it is told what the relay counts, and to count") func tracked() throws {
        let rules = try rules(
            ["[::]:15001 transparent"], node: "intercept interface vm*\nconntrack every 5s",
            backend: "original_destination from instance")
        #expect(rules.nftables.contains("tcp ct mark set 0x7069 tproxy ip6 to :15001 meta mark set 0x706a accept"))
        #expect(
            rules.nftables.contains(
                """
                    chain own_connections {
                        type filter hook output priority mangle; policy accept;
                        meta l4proto tcp meta mark 0x7069 ct mark set 0x7069 accept
                    }
                """))
        #expect(
            rules.tracking.map { $0.command.joined(separator: " ") }
                == ["acct", "timestamp", "events"].map { "sysctl -q -w net.netfilter.nf_conntrack_\($0)=1" })
        #expect(rules.script.hasSuffix("sysctl -q -w net.netfilter.nf_conntrack_events=1\n"))
    }
}
