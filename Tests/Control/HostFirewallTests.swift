import FilterCatalog
import Pipeline
import PipelineLanguage
import Testing

@testable import PipelineIntercept

@Suite("What egress rules make of a host's network") struct HostFirewallTests {
    private func rules(_ mode: String = "transparent", interface: String = "vm* br0") throws -> EgressRules {
        let text =
            "node n {\nintercept interface \(interface)\n}\npipeline out {\nanti_spoof source assigned\n"
            + "backend original_destination\n}\nlisten [::]:15001 \(mode) via out\nlisten 0.0.0.0:15001 \(mode) via out\n"
        return try EgressRules(try #require(compile(Array(text.utf8), file: "t", catalog: catalog).program))
    }

    private func ruleset(_ header: String, _ rules: [String], table: String = "inet other") -> HostFirewall {
        let lines = rules.map { "\t\t\($0)\n" }.joined()
        return HostFirewall("table \(table) {\n\tchain first {\n\t\ttype \(header)\n\(lines)\t}\n}\n")
    }

    @Test(
        "which rules of a nat chain are worth a warning",
        arguments: [
            ("tcp dport 80 redirect to :3128", true), ("dnat to tcp dport map { 80 : 10.0.0.1 }", true),
            ("iifname \"vm1\" tcp dport 80 redirect to :3128", true), ("iifname \"v*\" redirect to :3128", true),
            ("iifname != \"eth0\" redirect to :3128", true), ("meta l4proto tcp xt target \"REDIRECT\"", true),
            ("iifname \"eth0\" redirect to :3128", false), ("iifname { \"eth0\", \"eth1\" } dnat to 10.0.0.1", false),
            ("iifname { \"eth0\", \"vm7\" } dnat to 10.0.0.1", true), ("udp dport 53 redirect to :53", false),
            ("fib daddr type local dnat to 10.0.0.1", false), ("tcp dport 80 counter accept", false),
            ("iif \"br0\" dnat to 10.0.0.1", true), ("iifname \"br1\" dnat to 10.0.0.1", false),
        ])
    func translations(_ rule: String, _ isWarned: Bool) throws {
        let firewall = ruleset("nat hook prerouting priority dstnat; policy accept;", [rule])
        #expect(try rules().warnings(of: firewall).isEmpty == !isWarned)
    }

    @Test(
        "by which priority destination NAT comes before `redirect`",
        arguments: [
            ("dstnat", true), ("-100", true), ("dstnat - 1", true), ("-101", true), ("dstnat + 1", false),
            ("-99", false),
            ("filter", false),
        ])
    func priorities(_ priority: String, _ isWarned: Bool) throws {
        let firewall = ruleset("nat hook prerouting priority \(priority); policy accept;", ["redirect to :1"])
        #expect(try rules("redirect").warnings(of: firewall).isEmpty == !isWarned)
        #expect(try rules("transparent").warnings(of: firewall).count == 1)
    }

    @Test("chains of other hooks, types, families and our own table are nobody's business")
    func others() throws {
        for header in [
            "nat hook output priority -100; policy accept;", "filter hook prerouting priority 0; policy accept;",
        ] {
            #expect(try rules().warnings(of: ruleset(header, ["redirect to :1"])).isEmpty)
        }
        let header = "nat hook prerouting priority -100; policy accept;"
        for table in ["bridge other", "inet pipelined", "netdev other"] {
            #expect(try rules().warnings(of: ruleset(header, ["redirect to :1"], table: table)).isEmpty)
        }
        #expect(try rules().warnings(of: ruleset(header, ["redirect to :1"], table: "ip6 other")).count == 1)
    }

    @Test(
        "which input chains that drop let our connections pass",
        arguments: [
            ("meta mark 0x0000706a accept", true), ("meta mark 0x0000706a drop", false), ("tcp dport 22 accept", false),
            ("iifname \"vm*\" accept", true), ("iifname \"vm*\" counter packets 3 bytes 4 accept", true),
            ("iifname \"eth0\" accept", false), ("iifname \"vm*\" udp dport 53 accept", false), ("accept", true),
        ])
    func inputs(_ rule: String, _ passes: Bool) throws {
        let firewall = ruleset(
            "filter hook input priority filter; policy drop;", ["ct state established accept", rule])
        #expect(try rules().warnings(of: firewall).isEmpty == passes)
        let ends = ruleset(
            "filter hook input priority filter; policy accept;", [rule, "counter packets 1 bytes 2 drop"])
        #expect(try rules().warnings(of: ends).isEmpty == passes)
        let open = ruleset("filter hook input priority filter; policy accept;", [rule])
        #expect(try rules().warnings(of: open).isEmpty)
    }

    @Test("ports of bridges that no line names, and bridges that one does")
    func bridges() throws {
        let ports = """
            4: vm1@if2: <BROADCAST,UP> mtu 1500 qdisc noqueue master br1 state UP mode DEFAULT group default
            5: vm2: <BROADCAST,UP> mtu 1500 master br1 state UP
            6: vm3: <BROADCAST,UP> mtu 1500 master br0 state UP
            7: tap0: <BROADCAST,UP> mtu 1500 master br1 state UP
            8: vm4:
            """
        let links = HostLinks(ports: ports, bridges: "2: br0: <UP> mtu 1500\n3: br1: <UP> mtu 1500\nx\n")
        #expect(links.bridges == ["br0", "br1"] && links.ports.map(\.name) == ["vm1", "vm2", "vm3", "tap0"])
        let around = try rules().portsAround(links)
        #expect(around.count == 1 && around[0].hasPrefix("vm1, vm2 are ports of the bridge br1: "), "\(around)")
        #expect(try rules(interface: "vm* br*").portsAround(links).isEmpty)
        #expect(try rules().early(links, (v6: true, v4: false)).count == 1)
        #expect(try rules("redirect").early(links, (v6: true, v4: true)).isEmpty)
        #expect(try rules(interface: "vm*").early(links, (v6: true, v4: true)).isEmpty)
    }

    @Test("no listing traps: every prefix, and every byte changed") func hostile() throws {
        let rules = try rules()
        let text =
            "table ip a {\n\tchain b {\n\t\ttype nat hook prerouting priority dstnat - 1; policy drop;\n"
            + "\t\tiifname { \"vm1\", } jump c\n\t}\n\tchain c {\n\t\tgoto b\n\t\tiif\n\t\tjump\n\t\tdnat to 1\n\t}\n}\n"
        let bytes = Array(text.utf8)
        for end in bytes.indices {
            _ = rules.warnings(of: HostFirewall(String(decoding: bytes[..<end], as: UTF8.self)))
            for byte in [0, 0x20, 0x22, 0x7B, 0x7D, 0xFF] as [UInt8] {
                var changed = bytes
                changed[end] = byte
                let listing = String(decoding: changed, as: UTF8.self)
                _ = rules.warnings(of: HostFirewall(listing))
                _ = rules.portsAround(HostLinks(ports: listing, bridges: listing))
            }
        }
    }
}
