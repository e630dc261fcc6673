import ArgumentParser
import PipelineHost
import PipelineLanguage

struct Format: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fmt",
        abstract: "Format a config.",
        discussion: """
            Rewrites the file atomically if it is not formatted yet, and prints its name. `-` reads standard input \
            and writes standard output. A file that does not parse is left as it is.

            EXAMPLES
              pipelined fmt edge.pipeline
              pipelined fmt conf.d/*.pipeline
              pipelined fmt --check edge.pipeline    exit code 1 if it would change
              pipelined fmt - < edge.pipeline
            """)

    @Argument(help: "The config files, or - for standard input.", completion: .file())
    var configs: [String]

    @Flag(help: "Change nothing; if the file is not formatted, print its name and exit with code 1.")
    var check = false

    func run() throws { try Output.each(configs, format) }

    private func format(_ config: String) throws {
        let text = try Output.read(config, limit: SourceText.limit + 1)
        let name = config == "-" ? "standard input" : config
        let (formatted, diagnostics) = PipelineLanguage.format(
            text, file: name, catalog: PipelinedCommand.filters)
        guard let formatted else {
            Output.errorText(render(diagnostics, source: SourceText(file: name, bytes: text)))
            throw ExitCode.wrongInput
        }
        let bytes = Array(formatted.utf8)
        if check {
            guard bytes == text else {
                Output.line("\(name) is not formatted: run `pipelined fmt \(config)`")
                throw ExitCode.wrongInput
            }
        } else if config == "-" {
            Output.write(bytes)
        } else if bytes != text {
            try replace(config, bytes)
        }
    }

    private func replace(_ config: String, _ bytes: [UInt8]) throws {
        do throws(FileError) {
            try Files.replace(config, with: bytes)
            Output.line(config)
        } catch {
            Output.error("error: \(error)")
            throw ExitCode.wrongInput
        }
    }
}
