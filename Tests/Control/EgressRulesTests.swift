import FilterCatalog
import Foundation
import Pipeline
import PipelineIntercept
import PipelineLanguage
import PipelineRouting
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
                    set bound_links { type ifname; }
                    set bound_ipv6 { type ipv6_addr; }
                    set by_ipv6 { type ifname . ipv6_addr; }
                    set bound_ipv4 { type ipv4_addr; }
                    set by_ipv4 { type ifname . ipv4_addr; }
                    counter unreachable { }
                    set unreachable6 { type ipv6_addr . inet_service; size 4096; timeout 30s; }
                    set unreachable4 { type ipv4_addr . inet_service; size 4096; timeout 30s; }
                    chain sources {
                        type filter hook prerouting priority raw; policy accept;
                        iifname != "lo" meta iifkind != "bridge" ip6 saddr @bound_ipv6 iifname . ip6 saddr != @by_ipv6 counter drop
                        iifname @bound_links ip6 saddr != { ::, fe80::/10 } iifname . ip6 saddr != @by_ipv6 counter drop
                        iifname != "lo" meta iifkind != "bridge" ip saddr @bound_ipv4 iifname . ip saddr != @by_ipv4 counter drop
                        iifname @bound_links ip saddr != 0.0.0.0 iifname . ip saddr != @by_ipv4 counter drop
                        iifname "vm*" goto assigned
                        iifname "tap0" goto assigned
                        iifname "lo" return
                        ip6 saddr fe80::/10 return
                        ip saddr 169.254.0.0/16 return
                        fib saddr oifname "vm*" counter drop
                        fib saddr oifname "tap0" counter drop
                    }
                    chain assigned {
                        ip6 saddr :: meta l4proto ipv6-icmp return
                        ip saddr 0.0.0.0 udp sport 68 return
                        fib saddr . iif oif missing drop
                    }
                    chain to_sockets {
                        type filter hook prerouting priority mangle; policy accept;
                        icmp type { destination-unreachable, time-exceeded, parameter-problem } socket transparent 1 socket wildcard 0 meta mark set 0x706a accept
                        icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } socket transparent 1 socket wildcard 0 meta mark set 0x706a accept
                        meta l4proto != tcp return
                        meta mark 0x7069 return
                        socket transparent 1 socket wildcard 0 meta mark set 0x706a accept
                        iifname "vm*" jump to_listener
                        iifname "tap0" jump to_listener
                    }
                    chain to_listener {
                        fib daddr type { local, broadcast, multicast, anycast } return
                        jump unreachable
                        meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :15001 meta mark set 0x706a accept
                        meta nfproto ipv4 meta l4proto tcp tproxy ip to :15001 meta mark set 0x706a accept
                        goto refuse
                    }
                    chain unreachable {
                        tcp flags & (syn | ack) != syn return
                        ip6 daddr . tcp dport @unreachable6 counter name unreachable goto refuse
                        ip daddr . tcp dport @unreachable4 counter name unreachable goto refuse
                    }
                    chain listeners {
                        type filter hook input priority filter - 10; policy accept;
                        iifname "lo" return
                        iifname "vm*" goto said_here
                        iifname "tap0" goto said_here
                        meta nfproto ipv6 tcp dport 15001 tcp flags & (syn | ack) == syn meta mark != 0x706a reject with tcp reset
                        meta nfproto ipv4 tcp dport 15001 tcp flags & (syn | ack) == syn meta mark != 0x706a reject with tcp reset
                    }
                    chain said_here {
                        icmp type { destination-unreachable, time-exceeded, parameter-problem } @th,136,8 != 6 counter drop
                        icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } @th,112,8 != 6 counter drop
                    }
                    chain not_around {
                        type filter hook forward priority filter - 10; policy accept;
                        iifname "vm*" meta l4proto { 51, 135, 139, 140, 253, 254 } counter drop
                        iifname "tap0" meta l4proto { 51, 135, 139, 140, 253, 254 } counter drop
                        meta l4proto != tcp return
                        iifname "vm*" jump refuse
                        iifname "tap0" jump refuse
                    }
                    chain refuse {
                        meta l4proto tcp reject with tcp reset
                        drop
                    }
                    chain \(rules.marker) {
                    }
                }

                """)
        #expect(
            rules.routing.map { $0.command.joined(separator: " ") } == [
                "ip -6 route replace local ::/0 dev lo table 28778 proto 112",
                "ip -6 rule add fwmark 0x706a table 28778 priority 28778 protocol 112",
                "ip -4 route replace local 0.0.0.0/0 dev lo table 28778 proto 112",
                "ip -4 rule add fwmark 0x706a table 28778 priority 28778 protocol 112",
            ])
    }

    @Test("R19: bound addresses fill sets, and change neither rules nor the table's digest") func bound() throws {
        var rules = try rules(["[::]:15001 transparent"])
        let marker = rules.marker
        let (v6, v4) = (IPAddress(high: 0xFD00 << 48, low: 7), IPAddress(v4: 0x0A00_0007))
        rules.bound = [("vm8", v4), ("vm7", v6), ("vm8", v6)].map { BoundAddress(interface: $0.0, address: $0.1) }
        for text in [
            "set bound_ipv6 { type ipv6_addr; elements = { fd00::7 }; }\n",
            "elements = { \"vm7\" . fd00::7, \"vm8\" . fd00::7 }; }\n", "elements = { 10.0.0.7 }; }\n",
            "elements = { \"vm8\" . 10.0.0.7 }; }\n",
        ] {
            #expect(rules.nftables.contains(text), "\(text) in \(rules.nftables)")
        }
        #expect(rules.marker == marker && rules.tableFault(rules.nftables) == nil)
    }

    @Test("redirect, one family, a mark of the operator's") func redirect() throws {
        let rules = try rules(["[::]:15002 redirect"], node: "intercept interface vm*\nmark 0x100")
        #expect(
            rules.nftables == """
                table inet pipelined
                delete table inet pipelined
                table inet pipelined {
                    set bound_links { type ifname; }
                    set bound_ipv6 { type ipv6_addr; }
                    set by_ipv6 { type ifname . ipv6_addr; }
                    set bound_ipv4 { type ipv4_addr; }
                    set by_ipv4 { type ifname . ipv4_addr; }
                    counter unreachable { }
                    set unreachable6 { type ipv6_addr . inet_service; size 4096; timeout 30s; }
                    chain sources {
                        type filter hook prerouting priority raw; policy accept;
                        iifname != "lo" meta iifkind != "bridge" ip6 saddr @bound_ipv6 iifname . ip6 saddr != @by_ipv6 counter drop
                        iifname @bound_links ip6 saddr != { ::, fe80::/10 } iifname . ip6 saddr != @by_ipv6 counter drop
                        iifname != "lo" meta iifkind != "bridge" ip saddr @bound_ipv4 iifname . ip saddr != @by_ipv4 counter drop
                        iifname @bound_links ip saddr != 0.0.0.0 iifname . ip saddr != @by_ipv4 counter drop
                        iifname "vm*" goto assigned
                        iifname "lo" return
                        ip6 saddr fe80::/10 return
                        ip saddr 169.254.0.0/16 return
                        fib saddr oifname "vm*" counter drop
                    }
                    chain assigned {
                        ip6 saddr :: meta l4proto ipv6-icmp return
                        ip saddr 0.0.0.0 udp sport 68 return
                        fib saddr . iif oif missing drop
                    }
                    chain to_redirect {
                        type nat hook prerouting priority dstnat; policy accept;
                        meta l4proto != tcp return
                        meta mark 0x100 return
                        iifname "vm*" jump to_listener_port
                    }
                    chain to_listener_port {
                        fib daddr type { local, broadcast, multicast, anycast } return
                        jump unreachable
                        meta nfproto ipv6 meta l4proto tcp redirect to :15002
                    }
                    chain unreachable {
                        tcp flags & (syn | ack) != syn return
                        ip6 daddr . tcp dport @unreachable6 counter name unreachable goto refuse
                    }
                    chain listeners {
                        type filter hook input priority filter - 10; policy accept;
                        iifname "lo" return
                        iifname "vm*" goto said_here
                        meta nfproto ipv6 tcp dport 15002 tcp flags & (syn | ack) == syn meta mark != 0x101 reject with tcp reset
                    }
                    chain said_here {
                        icmp type { destination-unreachable, time-exceeded, parameter-problem } @th,136,8 != 6 counter drop
                        icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } @th,112,8 != 6 counter drop
                    }
                    chain not_around {
                        type filter hook forward priority filter - 10; policy accept;
                        iifname "vm*" meta l4proto { 51, 135, 139, 140, 253, 254 } counter drop
                        meta l4proto != tcp return
                        iifname "vm*" jump refuse
                    }
                    chain refuse {
                        meta l4proto tcp reject with tcp reset
                        drop
                    }
                    chain \(rules.marker) {
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

    @Test("where one family is redirected, its packets pass the chain of the other") func mixed() throws {
        let rules = try rules(["[::]:15001 transparent", "0.0.0.0:15002 redirect"])
        #expect(
            rules.nftables.contains(
                """
                        meta nfproto ipv4 return
                        jump unreachable
                        meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :15001 meta mark set 0x706a accept
                        goto refuse
                """))
    }

    @Test(
        "ADR 0049: nothing is refused for what did not answer an instance's own address, or where that is switched off",
        arguments: ["original_destination from instance", "original_destination, unreachable_for off"])
    func withoutSets(_ backend: String) throws {
        let rules = try rules(["[::]:15001 transparent", "0.0.0.0:15002 redirect"], backend: backend)
        #expect(!rules.nftables.contains("unreachable6") && !rules.nftables.contains("jump unreachable"))
    }

    @Test("what an earlier mark has left is found by its protocol, and nobody else's rule is touched")
    func leftovers() throws {
        let rules = try rules(["[::]:15001 transparent"], node: "intercept interface vm*\nmark 0x100")
        let listing = """
            0:	from all lookup local
            257:	from all fwmark 0x101 lookup 257 proto 112
            28778:	from all fwmark 0x706a lookup 28778 proto 112
            30000:	from all fwmark 0x5 lookup 77
            32766:	from all lookup main
            """
        #expect(
            rules.leftovers("-6", ruleListing: listing).map { $0.command.joined(separator: " ") } == [
                "ip -6 rule del fwmark 0x706a table 28778", "ip -6 route flush table 28778",
            ])
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
        #expect(rules.nftables.contains("tcp tproxy ip6 to :15001 meta mark set 0x706a ct mark set 0x7069 accept"))
        #expect(
            rules.nftables.contains(
                "socket transparent 1 socket wildcard 0 ct mark set 0x7069 meta mark set 0x706a accept"))
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
