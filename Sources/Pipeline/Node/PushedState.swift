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
        if node.isEnding {
            return StateRefusal(UpdateRefusal.stopping.problem, remedy: UpdateRefusal.stopping.remedy)
        }
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
        let (update, problems) = StateUpdate.read(upload.bytes, keptBy: upload, as: .either, seed: desired.kept.seed)
        guard let update else {
            let fatal = problems.list.last { $0.severity == .fatal }
            let why = fatal.map { "\($0)" } ?? "it can't be read"
            record(push, "a push that can't be read", refused: why)
            return answer(ApplyAnswer(.refused, revision: desired.last?.revision, message: why))
        }
        take(
            .update(update, unread: problems), push, PushedUpdate(upload: upload, push: push), upload.length,
            answer)
    }

    func confirm(_ id: String, _ push: StatePush, answer: @escaping (ApplyAnswer) -> Void) {
        take(.confirm(id: id), push, nil, 0, answer)
    }

    func discard(_ id: String, _ push: StatePush, answer: @escaping (ApplyAnswer) -> Void) {
        take(.discard(id: id), push, nil, 0, answer)
    }

    private func take(
        _ subject: WaitingUpdate.Subject, _ push: StatePush, _ pushed: PushedUpdate?, _ bytes: Int,
        _ answer: @escaping (ApplyAnswer) -> Void
    ) {
        guard let updates = node.updates else {
            let stopping = UpdateRefusal.stopping
            return answer(ApplyAnswer(.refused(stopping, revision: nil)))
        }
        let sender = RunningNode.Sender(source: .push, peer: push.peer, way: "push")
        updates.take(
            WaitingUpdate(
                subject: subject, sender: sender, options: UpdateOptions(allowsOlder: push.isOlder), push: pushed,
                byteCount: bytes
            ) { answer(ApplyAnswer($0)) })
    }

    /// What comes no further than here has its line in the journal all the same (R25).
    private func record(_ push: StatePush, _ what: String, refused why: String) {
        var entry = JournalEntry(.rejected, source: RouteSource.push.name, what: what)
        entry.peer = push.peer
        entry.why = why
        node.record(entry)
    }

    // MARK: Export

    func export() throws(StateRefusal) -> any StatePieces {
        try desired.refuseSpoiled()
        return ExportedState(desired)
    }
}

extension ApplyAnswer {
    init(_ outcome: UpdateOutcome) {
        switch outcome {
        case .taken(let taken): self.init(taken)
        case .refused(let refusal, let revision):
            self.init(.refused, revision: revision, message: "\(refusal.problem); \(refusal.remedy)")
        case .held(let held?, let refusal, let revision):
            self.init(
                .held(id: held.id), revision: revision,
                message: "\(refusal.problem); nothing was changed; if that is meant, \(held.remedy)")
        case .held(nil, let refusal, let revision):
            self.init(.refused, revision: revision, message: "\(refusal.problem); \(refusal.remedy)")
        case .waits(let place, let revision):
            self.init(.held(id: place.head.id), revision: revision, message: place.message)
        case .partly(let count, let refusal, let isDurable, let revision):
            let standing =
                isDurable
                ? "and durable" : "and not durable: a restart before the disk has it serves them again"
            self.init(
                .partly(isDurable: isDurable), revision: revision,
                message: "what it takes away is in force, \(standing) (\(count) objects: not ready any more, "
                    + "suspended, or withdrawn); nothing else of it is: \(refusal.problem); \(refusal.remedy)")
        case .discarded(let held, let following, let revision):
            self.init(
                .discarded, revision: revision,
                message: "\(held.id) comes to nothing\(ApplyAnswer.text(following: following))")
        }
    }

    private static func text(following count: Int) -> String {
        count == 0 ? "" : "; \(count) that waited behind it follow, in order: see `pipelined status` and the journal"
    }

    private init(_ taken: TakenUpdate) {
        var problems = taken.unread
        problems.add(taken.report.problems)
        var message =
            taken.count == 0 ? "nothing was different" : "\(taken.count) objects: \(RunningNode.counts(taken.report))"
        if taken.isRevisionReused { message += "; its revision was used before, for other content" }
        message += ApplyAnswer.text(following: taken.following)
        self.init(
            problems.rejected > 0 ? .quarantined : .applied, revision: taken.revision, message: message,
            details: problems.list.map { "\($0)" })
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
