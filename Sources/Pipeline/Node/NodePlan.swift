import CLinux
import Pipeline
import PipelineLanguage
import PipelineLastGood
import PipelineRouting
import PipelineState

/// One thing that a change would do.
package struct PlannedChange: Equatable, Sendable {
    package enum Kind: String, CaseIterable, Sendable {
        /// Another env has it after, or nobody (R5).
        case ownership
        /// A wildcard begins to take names, or ends.
        case wildcard
        /// A name that is reserved.
        case hostname
        case route, backends, drain
        /// An env or org begins to be suspended, or is no more (R30).
        case suspension
        case listener, pipeline, setting
        /// An object that is not applied as it is desired, and was before or was not there.
        case quarantined
        /// An object that is served, and something with it is likely a mistake.
        case warning
    }
    package enum Action: String, Sendable { case added, removed, changed }

    package let kind: Kind
    package let action: Action
    /// `app.example.com`, `rt_web`, `[::]:443`.
    package let subject: String
    /// Of an owner: `hostname`, `port`, `protocol`, `dedicated_ipv4`, `instance_address`.
    package var what: String?
    package var from: String?
    package var to: String?
    /// What it means, or why it is so.
    package var details: [String] = []
    /// That it touches; nil: no node was asked, or it touches none by itself.
    package var connections: UInt64?

    /// An address goes from one env to another.
    var isOfAddress: Bool {
        kind == .ownership && from != nil && (what == "instance_address" || what == "dedicated_ipv4")
    }

    package init(_ kind: Kind, _ action: Action, _ subject: String) {
        (self.kind, self.action, self.subject) = (kind, action, subject)
    }
}

/// What a config, a document or a change would do to what is there.
package struct NodePlan: Sendable {
    package internal(set) var changes: [PlannedChange] = []
    package internal(set) var notes: [String] = []
    /// Why a guard would hold it until it is confirmed (R29).
    package internal(set) var held: [String] = []
    /// Live connections were counted.
    package internal(set) var countsConnections = false

    package var ownershipChanges: Int { changes.count { $0.kind == .ownership } }

    /// For people and for comparing: a problem without its place, which any edit moves.
    static func text(_ problem: RouteProblem) -> String {
        "\(problem.object.rawValue) \(problem.id ?? ""): \(problem.field.map { $0 + " " } ?? "")\(problem.problem)"
    }
}

/// Why there is no plan.
package enum PlanFailure: Error {
    /// The new config has errors.
    case config(Compilation)
    /// It would change nothing, for this reason.
    case refused(String)
}

/// What is compared: before, and after.
struct PlanSight {
    let program: Program
    let census: RouteCensus
    let listeners: [PlannedListener]
    /// Orgs by id, envs by path.
    let suspended: (orgs: [String], envs: [String])

    init(_ program: Program, _ routing: RoutingState) {
        self.program = program
        census = routing.census
        listeners = ListenerPlan.listeners(program, RequestedPorts(routing))
        suspended = routing.suspended
    }
}

extension PlanBase {
    /// Puts a config in place of this one, as a reload does. The base is used up.
    package func plan(config text: [UInt8], file: String) throws(PlanFailure) -> NodePlan {
        var read = ConfigLoader.read(
            text, file: file, filters: filters, running: program, keepsState: desired != nil)
        guard let next = read.compilation.program, !read.compilation.hasErrors else { throw .config(read.compilation) }
        var held: [String] = []
        var known = ConfigGuard()
        known.applied(guarded)
        if let why = known.refusal(of: ConfigGuard.Reading(read.compilation), isConfirmed: false) { held.append(why) }
        if let reading = read.reading {
            var order = StateOrder()
            order.applied(self.reading)
            if let why = order.refusal(of: reading, isConfirmed: false) { held.append(why) }
        }
        let before = PlanSight(program, routing)
        if let desired, let said = read.update {
            guard let update = said.update else { throw .refused(said.failure ?? "no routes can be read") }
            try keep(try prepare(update, read.source.name, desired, &held), desired)
        }
        ListenerPlan.prepare(routing, for: next)
        routing.cooldown = .off
        let report = read.apply(to: routing, desired, Instant(nanoseconds: cl_now()))
        return made(before, PlanSight(next, routing), report.problems, held)
    }

    /// Applies a document or a change, as the source of routes that this config has. The base is used up.
    package func plan(state bytes: [UInt8], file: String) throws(PlanFailure) -> NodePlan {
        let before = PlanSight(program, routing)
        var held: [String] = []
        let problems =
            if let desired {
                try applyUpdate(bytes, file, desired, &held)
            } else {
                try applyDocument(bytes, file, &held)
            }
        return made(before, PlanSight(program, routing), problems, held)
    }

    // MARK: Its way in

    private func applyUpdate(
        _ bytes: [UInt8], _ file: String, _ desired: DesiredState, _ held: inout [String]
    ) throws(PlanFailure) -> RouteProblems {
        let accepts: StateUpdate.Acceptance
        switch desired.source {
        case .push: accepts = .either
        case .file: accepts = .document
        case .none: throw .refused("the config takes no routes but its own: it needs `routes file` or `routes push`")
        }
        let said = ReadUpdate.read(bytes, file, as: accepts)
        guard let update = said.update else { throw .refused(said.failure ?? "\(file) can't be read") }
        let prepared = try prepare(update, desired.source.name, desired, &held)
        try keep(prepared, desired)
        var problems = said.problems
        problems.add(desired.kept.apply(prepared, to: routing, at: Instant(nanoseconds: cl_now())).problems)
        return problems
    }

    private func prepare(
        _ update: StateUpdate, _ source: String, _ desired: DesiredState, _ held: inout [String]
    ) throws(PlanFailure) -> LastGood.Prepared {
        var options = UpdateOptions()
        while true {
            do throws(UpdateRefusal) {
                return try desired.kept.prepare(update, from: source, options, now: cl_wall_clock())
            } catch {
                guard error.isHeld, !options.isConfirmed else { throw .refused("\(error.problem); \(error.remedy)") }
                held.append(error.problem)
                options.isConfirmed = true
            }
        }
    }

    private func keep(_ prepared: LastGood.Prepared, _ desired: DesiredState) throws(PlanFailure) {
        do throws(StateFault) { try desired.kept.keep(prepared) } catch { throw .refused(error.message) }
    }

    /// Of a node that keeps nothing.
    private func applyDocument(
        _ bytes: [UInt8], _ file: String, _ held: inout [String]
    ) throws(PlanFailure) -> RouteProblems {
        guard compilation.routesFile != nil else {
            throw .refused("the config takes no routes but its own: it needs `routes file` or `routes push`")
        }
        let (document, problems) = bytes.withUnsafeBufferPointer { StateDocument.parse($0, seed: .random()) }
        guard let document else {
            let fatal = problems.list.last { $0.severity == .fatal }
            throw .refused("\(file) can't be used: \(fatal.map { "\($0)" } ?? "it can't be read")")
        }
        var order = StateOrder()
        order.applied(reading)
        let next = StateOrder.Reading(document, bytes, path: reading?.path ?? file)
        if let why = order.refusal(of: next, isConfirmed: false) {
            guard next.isEmpty else { throw .refused(why) }
            held.append(why)
        }
        var all = problems
        let documents = (blocks.map { [$0] } ?? []) + [document]
        all.add(routing.apply(together: documents, at: Instant(nanoseconds: cl_now())).problems)
        return all
    }

    // MARK: What it did

    private func made(
        _ before: PlanSight, _ after: PlanSight, _ problems: RouteProblems, _ held: [String]
    ) -> NodePlan {
        var plan = NodePlan()
        plan.notes = notes
        plan.held = held
        plan.countsConnections = live != nil
        let comparison = PlanComparison(before, after, live: live, problems: problems)
        plan.changes = comparison.routing(routing.currentDrains) + comparison.listeners + comparison.program
        plan.changes += remarks(problems, .rejected, .quarantined) + remarks(problems, .warning, .warning)
        let cooldown = after.program.node.cooldown
        if cooldown != .off, plan.changes.contains(where: \.isOfAddress) {
            plan.notes.append("an address that changes hands is served after its cooldown: \(cooldown.text)")
        }
        return plan
    }

    private func remarks(
        _ problems: RouteProblems, _ severity: RouteProblem.Severity, _ kind: PlannedChange.Kind
    ) -> [PlannedChange] {
        problems.list.filter { $0.severity == severity && !isKnown($0) }.map { problem in
            var change = PlannedChange(kind, .changed, "\(problem.object.rawValue) \(problem.id ?? "without an id")")
            change.details = [(problem.field.map { $0 + " " } ?? "") + problem.problem + "; " + problem.remedy]
            return change
        }
    }

    private func isKnown(_ problem: RouteProblem) -> Bool {
        found.contains(NodePlan.text(problem)) || found.contains("\(problem)")
    }
}
