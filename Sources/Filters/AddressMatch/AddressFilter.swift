import Pipeline

/// `address deny bogons`: lets connections through, or refuses them, by their source or destination address.
/// The first rule that matches decides; without a match the connection passes.
package enum AddressFilter: Filter {
    package struct Settings: Sendable {
        let rules: FrozenArray<Rule>
    }

    /// Trivial: what it refers to is freed by ``dispose(_:)``.
    struct Rule: Sendable {
        let denies: Bool
        let side: Side
        let addresses: AddressRanges
        /// As written, for `explain`.
        let name: FrozenText

        func matches(_ facts: ConnectionFacts) -> Bool { addresses.contains(side.address(facts)) }
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

    package static let descriptor = FilterDescriptor(
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

    package static func settings(_ directive: Directive) throws(SettingsError) -> Settings {
        var rules: [Rule] = []
        for clause in directive.clauses {
            guard clause.values.count == 3, case .word(let action) = clause.values[0],
                case .set(let set) = clause.values[2]
            else {
                for rule in rules { dispose(rule) }
                throw SettingsError(
                    "a rule needs `allow` or `deny` and a set", remedy: "write `address deny from @set`",
                    clause: clause.name)
            }
            var side = Side.source
            if case .word("to") = clause.values[1] { side = .destination }
            rules.append(
                Rule(
                    denies: action == "deny", side: side, addresses: AddressRanges(set.prefixes),
                    name: FrozenText(set.name)))
        }
        return Settings(rules: FrozenArray(rules))
    }

    /// A rule about destinations doesn't care who the client is.
    package static func facts(_ settings: Settings) -> StageFacts {
        StageFacts(reads: settings.rules.buffer.contains { $0.side == .source } ? descriptor.reads : [])
    }

    package static func evaluate(
        _ settings: Settings, _ state: inout Void, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        for index in 0..<settings.rules.count {
            let rule = settings.rules.pointer(index)
            guard rule.pointee.matches(view.facts) else { continue }
            guard rule.pointee.denies else { return .next }
            let refusal: Refusal = rule.pointee.side == .source ? .deniedSource : .deniedDestination
            return .refuse(refusal.rawValue)
        }
        return .next
    }

    package static func explain(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        for rule in settings.rules.buffer where rule.matches(view.facts) {
            let who = rule.side == .source ? "source" : "destination"
            let action = rule.denies ? "denies" : "allows"
            return "\(who) \(rule.side.address(view.facts)) is in \(rule.name.string), which a rule \(action)"
        }
        return "no rule matches source \(Side.source.address(view.facts)) or destination "
            + "\(Side.destination.address(view.facts)); what no rule matches may pass"
    }

    package static func dispose(_ settings: Settings) {
        for rule in settings.rules.buffer { dispose(rule) }
        settings.rules.deallocate()
    }

    private static func dispose(_ rule: Rule) {
        rule.addresses.deallocate()
        rule.name.deallocate()
    }
}
