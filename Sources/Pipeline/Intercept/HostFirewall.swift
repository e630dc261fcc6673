import Pipeline

/// Other tables' chains, from `nft list ruleset`, to find rules that may keep connections from the relay. It matches
/// words and evaluates nothing: it may warn of a rule that no workload's packet matches, and does not see legacy
/// iptables.
struct HostFirewall {
    struct Chain {
        /// `type nat hook prerouting priority dstnat - 1; policy accept;` in words; empty: no hook calls it.
        var header: [String] = []
        var rules: [String] = []

        func isAt(_ hook: String, type: String) -> Bool {
            header.count > 3 && header[1] == type && header[2] == "hook" && header[3] == hook
        }
        var policy: String { header.last ?? "" }
        /// The priority, such as `dstnat + 5` or `-100`; nil: unknown.
        var priority: Int? {
            guard let at = header.firstIndex(of: "priority"), header.indices.contains(at + 1) else { return nil }
            if let number = Int(header[at + 1]) { return number }
            let names = ["raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100]
            guard let base = names[header[at + 1]] else { return nil }
            guard header.indices.contains(at + 3), let offset = Int(header[at + 3]) else { return base }
            switch header[at + 2] {
            case "+": return base + offset
            case "-": return base - offset
            default: return base
            }
        }
    }

    struct Table {
        /// `inet filter`
        let name: String
        var chains: [String: Chain] = [:]
        /// Base chains, in the order of the listing.
        var entries: [String] = []

        /// The rules of a chain and of the chains that it jumps to, without rules for which `isSkipped` is true, and
        /// without their targets.
        func reached(from first: String, skipping isSkipped: (String) -> Bool) -> [String] {
            var (left, seen, rules) = ([first], Set([first]), [String]())
            while let name = left.popLast() {
                for rule in chains[name]?.rules ?? [] where !isSkipped(rule) {
                    rules.append(rule)
                    let words = rule.split(whereSeparator: { " ,;{}".contains($0) })
                    for (verb, target) in zip(words, words.dropFirst()) where verb == "jump" || verb == "goto" {
                        if seen.insert(String(target)).inserted { left.append(String(target)) }
                    }
                }
            }
            return rules
        }
    }

    private(set) var tables: [Table] = []

    init(_ listing: String) {
        var chain: String?
        for line in listing.split(separator: "\n") {
            let words = line.split(whereSeparator: { " \t;".contains($0) }).map(String.init)
            guard let first = words.first else { continue }
            switch first {
            case "table" where words.count > 2 && line.hasPrefix("table"):
                tables.append(Table(name: "\(words[1]) \(words[2])"))
                chain = nil
            case "chain" where words.count > 1 && !tables.isEmpty:
                chain = words[1]
                tables[tables.count - 1].chains[words[1]] = Chain()
            case "}": chain = nil
            default:
                guard let chain, !tables.isEmpty else { continue }
                take(line, words, chain)
            }
        }
    }

    private mutating func take(_ line: Substring, _ words: [String], _ chain: String) {
        let at = tables.count - 1
        if words[0] == "type", words.count > 3, words[2] == "hook" {
            tables[at].chains[chain]?.header = words
            tables[at].entries.append(chain)
        } else {
            tables[at].chains[chain]?.rules.append(line.drop { $0 == "\t" || $0 == " " }.description)
        }
    }

    /// Base chains of other tables in the families that workloads' TCP passes.
    func others(_ hook: String, type: String) -> [(table: Table, name: String, chain: Chain)] {
        tables.filter { table in
            table.name != "inet pipelined" && ["ip ", "ip6 ", "inet "].contains(where: table.name.hasPrefix)
        }.flatMap { table in
            table.entries.compactMap { name in
                table.chains[name].flatMap { $0.isAt(hook, type: type) ? (table, name, $0) : nil }
            }
        }
    }
}
