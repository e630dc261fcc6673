import CLinux
import Pipeline
import PipelineNode
import PipelineRouting
import PipelineText

/// What a reload does with a config that has `canary` (R29).
package enum ReloadWay: Sendable, Equatable {
    case asConfigured
    /// Everywhere at once.
    case now
    /// Nothing is read: the canary that runs ends.
    case rollback

    init(_ fields: FlatJSON) throws(AdminRequest.Fault) {
        switch (try fields.flag("now"), try fields.flag("rollback")) {
        case (false, false): self = .asConfigured
        case (true, false): self = .now
        case (false, true): self = .rollback
        case (true, true):
            throw AdminRequest.Fault(
                problem: "now and rollback are both true", remedy: "send one of them, or neither")
        }
    }

    func write(_ line: inout JSONLine) {
        switch self {
        case .asConfigured: break
        case .now: line.field("now", true)
        case .rollback: line.field("rollback", true)
        }
    }
}

extension FlatJSON {
    /// False if it is not there.
    func flag(_ name: String) throws(AdminRequest.Fault) -> Bool {
        switch self[name] {
        case nil: return false
        case .bool(let isSet)?: return isSet
        default:
            throw AdminRequest.Fault(problem: "\(name) is not a bool", remedy: "write true or false, or leave it out")
        }
    }
}

/// `reload`, in its three ways.
struct ReloadCommand {
    let node: RunningNode
    let manager: ServiceManager
    let peer: AdminPeer

    /// Differences from the config file.
    private var afterReload: [String] { node.problems + StatusReport.unapplied(node.awaitingStart) }

    /// Behind the updates that wait.
    func answer(isConfirmed: Bool, _ way: ReloadWay, isText: Bool) -> AdminResponse {
        AdminResponse(receiving: nil) { [self] respond in
            node.afterUpdates { respond(done(isConfirmed: isConfirmed, way, isText: isText)) }
        }
    }

    private func done(isConfirmed: Bool, _ way: ReloadWay, isText: Bool) -> AdminResponse {
        switch way {
        case .rollback:
            let refusal = node.rollBackCanary(by: "admin", peer.named)
            return answer(refusal, done: "rolled_back", "rolled back: the canary is over", isText: isText)
        case .asConfigured, .now:
            let options = ReloadOptions(isConfirmed: isConfirmed, skipsCanary: way == .now)
            let before = node.canary
            let refusal = node.reload(by: "admin", peer.named, options, manager)
            let begun = node.canary.map {
                "reloaded: canary of \($0.settings.text) \($0 === before ? "goes on" : "begun")"
            }
            return answer(refusal, done: "reloaded", begun ?? "reloaded", isText: isText)
        }
    }

    private func answer(_ refusal: ReloadRefusal?, done: String, _ words: String, isText: Bool) -> AdminResponse {
        if isText {
            guard let refusal else {
                let problems = afterReload.map { "  \($0)\n" }.joined()
                return AdminResponse.text(
                    "\(words): generation \(node.fleet.snapshots.newest), \(node.routeCount) routes\n" + problems)
            }
            let details = refusal.details.map { "  \($0)\n" }.joined()
            return AdminResponse.text("refused: \(refusal.message): nothing was changed\n" + details, exit: 1)
        }
        var line = JSONLine()
        line.open()
        line.field("outcome", refusal == nil ? done : "refused")
        line.field("message", refusal?.message)
        line.field("generation", node.fleet.snapshots.newest)
        line.field("routes", node.routeCount)
        line.field("canary", node.canary?.settings.text)
        line.list("diagnostics", refusal?.details ?? afterReload) { $0.string($1) }
        line.close()
        line.newline()
        return AdminResponse(line.bytes)
    }
}
