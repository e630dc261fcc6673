import Pipeline
import PipelineRouting

/// Who may send from an address, where desired state says by which interface (`egress rules --state`): R19, also where
/// several instances have one prefix, so that routes don't tell them apart.
///
/// The rules are the same in every table and look into sets, so that the table's digest does not depend on desired state.
extension EgressRules {
    private struct Sets {
        let suffix: String
        let type: String
        let keyword: String
        let isIPv4: Bool
        /// What has no address yet, or none that is routed, sends from these.
        let unassigned: String
    }

    private static let both = [
        Sets(suffix: "ipv6", type: "ipv6_addr", keyword: "ip6", isIPv4: false, unassigned: "{ ::, fe80::/10 }"),
        Sets(suffix: "ipv4", type: "ipv4_addr", keyword: "ip", isIPv4: true, unassigned: "0.0.0.0"),
    ]

    /// What comes with a bound address by another interface, whichever it is: from outside as well. Never what this host
    /// sends itself; of what a bridge brings its port is asked, by ``bridge``.
    static let boundRules = both.map { sets in
        "        iifname != \"lo\" meta iifkind != \"bridge\" \(check(sets))" + linkCheck(sets)
    }.joined()

    private static func check(_ sets: Sets) -> String {
        "\(sets.keyword) saddr @bound_\(sets.suffix) iifname . \(sets.keyword) saddr != @by_\(sets.suffix) counter drop\n"
    }

    /// What is bound has its interface to itself: from an address that nobody was given, it would be counted for nobody.
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

    /// The same for the ports of bridges, which the table above does not see. Only where something is bound: not every
    /// kernel has it.
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

    /// Fails where the kernel knows no such tables, and so has none.
    package static let bridgeRemoval = "table bridge pipelined\ndelete table bridge pipelined\n"

    private static func set(_ name: String, _ type: String, _ elements: [String]) -> String {
        let list = elements.isEmpty ? "" : " elements = { \(elements.joined(separator: ", ")) };"
        return "    set \(name) { type \(type);\(list) }\n"
    }
}
