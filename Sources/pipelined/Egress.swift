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
                ends with code 1 if they are not, with 3 if it can't be asked. Both warn of what else keeps connections \
                from the relay: firewalls that drop, destination NAT, bridges. All need CAP_NET_ADMIN, and can be repeated.

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
            let found: EgressKernel.Findings
            do {
                found = try EgressKernel(rules).look()
            } catch {
                Output.error("error: \(error)")
                throw ExitCode.unreachable
            }
            for warning in found.warnings { Output.error("warning: \(warning)") }
            guard !found.faults.isEmpty else { return Output.line("\(config): rules are in force") }
            for fault in found.faults { Output.error("interception_lost: \(fault)") }
            let remedy = found.missing.isEmpty ? "" : "; `pipelined egress rules \(config) --apply`"
            Output.error("TCP of workloads may go around the relay\(remedy)")
            throw ExitCode.notInForce
        }

        private func putInForce(_ rules: EgressRules) throws {
            let kernel = EgressKernel(rules)
            try kernel.apply()
            Output.line("\(config): rules are in force: `nft list table inet pipelined`")
            // They are in force whatever is found, and whether or not something can be found.
            guard let found = try? kernel.look() else { return }
            for text in found.around + found.warnings { Output.error("warning: \(text)") }
        }

        private func takeBack(_ program: Program?) throws {
            do {
                try EgressKernel.remove(program?.node)
            } catch {
                Output.error("error: \(error)")
                throw ExitCode.wrongInput
            }
            Output.line("\(config): rules are removed")
        }
    }
}
