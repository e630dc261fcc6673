/// What refuses a SYN to where nothing answered this host a moment ago, before the relay accepts it (ADR 0049). The node fills the
/// sets (``UnreachablePaths``); while they are empty, a SYN costs a look into one of them.
extension EgressRules {
    /// Of each set, whatever the node does.
    static let unreachableSize = 4096

    static func unreachableSet(isIPv4: Bool) -> String { isIPv4 ? "unreachable4" : "unreachable6" }

    /// Each on one line: `--check` counts the rules, which can't be there without the sets.
    var unreachableSets: String {
        let sets = families.filter(\.refusesUnreachable).map { family in
            "    set \(EgressRules.unreachableSet(isIPv4: family.isIPv4)) { type \(family.nfproto)_addr . inet_service; "
                + "size \(EgressRules.unreachableSize); timeout 30s; }\n"
        }
        return sets.isEmpty ? "" : "    counter unreachable { }\n" + sets.joined()
    }

    /// Only for connections that begin: those that stand have had their answer.
    var unreachable: String {
        let rules = families.filter(\.refusesUnreachable).map { family in
            "        \(family.keyword) daddr . tcp dport @\(EgressRules.unreachableSet(isIPv4: family.isIPv4)) "
                + "counter name unreachable goto refuse\n"
        }
        guard !rules.isEmpty else { return "" }
        return "    chain unreachable {\n        tcp flags & (syn | ack) != syn return\n" + rules.joined() + "    }\n"
    }

    func unreachableJump(_ families: [Family]) -> String {
        families.contains(where: \.refusesUnreachable) ? "        jump unreachable\n" : ""
    }
}
