import Pipeline

/// Advice on the host's other firewall rules: what they must accept, and where they interfere.
extension EgressRules {
    private var redirected: [Family] { families.filter { $0.listener.mode == .redirect } }

    /// Rules for a chain at the input hook that drops by default.
    package var inputAdvice: [String] {
        var lines: [String] = []
        if families.contains(where: { $0.listener.mode == .transparent }) {
            lines.append("meta mark \(EgressRules.hex(deliveryMark)) accept")
        }
        let names = interfaces.map { "\"\($0)\"" }.joined(separator: ", ")
        let from = interfaces.count == 1 ? names : "{ \(names) }"
        for port in Set(redirected.map(\.listener.endpoint.port)).sorted() {
            lines.append("ct status dnat tcp dport \(port) iifname \(from) accept")
        }
        return lines
    }

    /// The same at the output hook.
    package var outputAdvice: String { "meta mark \(EgressRules.hex(mark)) accept" }

    /// Comments in the script.
    var adviceText: String {
        var text = "# If an input chain of your firewall drops by default, it needs these rules, besides\n"
        text += "# `ct state established,related accept`:\n"
        for line in inputAdvice { text += "#     \(line)\n" }
        return text + "# If an output chain drops by default, it needs:\n#     \(outputAdvice)\n"
    }

    func warnings(of firewall: HostFirewall) -> [String] { blocked(firewall) + translated(firewall) }

    // MARK: Chains that drop

    private func blocked(_ firewall: HostFirewall) -> [String] {
        let hooks = [("input", inputAdvice), ("output", [outputAdvice])]
        return hooks.flatMap { hook, advice in
            firewall.others(hook, type: "filter").compactMap { table, name, chain in
                let rules = table.reached(from: name, skipping: { _ in false })
                let lacking = advice.filter { line in !rules.contains { lets($0, line) } }
                let drops = chain.policy == "drop" || EgressRules.isRefusal(chain.rules.last)
                guard drops, !lacking.isEmpty else { return nil }
                let lines = lacking.map { "`\($0)`" }.joined(separator: " and ")
                return "the chain \(name) of the table \(table.name) drops by default, and seems to accept no "
                    + "intercepted connections: add \(lines)"
            }
        }
    }

    /// True if the rule names the advised mark or port, or accepts everything from these interfaces.
    private func lets(_ rule: String, _ advice: String) -> Bool {
        guard !rule.contains(" drop"), !rule.contains("reject") else { return false }
        let words = rule.split(whereSeparator: { " ,{}".contains($0) })
        if words.first == "accept" { return true }
        if advice.contains("dport") {
            let ports = redirected.map { "\($0.listener.endpoint.port)" }
            if ports.contains(where: { words.contains($0[...]) }) { return true }
        } else {
            let mark = advice.contains(EgressRules.hex(deliveryMark)) ? deliveryMark : self.mark
            let marks = words.compactMap { $0.hasPrefix("0x") ? UInt32($0.dropFirst(2), radix: 16) : nil }
            if words.contains("mark"), marks.contains(mark) { return true }
        }
        let named = EgressRules.interfaces(of: rule)
        return !named.isEmpty && named.contains { mayBeOurs($0) } && !rule.contains("port") && words.contains("accept")
    }

    /// The last rule of its chain, for every packet.
    private static func isRefusal(_ rule: String?) -> Bool {
        guard let rule else { return false }
        let words = rule.split(separator: " ")
        // `counter packets 0 bytes 0 drop`
        guard let first = words.first(where: { !["counter", "packets", "bytes"].contains($0) && Int($0) == nil }) else {
            return false
        }
        return first == "drop" || first == "reject"
    }

    // MARK: Destinations that are changed

    /// Destination NAT of other tables, which breaks intercepted connections: those taken by `tproxy` at any priority,
    /// redirected ones if it comes first.
    private func translated(_ firewall: HostFirewall) -> [String] {
        firewall.others("prerouting", type: "nat").compactMap { table, name, chain in
            let isOfV4 = !table.name.hasPrefix("ip6 ")
            let isOfV6 = !table.name.hasPrefix("ip ")
            let isConcerned = families.contains { family in
                guard family.isIPv4 ? isOfV4 : isOfV6 else { return false }
                // Of chains of one priority the newest comes first.
                return family.listener.mode == .transparent || (chain.priority ?? .min) <= -100
            }
            guard isConcerned else { return nil }
            let rules = table.reached(from: name, skipping: isForOthers)
            guard let rule = rules.first(where: EgressRules.translates) else { return nil }
            let shown = rule.count > 120 ? rule.prefix(120) + "…" : rule[...]
            return "the chain \(name) of the table \(table.name) changes destinations before the relay sees them: "
                + "workloads' TCP that matches `\(shown)` is neither relayed nor logged; exclude their interfaces "
                + "from it"
        }
    }

    private static func translates(_ rule: String) -> Bool {
        let words = rule.split(whereSeparator: { " \"".contains($0) })
        return words.contains { $0 == "dnat" || $0 == "redirect" || $0 == "DNAT" || $0 == "REDIRECT" }
            && !words.contains("udp")
    }

    /// True if no intercepted packet can match this rule: it is about addresses of this host, or other interfaces.
    private func isForOthers(_ rule: String) -> Bool {
        if rule.contains("fib daddr type local") || rule.contains("match \"addrtype\"") { return true }
        let named = EgressRules.interfaces(of: rule)
        return !named.isEmpty && !named.contains { mayBeOurs($0) }
    }

    /// The rule's input interface; empty: none.
    private static func interfaces(of rule: String) -> [String] {
        let words = rule.split(whereSeparator: { " ,".contains($0) })
        guard let at = words.firstIndex(where: { $0 == "iifname" || $0 == "iif" }), words.indices.contains(at + 1)
        else {
            return []
        }
        let plain = { (word: Substring) in String(word.filter { $0 != "\"" }) }
        switch words[at + 1] {
        case "!=", "@": return []
        case "{": return words[(at + 2)...].prefix { $0 != "}" }.map(plain)
        default: return words[at + 1].hasPrefix("@") ? [] : [plain(words[at + 1])]
        }
    }

    /// Whether a foreign interface pattern may overlap one of ours.
    private func mayBeOurs(_ pattern: String) -> Bool {
        interfaces.contains { own in
            let (a, b) = (own.prefix { $0 != "*" }, pattern.prefix { $0 != "*" })
            if own.last == "*", pattern.last == "*" { return a.hasPrefix(b) || b.hasPrefix(a) }
            if own.last == "*" { return b.hasPrefix(a) }
            return pattern.last == "*" ? a.hasPrefix(b) : a == b
        }
    }
}
