import Pipeline

/// The firewall and routing rules that bring workloads' connections to a program's intercepting listeners
/// (docs/EGRESS.md). Pure: the same program always gives the same rules.
///
/// Everything lives in an nftables table of its own and in a routing table of its own, so that applying and removing
/// touch nobody else's.
package struct EgressRules: Sendable, Equatable {
    /// Why there can be none for a program.
    package struct Problem: Error, Equatable, Sendable, CustomStringConvertible {
        let problem: String
        let remedy: String
        package var description: String { "\(problem); \(remedy)" }
    }

    /// One address family that has an intercepting listener.
    struct Family: Sendable, Equatable {
        let isIPv4: Bool
        let listener: ListenerSpec
        /// Packets to addresses that are not this host's have to reach its sockets.
        let needsLocalRoute: Bool

        var option: String { isIPv4 ? "-4" : "-6" }
        var nfproto: String { isIPv4 ? "ipv4" : "ipv6" }
        var keyword: String { isIPv4 ? "ip" : "ip6" }
        var everything: String { isIPv4 ? "0.0.0.0/0" : "::/0" }
    }

    let families: [Family]
    let interfaces: [String]
    /// What our own connections carry (`mark`).
    let mark: UInt32
    /// Conntrack counts the rest: it must know which connections are relayed.
    let isTracked: Bool

    /// What packets carry that are to be delivered here.
    var deliveryMark: UInt32 { mark + 1 }
    /// The number of the routing table, and of the rule that leads to it.
    var table: UInt32 { deliveryMark }

    package init(_ program: Program) throws(Problem) {
        let listeners = program.listeners.filter(\.mode.intercepts)
        guard !listeners.isEmpty else {
            throw Problem(
                problem: "the config intercepts nothing",
                remedy: "add `listen [::]:15001 transparent via PIPELINE`, or `redirect`")
        }
        guard !program.node.interceptInterfaces.isEmpty else {
            throw Problem(
                problem: "the config does not say where the workloads are",
                remedy: "add `intercept interface NAME` to `node`: `vm*` stands for every name that begins so")
        }
        var families: [Family] = []
        for isIPv4 in [false, true] {
            if let family = try EgressRules.family(isIPv4: isIPv4, listeners, program) { families.append(family) }
        }
        self.families = families
        interfaces = program.node.interceptInterfaces
        mark = program.node.mark
        isTracked = program.node.conntrack != nil
    }

    private static func family(
        isIPv4: Bool, _ listeners: [ListenerSpec], _ program: Program
    ) throws(Problem) -> Family? {
        let own = listeners.filter { $0.endpoint.address.isIPv4 == isIPv4 }
        guard let listener = own.first else { return nil }
        guard own.count == 1 else {
            throw Problem(
                problem: "lines \(own[0].line) and \(own[1].line) both intercept IPv\(isIPv4 ? 4 : 6)",
                remedy: "keep one of them: every interface's connections go to one listener a family")
        }
        let isSentAsInstance = program.chains[listener.chain].stages.buffer.contains {
            $0.filter.descriptor.keyword == "backend" && $0.source.contains("from instance")
        }
        return Family(
            isIPv4: isIPv4, listener: listener, needsLocalRoute: listener.mode == .transparent || isSentAsInstance)
    }

    // MARK: nftables

    /// Makes the table anew, in one transaction, whether or not it is there.
    package var nftables: String {
        """
        table inet pipelined
        delete table inet pipelined
        table inet pipelined {
        \(mangle)\(nat)\(own)}

        """
    }

    /// Deletes the table, whether or not it is there.
    package static let removal = "table inet pipelined\ndelete table inet pipelined\n"

    private static func hex(_ mark: UInt32) -> String { "0x" + String(mark, radix: 16) }

    /// What both ways leave alone: what is no TCP, and our own connections (no loop).
    private var exemptions: String {
        """
                meta l4proto != tcp return
                meta mark \(EgressRules.hex(mark)) return

        """
    }

    private func jumps(to chain: String) -> String {
        interfaces.map { "        iifname \"\($0)\" jump \(chain)\n" }.joined()
    }

    /// What goes to this host itself is not for us.
    private static let localReturn = "        fib daddr type { local, broadcast, multicast, anycast } return\n"

    private var mangle: String {
        let transparent = families.filter { $0.listener.mode == .transparent }
        guard families.contains(where: \.needsLocalRoute) else { return "" }
        var text = """
                chain to_sockets {
                    type filter hook prerouting priority mangle; policy accept;

            """ + exemptions
        // Intercepted connections that stand already, and servers' answers to an instance's address.
        text += "        socket transparent 1 socket wildcard 0 meta mark set \(EgressRules.hex(deliveryMark)) accept\n"
        guard !transparent.isEmpty else { return text + "    }\n" }
        text += jumps(to: "to_listener") + "    }\n    chain to_listener {\n" + EgressRules.localReturn
        for family in transparent {
            text +=
                "        meta nfproto \(family.nfproto) meta l4proto tcp \(trackingMark)tproxy \(family.keyword) to "
            text += "\(EgressRules.target(family.listener)) meta mark set \(EgressRules.hex(deliveryMark)) accept\n"
        }
        return text + "    }\n"
    }

    /// What says in conntrack that a connection is counted by the relay.
    private var trackingMark: String { isTracked ? "ct mark set \(EgressRules.hex(mark)) " : "" }

    /// The node's own connections, which may have an instance's address (`from instance`).
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
        text += "    }\n    chain to_listener_port {\n" + EgressRules.localReturn
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

    /// A command, and what to ask first: it is there already if that prints anything.
    package struct Step: Sendable, Equatable {
        package let command: [String]
        package let isDoneIfThisPrints: [String]?
    }

    /// Delivers packets with our mark to sockets of this host, whatever their destination.
    package var routing: [Step] {
        families.filter(\.needsLocalRoute).flatMap { family in
            [
                Step(
                    command: ["ip", family.option, "route", "replace", "local", family.everything, "dev", "lo"]
                        + inTable,
                    isDoneIfThisPrints: nil),
                Step(
                    command: ["ip", family.option, "rule", "add"] + selector + ["priority", "\(table)"],
                    isDoneIfThisPrints: ["ip", family.option, "rule", "show"] + selector),
            ]
        }
    }

    /// What conntrack needs in order to count, once the table has brought it in. Nobody takes it back: others may count too.
    package var tracking: [Step] {
        guard isTracked else { return [] }
        // Events: 2 means "while somebody listens", and begins with connections that are made after that.
        return ["acct", "timestamp", "events"].map {
            Step(command: ["sysctl", "-q", "-w", "net.netfilter.nf_conntrack_\($0)=1"], isDoneIfThisPrints: nil)
        }
    }

    /// Takes back what ``routing`` adds, for both families and whether or not the config still intercepts: an earlier one did.
    package static func routingRemoval(_ node: NodeSettings) -> [Step] {
        let selector = selector(table: node.mark + 1)
        let inTable = ["table", "\(node.mark + 1)"]
        return ["-6", "-4"].flatMap { option in
            [
                Step(command: ["ip", option, "rule", "del"] + selector, isDoneIfThisPrints: nil),
                Step(command: ["ip", option, "route", "flush"] + inTable, isDoneIfThisPrints: nil),
            ]
        }
    }

    private static func selector(table: UInt32) -> [String] { ["fwmark", hex(table), "table", "\(table)"] }
    private var selector: [String] { EgressRules.selector(table: table) }
    private var inTable: [String] { ["table", "\(table)"] }

    // MARK: As a script

    /// What ``nftables`` and ``routing`` do, for a shell.
    package var script: String {
        var text = "#!/bin/sh\n# Interception for pipelined: made from the config, see docs/EGRESS.md.\nset -e\n"
        for step in routing {
            let command = step.command.joined(separator: " ")
            text +=
                step.isDoneIfThisPrints.map { "\($0.joined(separator: " ")) | grep -q . || \(command)\n" }
                ?? "\(command)\n"
        }
        text += "nft -f - <<'EOF'\n\(nftables)EOF\n"
        return text + tracking.map { $0.command.joined(separator: " ") + "\n" }.joined()
    }
}
