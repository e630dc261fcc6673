import Pipeline

/// Checks whether the kernel has a config's rules, and describes what is missing.
///
/// The table has a digest of its text as the name of an empty chain, which nft and the kernel preserve (seen with nft
/// 1.0.6): rules of another config, port or mark are detected without comparing nft's spelling. Manual removals are
/// detected by counting rules.
extension EgressRules {
    /// A chain in the output of `nft list table`.
    struct Shape: Equatable {
        /// `filter prerouting`, with its policy; empty where no hook calls the chain.
        var hook = ""
        var rules = 0
    }

    /// Equal in every process, so with a public key: it distinguishes configs, and is no protection.
    static func digest(_ text: String) -> String {
        let hash = Array(text.utf8).withUnsafeBufferPointer { SipHash.hash($0, seed: HashSeed(0, 0)) }
        return String(hash, radix: 16)
    }

    /// The chains of a listing by name; nil: the table is switched off as a whole.
    static func shapes(of listing: String) -> [String: Shape]? {
        var shapes: [String: Shape] = [:]
        var chain: String?
        for line in listing.split(separator: "\n") {
            let words = line.split(whereSeparator: { " \t;".contains($0) })
            guard let first = words.first else { continue }
            if first == "}" {
                chain = nil
            } else if first == "chain", words.count > 1 {
                chain = String(words[1])
                shapes[String(words[1])] = Shape()
            } else if let chain {
                if first == "type", let hook = hook(words) {
                    shapes[chain]?.hook = hook
                } else {
                    shapes[chain]?.rules += 1
                }
            } else if first == "flags", words.contains("dormant") {
                return nil
            }
        }
        return shapes
    }

    /// `type filter hook prerouting priority raw; policy accept`, without the priority, which versions spell differently.
    private static func hook(_ words: [Substring]) -> String? {
        guard words.count > 3, words[2] == "hook" else { return nil }
        return "\(words[1]) \(words[3]) \(words.last ?? "")"
    }

    /// What is wrong with the table; nil: it matches this config.
    /// - Parameter listing: what `nft list table inet pipelined` prints; nil: there is no such table.
    package func tableFault(_ listing: String?) -> String? {
        guard let listing else { return "nftables has no table inet pipelined" }
        guard let have = EgressRules.shapes(of: listing) else { return "the table inet pipelined is dormant" }
        guard have[marker] != nil else { return "the table inet pipelined was installed from another config" }
        let want = EgressRules.shapes(of: nftables) ?? [:]
        for name in want.keys.sorted() where have[name] != want[name] {
            return have[name] == nil
                ? "the chain \(name) of the table inet pipelined is missing"
                : "the chain \(name) of the table inet pipelined was changed"
        }
        let added = have.keys.filter { want[$0] == nil }.sorted()
        return added.first.map { "another program added the chain \($0) to the table inet pipelined" }
    }

    /// A query about routes, and the fault if its answer lacks the expected line.
    package struct Question: Sendable, Equatable {
        package let command: [String]
        /// The required prefix of a line that also has `word` followed by `value`; empty: any line.
        let prefix: String
        let word: String
        let value: String
        package let fault: String

        package func isAnswered(by answer: String) -> Bool {
            answer.split(separator: "\n").contains { line in
                guard !prefix.isEmpty else { return true }
                let words = line.split(separator: " ")
                return line.hasPrefix(prefix) && zip(words, words.dropFirst()).contains { $0 == word && $1 == value }
            }
        }
    }

    /// Checks that packets with our mark are delivered locally.
    package var routingQuestions: [Question] {
        families.filter(\.needsLocalRoute).flatMap { family in
            [
                Question(
                    command: ["ip", family.option, "route", "show", "table", "all"]
                        + ["proto", EgressRules.routingProtocol],
                    prefix: "local default dev lo ", word: "table", value: "\(table)",
                    fault: "the local route of table \(table) is gone (ip \(family.option))"),
                Question(
                    command: ["ip", family.option, "rule", "show", "fwmark", EgressRules.hex(deliveryMark), "table"]
                        + ["\(table)"],
                    prefix: "", word: "", value: "",
                    fault: "the rule for table \(table) is gone (ip \(family.option) rule)"),
            ]
        }
    }
}
