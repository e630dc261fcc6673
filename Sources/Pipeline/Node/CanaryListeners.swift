import Pipeline
import PipelineLanguage
import PipelineRouting
import PipelineRuntime

/// The listeners of a node while a canary takes a share: those of the current program, and what the new one adds.
enum CanaryListeners {
    /// - Parameters:
    ///   - current, new: the plans of both programs.
    /// - Returns: the plan, and the new program's listeners that wait until it goes everywhere: their ports are the
    ///   current program's, at other addresses or by other sockets, and would take more than a share.
    static func plan(
        _ current: [PlannedListener], _ new: [PlannedListener]
    ) -> (plan: [PlannedListener], waiting: [PlannedListener]) {
        let heirs = Dictionary(new.map { ($0.endpoint, $0.spec) }, uniquingKeysWith: { first, _ in first })
        let exact = Dictionary(new.map { ($0.key, $0.spec) }, uniquingKeysWith: { first, _ in first })
        var plan = current.map { planned in
            var shared = planned
            if let heir = exact[planned.key] ?? heirs[planned.endpoint], heir.mode == planned.spec.mode {
                shared.canary = .share(chain: heir.chain, hint: heir.hint)
            }
            return shared
        }
        let endpoints = Set(current.map(\.endpoint))
        let ports = Set(current.map(\.endpoint.port))
        var waiting: [PlannedListener] = []
        for planned in new where !endpoints.contains(planned.endpoint) {
            guard !ports.contains(planned.endpoint.port) else {
                waiting.append(planned)
                continue
            }
            var alone = planned
            alone.canary = .alone
            plan.append(alone)
        }
        return (plan, waiting)
    }

    /// What routes are judged by while both programs run: the current program, and the new one's listeners at ports that
    /// only it has. A route that the new one can't serve is served by the others, and is evidence.
    static func prepare(_ routing: RoutingState, for current: Program, and new: Program) {
        ListenerPlan.prepare(routing, for: current)
        let facts = ListenerPlan.facts(current)
        routing.listeners =
            facts + ListenerPlan.facts(new).filter { added in !facts.contains { $0.ports.overlaps(added.ports) } }
        let healths = routing.healths
        ListenerPlan.prepare(routing, healthsOf: new)
        routing.healths.merge(healths) { $1 }
    }
}
