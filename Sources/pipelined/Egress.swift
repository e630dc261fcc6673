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
            // What is desired of routes has no part in it: rules are needed most when that can't be read.
            if remove { return try takeBack((try? ConfigLoader.compileAlone(config))?.program) }
            let compilation = ConfigLoader.compileAlone(
                try Output.read(config, limit: SourceText.limit), file: config)
            guard let program = compilation.program else {
                Output.errorText(render(compilation.diagnostics, source: compilation.source))
                throw ExitCode.wrongInput
            }
            do {
                let rules = try EgressRules(program)
                if apply { try putInForce(rules) } else { Output.text(rules.script) }
            } catch {
                Output.error("error: \(error)")
                throw ExitCode.wrongInput
            }
        }

        /// Routes first: a packet is never marked before there is somewhere to go. What an earlier config has left goes last.
        private func putInForce(_ rules: EgressRules) throws {
            for step in rules.routing {
                if let question = step.isDoneIfThisPrints, try !Tool.run(question).isEmpty { continue }
                try Tool.run(step.command)
            }
            try Tool.run(["nft", "-f", "-"], input: rules.nftables)
            for option in ["-6", "-4"] {
                let listing = try Tool.run(["ip", option, "rule", "show"])
                for step in rules.leftovers(option, ruleListing: listing) { _ = try? Tool.run(step.command) }
            }
            for step in rules.tracking { try Tool.run(step.command) }
            Output.line("\(config): rules are in force: `nft list table inet pipelined`")
        }

        private func takeBack(_ program: Program?) throws {
            do {
                try Tool.run(["nft", "-f", "-"], input: EgressRules.removal)
            } catch {
                Output.error("error: \(error)")
                throw ExitCode.wrongInput
            }
            // Each may be gone already, and says so as it would say anything else.
            for step in EgressRules.routingRemoval(program?.node) { _ = try? Tool.run(step.command) }
            Output.line("\(config): rules are removed")
        }
    }
}
