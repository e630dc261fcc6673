import Pipeline
import PipelineNode
import PipelineRouting
import PipelineText

/// What `status` says of desired state that is kept; nil: the config has no `state`.
struct DesiredStateReport {
    private let desired: DesiredState
    /// Updates that wait for their turn.
    private let waiting: Int
    /// Routes that are served from the table that this node began with (ADR 0116).
    private let mappedRoutes: Int
    private let hasTable: Bool

    init?(_ node: RunningNode) {
        guard let desired = node.desired else { return nil }
        (self.desired, waiting) = (desired, node.updatesWaiting)
        (mappedRoutes, hasTable) = (node.routing.mappedRoutes, desired.hasTable(for: node.routing))
    }

    var problems: [String] {
        var texts: [String] = []
        if let aside = desired.setAside {
            texts.append(
                "\(aside.name) is set aside, since two starts in a row ended with it before they were ready; in force is "
                    + "\(desired.standing); apply another one")
        }
        if let refusal = desired.refusal {
            let since = desired.last.map { " of revision \($0.revision.map(String.init) ?? "none")" } ?? ""
            texts.append("the newest update is not in force: \(refusal); routes are as the last one\(since) has them")
        }
        if let held = desired.held.head {
            let waiting = desired.held.waiting
            let behind = waiting == 0 ? "" : "; \(waiting) wait behind it"
            texts.append(
                "a push is held as \(held.id) since \(Timestamp.text(held.since)): \(held.why)\(behind); \(held.remedy)"
            )
        } else if !desired.held.isEmpty {
            texts.append("\(desired.held.waiting) updates that waited are being applied")
        }
        if let known = desired.notDurable {
            texts.append("not durable since \(Timestamp.text(known.since)): \(known.text)")
        }
        if let problem = desired.storeProblem { texts.append(problem) }
        texts += desired.losses.prefix(DesiredStateReport.shownLosses)
        return texts + desired.problems.list.prefix(DesiredStateReport.shown)
    }
    /// `problems` shows so many objects; the rest are counted in `otherwise`.
    private static let shown = 20
    private static let shownLosses = 8

    func write(_ line: inout JSONLine) {
        line.key("desired_state")
        line.open()
        line.field("source", desired.source.name)
        line.field("directory", desired.directory)
        if let last = desired.last {
            line.field("last_source", last.source)
            if let revision = last.revision { line.field("revision", revision) } else { line.nullField("revision") }
            line.field("actor", last.actor)
            line.key("applied_at")
            line.timestamp(last.at)
        }
        for kind in StateKind.allCases { line.field(name: kind.list, UInt64(desired.count(kind))) }
        line.field("otherwise", desired.otherwise)
        line.field("refusal", desired.refusal)
        writeHeld(&line)
        line.field("not_durable", desired.notDurable?.objects ?? 0)
        if let known = desired.notDurable {
            line.key("not_durable_since")
            line.timestamp(known.since)
        } else {
            line.nullField("not_durable_since")
        }
        line.field("set_aside", desired.setAside?.name)
        let (figures, groups) = (desired.figures, desired.groupFigures)
        line.field("waiting", waiting)
        line.field("groups", groups.groups)
        line.field("sync_us_mean", groups.groups > 0 ? groups.time / groups.groups / 1000 : 0)
        line.field("sync_us_longest", groups.longest / 1000)
        line.field("snapshot_bytes", figures.snapshotBytes)
        line.field("log_bytes", figures.logBytes)
        line.field("routes_mapped", mappedRoutes)
        line.field("has_table", hasTable)
        line.close()
    }

    /// R29: what a guard holds, since when, and how much waits behind it.
    private func writeHeld(_ line: inout JSONLine) {
        line.field("held", desired.held.head?.id)
        if let since = desired.held.head?.since ?? desired.heldFile?.since {
            line.key("held_since")
            line.timestamp(since)
        } else {
            line.nullField("held_since")
        }
        line.field("held_waiting", desired.heldFile.map { $0.documents - 1 } ?? desired.held.waiting)
        line.field("held_waiting_bytes", desired.held.waitingBytes)
    }
}
