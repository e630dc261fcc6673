/// The stages of a chain that don't wait for one above them that looks at the client's first bytes: what they read is
/// known without it, and nothing that it may say changes that. A client that says nothing is counted by them all the same.
/// Bit i: stage i.
@frozen public struct StagesAhead: Sendable, Equatable {
    /// They run before it is asked.
    public let always: UInt32
    /// They run once it inspects without blocking, and so says nothing about it that they read (``Verdict/inspect(_:)``).
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

    /// Only what may refuse a connection gains by running early; and a choice of backends is made once all is known (R1).
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
    /// When a stage runs, seen from accept: what `check --print` says of it.
    public enum Turn: Sendable, Equatable {
        /// After those above it.
        case inOrder
        /// At accept.
        case atAccept
        /// At accept, but for clients of whom that stage may say who they are: then once it has.
        case atAcceptUnless(Int)
    }

    public func turn(of number: Int) -> Turn {
        let bit: UInt32 = 1 << UInt32(number & 31)
        guard let first = stages.buffer.firstIndex(where: { $0.peek != nil }), first < number else { return .inOrder }
        if ahead[first].always & bit != 0 { return .atAccept }
        return ahead[first].besideInspection & bit != 0 ? .atAcceptUnless(first) : .inOrder
    }
}
