import CLinux
import Pipeline
import PipelineNode
import PipelineRouting
import PipelineText

/// Objects of desired state that are not in force as they are wanted: `routes --state quarantined`, and `backends` for
/// instances. A page at a time.
///
/// Threading: the control thread.
final class QuarantineReport {
    /// So many are shown; the rest are counted.
    private static let shown = 10_000
    private static let page = 1000

    private struct Row {
        let id: String
        let object: NotAsDesired
        let why: [String]
    }

    private let desired: DesiredState
    private let kind: StateKind
    private let filter: ReportFilter
    private var behind: [UInt8]?
    private var rows: [Row] = []
    private var count = 0

    init(_ desired: DesiredState, _ kind: StateKind, _ filter: ReportFilter) {
        (self.desired, self.kind, self.filter) = (desired, kind, filter)
    }

    static func response(_ node: RunningNode, _ kind: StateKind, _ filter: ReportFilter, isText: Bool) -> AdminResponse
    {
        guard let desired = node.desired else {
            return AdminResponse(
                AdminResponse.failure(
                    "this node keeps no desired state, and so no list of what is quarantined",
                    "see `problems` of `pipelined status --json`, or give the config a `state` directory"))
        }
        return QuarantineReport(desired, kind, filter).response(isText: isText)
    }

    private func response(isText: Bool) -> AdminResponse {
        AdminResponse(preparing: { until in
            guard self.advance(until: until) else { return nil }
            let all = BatchedRows(rows: self.rows)
            let rest = self.count - self.rows.count
            guard isText else {
                return all.json(
                    head: "{\"count\":\(self.count),\"\(self.kind.list)\":[", tail: "],\"omitted\":\(rest)}\n",
                    self.json)
            }
            let head = [self.kind == .route ? "ROUTE" : "INSTANCE", "OWNER", "NAME", "IN FORCE", "WHY"]
            return all.text(head, note: rest > 0 ? "\(rest) more are not shown\n" : "", self.cells)
        })
    }

    private func advance(until end: Instant) -> Bool {
        repeat {
            behind = desired.pageOfOthers(kind, behind: behind, count: QuarantineReport.page) { id, object in
                let why = desired.problems.lines(of: kind, id)
                let texts = [id, object.name ?? "", object.owner ?? ""] + why
                guard filter.owner == nil || object.owner.map({ filter.fits(owner: $0) }) ?? false,
                    filter.fits(texts)
                else { return }
                count += 1
                if rows.count < QuarantineReport.shown { rows.append(Row(id: id, object: object, why: why)) }
            }
            if behind == nil { return true }
        } while Instant(nanoseconds: cl_now()) < end
        return false
    }

    private func json(_ row: Row) -> [UInt8] {
        var line = JSONLine()
        line.open()
        line.field("id", row.id)
        line.field("status", ReportFilter.State.quarantined.rawValue)
        line.field("owner", row.object.owner)
        line.field(row.object.isInstance ? "address" : "hostname", row.object.name)
        line.field("in_force", row.object.hasEarlier ? "earlier" : "nothing")
        line.list("why", row.why) { $0.string($1) }
        line.close()
        return line.bytes
    }

    private func cells(_ row: Row) -> [String] {
        [
            row.id, row.object.owner ?? "(unknown)", row.object.name ?? "",
            row.object.hasEarlier ? "an earlier version" : "nothing", row.why.joined(separator: " | "),
        ]
    }
}
