import Pipeline

/// Whether the kernel has the rules of a config: what is missing, in words.
///
/// The table carries a digest of its own text as the name of an empty chain, which nft and the kernel keep as it is (seen with
/// nft 1.0.6): rules of another config, port or mark are told apart without comparing how nft spells them. What was taken out
/// of the table by hand is seen by counting.
extension EgressRules {
    /// What `nft list table` says of a chain.
    struct Shape: Equatable {
        /// `filter prerouting`, with its policy; empty where no hook calls the chain.
        var hook = ""
        var rules = 0
    }

    /// The same by every process, so with a key that everybody knows: it tells configs apart, and keeps nobody out.
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

    /// What is wrong with the table; nil: it is as this config makes it.
    /// - Parameter listing: what `nft list table inet pipelined` prints; nil: there is no such table.
    package func tableFault(_ listing: String?) -> String? {
        guard let listing else { return "nftables has no table inet pipelined" }
        guard let have = EgressRules.shapes(of: listing) else { return "the table inet pipelined is dormant" }
        guard have[marker] != nil else { return "the table inet pipelined was made from another config" }
        let want = EgressRules.shapes(of: nftables) ?? [:]
        for name in want.keys.sorted() where have[name] != want[name] {
            return have[name] == nil
                ? "the table inet pipelined has lost its chain \(name)"
                : "the chain \(name) of the table inet pipelined was changed"
        }
        let added = have.keys.filter { want[$0] == nil }.sorted()
        return added.first.map { "somebody has added the chain \($0) to the table inet pipelined" }
    }

    /// What to ask about routes, and what is wrong if the answer lacks it.
    package struct Question: Sendable, Equatable {
        package let command: [String]
        /// A line of the answer has to begin so, and to have `word` followed by `value`; empty: any line will do.
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

    /// Whether packets with our mark are delivered here.
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
                    fault: "the rule that leads to table \(table) is gone (ip \(family.option) rule)"),
            ]
        }
    }
}
