import CLinux
import Pipeline
import PipelineHost
import PipelineLastGood
import PipelineRouting
import PipelineState

/// Where routes come from, beside `route` blocks: as the config says.
package enum RouteSource: Equatable, Sendable {
    case none
    case file(String)
    case push

    /// As last good and the journal have it.
    package var name: String {
        switch self {
        case .none: "none"
        case .file(let path): "file \(path)"
        case .push: "push"
        }
    }
}

/// Desired state of a running node with `state`: what is kept, where it comes from, and what is wrong in it.
///
/// Threading: the control thread.
package final class DesiredState {
    let kept: LastGood
    package internal(set) var source: RouteSource
    package private(set) var problems = ProblemList()
    /// Why the newest update of the source is not in force; nil: it is.
    package internal(set) var refusal: String?
    package internal(set) var held = HeldUpdates()
    /// Nil: no guard holds what its routes file says.
    package internal(set) var heldFile: HeldFile?
    /// Nil: a disk has all that is in force.
    package internal(set) var notDurable: NotDurable?
    /// Where a sender may think it is that goes on behind what the disk did not take; nil: the disk took the last update.
    var refusedPlace: LastUpdate?

    init(_ kept: LastGood, _ source: RouteSource) {
        self.kept = kept
        self.source = source
    }

    package var last: LastUpdate? { kept.last }
    package func count(_ kind: StateKind) -> Int { kept.count(kind) }
    package var otherwise: Int { kept.otherwise }
    package var directory: String { kept.directory }
    /// What the boot guard has set aside; nil: nothing.
    package var setAside: SetAside? { kept.setAside }
    /// In place of it.
    package var standing: String {
        last.map { "\($0.revision.map { "revision \($0)" } ?? "the state without a revision") from \($0.source)" }
            ?? "nothing, since no state before it is kept: routes of the config file alone"
    }
    /// Changes that the start did not find any more.
    package var losses: [String] { kept.losses }
    package var figures: StateStore.Figures { kept.figures }
    /// The next start need not read all (ADR 0116).
    package func hasTable(for routing: RoutingState) -> Bool { kept.hasTable(for: routing) }
    package var groupFigures: GroupFigures { kept.groupFigures }
    /// What is wrong with the store itself.
    package var storeProblem: String? {
        if let fault = kept.exposure ?? kept.filesFault ?? kept.fault { return fault.message }
        return kept.isOnReserve
            ? "\(kept.directory): the disk is full: changes are kept in the reserve, and refused once that is used up; make room"
            : nil
    }

    func note(_ report: ApplyReport) { problems.take(report) }

    private var lastHeld: UInt64 = 0

    /// `held-` and milliseconds since 1970, or more if that was given.
    func nextHeldID() -> String {
        lastHeld = max(lastHeld + 1, cl_wall_clock() / 1_000_000)
        return "held-\(lastHeld)"
    }

    /// When the store's files are looked at next.
    private(set) var nextLook = Instant(nanoseconds: 0)
    private static let lookPause = TimeSpan.seconds(1)

    /// - Returns: what is wrong with the store's files since, and can't be mended.
    func lookAtFiles(_ now: Instant) -> StateFault? {
        guard nextLook <= now else { return nil }
        nextLook = now + DesiredState.lookPause
        let fault = kept.lookAtFiles()
        kept.writeFromMemory()
        return fault
    }
}

/// What is wrong with objects, as far as the last changes that reached them said. Bounded.
package struct ProblemList {
    private static let limit = 1000
    fileprivate struct Named: Hashable {
        let object: String
        let id: String
    }
    private var lines: [Named: [String]] = [:]

    package func lines(of kind: StateKind, _ id: String) -> [String] { lines[Named(kind, id)] ?? [] }
    package var list: [String] {
        lines.sorted { ($0.key.object, $0.key.id) < ($1.key.object, $1.key.id) }.flatMap(\.value)
    }

    /// Replaces what is known of the objects that a run has decided about.
    mutating func take(_ report: ApplyReport) {
        if report.isWhole { lines = [:] }
        for (kind, objects) in report.applied {
            for id in objects.keys { lines[Named(kind, id)] = nil }
        }
        for problem in report.problems.list where problem.severity != .warning || lines.count < ProblemList.limit {
            guard lines.count < ProblemList.limit else { return }
            lines[Named(object: problem.object.rawValue, id: problem.id ?? ""), default: []].append("\(problem)")
        }
    }
}

extension ProblemList.Named {
    fileprivate init(_ kind: StateKind, _ id: String) { self.init(object: String(kind.list.dropLast()), id: id) }
}
