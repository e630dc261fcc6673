import ArgumentParser
import Pipeline
import PipelineAdmin
import Synchronization

/// The daemon and its tools, for a `main` that lists their filters.
public enum PipelinedCommand {
    private static let chosen = Mutex<[any Filter.Type]>([])

    /// This build's filters. Global, because the argument parser creates the subcommands without context.
    static var filters: [any Filter.Type] { chosen.withLock { $0 } }

    /// Runs the command of the process's arguments, and ends the process.
    /// - Parameter filters: their order determines reason codes: add at the end, never reorder.
    public static func main(filters: [any Filter.Type]) {
        chosen.withLock { $0 = filters }
        Pipelined.runAsRoot()
    }
}

struct Pipelined: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pipelined",
        abstract: "A layer 4 edge: relays TCP and TLS by address, port and server name.",
        discussion: """
            EXAMPLES
              pipelined check edge.pipeline            compile a config, and report every problem
              pipelined run edge.pipeline              run a node in the foreground
              pipelined explain edge.pipeline --to [2001:db8::1]:443 --from [2001:db8::9]:40000 --sni app.example.com

            EXIT CODES
              0  fine
              1  the input is wrong: a config, a state file, bytes
              2  wrong usage
              3  the node can't be reached
              4  a change is held (apply), or would change who has a name, port or address (plan)
              5  applied, but for objects that are quarantined (apply)
            """,
        version: Version.text,
        subcommands: [
            Run.self, Check.self, Format.self, Explain.self, Plan.self, DecodeCommand.self, Status.self, Routes.self,
            Backends.self, Top.self, Reload.self, Apply.self, State.self, Audit.self, Egress.self,
        ])

    /// The parser's own code for wrong usage is 64; ours is 2, as for most tools.
    static func runAsRoot() {
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch {
            let code = exitCode(for: error)
            let message = fullMessage(for: error)
            if code == .success {
                if !message.isEmpty { Output.line(message) }
                Output.exit(.success)
            }
            if !message.isEmpty { Output.error(message) }
            Output.exit(code == .validationFailure ? ExitCode(2) : code)
        }
    }
}

extension ExitCode {
    /// The input is wrong, and the error was printed.
    static let wrongInput = ExitCode(1)
    /// The rules of an egress node are not in force.
    static let notInForce = ExitCode(1)
}
