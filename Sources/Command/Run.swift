import ArgumentParser
import PipelineAdmin
import PipelineKeep
import PipelineNode

struct Run: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Run a node in the foreground.",
        discussion: """
            Compiles the config, opens every listener, and only then serves. If anything is wrong, every problem is \
            reported on standard error, and nothing is started.

            Standard output, or the file or daemon of `connection_log`, gets one JSON line for each connection that \
            ends. Standard error, or that of `event_log`, gets the node's own events, as JSON lines with an "event": \
            `ready` with the addresses that it listens on, `draining`, `stopped`. Under systemd (Type=notify) it sends READY=1 and STOPPING=1.

            SIGHUP: read the config and the state file again; a config that does not compile changes nothing.
            SIGUSR1: open log files again, as logrotate asks for.
            SIGTERM or SIGINT: stop accepting, wait for connections until `drain_timeout`, then reset them. A second \
            signal resets them at once.

            A restart refuses nobody where somebody keeps the listening sockets meanwhile: systemd with \
            FileDescriptorStoreMax=, or the small process that --keep puts in front. That one starts the node anew when \
            it ends by a signal, at once if it was ready, else after a pause, and gives up after 5 starts in a row \
            without success. It passes signals on, and ends with the node's exit code.

            EXAMPLES
              pipelined run config/ingress.pipeline
              pipelined run --keep config/ingress.pipeline
              pipelined run edge.pipeline | jq -r 'select(.event == "connection") | .reason' | sort | uniq -c
            """)

    @Argument(help: "The config file.", completion: .file())
    var config: String

    @Flag(help: "Keep the listening sockets in a process of their own, and start the node anew after a crash.")
    var keep = false

    func run() throws {
        let code =
            keep
            ? Keeper.run(["run", config])
            : Supervisor.run(config: config, filters: PipelinedCommand.filters, admin: AdminServer.self)
        if code != 0 { throw ExitCode(code) }
    }
}
