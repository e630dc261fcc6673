import PipelineRouting

extension PlanComparison {
    /// R30: who is suspended by the change, or no more. A suspended org stands for its envs.
    var suspensions: [PlannedChange] {
        let (old, new) = (before.suspended, after.suspended)
        return made("org", old.orgs, new.orgs) { $0.hasPrefix("\($1)/") } + made("env", old.envs, new.envs, ==)
    }

    /// - Parameter isOf: whether an env, by its path, belongs to the subject.
    private func made(
        _ what: String, _ old: [String], _ new: [String], _ isOf: (_ env: String, _ subject: String) -> Bool
    ) -> [PlannedChange] {
        let (was, now) = (Set(old), Set(new))
        let begun = now.subtracting(was).sorted().map { subject -> PlannedChange in
            var planned = PlannedChange(.suspension, .added, subject)
            planned.what = what
            planned.details = [
                "new connections are refused (backend.suspended), and live ones end at once, egress too"
            ]
            planned.connections = live.map { live in
                live.of(routes: before.census.routes.filter { $0.value.contains { isOf($0.owner, subject) } }.keys)
            }
            return planned
        }
        let over = was.subtracting(now).sorted().map { subject -> PlannedChange in
            var planned = PlannedChange(.suspension, .removed, subject)
            planned.what = what
            planned.details = ["it is served as before"]
            return planned
        }
        return begun + over
    }
}
