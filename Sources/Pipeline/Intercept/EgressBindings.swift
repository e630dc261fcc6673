import Pipeline
import PipelineRouting

/// Binds source addresses to interfaces from desired state (`egress rules --state`): R19, also where several instances
/// share a prefix, so that routes can't distinguish them.
///
/// The rules are constant and use sets, so that the table's digest does not depend on desired state.
extension EgressRules {
    private struct Sets {
        let suffix: String
        let type: String
        let keyword: String
        let isIPv4: Bool
        /// Source addresses of interfaces without an address yet, or with unrouted ones.
        let unassigned: String
    }

    private static let both = [
        Sets(suffix: "ipv6", type: "ipv6_addr", keyword: "ip6", isIPv4: false, unassigned: "{ ::, fe80::/10 }"),
        Sets(suffix: "ipv4", type: "ipv4_addr", keyword: "ip", isIPv4: true, unassigned: "0.0.0.0"),
    ]

    /// Drops packets with a bound source address from any other interface, external ones included. Never this host's
    /// own packets; for bridges, ``bridge`` checks the port.
    static let boundRules = both.map { sets in
        "        iifname != \"lo\" meta iifkind != \"bridge\" \(check(sets))" + linkCheck(sets)
    }.joined()

    private static func check(_ sets: Sets) -> String {
        "\(sets.keyword) saddr @bound_\(sets.suffix) iifname . \(sets.keyword) saddr != @by_\(sets.suffix) counter drop\n"
    }

    /// A bound interface may send only from its bound addresses, since others belong to no instance.
    private static func linkCheck(_ sets: Sets) -> String {
        "        iifname @bound_links \(sets.keyword) saddr != \(sets.unassigned) "
            + "iifname . \(sets.keyword) saddr != @by_\(sets.suffix) counter drop\n"
    }

    var boundSets: String {
        let links = Set(bound.map(\.interface)).sorted().map { "\"\($0)\"" }
        return EgressRules.set("bound_links", "ifname", links)
            + EgressRules.both.map { sets in
                let own = bound.filter { $0.address.isIPv4 == sets.isIPv4 }
                var addresses: [String] = []
                for one in own where addresses.last != "\(one.address)" { addresses.append("\(one.address)") }
                return EgressRules.set("bound_\(sets.suffix)", sets.type, addresses)
                    + EgressRules.set(
                        "by_\(sets.suffix)", "ifname . \(sets.type)", own.map { "\"\($0.interface)\" . \($0.address)" })
            }.joined()
    }

    /// The same for bridge ports, which the table above does not see. Only with bound addresses: not every kernel
    /// supports it.
    package var bridge: String {
        guard !bound.isEmpty else { return "" }
        let checks = EgressRules.both.map { "        " + EgressRules.check($0) + EgressRules.linkCheck($0) }.joined()
        return """
            \(EgressRules.bridgeRemoval)table bridge pipelined {
            \(boundSets)    chain sources {
                    type filter hook prerouting priority -300; policy accept;
            \(checks)    }
            }

            """
    }

    /// Fails on kernels without bridge tables, which then have none.
    package static let bridgeRemoval = "table bridge pipelined\ndelete table bridge pipelined\n"

    private static func set(_ name: String, _ type: String, _ elements: [String]) -> String {
        let list = elements.isEmpty ? "" : " elements = { \(elements.joined(separator: ", ")) };"
        return "    set \(name) { type \(type);\(list) }\n"
    }
}
