import CLinux
import Pipeline
import PipelineAlerts
import PipelineInspect
import PipelineJournal
import PipelineNode
import PipelineRouting
import PipelineRuntime
import PipelineText

/// Answers requests of the admin socket from the running node. Every answer is one JSON document with a line break; an
/// error has `error` and `remedy` in it. As text, the first line is an exit code, followed by a table.
///
/// Threading: the control thread.
struct AdminCommands {
    let node: RunningNode
    let manager: ServiceManager
    /// Moves the admin server to another path, and returns it; nil: it can't.
    let giveWay: () -> String?
    let uploads: UploadRoom

    func answer(_ line: [UInt8], from peer: AdminPeer) -> AdminResponse {
        do throws(AdminRequest.Fault) {
            let request = try AdminRequest(line)
            if let change = request.command.change, !peer.mayChange { return refuse(change, peer) }
            switch request.command {
            case .status: return StatusReport(node).response(isText: request.isText)
            case .routes(let filter): return routes(filter, isText: request.isText)
            case .backends(let filter): return backends(filter, isText: request.isText)
            case .reload(let isConfirmed, let way):
                return ReloadCommand(node: node, manager: manager, peer: peer)
                    .answer(isConfirmed: isConfirmed, way, isText: request.isText)
            case .explain(let question): return explain(question, isText: request.isText)
            case .top(let question): return top(question, isText: request.isText)
            case .handOver: return handOver(isText: request.isText, peer)
            case .planGround:
                let export = PlanGroundExport(node)
                return AdminResponse(export.head) { export.next() }
            case .apply, .confirm, .discard, .exportState:
                return StateCommands(door: node.stateDoor, uploads: uploads, peer: peer).answer(request)
            }
        } catch {
            return AdminResponse(AdminResponse.failure(error.problem, error.remedy))
        }
    }

    private func routes(_ filter: ReportFilter, isText: Bool) -> AdminResponse {
        guard !filter.isQuarantine else { return QuarantineReport.response(node, .route, filter, isText: isText) }
        return RoutesReport(node.routing.snapshot, filter).response(isText: isText)
    }

    private func backends(_ filter: ReportFilter, isText: Bool) -> AdminResponse {
        guard !filter.isQuarantine else { return QuarantineReport.response(node, .instance, filter, isText: isText) }
        return BackendsReport(node.routing.snapshot, leaving: node.routing.leavingBackends, filter)
            .response(isText: isText)
    }

    private func refuse(_ change: String, _ peer: AdminPeer) -> AdminResponse {
        let (problem, remedy) = peer.refusal(of: change)
        var entry = JournalEntry(.rejected, source: "admin", what: change)
        entry.peer = peer.named
        entry.why = problem
        node.record(entry)
        return AdminResponse(AdminResponse.failure(problem, remedy))
    }

    // MARK: Small commands

    /// Another node starts while this one drains: it takes over the admin socket's path, and the counting of conntrack.
    private func handOver(isText: Bool, _ peer: AdminPeer) -> AdminResponse {
        guard node.isEnding else {
            return AdminResponse(
                AdminResponse.failure(
                    "this node is not stopping, so it hands nothing over",
                    "stop it first, so that "
                        + "it drains"))
        }
        guard let path = giveWay() else {
            return AdminResponse(
                AdminResponse.failure(
                    "the admin socket can't be renamed",
                    "start the new node once this one has "
                        + "ended"))
        }
        var entry = JournalEntry(.admin, source: "admin", what: "hand_over: another node starts here")
        entry.peer = peer.named
        entry.why = "this one drains, and answers at \(path)"
        node.record(entry)
        node.flows.endConntrack()
        node.log.say("handed_over", "another node starts here: this one answers at \(path) until its connections end") {
            $0.field("connections", node.fleet.total(.active))
        }
        guard !isText else { return AdminResponse.text("handed over: this node answers at \(path) now\n") }
        var line = JSONLine()
        line.open()
        line.field("outcome", "handed_over")
        line.field("admin", path)
        line.close()
        line.newline()
        return AdminResponse(line.bytes)
    }

    private func explain(_ question: Explainer.Question, isText: Bool) -> AdminResponse {
        let explainer = Explainer(node.program, node.routing.snapshot, node.openListeners, isRunning: true)
        var explanation = explainer.explain(question)
        explanation.note(RunningLimits(node))
        guard !isText else {
            return AdminResponse.text(explanation.text, exit: explanation.outcome == .relayed ? 0 : 1)
        }
        return AdminResponse(Array((explanation.json + "\n").utf8))
    }

    private func top(_ question: TopQuestion, isText: Bool) -> AdminResponse {
        guard node.program.capabilities.contains(.recordsFlows) else {
            return AdminResponse(
                AdminResponse.failure(
                    "no pipeline of this node records flows", "write `account every 5s` in a pipeline, and reload"))
        }
        let (now, watch, name) = (cl_wall_clock(), node.flowWatch, node.program.node.name)
        var tally = watch.tally(question, now: now)
        return AdminResponse(preparing: { until in
            guard tally.advance(until: until, watch.names) else { return nil }
            let report = TopReport(tally)
            if let (problem, remedy) = report.fault { return AdminResponse(AdminResponse.failure(problem, remedy)) }
            return isText
                ? AdminResponse.text(report.text(node: name, now: now)) : AdminResponse(report.json(now: now))
        })
    }
}
