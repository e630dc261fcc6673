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
    }

    private static let both = [
        Sets(suffix: "ipv6", type: "ipv6_addr", keyword: "ip6", isIPv4: false),
        Sets(suffix: "ipv4", type: "ipv4_addr", keyword: "ip", isIPv4: true),
    ]

    /// What comes with a bound address by another interface, whichever it is: from outside as well. Never what this host
    /// sends itself; of what a bridge brings its port is asked, by ``bridge``.
    static let boundRules = both.map { sets in
        "        iifname != \"lo\" meta iifkind != \"bridge\" \(check(sets))"
    }.joined()

    private static func check(_ sets: Sets) -> String {
        "\(sets.keyword) saddr @bound_\(sets.suffix) iifname . \(sets.keyword) saddr != @by_\(sets.suffix) counter drop\n"
    }

    var boundSets: String {
        EgressRules.both.map { sets in
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
        let checks = EgressRules.both.map { "        " + EgressRules.check($0) }.joined()
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
