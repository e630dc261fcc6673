import ArgumentParser
import PipelineAdmin
import PipelineNode

struct Run: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Run a node in the foreground.",
        discussion: """
            Compiles the config, opens every listener, and only then serves. If anything is wrong, all of it is said on \
            standard error, and nothing is started.

            One JSON line for each ended connection goes to standard output. Standard error carries what the node says \
            of itself, as JSON lines with an "event": `ready` with the addresses that it listens on, `draining`, \
            `stopped`. Under systemd (Type=notify) it says READY=1 and STOPPING=1.

            SIGHUP: read the config and the state file again; what does not compile changes nothing.
            SIGTERM or SIGINT: accept no more, wait for connections until `drain_timeout`, then reset them. A second \
            one ends at once.

            EXAMPLES
              pipelined run config/ingress.pipeline
              pipelined run edge.pipeline | jq -r 'select(.event == "connection") | .reason' | sort | uniq -c
            """)

    @Argument(help: "The config file.", completion: .file())
    var config: String

    func run() throws {
        let code = Supervisor.run(config: config, filters: PipelinedCommand.filters, admin: AdminServer.self)
        if code != 0 { throw ExitCode(code) }
    }
}
