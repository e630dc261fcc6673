/// Rules that refuse a SYN to an unreachable destination before the relay accepts it (ADR 0049). The node fills the
/// sets (``UnreachablePaths``); while they are empty, a SYN costs one set lookup.
extension EgressRules {
    /// The size of each set, a hard limit.
    static let unreachableSize = 4096

    static func unreachableSet(isIPv4: Bool) -> String { isIPv4 ? "unreachable4" : "unreachable6" }

    /// One line each: `--check` counts the rules, which imply the sets.
    var unreachableSets: String {
        let sets = families.filter(\.refusesUnreachable).map { family in
            "    set \(EgressRules.unreachableSet(isIPv4: family.isIPv4)) { type \(family.nfproto)_addr . inet_service; "
                + "size \(EgressRules.unreachableSize); timeout 30s; }\n"
        }
        return sets.isEmpty ? "" : "    counter unreachable { }\n" + sets.joined()
    }

    /// Only for new connections.
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
