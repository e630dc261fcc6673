import ArgumentParser
import PipelineLanguage
import PipelineNode

struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Compile a config and its routes, and report every problem.",
        discussion: """
            Exit code 1 if there are errors: `run` would start nothing. Warnings leave it 0. Objects of the state \
            file that would be left out are warnings; with --strict they make it 1 too, which suits a release \
            pipeline.

            Of a node with `state` the last good state says who had a name; if it can't be read, or there is none, \
            routes are judged as at a first start, where names that several envs ask for are served for nobody unless \
            `hostnames` says whose they are: each is listed. Nothing in that directory is changed.

            EXAMPLES
              pipelined check edge.pipeline
              pipelined check --print edge.pipeline        all settings, stages, peek budgets, listeners, as compiled
              pipelined check a.pipeline b.pipeline        several nodes' configs; exit code 1 if one has errors
              pipelined check --strict edge.pipeline       also fails if an object would be left out
              pipelined check --json edge.pipeline | jq '.diagnostics[] | "\\(.line): \\(.message)"'
            """)

    @Argument(help: "The config files, each checked by itself.", completion: .file())
    var configs: [String]

    @Flag(help: "Diagnostics as one JSON object, on standard output.")
    var json = false

    @Flag(help: "Also print the compiled program, on standard output.")
    var print = false

    @Flag(help: "Also exit with code 1 if an object of desired state would be left out.")
    var strict = false

    func validate() throws {
        if json && print { throw ValidationError("--json and --print can't be used together: choose one.") }
    }

    func run() throws { try Output.each(configs, check) }

    private func check(_ config: String) throws {
        let text = try Output.read(config, limit: SourceText.limit)
        let loaded = ConfigLoader.check(text, file: config, filters: PipelinedCommand.filters)
        if json { Output.line(loaded.diagnosticJSON) } else { Output.errorText(loaded.diagnosticText) }
        guard let node = loaded.node else { throw ExitCode.wrongInput }
        let leftOut = loaded.leftOut > 0 ? ", \(loaded.leftOut) objects left out" : ""
        if print {
            Output.text(describe(node.program, from: loaded.compilation))
        } else if !json {
            Output.line(
                "\(config): \(strict && loaded.leftOut > 0 ? "not fine" : "fine"): \(node.program.chains.count) pipelines, "
                    + "\(node.listeners.count) listeners, \(node.routes.routeCount) routes\(leftOut)")
        }
        if strict, loaded.leftOut > 0 { throw ExitCode.wrongInput }
    }
}
