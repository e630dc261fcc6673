import CLinux
import Pipeline
import PipelineFlows
import PipelineHost
import PipelineJournal
import PipelineLanguage
import PipelineLastGood
import PipelineRuntime
import PipelineState
import PipelineText
import PipelineThreads

/// Runs a node from start to end: starts its log, loads, opens, starts workers, serves, stops.
///
/// Threading: all of it on the calling thread, which becomes the control thread. One per process: it takes over the
/// process's signals.
package struct Supervisor: ~Copyable {
    private let path: String
    private let filters: [any Filter.Type]
    private let door: any AdminDoor.Type
    private let writer: LogWriter
    private let log: ControlLog
    private let manager = ServiceManager()
    private let inherited: InheritedListeners
    /// The flow queues from stages and conntrack to the ledger and collectors.
    private let queues = FlowQueues()

    /// How long the exit waits for readers of the log, in milliseconds.
    private static let lastWords = 2000

    private init(
        config path: String, _ filters: [any Filter.Type], admin door: any AdminDoor.Type, _ writer: LogWriter,
        _ inherited: InheritedListeners
    ) {
        self.inherited = inherited
        self.path = path
        self.filters = filters
        self.door = door
        self.writer = writer
        log = ControlLog(writer.error)
    }

    /// - Parameters:
    ///   - filters: of this build.
    ///   - door: the type that opens the `admin` socket.
    /// - Returns: the process's exit code: 0 after an orderly stop, 1 if nothing was started.
    package static func run(
        config path: String, filters: [any Filter.Type], admin door: any AdminDoor.Type
    ) -> Int32 {
        // Before anything is opened.
        let inherited = InheritedListeners.ofServiceManager()
        guard cl_hold_standard_streams() == 0, cl_signals_hold() == 0 else {
            return refuse("can't take over the process's signals and standard streams")
        }
        let (writer, error) = LogWriter.start()
        guard let writer else { return refuse("can't start the log's thread: \(kernelError(error))") }
        let code = Supervisor(config: path, filters, admin: door, writer, inherited).run()
        _ = writer.finish(patience: lastWords)
        return code
    }

    /// For errors before the log exists.
    private static func refuse(_ why: String) -> Int32 {
        let text =
            cl_is_terminal(2) == 0
            ? "{\"event\":\"not_started\",\"message\":\"nothing was started: \(why)\"}\n"
            : "error: \(why)\nnothing was started\n"
        let bytes = Array(text.utf8)
        _ = bytes.withUnsafeBytes { cl_write_all(2, $0.baseAddress, $0.count) }
        return 1
    }

    private consuming func run() -> Int32 {
        let signals = cl_signal_open()
        guard signals >= 0 else {
            sayNotStarted(["can't take over the process's signals: \(kernelError(-signals))"])
            return 1
        }
        let start = StartOfState()
        defer { start.endedInOrder() }
        guard let loaded = loadNode(start), let logs = openLogs(loaded.program.node.log) else { return 1 }
        // Before a worker serves. Events stay on standard error until the node is ready: until then a person may look.
        writer.moveConnections(logs)
        guard case .opened(let journal) = openJournal(loaded.program.node) else { return 1 }
        // Opened before the routes are read, so that no change is missed.
        let monitor = AddressMonitor()
        var admin: (any AdminDoor)?
        let node: RunningNode
        let settings = loaded.program.node
        let path = settings.adminSocket
        // Taken over from a draining node, with what only one node may do (conntrack).
        let isTakenOver = path.map { door.isDraining(at: $0) } ?? false
        do throws(AdminSocketError) {
            if !isTakenOver { admin = try openAdmin(settings) }
            guard let started = startNode(loaded, journal) else { return 1 }
            node = started
            if isTakenOver { admin = try openAdmin(settings) }
        } catch {
            sayNotStarted(["\(error)"], journal)
            return 1
        }
        node.journal = journal
        if monitor == nil {
            log.say("warning", "no netlink address events: the node polls for new addresses every 30 s")
        }
        // Only now does this node own what only one may do (conntrack).
        node.flows.begin(node.program)
        start.isReady()
        node.beginStoring(manager, inherited)
        node.store?.sayRoom(log)
        sayReady(node)
        node.record(started: node.program)
        node.recordSetAside(start.hasSetAside)
        writer.moveEvents(logs)
        ControlLoop(node, manager, signals: Descriptor(signals), monitor: monitor, admin: admin).run()
        end(node)
        return 0
    }

    // MARK: Start

    private func openAdmin(_ settings: NodeSettings) throws(AdminSocketError) -> (any AdminDoor)? {
        try settings.adminSocket.map { path throws(AdminSocketError) in
            try door.open(at: path, group: settings.adminGroup)
        }
    }

    private enum OpenedJournal {
        /// Nil: the config has no `state`.
        case opened(Journal?)
        case refused
    }

    private func openJournal(_ settings: NodeSettings) -> OpenedJournal {
        guard let directory = settings.stateDirectory else { return .opened(nil) }
        do throws(JournalFault) {
            return .opened(
                try Journal.open(in: directory, settings.journalLimits) { [log] in log.say($0.event, $0.message) })
        } catch {
            sayNotStarted(["\(error)"])
            return .refused
        }
    }

    private func openLogs(_ settings: LogSettings) -> StagedLogs? {
        do throws(LogFileError) {
            return try writer.stage(settings)
        } catch {
            sayNotStarted(["\(error)"])
            return nil
        }
    }

    /// The state that this process starts from: what the boot guard counts until the node is ready.
    private final class StartOfState {
        var kept: LastGood?
        /// This start has done it.
        var hasSetAside = false

        func isReady() {
            kept?.startIsReady()
            kept = nil
        }
        func endedInOrder() {
            kept?.startEndedInOrder()
            kept = nil
        }
    }

    private func loadNode(_ start: StartOfState) -> LoadedNode? {
        do throws(FileError) {
            let log = log
            let loaded = try ConfigLoader.load(path, filters: filters) { directory throws(StateFault) in
                try Supervisor.openKept(directory, log, start)
            }
            say(loaded)
            if loaded.node == nil { sayNotStarted(["\(path) has errors"]) }
            return loaded.node
        } catch {
            sayNotStarted(["\(error)"])
            return nil
        }
    }

    /// How long another node may take to let go of the store, as one that begins to drain does.
    private static let storePatience = TimeSpan.seconds(10)

    private static func openKept(
        _ directory: String, _ log: ControlLog, _ start: StartOfState
    ) throws(StateFault) -> LastGood {
        let end = Instant(nanoseconds: cl_now()) + Supervisor.storePatience
        var hasSaid = false
        let (kept, notices) = try LastGood.openForStart(directory, now: cl_wall_clock()) { process in
            if !hasSaid {
                hasSaid = true
                let who = process.map { "process \($0)" } ?? "another process"
                log.say(
                    "state_locked",
                    "\(directory): \(who) has it open: waiting up to "
                        + "\(Supervisor.storePatience.milliseconds / 1000) s")
            }
            return Instant(nanoseconds: cl_now()) < end
        }
        for notice in notices { log.say(notice.event, notice.text) }
        kept.useTables()
        (start.kept, start.hasSetAside) = (kept, notices.contains { $0.event == "state_rolled_back" })
        return kept
    }

    /// Reports config errors: with source lines on a terminal, else as events, so that standard error is all JSON.
    private func say(_ loaded: LoadedConfig) {
        guard cl_is_terminal(2) == 0 else {
            log.text(loaded.diagnosticText)
            return
        }
        let source = loaded.compilation.source
        for diagnostic in loaded.diagnostics {
            let place = source.position(of: diagnostic.span.start)
            log.say("config_\(diagnostic.severity.rawValue)", diagnostic.message) { line in
                line.field("file", source.file(of: diagnostic.span.start))
                line.field("line", place.line)
                line.field("column", place.column)
                if let expected = diagnostic.expected { line.field("expected", expected) }
                line.list("help", diagnostic.help) { $0.string($1) }
            }
        }
    }

    /// - Parameter journal: it says so as well.
    private func sayNotStarted(_ failures: [String], _ journal: Journal?) {
        sayNotStarted(failures)
        guard let journal else { return }
        var entry = JournalEntry(.rejected, source: "node", what: "a start: nothing was started")
        entry.why = failures.joined(separator: "; ")
        journal.append(entry)
        _ = journal.finish(patience: .milliseconds(UInt32(Supervisor.lastWords)))
    }

    private func sayNotStarted(_ failures: [String]) {
        guard cl_is_terminal(2) == 0 else {
            log.text(failures.map { "error: \($0)\n" }.joined() + "nothing was started\n")
            return
        }
        log.say("not_started", "nothing was started: " + failures.joined(separator: "; ")) { line in
            line.list("errors", failures) { $0.string($1) }
        }
    }

    private func startNode(_ loaded: LoadedNode, _ journal: Journal?) -> RunningNode? {
        let result = RunningNode.start(loaded, config: path, writer: writer, queues: queues, inherited: inherited)
        if result.node == nil { sayNotStarted(result.failures, journal) }
        return result.node
    }

    private func sayReady(_ node: RunningNode) {
        let budget = node.fleet.budget
        if budget.isCapped {
            log.say(
                "limited",
                "the limit of open files allows \(budget.connectionsPerWorker) connections per worker, not "
                    + "\(node.settings.maxConnections); raise it (systemd: LimitNOFILE=, shell: ulimit -Hn), or lower "
                    + "`connections`")
        }
        let endpoints = node.listeners.openEndpoints
        if endpoints.isEmpty {
            log.say("warning", "no listener is open: there is no `listen` line, and no route claims an exposed port")
        }
        log.say("ready") { line in
            line.field("node", node.settings.name)
            line.list("listening", EndpointRuns.texts(endpoints)) { $0.string($1) }
            line.field("workers", node.fleet.workers.count)
            line.field("routes", node.routeCount)
            line.field("max_connections", budget.connectionsPerWorker * node.fleet.workers.count)
            line.field("pid", Int(cl_process_id()))
        }
        manager.ready("serving on \(endpoints.count) addresses")
    }

    // MARK: End

    private func end(_ node: RunningNode) {
        node.prober.stop()
        node.names.stop()
        node.interception?.stop()
        let isWhole = node.fleet.finish(patience: Supervisor.lastWords)
        node.unreachable.stop()
        let isRecorded = node.flows.stop()
        var entry = JournalEntry(.stopped, source: "node", what: "the node \(node.settings.name) has ended")
        entry.why = "\(node.fleet.total(.accepted)) connections were accepted"
        node.record(entry)
        let isJournaled = node.journal?.finish(patience: .milliseconds(UInt32(Supervisor.lastWords))) ?? true
        log.say("stopped") { line in
            line.field("accepted", node.fleet.total(.accepted))
            line.field("log_records_dropped", node.fleet.total(.logDropped) + writer.out.counts.dropped)
            if !isWhole { line.field("log_complete", false) }
            if !isRecorded { line.field("ledger_complete", false) }
            if !isJournaled { line.field("journal_complete", false) }
        }
    }
}
