import Pipeline
import PipelineRouting
import PipelineText

/// What `status` says of suspended envs and orgs (R30).
struct SuspensionReport {
    /// So many of either are named; the rest are counted.
    private static let shown = 20

    private let orgs: [String]
    private let envs: [String]

    init(_ routing: RoutingState) { (orgs, envs) = routing.suspended }

    /// Empty: nobody is.
    var text: String {
        guard !orgs.isEmpty || !envs.isEmpty else { return "" }
        let names =
            orgs.prefix(SuspensionReport.shown).map { "org \($0)" }
            + envs.prefix(SuspensionReport.shown).map { "env \($0)" }
        let rest = orgs.count + envs.count - names.count
        return "suspended: \(names.joined(separator: ", "))\(rest > 0 ? " and \(rest) more" : "")\n"
    }

    func write(_ line: inout JSONLine) {
        line.key("suspended")
        line.open()
        line.field("orgs", orgs.count)
        line.list("org_ids", orgs.prefix(SuspensionReport.shown)) { $0.string($1) }
        line.field("envs", envs.count)
        line.list("env_paths", envs.prefix(SuspensionReport.shown)) { $0.string($1) }
        line.close()
    }
}
