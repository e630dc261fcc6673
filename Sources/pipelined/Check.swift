import ArgumentParser
import PipelineControl
import PipelineLanguage

struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Compile a config and its routes, and say all that is wrong.",
        discussion: """
            Exit code 1 if there are errors: `run` would start nothing. Warnings leave it 0; among them are objects of \
            the state file that would be left out.

            EXAMPLES
              pipelined check edge.pipeline
              pipelined check --print edge.pipeline        stages, peek budgets, listeners, as compiled
              pipelined check --json edge.pipeline | jq '.diagnostics[] | "\\(.line): \\(.message)"'
            """)

    @Argument(help: "The config file.", completion: .file())
    var config: String

    @Flag(help: "Diagnostics as one JSON object, on standard output.")
    var json = false

    @Flag(help: "Also print the compiled program, on standard output.")
    var print = false

    func validate() throws {
        if json && print { throw ValidationError("--json and --print can't be used together: choose one.") }
    }

    func run() throws {
        let text = try Output.read(config, limit: SourceText.limit)
        let loaded = ConfigLoader.load(text, file: config)
        if json { Output.line(loaded.diagnosticJSON) } else { Output.errorText(loaded.diagnosticText) }
        guard let node = loaded.node else { throw ExitCode.wrongInput }
        if print {
            Output.text(describe(node.program) + describe(loaded.compilation.routes))
        } else if !json {
            Output.line(
                "\(config): fine: \(node.program.chains.count) pipelines, \(node.listeners.count) listeners, "
                    + "\(node.routes.routeCount) routes")
        }
    }
}
