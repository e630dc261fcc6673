import ArgumentParser
import Pipeline
import PipelineAdmin
import PipelineHost
import PipelineLanguage
import PipelineNode

struct Plan: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Say what a new config, document or change would do, before it does.",
        discussion: """
            Applies NEW in memory to what CONFIG and its last good state make, with the code of a running node, and \
            compares: names that another env would get or nobody, routes, backends, listeners, pipelines, settings, \
            what a guard would hold. NEW is a config file, or a document or change of desired state. Nothing is changed.

            With --admin the base is what a running node has now, and live connections that a change touches are \
            counted. CONFIG may then be left out: it is the node's own.

            Exit code 4 if a name, port or address would change hands, else 0; 1 if something is wrong with CONFIG or \
            NEW, or if NEW would be refused; 3 if the node can't be reached.

            EXAMPLES
              pipelined plan edge.pipeline edge-new.pipeline       in a release pipeline: exit code 4 stops it
              pipelined plan edge.pipeline state.json
              pipelined plan --admin /run/pipelined/admin.sock change.json
              pipelined plan edge.pipeline state.json --json | jq '.changes[] | select(.kind == "ownership")'
            """)

    @Argument(
        help: "CONFIG, what there is, and NEW, what is to come; with --admin NEW alone is enough.", completion: .file())
    var files: [String]

    @Option(
        help: ArgumentHelp("The running node's admin socket: begin from what it has.", valueName: "socket"),
        completion: .file())
    var admin: String?

    @Flag(help: "One JSON object.")
    var json = false

    func validate() throws {
        guard (admin == nil ? 2...2 : 1...2).contains(files.count) else {
            throw ValidationError(
                admin == nil
                    ? "Give CONFIG and NEW; with --admin, NEW alone is enough." : "Give NEW, or CONFIG and NEW.")
        }
    }

    func run() throws {
        let ground = try admin.map(Plan.ask)
        let config = files.count == 2 ? files[0] : ground?.config ?? ""
        let text = try Output.read(config, limit: SourceText.limit)
        let new = try Output.read(files[files.count - 1], limit: ConfigLoader.stateFileLimit)
        let (base, loaded) = PlanBase.load(
            text, file: config, filters: PipelinedCommand.filters, kept: ground?.kept)
        guard let base else {
            Output.errorText(loaded.diagnosticText)
            Output.error("error: \(config) has errors: there is nothing to plan from")
            throw ExitCode.wrongInput
        }
        if let ground {
            base.live = ground.live
            for remark in ground.remarks(on: base) { base.note(remark) }
        }
        try show(try plan(base, new, files[files.count - 1]))
    }

    private func plan(_ base: PlanBase, _ new: [UInt8], _ file: String) throws -> NodePlan {
        do throws(PlanFailure) {
            // No config begins with a brace.
            let isState = new.first { ![0x20, 0x09, 0x0A, 0x0D].contains($0) } == UInt8(ascii: "{")
            if isState { return try base.plan(state: new, file: file) }
            guard new.count <= SourceText.limit else {
                throw .refused("\(file) is longer than a config may be, and is no JSON")
            }
            return try base.plan(config: new, file: file)
        } catch {
            switch error {
            case .config(let compilation):
                Output.errorText(render(compilation.diagnostics, source: compilation.source))
                Output.error("error: \(file) has errors: a reload would refuse it")
            case .refused(let why): Output.error("error: it would be refused: \(why)")
            }
            throw ExitCode.wrongInput
        }
    }

    private func show(_ plan: NodePlan) throws {
        if json { Output.line(plan.json) } else { Output.text(plan.text) }
        if plan.ownershipChanges > 0 { throw ExitCode.changesHands }
    }

    private static func ask(_ socket: String) throws -> PlanGround {
        let answer: AdminConnection.Answer
        do throws(AdminConnection.Unreachable) {
            answer = try AdminConnection.ask(AdminRequest(.planGround, isText: false), at: socket)
        } catch {
            Output.error("error: \(error)")
            throw ExitCode.unreachable
        }
        guard answer.exit == 0 else {
            Output.write(answer.bytes, to: 2)
            throw ExitCode.unreachable
        }
        do throws(PlanGround.Fault) {
            return try PlanGround(answer.bytes)
        } catch {
            Output.error("error: the node at \(socket) can't be planned for: \(error.text)")
            throw ExitCode.unreachable
        }
    }
}

extension ExitCode {
    /// A name, port or address would change hands.
    static let changesHands = ExitCode(4)
}
