import CLinux
import Pipeline
import PipelineNode
import PipelineRuntime
import PipelineText

/// The memory for uploads: small ones cost no more than any request; of large ones there is one at a time (R27).
final class UploadRoom {
    /// As long as someone has it.
    private weak var large: StateUpload?

    func make(_ length: Int) throws(StateRefusal) -> StateUpload {
        let isLarge = length > AdminServer.requestLimit
        // What waits for an operator is in nobody's way.
        guard !isLarge || large?.isPending != true else {
            throw StateRefusal("another large document is being received or applied", remedy: "try again in a moment")
        }
        guard let upload = StateUpload(length: length) else {
            throw StateRefusal(
                "there is not enough memory for \(length) bytes", remedy: "give the process more, or push less at once")
        }
        if isLarge { large = upload }
        return upload
    }
}

/// `apply` and `export_state`: what goes between a client and the node's ``StateDoor``.
///
/// Threading: the control thread.
struct StateCommands {
    let door: any StateDoor
    let uploads: UploadRoom
    let peer: AdminPeer

    func answer(_ request: AdminRequest) -> AdminResponse {
        do throws(StateRefusal) {
            switch request.command {
            case .apply(let length, let isOlder, goesOn: true):
                return AdminResponse(stream: PushStream(door, uploads, peer, length: length, isOlder: isOlder))
            case .apply(let length, let isOlder, goesOn: false):
                return try apply(length, isOlder, isText: request.isText)
            case .confirm(let id): return try decide(isText: request.isText) { $0.confirm(id, $1, answer: $2) }
            case .discard(let id): return try decide(isText: request.isText) { $0.discard(id, $1, answer: $2) }
            default: return try export(isText: request.isText)
            }
        } catch {
            return AdminResponse(AdminResponse.failure(error.problem, error.remedy))
        }
    }

    private func push(isOlder: Bool) throws(StateRefusal) -> StatePush {
        if let refusal = door.pushRefusal { throw refusal }
        return StatePush(peer: peer.named, isOlder: isOlder)
    }

    private func apply(_ length: Int, _ isOlder: Bool, isText: Bool) throws(StateRefusal) -> AdminResponse {
        let push = try push(isOlder: isOlder)
        let upload = try uploads.make(length)
        return AdminResponse(receiving: upload) { [door] respond in
            door.apply(upload, push) { respond(AdminResponse($0, isText: isText)) }
        }
    }

    /// About what is held.
    private func decide(
        isText: Bool, _ act: @escaping (any StateDoor, StatePush, @escaping (ApplyAnswer) -> Void) -> Void
    ) throws(StateRefusal) -> AdminResponse {
        let push = try push(isOlder: false)
        return AdminResponse(receiving: nil) { [door] respond in
            act(door, push) { respond(AdminResponse($0, isText: isText)) }
        }
    }

    /// A document that breaks off has no line break at its end, by which the client knows.
    private func export(isText: Bool) throws(StateRefusal) -> AdminResponse {
        let pieces = try door.export()
        let first = isText ? Array("0\n".utf8) : []
        return AdminResponse(first + (try pieces.next())) {
            guard let piece = try? pieces.next(), !piece.isEmpty else { return nil }
            return piece
        }
    }
}

extension AdminResponse {
    init(_ answer: ApplyAnswer, isText: Bool) {
        let (word, exit, id): (String, Int32, String?) =
            switch answer.outcome {
            case .applied: ("applied", 0, nil)
            case .quarantined: ("quarantined", ApplyAnswer.exitQuarantined, nil)
            case .held(let id): ("held", ApplyAnswer.exitHeld, id)
            case .discarded: ("discarded", 0, nil)
            case .partly: ("taken_away", ApplyAnswer.exitPartly, nil)
            case .refused: ("refused", 1, nil)
            }
        let shown = answer.details.prefix(ApplyAnswer.shownDetails)
        let omitted = answer.details.count - shown.count
        guard !isText else {
            let name = word == "taken_away" ? "taken away" : word
            var text = "\(name)\(id.map { " as \($0)" } ?? ""): \(answer.message)\n"
            for detail in shown { text += "  \(TextTable.harmless(detail))\n" }
            if omitted > 0 { text += "  and \(omitted) more\n" }
            self = AdminResponse.text(text, exit: Int(exit))
            return
        }
        var line = JSONLine()
        line.open()
        line.field("outcome", word)
        if let id { line.field("id", id) }
        if case .partly(let isDurable) = answer.outcome { line.field("durable", isDurable) }
        if let revision = answer.revision { line.field("revision", revision) }
        line.field("message", answer.message)
        line.list("details", shown) { $0.string($1) }
        line.field("omitted", omitted)
        line.close()
        line.newline()
        self.init(line.bytes)
    }
}
