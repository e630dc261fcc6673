import ArgumentParser
import Pipeline
import PipelineIntercept
import PipelineLanguage
import PipelineNode
import PipelineRouting

struct Egress: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Interception rules and traffic reports of an egress node.",
        subcommands: [Rules.self, EgressReport.self])

    struct Rules: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "The firewall and routing rules that send workloads' connections to the listeners.",
            discussion: """
                Prints the rules as a shell script. --apply installs or repairs them: the nftables table `inet \
                pipelined` in one transaction, a routing table, and a routing rule. --remove removes them. Other \
                programs' rules are left alone. --check compares the kernel's rules with this config: exit code 1 if \
                they differ, 3 if the kernel can't be asked. --apply and --check also warn of anything else that \
                keeps connections from the relay: firewalls that drop, destination NAT, bridges. All need \
                CAP_NET_ADMIN, and can be repeated.

                --state binds the addresses of this node's instances to their interfaces in desired state: a packet \
                with such a source address from another interface is dropped.

                EXAMPLES
                  pipelined egress rules egress.pipeline                  show the rules
                  pipelined egress rules egress.pipeline --apply          before the first instance starts
                  pipelined egress rules egress.pipeline --state s.json --apply
                                                                          repeat when an instance comes or goes
                  pipelined egress rules egress.pipeline --check          for monitoring
                  pipelined egress rules egress.pipeline --remove         before it stops for good
                """)

        @Argument(help: "The config file.", completion: .file())
        var config: String

        @Flag(help: "Install the rules.")
        var apply = false

        @Flag(help: "Remove the rules.")
        var remove = false

        @Flag(help: "Check whether the rules are in force. Exit code 1: they are not; 3: the kernel can't be asked.")
        var check = false

        @Option(help: "The state file, whose instances may have an `interface`.", completion: .file())
        var state: String?

        func validate() throws {
            if state != nil, remove || check {
                throw ValidationError("--state goes with --apply, or alone.")
            }
            if [apply, remove, check].filter({ $0 }).count > 1 {
                throw ValidationError("--apply, --remove and --check can't be used together: choose one.")
            }
        }

        func run() throws {
            // Desired state is not read: rules are needed most when it is broken.
            let filters = PipelinedCommand.filters
            if remove { return try takeBack((try? ConfigLoader.compileAlone(config, filters: filters))?.program) }
            let compilation = ConfigLoader.compileAlone(
                try Output.read(config, limit: SourceText.limit), file: config, filters: filters)
            guard let program = compilation.program else {
                Output.errorText(render(compilation.diagnostics, source: compilation.source))
                throw ExitCode.wrongInput
            }
            do {
                var rules = try EgressRules(program)
                let isWhole = try bind(&rules, node: program.node.name)
                if check {
                    try report(rules)
                } else if apply {
                    try putInForce(rules)
                } else {
                    Output.text(rules.script)
                }
                if !isWhole { throw ExitCode.wrongInput }
            } catch let code as ExitCode {
                throw code
            } catch {
                Output.error("error: \(error)")
                throw ExitCode.wrongInput
            }
        }

        /// False if some instance can't be read: it is left out of the rules, and the others are in (R24).
        private func bind(_ rules: inout EgressRules, node: String) throws -> Bool {
            guard let state else { return true }
            let bytes = try Output.read(state, limit: ConfigLoader.stateFileLimit)
            let (document, problems) = bytes.withUnsafeBufferPointer { StateDocument.parse($0) }
            let told = problems.list.filter { $0.severity == .fatal || $0.object == .instance }
            for problem in told { Output.error("error: \(state):\(problem)") }
            guard let document else { throw ExitCode.wrongInput }
            rules.bound = document.boundAddresses(node: node)
            return told.isEmpty && problems.omitted == 0
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
            let bound = state == nil ? "" : "; \(rules.bound.count) addresses are bound to an interface"
            Output.line("\(config): rules are in force: `nft list table inet pipelined`\(bound)")
            // The rules are in force, whatever the following checks find.
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
