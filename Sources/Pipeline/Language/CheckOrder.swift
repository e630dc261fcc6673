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
        }
    }

    /// The same, of a stage that does with what is known.
    fileprivate var readPhrase: String { self == .client ? "the client's address" : phrase }

    fileprivate static func phrases(_ facts: some Collection<Fact>) -> String {
        andList(Fact.allCases.filter { facts.contains($0) }.map(\.phrase))
    }
}

/// Proves the order of a chain from what its stages need and give.
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
                    "`\(stage.name)` gives \(Fact.phrases(again)), which `\(other.name)` (line \(other.line)) "
                        + "gives already", help: "remove one of them",
                    related: [.init(other.keyword.span, "`\(other.name)` is here")])
            }
            for fact in stage.facts.gives where giver[fact] == nil { giver[fact] = index }
        }
        checkNameBeforeRoute(pipeline)
        checkConsumersFirst(pipeline)
    }

    /// One error for each of `facts` that a stage below changes after the one at `index` has gone by it.
    private func reportReadTooEarly(_ facts: Set<Fact>, _ index: Int, _ pipeline: CheckedPipeline) {
        let stage = pipeline.stages[index]
        // Of a directive with an error nobody knows what it reads or gives.
        guard stage.stage != nil else { return }
        for fact in Fact.allCases where facts.contains(fact) {
            let below = pipeline.stages[index...].dropFirst()
            guard let later = below.first(where: { $0.stage?.facts.gives.contains(fact) == true }) else { continue }
            reporter.error(
                stage.keyword.span,
                "`\(stage.name)` goes by \(fact.readPhrase), which `\(later.name)` below it may change",
                help: "move `\(stage.name)` (line \(stage.line)) below `\(later.name)` (line \(later.line))",
                stage.descriptor.readingEarlier[fact].map { "or \($0)" },
                related: [.init(later.keyword.span, "`\(later.name)` is here")])
        }
    }

    /// A stage that looks at the client's first bytes above one that takes some away would look at the wrong ones.
    private func checkConsumersFirst(_ pipeline: CheckedPipeline) {
        for (index, stage) in pipeline.stages.enumerated() where stage.stage?.peek?.consumes == false {
            guard let later = pipeline.stages[index...].dropFirst().first(where: { $0.stage?.peek?.consumes == true })
            else { continue }
            reporter.error(
                later.keyword.span,
                "`\(later.name)` comes too late: `\(stage.name)` has looked at the bytes that it takes out of the stream",
                help: "move `\(later.name)` (line \(later.line)) above `\(stage.name)` (line \(stage.line))",
                related: [.init(stage.keyword.span, "`\(stage.name)` is here")])
            return
        }
    }

    /// One error for each stage that gives some of the missing facts too late, and one for the facts that none gives.
    private func reportMissing(_ missing: Set<Fact>, at index: Int, in pipeline: CheckedPipeline) {
        let stage = pipeline.stages[index]
        var orphans = missing
        for later in pipeline.stages[index...].dropFirst() {
            let late = orphans.intersection(later.facts.gives)
            guard !late.isEmpty else { continue }
            orphans.subtract(late)
            reporter.error(
                stage.keyword.span,
                "`\(stage.name)` needs \(Fact.phrases(late)), which only `\(later.name)` below it gives",
                help: "move `\(stage.name)` (line \(stage.line)) below `\(later.name)` (line \(later.line))",
                related: [.init(later.keyword.span, "`\(later.name)` is here")])
        }
        guard !orphans.isEmpty, pipeline.isComplete else { return }
        reporter.error(
            stage.keyword.span,
            "`\(stage.name)` needs \(Fact.phrases(orphans)), which no stage of `\(pipeline.name)` gives",
            help: remedy(forMissing: orphans, at: index, in: pipeline))
    }

    private func remedy(forMissing facts: Set<Fact>, at index: Int, in pipeline: CheckedPipeline) -> String {
        let stage = pipeline.stages[index]
        let givers = catalog.filter { !$0.descriptor.gives.isDisjoint(with: facts) }.map { $0.descriptor.keyword }
        if givers.isEmpty { return "no stage of this build gives it: remove `\(stage.name)`" }
        // It is there, and its directive lacks the clause that makes it a giver.
        if let idle = pipeline.stages.first(where: { givers.contains($0.name) }) {
            return "`\(idle.name)` (line \(idle.line)) gives it with another clause: see its page"
        }
        return "add \(orList(givers.map { "`\($0)`" })) before it"
    }

    /// R5: a stage that chooses the route before the name is known would ignore the name.
    private func checkNameBeforeRoute(_ pipeline: CheckedPipeline) {
        guard let name = pipeline.firstIndex(giving: .serverName), let route = pipeline.firstIndex(giving: .route),
            route < name
        else { return }
        let (late, early) = (pipeline.stages[name], pipeline.stages[route])
        reporter.error(
            late.keyword.span, "`\(late.name)` comes too late: `\(early.name)` has chosen the route without the name",
            help: "move `\(late.name)` (line \(late.line)) above `\(early.name)` (line \(early.line))",
            related: [.init(early.keyword.span, "`\(early.name)` is here")])
    }
}
