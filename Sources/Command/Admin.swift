import ArgumentParser
import Pipeline
import PipelineAdmin

/// What the subcommands about a running node have in common.
struct AdminOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The node's admin socket.", valueName: "socket"), completion: .file())
    var admin = NodeSettings.usualAdminSocket

    @Flag(help: "One JSON document, for programs.")
    var json = false

    /// Prints the answer and ends with its exit code.
    /// - Parameters:
    ///   - body: what follows the request.
    ///   - errors: where a refusal in words goes.
    func ask(_ command: AdminRequest.Command, body: [UInt8] = [], errorsTo errors: Int32 = 1) throws {
        try AdminOptions.ask(AdminRequest(command, isText: !json), body: body, at: admin, errorsTo: errors)
    }

    static func ask(
        _ request: AdminRequest, body: [UInt8] = [], at socket: String, errorsTo errors: Int32 = 1
    ) throws {
        let answer: AdminConnection.Answer
        do throws(AdminConnection.Unreachable) {
            answer = try AdminConnection.ask(request, body: body, at: socket)
        } catch {
            Output.error("error: \(error)")
            throw ExitCode.unreachable
        }
        Output.write(answer.bytes, to: answer.isError ? errors : 1)
        if answer.exit != 0 { throw ExitCode(answer.exit) }
    }
}

extension ExitCode {
    /// The node can't be reached.
    static let unreachable = ExitCode(3)
}

struct Status: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "What a running node does: workers, listeners, reasons.",
        discussion: """
            EXAMPLES
              pipelined status
              pipelined status --json | jq '.listeners[] | select(.status == "degraded")'
            """)
    @OptionGroup var options: AdminOptions
    func run() throws { try options.ask(.status) }
}

/// Which rows are asked for.
struct FilterOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Only those of an org, an app or an env.", valueName: "org[/app[/env]]"))
    var owner: String?

    @Option(
        help: ArgumentHelp(
            "Only those in a state: up, down, quarantined; routes also empty, mismatch; backends also draining, gone."))
    var state: String?

    @Option(help: "Only those with this in an id, a name, an address or the owner, whatever its case.")
    var text: String?

    func filter(_ states: [ReportFilter.State]) throws -> ReportFilter {
        let known = state.flatMap { name in states.first { $0.rawValue == name } }
        guard state == nil || known != nil else {
            throw ValidationError("--state is one of " + states.map(\.rawValue).joined(separator: ", "))
        }
        return ReportFilter(owner: owner, state: known, text: text)
    }
}

struct Routes: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "The routes of a running node, with what happens on each.",
        discussion: """
            BACKENDS is eligible / ready. PROXY says whether the backends take this node's PROXY header: off, \
            unknown, accepted or rejected.

            EXAMPLES
              pipelined routes
              pipelined routes --owner acme/shop --state down
              pipelined routes --state quarantined --text foo.example.com
              pipelined routes --json | jq -r '.routes[] | select(.proxy == "rejected") | .id'
            """)
    @OptionGroup var options: AdminOptions
    @OptionGroup var filter: FilterOptions
    func run() throws { try options.ask(.routes(try filter.filter(ReportFilter.State.ofRoutes))) }
}

struct Backends: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "The backends of a running node: connections, failures, probes, ejections.",
        discussion: """
            EXAMPLES
              pipelined backends
              pipelined backends --state down
              pipelined backends --json | jq '.backends[] | select(.eligible | not)'
            """)
    @OptionGroup var options: AdminOptions
    @OptionGroup var filter: FilterOptions
    func run() throws { try options.ask(.backends(try filter.filter(ReportFilter.State.ofBackends))) }
}

struct Reload: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make a running node read its config and its state file again.",
        discussion: """
            The same as SIGHUP, with an answer. A config that does not compile changes nothing: the answer says why, \
            and the exit code is 1. Established connections go on.

            Refused without --confirm, as a likely mistake: a state file whose three lists are empty while routes \
            are served, or with a lower revision than the applied one; a `route file` that is empty or has lost more \
            than half of its names; an `include` pattern that matches no file any more; a config without listeners; the \
            program of a canary that was rolled back.

            With `canary N% for T` in `node`, a new program takes that share of new connections first: the answer says \
            so, and `status` how it goes.

            EXAMPLES
              pipelined reload
              pipelined reload --now
              pipelined reload --admin /run/pipelined/edge.sock
            """)
    @OptionGroup var options: AdminOptions

    @Flag(help: "Apply what would be refused as a likely mistake.")
    var confirm = false

    @Flag(help: "Everywhere at once, without a canary; a canary that runs goes everywhere.")
    var now = false

    @Flag(help: "Read nothing: end the canary that runs, as its node would.")
    var rollback = false

    func validate() throws {
        if rollback, now || confirm { throw ValidationError("--rollback stands alone: it reads nothing.") }
    }

    func run() throws {
        try options.ask(.reload(isConfirmed: confirm, way: rollback ? .rollback : now ? .now : .asConfigured))
    }
}
