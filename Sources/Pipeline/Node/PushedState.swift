import CLinux
import Pipeline
import PipelineJournal
import PipelineLastGood
import PipelineRouting

/// The door of a node that keeps desired state: pushes where the config says so, and what is in force for everybody who
/// may read.
///
/// Threading: the control thread.
final class PushedState: StateDoor {
    private unowned let node: RunningNode
    private let desired: DesiredState

    init(_ node: RunningNode, _ desired: DesiredState) { (self.node, self.desired) = (node, desired) }

    var pushRefusal: StateRefusal? {
        if node.isStopping { return StateRefusal("this node is stopping", remedy: "push to the one that follows it") }
        switch desired.source {
        case .push: return nil
        case .file(let path):
            return StateRefusal(
                "the routes of this node come from \(path)",
                remedy: StateOfFiles.remedy(isWatched: node.routesWatch != nil))
        case .none:
            return StateRefusal(
                "the config of this node takes no routes but its own", remedy: "add `routes push`, and reload")
        }
    }

    // MARK: Pushes

    func apply(_ upload: StateUpload, _ push: StatePush, answer: @escaping (ApplyAnswer) -> Void) {
        answer(take(upload, push, UpdateOptions(allowsOlder: push.isOlder)))
    }

    func confirm(_ id: String, _ push: StatePush, answer: @escaping (ApplyAnswer) -> Void) {
        guard let held = desired.held, held.id == id else {
            let known = desired.held.map { "what is held is \($0.id)" } ?? "nothing is held"
            let why = "\(known): \(id) is not; it may have been applied, or replaced by another push"
            record(push, "a confirmation by push", refused: why)
            return answer(refused(why))
        }
        answer(take(held.upload, push, UpdateOptions(isConfirmed: true, allowsOlder: held.push.isOlder)))
    }

    /// What comes no further than here has its line in the journal all the same (R25).
    private func record(_ push: StatePush, _ what: String, refused why: String) {
        var entry = JournalEntry(.rejected, source: RouteSource.push.name, what: what)
        entry.peer = push.peer
        entry.why = why
        node.record(entry)
    }

    private func refused(_ message: String) -> ApplyAnswer {
        ApplyAnswer(.refused, revision: desired.last?.revision, message: message)
    }

    private func take(_ upload: StateUpload, _ push: StatePush, _ options: UpdateOptions) -> ApplyAnswer {
        let (update, problems) = StateUpdate.read(upload.bytes, keptBy: upload, as: .either, seed: desired.kept.seed)
        guard let update else {
            let fatal = problems.list.last { $0.severity == .fatal }
            let why = fatal.map { "\($0)" } ?? "it can't be read"
            record(push, "a push that can't be read", refused: why)
            return refused(why)
        }
        let sender = RunningNode.Sender(source: .push, peer: push.peer, way: "push")
        do throws(UpdateRefusal) {
            let taken = try node.take(update, sender, options)
            desired.held = nil
            return answer(taken, problems)
        } catch {
            guard error.isHeld else { return refused("\(error.problem); \(error.remedy)") }
            return hold(upload, push, error)
        }
    }

    private func answer(_ taken: RunningNode.TakenUpdate, _ unread: RouteProblems) -> ApplyAnswer {
        var problems = unread
        problems.add(taken.report.problems)
        var message =
            taken.count == 0 ? "nothing was different" : "\(taken.count) objects: \(RunningNode.counts(taken.report))"
        if taken.isRevisionReused { message += "; its revision was used before, for other content" }
        return ApplyAnswer(
            problems.rejected > 0 ? .quarantined : .applied, revision: desired.last?.revision, message: message,
            details: problems.list.map { "\($0)" })
    }

    /// One is held at a time: the newest says what is meant.
    private func hold(_ upload: StateUpload, _ push: StatePush, _ refusal: UpdateRefusal) -> ApplyAnswer {
        let id = "held-\(cl_wall_clock() / 1_000_000)"
        desired.held = HeldUpdate(id: id, upload: upload, push: push, why: refusal.problem)
        node.log.say(
            "state_held",
            "\(refusal.problem): nothing was changed; if that is meant, run `pipelined apply --confirm \(id)`")
        return ApplyAnswer(
            .held(id: id), revision: desired.last?.revision,
            message: "\(refusal.problem); nothing was changed; if that is meant, run `pipelined apply --confirm \(id)`")
    }

    // MARK: Export

    func export() throws(StateRefusal) -> any StatePieces {
        try desired.refuseSpoiled()
        return ExportedState(desired)
    }
}

/// What is in force, as a document, a page at a time.
private final class ExportedState: StatePieces {
    private static let page = 2000

    private let desired: DesiredState
    private let began: LastUpdate?
    private var export: StateExport
    private var kinds = StateKind.allCases
    private var behind: [UInt8]?

    init(_ desired: DesiredState) {
        self.desired = desired
        began = desired.last
        export = StateExport(revision: desired.last?.revision, actor: desired.last?.actor ?? "")
    }

    func next() throws(StateRefusal) -> [UInt8] {
        guard desired.last == began else {
            throw StateRefusal("desired state has changed meanwhile", remedy: "export it again")
        }
        while let kind = kinds.first {
            behind = desired.kept.page(kind, behind: behind, count: ExportedState.page) { _ = export.add(kind, $0) }
            if behind == nil {
                kinds.removeFirst()
                if kinds.isEmpty { export.end() }
            }
            if export.count > 0, behind != nil || kinds.isEmpty { break }
        }
        // What was read just now may be what was lost.
        try desired.refuseSpoiled()
        return export.take()
    }
}

extension DesiredState {
    fileprivate func refuseSpoiled() throws(StateRefusal) {
        guard let fault = kept.spoiled else { return }
        throw StateRefusal("what is in force can't be read any more: \(fault.message)", remedy: "push a whole document")
    }
}
