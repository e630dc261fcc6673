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
                others are left alone. --check asks the kernel whether they are in force as this config makes them, and \
                ends with code 1 if they are not, with 3 if it can't be asked. All need CAP_NET_ADMIN, and can be repeated.

                EXAMPLES
                  pipelined egress rules egress.pipeline                  look at them
                  pipelined egress rules egress.pipeline --apply          before the first instance starts
                  pipelined egress rules egress.pipeline --check          now and then
                  pipelined egress rules egress.pipeline --remove         before it stops for good
                """)

        @Argument(help: "The config file.", completion: .file())
        var config: String

        @Flag(help: "Put them in force.")
        var apply = false

        @Flag(help: "Take them back.")
        var remove = false

        @Flag(help: "Say whether they are in force. Exit code 1: they are not; 3: the kernel can't be asked.")
        var check = false

        func validate() throws {
            if [apply, remove, check].filter({ $0 }).count > 1 {
                throw ValidationError("--apply, --remove and --check can't be used together: choose one.")
            }
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
                if check {
                    try report(rules)
                } else if apply {
                    try putInForce(rules)
                } else {
                    Output.text(rules.script)
                }
            } catch let code as ExitCode {
                throw code
            } catch {
                Output.error("error: \(error)")
                throw ExitCode.wrongInput
            }
        }

        private func report(_ rules: EgressRules) throws {
            let found: [String]
            do {
                found = try faults(rules)
            } catch {
                Output.error("error: \(error)")
                throw ExitCode.unreachable
            }
            guard !found.isEmpty else { return Output.line("\(config): rules are in force") }
            for fault in found { Output.error("interception_lost: \(fault)") }
            Output.error("TCP of workloads may go around the relay; `pipelined egress rules \(config) --apply`")
            throw ExitCode.notInForce
        }

        /// What of the rules the kernel does not have.
        private func faults(_ rules: EgressRules) throws -> [String] {
            // All tables first: "there is none" must not look like "it can't be asked".
            let tables = try Tool.run(["nft", "list", "tables"]).split(separator: "\n")
            let isThere = tables.contains("table inet pipelined")
            let listing = isThere ? try Tool.run(["nft", "list", "table", "inet", "pipelined"]) : nil
            var faults = rules.tableFault(listing).map { [$0] } ?? []
            for question in rules.routingQuestions {
                let answer = try Tool.run(question.command)
                if !question.isAnswered(by: answer) { faults.append(question.fault) }
            }
            return faults
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
