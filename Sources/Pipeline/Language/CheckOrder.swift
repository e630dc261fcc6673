import Pipeline

extension Fact {
    /// The fact in a sentence.
    fileprivate var phrase: String {
        switch self {
        case .client: "the client's true address"
        case .serverName: "the server name"
        case .route: "the route"
        case .backend: "the backend"
        }
    }

    fileprivate static func phrases(_ facts: some Collection<Fact>) -> String {
        andList(Fact.allCases.filter { facts.contains($0) }.map(\.phrase))
    }
}

/// Proves the order of a chain from what its stages need and give.
extension Checker {
    func checkOrder(of pipeline: CheckedPipeline) {
        var giver: [Fact: Int] = [:]
        for (index, stage) in pipeline.stages.enumerated() where !reporter.isFull {
            let missing = stage.needs.filter { giver[$0] == nil }
            if !missing.isEmpty { reportMissing(missing, at: index, in: pipeline) }
            let again = stage.descriptor.gives.filter { giver[$0] != nil }
            if let first = again.compactMap({ giver[$0] }).min() {
                let other = pipeline.stages[first]
                reporter.error(
                    stage.keyword.span,
                    "`\(stage.name)` gives \(Fact.phrases(again)), which `\(other.name)` (line \(other.line)) "
                        + "gives already", help: "remove one of them",
                    related: [.init(other.keyword.span, "`\(other.name)` is here")])
            }
            for fact in stage.descriptor.gives where giver[fact] == nil { giver[fact] = index }
        }
        checkNameBeforeRoute(pipeline)
    }

    /// One error for each stage that gives some of the missing facts too late, and one for the facts that none gives.
    private func reportMissing(_ missing: Set<Fact>, at index: Int, in pipeline: CheckedPipeline) {
        let stage = pipeline.stages[index]
        var orphans = missing
        for later in pipeline.stages[index...].dropFirst() {
            let late = orphans.intersection(later.descriptor.gives)
            guard !late.isEmpty else { continue }
            orphans.subtract(late)
            reporter.error(
                stage.keyword.span,
                "`\(stage.name)` needs \(Fact.phrases(late)), which only `\(later.name)` below it gives",
                help: "move `\(stage.name)` (line \(stage.line)) below `\(later.name)` (line \(later.line))",
                related: [.init(later.keyword.span, "`\(later.name)` is here")])
        }
        guard !orphans.isEmpty, pipeline.isComplete else { return }
        let givers = catalog.filter { !$0.descriptor.gives.isDisjoint(with: orphans) }.map { $0.descriptor.keyword }
        reporter.error(
            stage.keyword.span,
            "`\(stage.name)` needs \(Fact.phrases(orphans)), which no stage of `\(pipeline.name)` gives",
            help: givers.isEmpty
                ? "no stage of this build gives it: remove `\(stage.name)`"
                : "add \(orList(givers.map { "`\($0)`" })) before it")
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
