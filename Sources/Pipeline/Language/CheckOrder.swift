import Pipeline

extension Fact {
    /// The fact in a sentence.
    fileprivate var phrase: String {
        switch self {
        case .client: "the client's true address"
        case .serverName: "the server name"
        case .route: "the route"
        case .backend: "the backend"
        case .identity: "the sending instance"
        case .upgrade: "the TLS upgrade"
        }
    }

    /// The same for a stage that uses the fact if known.
    fileprivate var readPhrase: String { self == .client ? "the client's address" : phrase }

    fileprivate static func phrases(_ facts: some Collection<Fact>) -> String {
        andList(Fact.allCases.filter { facts.contains($0) }.map(\.phrase))
    }
}

/// Proves the order of a chain from its stages' needs and facts.
extension Checker {
    func checkOrder(of pipeline: CheckedPipeline) {
        var giver: [Fact: Int] = [:]
        for (index, stage) in pipeline.stages.enumerated() where !reporter.isFull {
            let missing = stage.facts.needs.filter { need in
                giver[need] == nil && stage.facts.instead[need].map { giver[$0] == nil } ?? true
            }
            if !missing.isEmpty { reportMissing(missing, at: index, in: pipeline) }
            reportReadTooEarly(stage.facts.reads.subtracting(missing).filter { giver[$0] == nil }, index, pipeline)
            let again = stage.facts.gives.filter { giver[$0] != nil }
            if let first = again.compactMap({ giver[$0] }).min() {
                let other = pipeline.stages[first]
                reporter.error(
                    stage.keyword.span,
                    "`\(stage.name)` provides \(Fact.phrases(again)), which `\(other.name)` (\(other.line)) "
                        + "already provides", help: "remove one of them",
                    related: [.init(other.keyword.span, "`\(other.name)` is here")])
            }
            for fact in stage.facts.gives where giver[fact] == nil { giver[fact] = index }
        }
        checkNameBeforeRoute(pipeline)
        checkConsumersFirst(pipeline)
    }

    /// One error for each of `facts` that the stage at `index` uses and a stage below changes.
    private func reportReadTooEarly(_ facts: Set<Fact>, _ index: Int, _ pipeline: CheckedPipeline) {
        let stage = pipeline.stages[index]
        // A directive with an error has unknown facts.
        guard stage.stage != nil else { return }
        for fact in Fact.allCases where facts.contains(fact) {
            let below = pipeline.stages[index...].dropFirst()
            guard let later = below.first(where: { $0.stage?.facts.gives.contains(fact) == true }) else { continue }
            reporter.error(
                stage.keyword.span,
                "`\(stage.name)` uses \(fact.readPhrase), which `\(later.name)` below it may change",
                help: "move `\(stage.name)` (\(stage.line)) below `\(later.name)` (\(later.line))",
                stage.descriptor.readingEarlier[fact].map { "or \($0)" },
                related: [.init(later.keyword.span, "`\(later.name)` is here")])
        }
    }

    /// A stage that reads the client's first bytes above one that consumes some would read the wrong ones.
    private func checkConsumersFirst(_ pipeline: CheckedPipeline) {
        for (index, stage) in pipeline.stages.enumerated() where stage.stage?.peek?.consumes == false {
            guard let later = pipeline.stages[index...].dropFirst().first(where: { $0.stage?.peek?.consumes == true })
            else { continue }
            reporter.error(
                later.keyword.span,
                "`\(later.name)` comes too late: it removes bytes from the stream that `\(stage.name)` has read before",
                help: "move `\(later.name)` (\(later.line)) above `\(stage.name)` (\(stage.line))",
                related: [.init(stage.keyword.span, "`\(stage.name)` is here")])
            return
        }
    }

    /// One error for each stage that provides missing facts too late, and one for facts that none provides.
    private func reportMissing(_ missing: Set<Fact>, at index: Int, in pipeline: CheckedPipeline) {
        let stage = pipeline.stages[index]
        var orphans = missing
        for later in pipeline.stages[index...].dropFirst() {
            let late = orphans.intersection(later.facts.gives)
            guard !late.isEmpty else { continue }
            orphans.subtract(late)
            reporter.error(
                stage.keyword.span,
                "`\(stage.name)` needs \(Fact.phrases(late)), which only `\(later.name)` below it provides",
                help: "move `\(stage.name)` (\(stage.line)) below `\(later.name)` (\(later.line))",
                related: [.init(later.keyword.span, "`\(later.name)` is here")])
        }
        guard !orphans.isEmpty, pipeline.isComplete else { return }
        reporter.error(
            stage.keyword.span,
            "`\(stage.name)` needs \(Fact.phrases(orphans)), which no stage of `\(pipeline.name)` provides",
            help: remedy(forMissing: orphans, at: index, in: pipeline))
    }

    private func remedy(forMissing facts: Set<Fact>, at index: Int, in pipeline: CheckedPipeline) -> String {
        let stage = pipeline.stages[index]
        let givers = catalog.filter { !$0.descriptor.gives.isDisjoint(with: facts) }.map { $0.descriptor.keyword }
        if givers.isEmpty { return "no stage of this build provides it: remove `\(stage.name)`" }
        // The stage is there, but its directive lacks the clause that provides the fact.
        if let idle = pipeline.stages.first(where: { givers.contains($0.name) }) {
            return "`\(idle.name)` (\(idle.line)) provides it with another clause: see its page in docs/filters"
        }
        return "add \(orList(givers.map { "`\($0)`" })) before it"
    }

    /// R5: a stage that selects the route before the name is known would ignore the name.
    private func checkNameBeforeRoute(_ pipeline: CheckedPipeline) {
        guard let name = pipeline.firstIndex(giving: .serverName), let route = pipeline.firstIndex(giving: .route),
            route < name
        else { return }
        let (late, early) = (pipeline.stages[name], pipeline.stages[route])
        reporter.error(
            late.keyword.span, "`\(late.name)` comes too late: `\(early.name)` selects the route without the name",
            help: "move `\(late.name)` (\(late.line)) above `\(early.name)` (\(early.line))",
            related: [.init(early.keyword.span, "`\(early.name)` is here")])
    }
}
