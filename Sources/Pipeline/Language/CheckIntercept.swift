import Pipeline

/// The lines of `node` that say what is intercepted, for the rules that do it.
extension Checker {
    /// `intercept interface vm* tap0`: behind which interfaces the workloads are. `intercept rules manage`: who looks after
    /// the rules.
    func checkIntercept(_ words: [WordSyntax], _ keyword: WordSyntax) {
        switch words.first?.text {
        case "interface": checkInterfaces(words)
        case "rules": checkInterceptRules(words)
        default:
            report(
                ClauseFailure(
                    progress: 0, message: words.first.map { "unexpected \(quoted($0.text))" },
                    expected: ["`interface`", "`rules`"], candidates: ["interface", "rules"]),
                words, of: keyword)
        }
    }

    private func checkInterceptRules(_ words: [WordSyntax]) {
        let modes = InterceptRules.allCases.map(\.rawValue)
        let expected = orList(modes.map { "`\($0)`" })
        guard let what = words.first else { return }
        guard let word = onlyWord(Array(words.dropFirst()), of: what, expected: expected) else { return }
        guard let mode = InterceptRules(rawValue: word.text) else {
            reporter.error(
                word.span, "unexpected \(quoted(word.text))", expected: expected,
                help: suggestion(for: word.text, among: modes))
            return
        }
        node.interceptRules = mode
        interceptRulesSpan = word.span
    }

    /// Once the block is read: what is looked after follows from the interfaces.
    func checkInterceptIsWhole() {
        guard let span = interceptRulesSpan, node.interceptRules != .off, node.interceptInterfaces.isEmpty else {
            return
        }
        reporter.error(
            span, "there are no rules to look after: the config does not say where the workloads are",
            help: "add `intercept interface NAME` to `node`: `vm*` stands for every name that begins so")
    }

    private func checkInterfaces(_ words: [WordSyntax]) {
        guard let what = words.first else { return }
        let expected = "names of interfaces like `vm*`"
        guard words.count > 1 else {
            reporter.error(what.span.behind, "`intercept interface` is not complete", expected: expected)
            return
        }
        var seen: [String: SourceSpan] = [:]
        for word in words.dropFirst() where !reporter.isFull {
            if isDuplicate(quoted(word.text), word.span, firstAt: seen[word.text]) { continue }
            seen[word.text] = word.span
            guard Checker.isInterface(word.text) else {
                reporter.error(
                    word.span, "\(quoted(word.text)) can't be the name of an interface", expected: expected,
                    help: "at most 15 letters, digits, `.`, `-` and `_`; a `*` only at the end: see `ip link`")
                continue
            }
            guard node.interceptInterfaces.count < 64 else {
                reporter.error(word.span, "more than 64 names", help: "use a common prefix and `*`")
                return
            }
            node.interceptInterfaces.append(word.text)
        }
    }

    /// IFNAMSIZ is 16, with its NUL. Fewer characters than the kernel takes: the names go into firewall rules.
    private static func isInterface(_ name: String) -> Bool {
        let stem = name.hasSuffix("*") ? name.dropLast() : name[...]
        return (1...15).contains(stem.utf8.count) && stem.utf8.first != UInt8(ascii: "-")
            && stem.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"):
                    true
                default: false
                }
            }
    }

    /// `mark 0x7069`: what our own connections carry. Rules use the number behind it as well.
    func checkMark(_ words: [WordSyntax], _ keyword: WordSyntax) {
        let expected = "a firewall mark like `0x7069`"
        guard let word = onlyWord(words, of: keyword, expected: expected) else { return }
        let isHex = word.text.hasPrefix("0x") || word.text.hasPrefix("0X")
        let digits = isHex ? word.text.dropFirst(2) : word.text[...]
        guard digits.first != "+", digits.first != "-", let mark = UInt32(digits, radix: isHex ? 16 : 10),
            mark > 0, mark < UInt32.max
        else {
            reporter.error(
                word.span, "\(quoted(word.text)) is no firewall mark", expected: "0x1 to 0xfffffffe",
                help: "write one that no other rule of this host uses")
            return
        }
        node.mark = mark
    }

    /// `nat64 2001:db8:64::/96`: where this network translates IPv6 to IPv4, besides the well-known prefixes.
    func checkNat64(_ words: [WordSyntax], _ keyword: WordSyntax) {
        let expected = "prefixes of 32, 40, 48, 56, 64 or 96 bits like `2001:db8:64::/96`"
        guard !words.isEmpty else {
            reporter.error(keyword.span.behind, "`nat64` is not complete", expected: expected)
            return
        }
        for word in words where !reporter.isFull {
            guard let prefix = parsed(word, { text throws(ValueProblem) in try Value.prefix(text) }) else { continue }
            if node.nat64.contains(prefix.value) { continue }
            guard !prefix.value.first.isIPv4, SpelledAddress.prefixLengths.contains(prefix.value.length) else {
                reporter.error(
                    word.span, "\(quoted(word.text)) is no prefix of a translation to IPv4", expected: expected,
                    help: "RFC 6052 has these lengths, of IPv6")
                continue
            }
            guard node.nat64.count < 16 else {
                reporter.error(word.span, "more than 16 prefixes in `nat64`")
                return
            }
            node.nat64.append(prefix.value)
        }
    }
}
