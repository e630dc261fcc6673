import CLinux
import Pipeline
import PipelineLanguage
import PipelineRuntime

/// Runs a node from start to end: loads, opens, starts workers and log, obeys signals, drains, stops.
///
/// Threading: all of it on the calling thread, which becomes the control thread. One per process: it takes over the
/// process's signals.
package struct Supervisor: ~Copyable {
    private let path: String
    private let log = ControlLog()
    private let manager = ServiceManager()

    package init(config path: String) { self.path = path }

    /// - Returns: the process's exit code: 0 after an orderly stop, 1 if nothing was started.
    package consuming func run() -> Int32 {
        guard cl_signals_hold() == 0 else {
            log.text("error: can't take over the process's signals\n")
            return 1
        }
        guard let node = loadNode(), let fleet = startFleet(node) else { return 1 }
        sayReady(fleet)
        serve(fleet)
        return 0
    }

    // MARK: Start

    private func loadNode() -> LoadedNode? {
        do throws(FileError) {
            let loaded = try ConfigLoader.load(path)
            log.text(loaded.diagnosticText)
            if loaded.node == nil { log.text("\(path) has errors: nothing was started\n") }
            return loaded.node
        } catch {
            log.text("error: \(error)\n")
            return nil
        }
    }

    private func startFleet(_ node: LoadedNode) -> Fleet? {
        let result = Fleet.start(node)
        for failure in result.failures { log.text("error: \(failure)\n") }
        guard let fleet = result.fleet else {
            log.text("nothing was started\n")
            return nil
        }
        return fleet
    }

    private func sayReady(_ fleet: Fleet) {
        if fleet.budget.isCapped {
            let wanted = fleet.settings.maxConnections
            log.say(
                "limited",
                "the limit of open files allows \(fleet.budget.connectionsPerWorker) connections per worker, not "
                    + "\(wanted); raise it (systemd: LimitNOFILE=, shell: ulimit -Hn), or lower `max_connections`")
        }
        if fleet.endpoints.isEmpty {
            log.say("warning", "nothing listens: no `listen` line, and no raw route claims an exposed port")
        }
        log.say("ready") { line in
            line.field("node", fleet.settings.name)
            line.list("listening", fleet.endpoints) { $0.string($1.description) }
            line.field("workers", fleet.workers.count)
            line.field("routes", fleet.routeCount)
            line.field("max_connections", fleet.budget.connectionsPerWorker * fleet.workers.count)
            line.field("pid", Int(cl_process_id()))
        }
        manager.ready("serving on \(fleet.endpoints.count) addresses")
    }

    // MARK: Serve

    private func serve(_ fleet: Fleet) {
        while true {
            switch cl_signal_wait(-1) {
            case 0: continue
            case SignalNumber.hangup:
                log.say(
                    "reload_refused",
                    "this version does not reload: nothing was changed; restart to read the config again")
            case let signal where signal > 0:
                stop(fleet, signal: signal)
                return
            default:
                // The wait can't fail for a set of valid signals; ending is the only safe answer if it does.
                stop(fleet, signal: SignalNumber.terminate)
                return
            }
        }
    }

    /// Drains until the deadline; a second signal ends it at once.
    private func stop(_ fleet: Fleet, signal: Int32) {
        manager.stopping()
        let deadline = Instant(nanoseconds: cl_now()) + fleet.settings.drainTimeout
        log.say("draining") { line in
            line.field("signal", SignalNumber.name(signal))
            line.field("connections", fleet.total(.active))
            line.field("deadline_ms", fleet.settings.drainTimeout.milliseconds)
        }
        fleet.order(.drain)
        while !fleet.hasEnded {
            let next = cl_signal_wait(Supervisor.pollNanoseconds)
            let isForced = next == SignalNumber.terminate || next == SignalNumber.interrupt
            guard isForced || Instant(nanoseconds: cl_now()) >= deadline else { continue }
            log.say(
                "stopping", isForced ? "a second signal: open connections are reset" : "the drain deadline has passed"
            ) { $0.field("connections", fleet.total(.active)) }
            fleet.order(.stop)
            break
        }
        end(fleet)
    }

    private static let pollNanoseconds: Int64 = 10_000_000

    private func end(_ fleet: Fleet) {
        let isWhole = fleet.finish(patience: 2000)
        log.say("stopped") { line in
            line.field("accepted", fleet.total(.accepted))
            line.field("log_records_dropped", fleet.total(.logDropped))
            if !isWhole { line.field("log_complete", false) }
        }
    }
}

enum SignalNumber {
    static let hangup: Int32 = 1
    static let interrupt: Int32 = 2
    static let terminate: Int32 = 15

    static func name(_ number: Int32) -> String {
        switch number {
        case hangup: "SIGHUP"
        case interrupt: "SIGINT"
        case terminate: "SIGTERM"
        default: "signal \(number)"
        }
    }
}
