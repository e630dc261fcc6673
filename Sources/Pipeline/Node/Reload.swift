import CLinux
import Pipeline
import PipelineExport
import PipelineHost
import PipelineJournal
import PipelineLanguage
import PipelineLastGood
import PipelineLedger
import PipelineRouting
import PipelineRuntime
import PipelineState
import PipelineText

/// How the last reload went, for `status`.
package struct ReloadNote {
    package let at: UInt64
    package let by: String
    /// Nil: it was done.
    package let refusal: String?
}

/// Why a reload changed nothing.
package struct ReloadRefusal: Error {
    package let message: String
    /// The diagnostics, one a line.
    package var details: [String] = []
}

extension ReadConfig {
    /// Applies a config to what runs, its state kept before: as a reload does, and as a plan of one does.
    /// - Parameter routing: prepared for the program, or for two of which one is a canary.
    mutating func apply(to routing: RoutingState, _ desired: DesiredState?, _ now: Instant) -> ApplyReport {
        reportUnread()
        let report: ApplyReport
        if let desired {
            // What pipelines and listeners are now decides about every route (R2, R8, R16).
            report = desired.kept.applyAll(with: blocks, to: routing, at: now)
            (desired.source, desired.refusal, desired.heldFile) = (source, nil, nil)
            desired.note(report)
        } else {
            report = routing.apply(together: documents, at: now)
        }
        self.report(applied: report.problems)
        return report
    }
}

/// Reload (R26, R22, R24): config and state file are read again completely. On errors nothing changes, and the refusal
/// says why.
extension RunningNode {
    /// Diagnostics that an event shows; `check` shows all.
    private static let shownLines = 20
    /// How long a reload waits for workers to apply it before it reports that some have not; they apply it as soon as
    /// they can.
    private static let applyPatience = 1000

    /// - Parameters:
    ///   - by: the trigger: `SIGHUP`, `admin`.
    ///   - peer: who asked for it.
    package func reload(
        by: String, _ peer: JournalEntry.Peer?, _ options: ReloadOptions, _ manager: ServiceManager
    ) -> ReloadRefusal? {
        manager.reloading()
        defer { manager.ready("serving on \(listeners.openEndpoints.count) addresses") }
        let paths = UnixSockets.pathCount
        do throws(ReloadRefusal) {
            let applied = try reload(by: by, options)
            rolledBack = nil
            record(reloadBy: by, peer, options, applied)
            lastReload = ReloadNote(at: cl_wall_clock(), by: by, refusal: nil)
            return nil
        } catch {
            // Nothing has been made of what the text named.
            UnixSockets.forget(beyond: paths)
            lastReload = ReloadNote(at: cl_wall_clock(), by: by, refusal: error.message)
            record(reloadBy: by, peer, options, refused: error)
            log.say("reload_refused", "\(error.message): nothing was changed") { line in
                line.field("by", by)
                if !error.details.isEmpty { line.list("diagnostics", error.details) { $0.string($1) } }
            }
            return error
        }
    }

    private func reload(by: String, _ options: ReloadOptions) throws(ReloadRefusal) -> AppliedReload {
        guard !isStopping else { throw ReloadRefusal(message: "the node is stopping") }
        guard waitUntilSettled(milliseconds: 2000) else {
            throw ReloadRefusal(
                message:
                    "a worker has not applied the last change yet: it has no file descriptor for a listener; try "
                    + "again, or raise the limit of open files")
        }
        var read = try readConfig()
        guard let compiled = read.compilation.program, !read.compilation.hasErrors else {
            throw ReloadRefusal(
                message: "the config, or a file that it names, has errors", details: RunningNode.lines(read.compilation)
            )
        }
        let guarded = ConfigGuard.Reading(read.compilation)
        if let refusal = configGuard.refusal(of: guarded, isConfirmed: options.isConfirmed) {
            throw ReloadRefusal(message: refusal)
        }
        if let reading = read.reading {
            if let refusal = order.refusal(of: reading, isConfirmed: options.isConfirmed) {
                throw ReloadRefusal(message: refusal)
            }
            if order.isReused(by: reading) { read.reportReused() }
        }
        let course = try course(of: compiled, read, options)
        let program = course.program
        let update = try prepare(read, isConfirmed: options.isConfirmed)
        if let stage = program.prepare(workers: fleet.workers.count, fleet.services) {
            throw ReloadRefusal(
                message: "not enough memory for `\(stage)`; give the process more, or lower `workers`")
        }
        if let obstacle = SourceWatch.obstacle(to: program) { throw ReloadRefusal(message: obstacle) }
        let required = required(course)
        if let refusal = listeners.refusal(of: required) { throw ReloadRefusal(message: refusal) }
        let (staged, failures) = listeners.openRequired(required)
        guard failures.isEmpty else {
            throw ReloadRefusal(
                message: "\(failures.count) listeners can't be opened", details: ListenError.lines(failures))
        }
        let readied = try ready(course, staged)
        do throws(ReloadRefusal) { try keep(update, read) } catch {
            listeners.abandon(staged)
            throw error
        }
        let before = routeCount
        let report: ApplyReport
        switch readied {
        case .beside(let settings): report = runBeside(&read, course, settings, staged)
        case .everywhere(let logs, let flows):
            canary = nil
            report = takeEffect(&read, program, course.identity, staged, logs, flows)
        }
        order.applied(read.reading)
        configGuard.applied(guarded)
        sayReloaded(by, report, before)
        sayFixed(awaitingStart)
        followRoutes(read.base, read.seen)
        let actor = read.state?.actor ?? read.update?.update?.actor ?? ""
        return AppliedReload(report: report, actor: actor.isEmpty ? nil : actor)
    }

    /// The program is that of every new connection from here on, and all that belongs to it is in force.
    func takeEffect(
        _ read: inout ReadConfig, _ program: Program, _ identity: ProgramIdentity,
        _ staged: [ListenerKey: OpenListener], _ logs: StagedLogs, _ flows: FlowRecording.Staged
    ) -> ApplyReport {
        ListenerPlan.prepare(routing, for: program)
        let report = apply(&read)
        names.follow(program, routing)
        self.program = program
        self.identity = identity
        writer.choose(program.node)
        writer.moveConnections(logs)
        writer.moveEvents(logs)
        publish(read, staged)
        self.flows.apply(flows)
        return report
    }

    /// Publishes what a config has changed, with its listeners.
    func publish(_ read: ReadConfig, _ staged: [ListenerKey: OpenListener]) {
        revision = desired.map { $0.last?.revision } ?? read.state?.revision
        problems = RunningNode.lines(read.compilation)
        configFiles = read.compilation.source.files
        bound = desired.map { routing.boundAddresses(of: $0.kept.objects) } ?? read.bound(program)
        let change = listeners.apply(plannedListeners, staged, now: Instant(nanoseconds: cl_now()))
        publish()
        // Once it is reported as done, every new connection uses the new config, on any worker.
        _ = waitUntilSettled(milliseconds: RunningNode.applyPatience)
        say(change)
    }

    /// The last step that may refuse the reload, since a created ledger stays.
    func stageFlows(
        _ program: Program, _ listening: [ListenerKey: OpenListener]
    ) throws(ReloadRefusal) -> FlowRecording.Staged {
        do throws(LedgerProblem) {
            return try flows.stage(program)
        } catch {
            listeners.abandon(listening)
            throw ReloadRefusal(message: "\(error)")
        }
    }

    func stageLogs(
        _ program: Program, _ listening: [ListenerKey: OpenListener]
    ) throws(ReloadRefusal) -> StagedLogs {
        do throws(LogFileError) {
            return try writer.stage(program.node.log)
        } catch {
            listeners.abandon(listening)
            throw ReloadRefusal(message: "\(error)")
        }
    }

    private func readConfig() throws(ReloadRefusal) -> ReadConfig {
        do throws(FileError) {
            let text = try Files.read(configPath, limit: SourceText.limit)
            return ConfigLoader.read(
                text, file: configPath, filters: program.catalog, running: program, keepsState: desired != nil)
        } catch {
            throw ReloadRefusal(message: "can't read the config: \(error)")
        }
    }

    // MARK: Routes

    /// Applies the routes: positions and counters of unchanged ones continue (R11), and owners keep their names (R5).
    /// Blocks and state file are one change.
    func apply(_ read: inout ReadConfig) -> ApplyReport {
        let now = Instant(nanoseconds: cl_now())
        routing.forgetDrains { drains.isDone($0, now: now) }
        let report = read.apply(to: routing, desired, now)
        drains.update(routing.currentDrains, now: now)
        return report
    }

    // MARK: Desired state that is kept

    /// What the source says now, compared with what is kept; nil: it tells by itself, or nothing is kept.
    private func prepare(_ read: ReadConfig, isConfirmed: Bool) throws(ReloadRefusal) -> LastGood.Prepared? {
        guard let desired else { return nil }
        // All that is kept is about to be read; only a whole document does without.
        do throws(StateFault) { try desired.kept.check() } catch {
            guard desired.kept.spoiled != nil, read.update != nil else { throw refusal(of: read, error) }
        }
        guard let said = read.update else { return nil }
        guard let update = said.update else { throw ReloadRefusal(message: said.failure ?? "no routes can be read") }
        do throws(UpdateRefusal) {
            return try desired.kept.prepare(
                update, from: read.source.name, UpdateOptions(isConfirmed: isConfirmed), now: cl_wall_clock())
        } catch {
            if error.stopsStream { take(.heldFile(update, error), read) }
            throw ReloadRefusal(message: "\(error.problem); if that is meant, run `pipelined reload --confirm`")
        }
    }

    private func keep(_ update: LastGood.Prepared?, _ read: ReadConfig) throws(ReloadRefusal) {
        guard let desired, let update else { return }
        do throws(StateFault) { try desired.kept.keep(update) } catch { throw refusal(of: read, error) }
    }

    /// Of a routes file that the disk does not take, what takes away has its turn.
    private func refusal(of read: ReadConfig, _ fault: StateFault) -> ReloadRefusal {
        guard fault.leavesMemory, let update = read.update?.update else { return ReloadRefusal(message: fault.message) }
        let refusal = UpdateRefusal(fault)
        take(.refusedFile(update, refusal), read)
        return ReloadRefusal(message: "\(refusal.problem); \(refusal.remedy)")
    }

    /// What takes away of a routes file that is not in force.
    private func take(_ subject: WaitingUpdate.Subject, _ read: ReadConfig) {
        guard case .file = read.source, read.source == desired?.source else { return }
        let sender = Sender(source: read.source, way: "reload", actor: "file")
        updates?.take(WaitingUpdate(subject: subject, sender: sender, byteCount: 0) { _ in })
    }

    // MARK: Reporting

    private func sayReloaded(_ by: String, _ applied: ApplyReport, _ before: Int) {
        log.say("reloaded") { line in
            line.field("by", by)
            line.field("generation", fleet.snapshots.newest)
            if let revision { line.field("revision", revision) }
            line.field("routes", routeCount)
            line.field("routes_before", before)
            line.field("added", applied.added)
            line.field("changed", applied.changed)
            line.field("removed", applied.removed)
            if applied.kept > 0 { line.field("kept_last_good", applied.kept) }
            if applied.problems.rejected > 0 { line.field("quarantined", applied.problems.rejected) }
            line.field("listeners", listeners.openEndpoints.count)
            if let canary { line.field("canary", canary.settings.text) }
            let behind = fleet.workersBehind
            if behind > 0 { line.field("workers_behind", behind) }
            if !problems.isEmpty { line.list("diagnostics", problems) { $0.string($1) } }
        }
    }

    private func sayFixed(_ fixed: [String]) {
        guard !fixed.isEmpty else { return }
        log.say("reload_partial", "these settings of `node` need a restart to take effect") {
            line in line.list("settings", fixed) { $0.string($1) }
        }
    }

    /// `file:3:5: error: …; the first is here: file:1:5`, without source lines and notes.
    static func lines(_ compilation: Compilation) -> [String] {
        let place = { (span: SourceSpan) in
            let position = compilation.source.position(of: span.start)
            return "\(compilation.source.file(of: span.start)):\(position.line):\(position.column)"
        }
        let worth = compilation.diagnostics.filter { $0.severity != .note }
        var lines = worth.prefix(shownLines).map { diagnostic in
            let others = diagnostic.related.map { "; \($0.message): \(place($0.span))" }.joined()
            let help = diagnostic.help.first.map { "; \($0)" } ?? ""
            return "\(place(diagnostic.span)): \(diagnostic.severity.rawValue): \(diagnostic.message)\(others)\(help)"
        }
        if worth.count > shownLines { lines.append("\(worth.count - shownLines) more: run `pipelined check`") }
        return lines
    }
}
