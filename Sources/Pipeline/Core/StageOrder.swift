/// The stages of a chain that run ahead of a waiting stage above them: it can't change what they read. They therefore
/// count silent clients too. Bit i: stage i.
@frozen public struct StagesAhead: Sendable, Equatable {
    /// Stages that run before it.
    public let always: UInt32
    /// Stages that run once it uses non-blocking inspection, and so can't change what they read
    /// (``Verdict/inspect(_:)``).
    public let besideInspection: UInt32

    public static let none = StagesAhead(always: 0, besideInspection: 0)

    public init(always: UInt32, besideInspection: UInt32) {
        self.always = always
        self.besideInspection = besideInspection
    }

    /// - Parameter stage: the place of the one that looks at bytes.
    init(of stage: Int, in stages: [Stage]) {
        guard stages.indices.contains(stage), stages[stage].peek != nil else {
            self = .none
            return
        }
        always = StagesAhead.stages(past: stage, in: stages, gives: stages[stage].facts.gives)
        besideInspection = stages[stage].isNonBlocking ? StagesAhead.stages(past: stage, in: stages, gives: []) : always
    }

    /// Those below the stage that gives the route that run while it has a connection wait for a place: they go by nothing
    /// that it may still say, so that who waits counts in limits by client.
    static func besideQueue(of selector: Int, in stages: [Stage]) -> UInt32 {
        guard stages.indices.contains(selector) else { return 0 }
        return StagesAhead.stages(past: selector, in: stages, gives: stages[selector].facts.gives)
    }

    /// - Parameter gives: what the stage that is waited for may still say.
    private static func stages(past waiting: Int, in stages: [Stage], gives: Set<Fact>) -> UInt32 {
        // Facts that a stage has yet to give at this moment, by the stages that have not run.
        var open = gives
        var ahead: UInt32 = 0
        for number in stages.indices.dropFirst(waiting + 1) {
            if mayLead(stages[number]), stages[number].facts.goesBy.isDisjoint(with: open) {
                ahead |= 1 << UInt32(number & 31)
            } else {
                open.formUnion(stages[number].facts.gives)
            }
        }
        return ahead
    }

    /// Only stages that may refuse gain from running early; backends are chosen once everything is known (R1).
    private static func mayLead(_ stage: Stage) -> Bool {
        stage.peek == nil && !stage.filter.descriptor.reasons.isEmpty
            && stage.facts.gives.isSubset(of: [.identity, .client])
    }
}

extension StageFacts {
    /// Everything that its verdict may depend on.
    var goesBy: Set<Fact> { needs.union(reads).union(instead.values) }
}

extension Chain {
    /// When a stage runs, for `check --print`.
    public enum Turn: Sendable, Equatable {
        /// After those above it.
        case inOrder
        /// At accept.
        case atAccept
        /// At accept, or, for clients whose address that stage may replace, after it.
        case atAcceptUnless(Int)
    }

    public func turn(of number: Int) -> Turn {
        let bit: UInt32 = 1 << UInt32(number & 31)
        guard let first = stages.buffer.firstIndex(where: { $0.peek != nil }), first < number else { return .inOrder }
        if ahead[first].always & bit != 0 { return .atAccept }
        return ahead[first].besideInspection & bit != 0 ? .atAcceptUnless(first) : .inOrder
    }
}
