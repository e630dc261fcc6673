import Pipeline
import PipelineSets

/// `address deny bogons`: passes or refuses connections by source, destination or peer address. The first matching rule
/// decides; without a match the connection passes.
public enum AddressFilter: Filter {
    public struct Settings: Sendable {
        /// One table per side that a rule uses: the index of the first rule for an address. Behind a pointer, since
        /// settings are passed by value for each connection.
        let tables: FrozenArray<PrefixTable>
        let sides: FrozenArray<Side>
        let rules: FrozenArray<Rule>
        /// The rules' sets, for `explain` only: the data path never touches them.
        let sets: Unmanaged<RuleSets>
    }

    struct Rule: Sendable {
        let denies: Bool
        let side: Side
    }

    /// The sets as written, in the order of the rules. Their prefixes are shared with other users.
    final class RuleSets: Sendable {
        let sets: [AddressSet]
        init(_ sets: [AddressSet]) { self.sets = sets }
    }

    enum Side: CaseIterable {
        /// The client: the peer, or the source in an accepted PROXY header.
        case source
        /// What the client connected to.
        case destination
        /// The socket's peer, whatever a PROXY header says.
        case peer

        init(_ word: ArgumentValue) {
            switch word {
            case .word("to"): self = .destination
            case .word("peer"): self = .peer
            default: self = .source
            }
        }

        func address(_ facts: ConnectionFacts) -> IPAddress {
            switch self {
            case .source: facts.client.endpoint.address
            case .destination: facts.destination.endpoint.address
            case .peer: facts.peer.endpoint.address
            }
        }

        var refusal: Refusal {
            switch self {
            case .source: .deniedSource
            case .destination: .deniedDestination
            case .peer: .deniedPeer
            }
        }

        var word: String {
            switch self {
            case .source: "source"
            case .destination: "destination"
            case .peer: "peer"
            }
        }
    }

    enum Refusal: UInt8, CaseIterable {
        case deniedSource, deniedDestination, deniedPeer
    }

    public static let descriptor = FilterDescriptor(
        keyword: "address",
        summary: "allows or denies by source, destination or peer address",
        reads: [.client],
        readingEarlier: [.client: "write `peer` in its rules: the socket's own address, whatever a PROXY header says"],
        clauses: [
            ClauseSpec(
                "rule",
                [
                    .choice(name: "action", ["allow", "deny"]), .optional(name: "side", ["from", "to", "peer"]),
                    .set(name: "addresses"),
                ], required: true, repeats: true,
                summary: "the first rule that matches decides; without a side, a rule means `from` (the client)")
        ],
        reasons: [
            ReasonSpec("denied_source", .client, "The client's address is in a set that a `deny` rule names."),
            ReasonSpec(
                "denied_destination", .client, "The address connected to is in a set that a `deny to` rule names."),
            ReasonSpec(
                "denied_peer", .client, "The socket's other end has an address in a set that a `deny peer` rule names."),
        ], blocks: [SetMembers.block],
        foreignWords: .foreignWords([
            "acl": ForeignWord("set", advice: "a `set` has prefixes, for the stage `address`"),
            "geo|geoip_country|geoip_city|geoip_org|keyval|keyval_zone": ForeignWord("set"),
            "tcp-request": ForeignWord(advice: "for rules about addresses add an `address` stage"),
            "tcp-request connection|allow|accept|deny|reject|close": ForeignWord(
                "address allow from SET, deny from SET"),
            "tcp-request session": ForeignWord(
                advice: "an `address` stage below `anti_spoof` looks at the client that a header names"),
            "src": ForeignWord("address deny from SET"), "fc_src": ForeignWord("address deny peer SET"),
            "dst|fc_dst": ForeignWord("address deny to SET"),
            "if|unless": ForeignWord(
                advice: "the rules of a stage are tried in order, `allow` and `deny`: the first match decides"),
        ]))

    public static func settings(_ directive: Directive) throws(SettingsError) -> Settings {
        var rules: [Rule] = []
        var sets: [AddressSet] = []
        for clause in directive.clauses {
            guard clause.values.count == 3, case .word(let action) = clause.values[0],
                case .set(let set) = clause.values[2]
            else {
                throw SettingsError(
                    "a rule needs `allow` or `deny` and a set", remedy: "write `address deny from @set`",
                    clause: clause.name)
            }
            rules.append(Rule(denies: action == "deny", side: Side(clause.values[1])))
            sets.append(set)
        }
        guard rules.count <= Int(PrefixTable.maxValue) else {
            throw SettingsError(
                "more than \(PrefixTable.maxValue) rules in one stage", remedy: "put their prefixes into a set")
        }
        var tables: [PrefixTable] = []
        var sides: [Side] = []
        do throws(SettingsError) {
            for side in Side.allCases {
                guard let table = try table(side, rules, sets) else { continue }
                tables.append(table)
                sides.append(side)
            }
        } catch {
            for table in tables { table.deallocate() }
            throw error
        }
        return Settings(
            tables: FrozenArray(tables), sides: FrozenArray(sides), rules: FrozenArray(rules),
            sets: .passRetained(RuleSets(sets)))
    }

    /// Nil if no rule uses the side.
    private static func table(
        _ side: Side, _ rules: [Rule], _ sets: [AddressSet]
    ) throws(SettingsError) -> PrefixTable? {
        let groups = rules.indices.filter { rules[$0].side == side }
            .map { (prefixes: sets[$0].prefixes, value: UInt16(truncatingIfNeeded: $0)) }
        guard !groups.isEmpty else { return nil }
        guard let table = PrefixTable(groups) else {
            throw SettingsError(
                "the sets of this stage have more than 16M prefixes", remedy: "use fewer and wider prefixes")
        }
        return table
    }

    /// The first rule that matches. A destination that spells an IPv4 address is both.
    private static func decision(_ settings: Settings, _ view: ConnectionView) -> Int? {
        var first = PrefixTable.none
        for index in 0..<settings.tables.count {
            let (side, table) = (settings.sides[index], settings.tables.pointer(index))
            first = min(first, table.pointee.value(of: side.address(view.facts)))
            if side == .destination, let spelled = view.facts.spelledDestination {
                first = min(first, table.pointee.value(of: spelled))
            }
        }
        return first == PrefixTable.none ? nil : Int(first)
    }

    /// Rules about destinations or peers don't depend on the client.
    public static func facts(_ settings: Settings) -> StageFacts {
        StageFacts(reads: settings.rules.buffer.contains { $0.side == .source } ? descriptor.reads : [])
    }

    public static func evaluate(
        _ settings: Settings, _ state: inout Void, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        guard let index = decision(settings, view) else { return .next }
        let rule = settings.rules[index]
        guard rule.denies else { return .next }
        return .refuse(rule.side.refusal.rawValue)
    }

    public static func explain(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        guard let index = decision(settings, view) else {
            let sides = Side.allCases.filter { side in side != .peer || settings.sides.buffer.contains(side) }
            let looked = sides.map { "\($0.word) \($0.address(view.facts))" }.joined(separator: " or ")
            return "no rule matches \(looked); unmatched connections pass"
        }
        let rule = settings.rules[index]
        let set = settings.sets.takeUnretainedValue().sets[index]
        let plain = rule.side.address(view.facts)
        // Which of its two names the rule has.
        let isByName = set.prefixes.contains { $0.contains(plain) }
        let address = isByName ? plain : view.facts.spelledDestination ?? plain
        // Of those in the set that hold it, the longest: the line to look for.
        let prefix = set.prefixes.lazy.filter { $0.contains(address) }.max { $0.length < $1.length }
        let through = prefix.map { "\($0)" == set.name ? "" : " (\($0))" } ?? ""
        return
            "\(rule.side.word) \(isByName ? "" : "\(plain), which spells ")\(address) is in \(set.name)\(through), which a rule \(rule.denies ? "denies" : "allows")"
    }

    public static func dispose(_ settings: Settings) {
        for table in settings.tables.buffer { table.deallocate() }
        settings.tables.deallocate()
        settings.sides.deallocate()
        settings.rules.deallocate()
        settings.sets.release()
    }
}
