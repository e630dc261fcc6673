import CLinux
import Pipeline
import PipelineExport
import PipelineJournal
import PipelineRouting
import PipelineRuntime
import PipelineText

/// What a reload does with the program that it has compiled.
struct ReloadCourse {
    let program: Program
    let identity: ProgramIdentity
    /// It takes a share first; nil: it goes everywhere at once.
    let canary: CanarySettings?
}

/// A new program takes a share of new connections first, and is rolled back by itself (R29).
extension RunningNode {
    /// As routes and programs want them now.
    var plannedListeners: [PlannedListener] {
        let ports = RequestedPorts(routing)
        let current = ListenerPlan.listeners(program, ports)
        guard let canary else { return current }
        return CanaryListeners.plan(current, ListenerPlan.listeners(canary.program, ports)).plan
    }

    /// The listeners that a reload must be able to open.
    func required(_ course: ReloadCourse) -> [PlannedListener] {
        let new = ListenerPlan.listeners(course.program, RequestedPorts())
        guard course.canary != nil else { return new }
        return CanaryListeners.plan(ListenerPlan.listeners(program, RequestedPorts()), new).plan
    }

    /// What a reload's program needs and has, right before it takes effect.
    enum Readied {
        case everywhere(StagedLogs, FlowRecording.Staged)
        /// What else it needs is opened when it goes everywhere.
        case beside(CanarySettings)
    }

    func ready(
        _ course: ReloadCourse, _ staged: [ListenerKey: OpenListener]
    ) throws(ReloadRefusal) -> Readied {
        // Also for a canary: a log file that can't be opened is known now.
        let logs = try stageLogs(course.program, staged)
        if let settings = course.canary { return .beside(settings) }
        return .everywhere(logs, try stageFlows(course.program, staged))
    }

    // MARK: Beginning

    func course(of program: Program, _ read: ReadConfig, _ options: ReloadOptions) throws(ReloadRefusal)
        -> ReloadCourse
    {
        let identity = ProgramIdentity(program, read)
        // The same program again: it keeps its limits, and what was counted.
        let known = canary.flatMap { $0.identity == identity ? $0.program : nil }
        let settings = program.node.canary
        guard let settings, !options.skipsCanary, identity != self.identity else {
            return ReloadCourse(program: known ?? program, identity: identity, canary: nil)
        }
        if let rolledBack, rolledBack.identity == identity, !options.isConfirmed {
            throw ReloadRefusal(
                message: "this program was a canary at \(Timestamp.text(rolledBack.at)), and was rolled back by "
                    + "\(rolledBack.by): \(rolledBack.why); change the config, or try again by `pipelined reload "
                    + "--confirm`, or everywhere at once by `pipelined reload --now`")
        }
        return ReloadCourse(program: known ?? program, identity: identity, canary: settings)
    }

    /// The routes are applied, and the program takes its share.
    func runBeside(
        _ read: inout ReadConfig, _ course: ReloadCourse, _ settings: CanarySettings,
        _ staged: [ListenerKey: OpenListener]
    ) -> ApplyReport {
        let replaced = canary
        if let canary, canary.program === course.program, canary.settings == settings {
            canary.read = read
        } else {
            canary = Canary(course, settings, read, workers: fleet.workers.count)
        }
        CanaryListeners.prepare(routing, for: program, and: course.program)
        let report = apply(&read)
        names.follow(program, routing)
        publish(read, staged)
        if canary !== replaced { sayBegun(settings, replaces: replaced != nil) }
        return report
    }

    private func sayBegun(_ settings: CanarySettings, replaces: Bool) {
        let ports = RequestedPorts(routing)
        let waiting = canary.map { canary in
            CanaryListeners.plan(
                ListenerPlan.listeners(program, ports), ListenerPlan.listeners(canary.program, ports)
            ).waiting
        }
        log.say("canary_begun", "the new program takes a share of new connections; the others are served as before") {
            line in
            line.field("percent", settings.percent)
            line.field("by", settings.unit.rawValue)
            line.field("for_s", settings.time.milliseconds / 1000)
            if replaces { line.field("replaces", true) }
            let endpoints = waiting?.map(\.endpoint) ?? []
            if !endpoints.isEmpty { line.list("listeners_waiting", EndpointRuns.texts(endpoints)) { $0.string($1) } }
        }
    }

    // MARK: Looking

    func lookAtCanary(_ now: Instant) {
        guard let canary, canary.nextLook <= now else { return }
        let finding = canary.look(now)
        guard finding != nil || canary.ends <= now else { return }
        // Otherwise at the next look.
        guard isSettled else { return }
        if let finding {
            rollBack(canary, by: "node", nil, finding.text + canary.mostFailed)
        } else {
            finish(canary, now)
        }
    }

    // MARK: Ending

    /// Whoever asks is answered why it was not done; nil: it was.
    package func rollBackCanary(by: String, _ peer: JournalEntry.Peer?) -> ReloadRefusal? {
        guard let canary else {
            return ReloadRefusal(message: "no canary runs: the last reload's program is everywhere, or was rolled back")
        }
        guard waitUntilSettled(milliseconds: 1000) else {
            return ReloadRefusal(message: "a worker has not applied the last change yet; try again in a moment")
        }
        rollBack(canary, by: by, peer, "it was asked for")
        return nil
    }

    private func rollBack(_ canary: Canary, by: String, _ peer: JournalEntry.Peer?, _ why: String) {
        let (tally, lasted) = (canary.tally, Instant(nanoseconds: cl_now()).since(canary.began))
        self.canary = nil
        rolledBack = CanaryRollback(at: cl_wall_clock(), by: by, why: why, identity: canary.identity)
        putInForce(Instant(nanoseconds: cl_now()))
        log.say(
            "canary_rolled_back",
            "the program of the config file is not what runs: new connections are served as before the reload, and what "
                + "runs on it goes on: \(why)"
        ) { line in
            line.field("by", by)
            line.field("why", why)
            line.field("after_ms", lasted.milliseconds)
            CanaryReport.write(&line, tally)
        }
        var entry = JournalEntry(.rolledBack, source: "config", what: "a canary of \(canary.settings.text)")
        (entry.actor, entry.peer, entry.revision, entry.why) = (by, peer, revision, why)
        record(entry)
        judgeRoutesAgain(canary)
    }

    /// Routes that only the new program had listeners for are none any more.
    private func judgeRoutesAgain(_ canary: Canary) {
        let before = routing.listeners
        ListenerPlan.prepare(routing, for: program)
        guard routing.listeners != before, waitUntilSettled(milliseconds: 1000) else { return }
        var read = canary.read
        reapply(&read)
        putInForce(Instant(nanoseconds: cl_now()))
    }

    /// Applies again what was read then, and what has come since.
    private func reapply(_ read: inout ReadConfig) {
        let refusal = desired?.refusal
        let report = apply(&read)
        desired?.refusal = refusal
        names.follow(program, routing)
        problems = RunningNode.lines(read.compilation)
        guard report.problems.rejected > 0 else { return }
        log.say("canary_routes", "routes are judged by another program's listeners again") {
            $0.field("quarantined", report.problems.rejected)
        }
    }

    /// It goes everywhere.
    private func finish(_ canary: Canary, _ now: Instant) {
        do throws(ReloadRefusal) {
            let (staged, failures) = listeners.openRequired(
                ListenerPlan.listeners(canary.program, RequestedPorts(routing)))
            guard failures.isEmpty else {
                throw ReloadRefusal(
                    message: "\(failures.count) listeners can't be opened", details: ListenError.lines(failures))
            }
            let logs = try stageLogs(canary.program, staged)
            let flows = try stageFlows(canary.program, staged)
            let (tally, refusal) = (canary.tally, desired?.refusal)
            var read = canary.read
            self.canary = nil
            _ = takeEffect(&read, canary.program, canary.identity, staged, logs, flows)
            desired?.refusal = refusal
            log.say("canary_done", "the new program serves every new connection") { CanaryReport.write(&$0, tally) }
            var entry = JournalEntry(
                .applied, source: "config", what: "a canary of \(canary.settings.text) goes everywhere")
            entry.revision = revision
            entry.why = "\(tally.decided(.canary)) connections on it, \(tally.decided(.others)) beside it"
            record(entry)
            journal?.keep(program.node.journalLimits)
        } catch {
            let why = ([error.message] + error.details.prefix(1)).joined(separator: ": ")
            rollBack(canary, by: "node", nil, "it can't go everywhere: \(why)")
        }
    }
}
