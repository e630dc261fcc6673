import Pipeline
import PipelineHost

/// Checks and installs a config's interception rules with `nft` and `ip`.
///
/// Threading: any thread but a worker's; the caller waits for child processes.
package struct EgressKernel: Sendable {
    /// The result of a check.
    package struct Findings: Sendable, Equatable {
        /// Missing rules, which installing repairs.
        package var missing: [String] = []
        /// Ways around the relay that this config's rules do not close.
        package var around: [String] = []
        /// Obstacles that keep connections from the relay, without a way around it.
        package var warnings: [String] = []

        package init() {}
        /// Interception is not in force: why.
        package var faults: [String] { missing + around }
    }

    package let rules: EgressRules
    private let tool: Tool

    package init(_ rules: EgressRules, tool: Tool = Tool()) {
        self.rules = rules
        self.tool = tool
    }

    // MARK: Checking

    package func look() throws(Tool.Problem) -> Findings {
        try surroundings(try missing())
    }

    /// Other tables and interfaces that affect interception.
    func surroundings(_ missing: [String]) throws(Tool.Problem) -> Findings {
        var findings = Findings()
        findings.missing = missing
        let links = HostLinks(
            ports: try tool.run(["ip", "-o", "link", "show", "type", "bridge_slave"]),
            bridges: try tool.run(["ip", "-o", "link", "show", "type", "bridge"]))
        findings.around = rules.portsAround(links)
        findings.warnings = rules.early(links, HostLinks.filteredFamilies())
        // Without the elements of sets: some hosts have millions.
        findings.warnings += rules.warnings(of: HostFirewall(try tool.run(["nft", "-t", "list", "ruleset"])))
        return findings
    }

    /// The rules that the kernel lacks.
    func missing() throws(Tool.Problem) -> [String] {
        // Lists all tables first: "missing" must differ from "can't be asked".
        let tables = try tool.run(["nft", "list", "tables"]).split(separator: "\n")
        let isThere = tables.contains("table inet pipelined")
        let listing = isThere ? try tool.run(["nft", "-t", "list", "table", "inet", "pipelined"]) : nil
        var faults = rules.tableFault(listing).map { [$0] } ?? []
        for question in rules.routingQuestions {
            let answer = try tool.run(question.command)
            if !question.isAnswered(by: answer) { faults.append(question.fault) }
        }
        return faults
    }

    // MARK: Changing

    /// Routes first, so that no packet is marked without a route. Leftovers of an earlier config are removed last.
    package func apply() throws(Tool.Problem) {
        for step in rules.routing {
            if let question = step.isDoneIfThisPrints, try !tool.run(question).isEmpty { continue }
            try tool.run(step.command)
        }
        try tool.run(["nft", "-f", "-"], input: rules.nftables + rules.bridge)
        if rules.bridge.isEmpty { EgressKernel.unbindPorts(tool) }
        for option in ["-6", "-4"] {
            let listing = try tool.run(["ip", option, "rule", "show"])
            for step in rules.leftovers(option, ruleListing: listing) { _ = try? tool.run(step.command) }
        }
        for step in rules.tracking { try tool.run(step.command) }
    }

    /// - Parameter node: nil: the config can't be read.
    package static func remove(_ node: NodeSettings?) throws(Tool.Problem) {
        try Tool().run(["nft", "-f", "-"], input: EgressRules.removal)
        unbindPorts(Tool())
        // Each may be gone already, which is reported like any other failure.
        for step in EgressRules.routingRemoval(node) { _ = try? Tool().run(step.command) }
    }

    /// It fails if there never was such a table.
    private static func unbindPorts(_ tool: Tool) {
        _ = try? tool.run(["nft", "-f", "-"], input: EgressRules.bridgeRemoval)
    }
}
