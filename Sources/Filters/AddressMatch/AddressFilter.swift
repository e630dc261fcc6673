import Pipeline

/// `address deny bogons`: lets connections through, or refuses them, by their source or destination address.
/// The first rule that matches decides; without a match the connection passes.
public enum AddressFilter: Filter {
    public struct Settings: Sendable {
        /// The index of the first rule that holds an address, one table a side; nil: no rule looks at that side.
        let sources: PrefixTable?
        let destinations: PrefixTable?
        let rules: FrozenArray<Rule>
        /// What the rules were made of, for `explain` alone: the data path never touches it.
        let sets: Unmanaged<RuleSets>
    }

    struct Rule: Sendable {
        let denies: Bool
        let side: Side
    }

    /// The sets as written, in the order of the rules. They share their prefixes with whoever else uses the sets.
    final class RuleSets: Sendable {
        let sets: [AddressSet]
        init(_ sets: [AddressSet]) { self.sets = sets }
    }

    enum Side {
        /// Whom we believe the client to be.
        case source
        /// What the client connected to.
        case destination

        func address(_ facts: ConnectionFacts) -> IPAddress {
            switch self {
            case .source: facts.client.endpoint.address
            case .destination: facts.destination.endpoint.address
            }
        }
    }

    enum Refusal: UInt8, CaseIterable {
        case deniedSource, deniedDestination
    }

    public static let descriptor = FilterDescriptor(
        keyword: "address",
        summary: "allows or denies by source or destination address",
        reads: [.client],
        clauses: [
            ClauseSpec(
                "rule",
                [
                    .choice(name: "action", ["allow", "deny"]), .optional(name: "side", ["from", "to"]),
                    .set(name: "addresses"),
                ], required: true, repeats: true,
                summary: "the first rule that matches decides; `from` (the client) is meant if neither is said")
        ],
        reasons: [
            ReasonSpec("denied_source", .client, "The client's address is in a set that a `deny` rule names."),
            ReasonSpec(
                "denied_destination", .client, "The address connected to is in a set that a `deny to` rule names."),
        ])

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
            var side = Side.source
            if case .word("to") = clause.values[1] { side = .destination }
            rules.append(Rule(denies: action == "deny", side: side))
            sets.append(set)
        }
        guard rules.count <= Int(PrefixTable.maxValue) else {
            throw SettingsError(
                "more than \(PrefixTable.maxValue) rules in one stage", remedy: "put their prefixes into a set")
        }
        let sources = try table(.source, rules, sets)
        let destinations: PrefixTable?
        do throws(SettingsError) {
            destinations = try table(.destination, rules, sets)
        } catch {
            sources?.deallocate()
            throw error
        }
        return Settings(
            sources: sources, destinations: destinations, rules: FrozenArray(rules),
            sets: .passRetained(RuleSets(sets)))
    }

    /// Nil if no rule looks at the side.
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

    /// The first rule that matches.
    private static func decision(_ settings: Settings, _ facts: ConnectionFacts) -> Int? {
        var first = PrefixTable.none
        if let table = settings.sources { first = table.value(of: facts.client.endpoint.address) }
        if let table = settings.destinations {
            first = min(first, table.value(of: facts.destination.endpoint.address))
        }
        return first == PrefixTable.none ? nil : Int(first)
    }

    /// A rule about destinations doesn't care who the client is.
    public static func facts(_ settings: Settings) -> StageFacts {
        StageFacts(reads: settings.rules.buffer.contains { $0.side == .source } ? descriptor.reads : [])
    }

    public static func evaluate(
        _ settings: Settings, _ state: inout Void, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        guard let index = decision(settings, view.facts) else { return .next }
        let rule = settings.rules[index]
        guard rule.denies else { return .next }
        let refusal: Refusal = rule.side == .source ? .deniedSource : .deniedDestination
        return .refuse(refusal.rawValue)
    }

    public static func explain(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        guard let index = decision(settings, view.facts) else {
            return "no rule matches source \(Side.source.address(view.facts)) or destination "
                + "\(Side.destination.address(view.facts)); what no rule matches may pass"
        }
        let rule = settings.rules[index]
        let address = rule.side.address(view.facts)
        let set = settings.sets.takeUnretainedValue().sets[index]
        // Of those in the set that hold it, the longest: the line to look for.
        let prefix = set.prefixes.lazy.filter { $0.contains(address) }.max { $0.length < $1.length }
        let through = prefix.map { "\($0)" == set.name ? "" : " (\($0))" } ?? ""
        let who = rule.side == .source ? "source" : "destination"
        return "\(who) \(address) is in \(set.name)\(through), which a rule \(rule.denies ? "denies" : "allows")"
    }

    public static func dispose(_ settings: Settings) {
        settings.sources?.deallocate()
        settings.destinations?.deallocate()
        settings.rules.deallocate()
        settings.sets.release()
    }
}
