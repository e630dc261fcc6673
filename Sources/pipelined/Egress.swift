import ArgumentParser
import Pipeline
import PipelineControl
import PipelineLanguage

struct Egress: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "What an egress node needs besides the daemon.", subcommands: [Rules.self, EgressReport.self])

    struct Rules: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "The firewall and routing rules that bring workloads' connections to a config's listeners.",
            discussion: """
                Prints them as a shell script. --apply puts them in force (again): nftables in one transaction, in the \
                table `inet pipelined`, and a routing table and rule of their own. --remove takes them back. Rules of \
                others are left alone. Both need CAP_NET_ADMIN, and can be repeated.

                EXAMPLES
                  pipelined egress rules egress.pipeline                  look at them
                  pipelined egress rules egress.pipeline --apply          after the node is ready
                  pipelined egress rules egress.pipeline --remove         before it stops for good
                """)

        @Argument(help: "The config file.", completion: .file())
        var config: String

        @Flag(help: "Put them in force.")
        var apply = false

        @Flag(help: "Take them back.")
        var remove = false

        func validate() throws {
            if apply && remove { throw ValidationError("--apply and --remove can't be used together: choose one.") }
        }

        func run() throws {
            let text = try Output.read(config, limit: SourceText.limit)
            let loaded = ConfigLoader.load(text, file: config)
            guard let node = loaded.node else {
                Output.errorText(loaded.diagnosticText)
                throw ExitCode.wrongInput
            }
            do {
                if remove { return try takeBack(node.program) }
                let rules = try EgressRules(node.program)
                if apply { try putInForce(rules) } else { Output.text(rules.script) }
            } catch {
                Output.error("error: \(error)")
                throw ExitCode.wrongInput
            }
        }

        /// Routes first: a packet is never marked before there is somewhere to go.
        private func putInForce(_ rules: EgressRules) throws {
            for step in rules.routing {
                if let question = step.isDoneIfThisPrints, try !Tool.run(question).isEmpty { continue }
                try Tool.run(step.command)
            }
            try Tool.run(["nft", "-f", "-"], input: rules.nftables)
            for step in rules.tracking { try Tool.run(step.command) }
            Output.line("\(config): rules are in force: `nft list table inet pipelined`")
        }

        private func takeBack(_ program: Program) throws {
            try Tool.run(["nft", "-f", "-"], input: EgressRules.removal)
            // Each may be gone already, and says so as it would say anything else.
            for step in EgressRules.routingRemoval(program.node) { _ = try? Tool.run(step.command) }
            Output.line("\(config): rules are removed")
        }
    }
}
