import FilterEgressAccounting
import Pipeline
import PipelineRouting

/// The interception rules: firewall and routing rules that send workloads' connections to a program's intercepting
/// listeners (docs/EGRESS.md). Pure: the same program always gives the same rules.
///
/// Everything is in a separate nftables table and routing table, so that other programs' rules are not touched.
package struct EgressRules: Sendable, Equatable {
    /// Why a program has no rules.
    package struct Problem: Error, Equatable, Sendable, CustomStringConvertible {
        let problem: String
        let remedy: String
        package var description: String { "\(problem); \(remedy)" }
    }

    /// One address family that has an intercepting listener.
    struct Family: Sendable, Equatable {
        let isIPv4: Bool
        let listener: ListenerSpec
        /// Packets to foreign addresses must be delivered to local sockets (TPROXY).
        let needsLocalRoute: Bool
        /// Unreachable destinations are refused for a while (ADR 0049).
        let refusesUnreachable: Bool

        var option: String { isIPv4 ? "-4" : "-6" }
        var nfproto: String { isIPv4 ? "ipv4" : "ipv6" }
        var keyword: String { isIPv4 ? "ip" : "ip6" }
        var everything: String { isIPv4 ? "0.0.0.0/0" : "::/0" }
    }

    let families: [Family]
    let interfaces: [String]
    /// The mark of our own connections (`mark`).
    let mark: UInt32
    /// Conntrack counting is on: relayed connections need a connection mark.
    let isTracked: Bool
    /// From desired state, if requested.
    package var bound: [BoundAddress] = []

    /// The mark of packets to deliver locally.
    var deliveryMark: UInt32 { mark + 1 }
    /// The number of the routing table, and of the rule that leads to it.
    var table: UInt32 { deliveryMark }

    /// - Parameter mark: the mark of a running node's connections, even if the config has changed.
    package init(_ program: Program, mark: UInt32? = nil) throws(Problem) {
        let listeners = program.listeners.filter(\.mode.intercepts)
        guard !listeners.isEmpty else {
            throw Problem(
                problem: "the config has no intercepting listener",
                remedy: "add `listen [::]:15001 transparent via PIPELINE`, or `redirect`")
        }
        guard !program.node.interceptInterfaces.isEmpty else {
            throw Problem(
                problem: "the config does not name the workloads' interfaces",
                remedy: "add `intercept interface NAME` to `node`: `vm*` matches every name that begins with `vm`")
        }
        var families: [Family] = []
        for isIPv4 in [false, true] {
            if let family = try EgressRules.family(isIPv4: isIPv4, listeners, program) { families.append(family) }
        }
        self.families = families
        interfaces = program.node.interceptInterfaces
        self.mark = mark ?? program.node.mark
        isTracked = program.conntrack != nil
    }

    private static func family(
        isIPv4: Bool, _ listeners: [ListenerSpec], _ program: Program
    ) throws(Problem) -> Family? {
        let own = listeners.filter { $0.endpoint.address.isIPv4 == isIPv4 }
        guard let listener = own.first else { return nil }
        guard own.count == 1 else {
            throw Problem(
                problem: "\(own[0].line) and \(own[1].line) both intercept IPv\(isIPv4 ? 4 : 6)",
                remedy: "remove one: each address family has one intercepting listener, for all interfaces")
        }
        let capabilities = program.chains[listener.chain].capabilities
        return Family(
            isIPv4: isIPv4, listener: listener,
            needsLocalRoute: listener.mode == .transparent || capabilities.contains(.connectsAsClient),
            refusesUnreachable: capabilities.contains(.refusesUnreachable))
    }

    // MARK: nftables

    /// Creates or replaces the table in one transaction.
    package var nftables: String {
        """
        table inet pipelined
        delete table inet pipelined
        table inet pipelined {
        \(boundSets)\(chains)    chain \(marker) {
            }
        }

        """
    }

    private var chains: String { unreachableSets + sources + mangle + nat + unreachable + listeners + forward + own }

    /// The name of the empty chain that identifies the table's content (`egress rules --check`).
    package var marker: String { "made_from_\(EgressRules.digest(chains))" }

    /// Deletes the table, if it is there.
    package static let removal = "table inet pipelined\ndelete table inet pipelined\n"

    static func hex(_ mark: UInt32) -> String { "0x" + String(mark, radix: 16) }

    /// Exemptions of both modes: non-TCP packets, and our own connections (no loop).
    private var exemptions: String {
        """
                meta l4proto != tcp return
                meta mark \(EgressRules.hex(mark)) return

        """
    }

    /// ICMP errors for packets of the relay's sockets, whose addresses may be foreign: without them path MTU discovery
    /// fails, and unreachable destinations time out.
    private var errors: String {
        let delivered = "socket transparent 1 socket wildcard 0 meta mark set \(EgressRules.hex(deliveryMark)) accept\n"
        let errors = [
            "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
            "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }",
        ]
        return errors.map { "        \($0) \(delivered)" }.joined()
    }

    private func jumps(to chain: String, by verb: String = "jump", of direction: String = "iifname") -> String {
        interfaces.map { "        \(direction) \"\($0)\" \(verb) \(chain)\n" }.joined()
    }

    /// Packets to this host itself are exempt.
    private static let localReturn = "        fib daddr type { local, broadcast, multicast, anycast } return\n"

    private var mangle: String {
        let transparent = families.filter { $0.listener.mode == .transparent }
        guard families.contains(where: \.needsLocalRoute) else { return "" }
        var text = """
                chain to_sockets {
                    type filter hook prerouting priority mangle; policy accept;

            """ + errors + exemptions
        // Established intercepted connections, and servers' replies to an instance's address. They get the connection
        // mark too, since conntrack may have started after them, or lost them.
        text += "        socket transparent 1 socket wildcard 0 \(trackingMark)"
        text += "meta mark set \(EgressRules.hex(deliveryMark)) accept\n"
        guard !transparent.isEmpty else { return text + "    }\n" }
        text += jumps(to: "to_listener") + "    }\n    chain to_listener {\n" + EgressRules.localReturn
        for family in families where family.listener.mode == .redirect {
            text += "        meta nfproto \(family.nfproto) return\n"
        }
        text += unreachableJump(transparent)
        for family in transparent {
            text += "        meta nfproto \(family.nfproto) meta l4proto tcp tproxy \(family.keyword) to "
            text += "\(EgressRules.target(family.listener)) meta mark set \(EgressRules.hex(deliveryMark)) "
            text += "\(trackingMark)accept\n"
        }
        // Without a listener `tproxy` does not match, and the next rule refuses: nothing bypasses the relay.
        return text + "        goto refuse\n    }\n"
    }

    /// Instances may send only from their own interfaces; link-local addresses are not checked.
    private var outsiders: String {
        interfaces.map { "        fib saddr oifname \"\($0)\" counter drop\n" }.joined()
    }

    /// Spoofed sources whose replies would be routed elsewhere are dropped before conntrack counts them, and before the
    /// victim gets replies. Another address of the same link is detected by the relay (R19).
    private var sources: String {
        """
            chain sources {
                type filter hook prerouting priority raw; policy accept;
        \(EgressRules.boundRules)\(jumps(to: "assigned", by: "goto"))        iifname "lo" return
                ip6 saddr fe80::/10 return
                ip saddr 169.254.0.0/16 return
        \(outsiders)    }
            chain assigned {
                ip6 saddr :: meta l4proto ipv6-icmp return
                ip saddr 0.0.0.0 udp sport 68 return
                fib saddr . iif oif missing drop
            }

        """
    }

    /// No TCP of a workload is ever forwarded, in any family, even while the node is down: TCP that was not intercepted
    /// is refused here. Unclassifiable packets count as TCP.
    private var forward: String {
        """
            chain not_around {
                type filter hook forward priority filter - 10; policy accept;
        \(countedOnly)\(hidden)        meta l4proto != tcp return
        \(jumps(to: "refuse"))    }
        \(uncounted)    chain refuse {
                meta l4proto tcp reject with tcp reset
                drop
            }

        """
    }

    /// Extension headers that can hide TCP: authentication, mobility, HIP, shim6, and two experimental ones.
    private var hidden: String {
        interfaces.map { "        iifname \"\($0)\" meta l4proto { 51, 135, 139, 140, 253, 254 } counter drop\n" }
            .joined()
    }

    private var countedOnly: String {
        isTracked ? jumps(to: "uncounted") + jumps(to: "uncounted", of: "oifname") : ""
    }

    /// Packets that conntrack calls invalid have no entry, and an ICMP error uses the entry of its connection, so
    /// neither would be counted. Errors are needed, so a limited rate passes.
    private var uncounted: String {
        guard isTracked else { return "" }
        return """
                chain uncounted {
                    meta l4proto != tcp ct state invalid counter drop
                    meta l4proto { icmp, ipv6-icmp } ct state related limit rate over 100/second burst 100 packets counter drop
                }

            """
    }

    /// Drops outside connections to the listeners themselves. Workloads' are refused by the relay, with a log line.
    private var listeners: String {
        var text = """
                chain listeners {
                    type filter hook input priority filter - 10; policy accept;
                    iifname "lo" return

            """ + jumps(to: "said_here", by: "goto")
        for family in families {
            text += "        meta nfproto \(family.nfproto) tcp dport \(family.listener.endpoint.port) "
            text += "tcp flags & (syn | ack) == syn meta mark != \(EgressRules.hex(deliveryMark)) "
            text += "reject with tcp reset\n"
        }
        return text + "    }\n" + EgressRules.saidHere
    }

    /// This host talks to workloads by TCP alone, through the relay: their ICMP errors about anything else are forged,
    /// and could slow or stop the host's other traffic. The quoted packet begins 8 bytes into an error.
    private static let saidHere = """
            chain said_here {
                icmp type { destination-unreachable, time-exceeded, parameter-problem } @th,136,8 != 6 counter drop
                icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } @th,112,8 != 6 counter drop
            }

        """

    /// The connection mark of connections that the relay counts.
    private var trackingMark: String { isTracked ? "ct mark set \(EgressRules.hex(mark)) " : "" }

    /// The node's own connections, which may use an instance's address (`from instance`).
    private var own: String {
        guard isTracked else { return "" }
        return """
                chain own_connections {
                    type filter hook output priority mangle; policy accept;
                    meta l4proto tcp meta mark \(EgressRules.hex(mark)) \(trackingMark)accept
                }

            """
    }

    private var nat: String {
        let redirected = families.filter { $0.listener.mode == .redirect }
        guard !redirected.isEmpty else { return "" }
        var text = """
                chain to_redirect {
                    type nat hook prerouting priority dstnat; policy accept;

            """ + exemptions + jumps(to: "to_listener_port")
        text += "    }\n    chain to_listener_port {\n" + EgressRules.localReturn + unreachableJump(redirected)
        for family in redirected {
            let isAnywhere = family.listener.endpoint.address.isUnspecified
            let verb = isAnywhere ? "redirect to" : "dnat \(family.keyword) to"
            text += "        meta nfproto \(family.nfproto) meta l4proto tcp \(verb) "
            text += "\(EgressRules.target(family.listener))\n"
        }
        return text + "    }\n"
    }

    /// `:15001` for every address, else the endpoint.
    private static func target(_ listener: ListenerSpec) -> String {
        listener.endpoint.address.isUnspecified ? ":\(listener.endpoint.port)" : "\(listener.endpoint)"
    }

    // MARK: Policy routing

    /// The protocol number of our routes and rules, for any mark (unnamed in `rt_protos`).
    static let routingProtocol = "112"

    /// A command, and a query that prints something if its effect is there already.
    package struct Step: Sendable, Equatable {
        package let command: [String]
        package let isDoneIfThisPrints: [String]?
    }

    /// Delivers packets with our mark to local sockets, whatever their destination.
    package var routing: [Step] {
        families.filter(\.needsLocalRoute).flatMap { family in
            [
                Step(
                    command: ["ip", family.option, "route", "replace", "local", family.everything, "dev", "lo"]
                        + inTable + ["proto", EgressRules.routingProtocol],
                    isDoneIfThisPrints: nil),
                Step(
                    command: ["ip", family.option, "rule", "add"] + selector
                        + ["priority", "\(table)", "protocol", EgressRules.routingProtocol],
                    isDoneIfThisPrints: ["ip", family.option, "rule", "show"] + selector),
            ]
        }
    }

    /// Conntrack settings for counting, once the table has loaded it. Not undone, since other programs may count too.
    package var tracking: [Step] {
        guard isTracked else { return [] }
        // Events: 2 means "while somebody listens", and begins with connections that are made after that.
        return ["acct", "timestamp", "events"].map {
            Step(command: ["sysctl", "-q", "-w", "net.netfilter.nf_conntrack_\($0)=1"], isDoneIfThisPrints: nil)
        }
    }

    /// Rules of an earlier config with another mark, from `ip -N rule show`.
    package func leftovers(_ option: String, ruleListing: String) -> [Step] {
        let isNeeded = families.contains { $0.option == option && $0.needsLocalRoute }
        let own = isNeeded ? "lookup \(table) " : nil
        return ruleListing.split(separator: "\n").flatMap { line -> [Step] in
            let words = line.split(separator: " ").map(String.init)
            let text = line + " "
            guard own.map({ !text.contains($0) }) ?? true, text.contains(" proto \(EgressRules.routingProtocol) "),
                let mark = words.firstIndex(of: "fwmark"), let lookup = words.firstIndex(of: "lookup"),
                words.indices.contains(mark + 1), words.indices.contains(lookup + 1)
            else { return [] }
            return [
                Step(
                    command: ["ip", option, "rule", "del", "fwmark", words[mark + 1], "table", words[lookup + 1]],
                    isDoneIfThisPrints: nil),
                Step(
                    command: ["ip", option, "route", "flush", "table", words[lookup + 1]], isDoneIfThisPrints: nil),
            ]
        }
    }

    /// Removes what ``routing`` adds, for both families and any mark.
    /// - Parameter node: nil: the config can't be read, and unmarked rules stay.
    package static func routingRemoval(_ node: NodeSettings?) -> [Step] {
        ["-6", "-4"].flatMap { option in
            var commands = [
                ["rule", "flush", "protocol", routingProtocol],
                ["route", "flush", "table", "all", "proto", routingProtocol],
            ]
            // As older versions have added them.
            if let node {
                commands.append(["rule", "del"] + selector(table: node.mark + 1))
                commands.append(["route", "flush", "table", "\(node.mark + 1)"])
            }
            return commands.map { Step(command: ["ip", option] + $0, isDoneIfThisPrints: nil) }
        }
    }

    private static func selector(table: UInt32) -> [String] { ["fwmark", hex(table), "table", "\(table)"] }
    private var selector: [String] { EgressRules.selector(table: table) }
    private var inTable: [String] { ["table", "\(table)"] }

    // MARK: As a script

    /// ``nftables`` and ``routing`` as a shell script.
    package var script: String {
        var text = "#!/bin/sh\n# Interception for pipelined: made from the config, see docs/EGRESS.md.\n"
        text += adviceText + "set -e\n"
        for step in routing {
            let command = step.command.joined(separator: " ")
            text +=
                step.isDoneIfThisPrints.map { "\($0.joined(separator: " ")) | grep -q . || \(command)\n" }
                ?? "\(command)\n"
        }
        text += "nft -f - <<'EOF'\n\(nftables)\(bridge)EOF\n"
        return text + tracking.map { $0.command.joined(separator: " ") + "\n" }.joined()
    }
}
