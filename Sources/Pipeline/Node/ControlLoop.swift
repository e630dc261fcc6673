import CLinux
import Pipeline
import PipelineJournal
import PipelineRuntime
import PipelineText
import PipelineThreads

/// The control thread's loop: waits for signals, address changes, admin clients and timers, and handles them one by
/// one. Nothing in it blocks.
struct ControlLoop: ~Copyable {
    private let node: RunningNode
    private let manager: ServiceManager
    private let signals: Descriptor
    private let monitor: AddressMonitor?
    private let admin: (any AdminDoor)?
    private var phase = Phase.serving
    /// That ends the node.
    private var signal: Int32 = 0

    private enum Phase {
        case serving
        /// Until what is being made durable is, or the deadline.
        case settling(Instant)
        /// Until the last connection has ended, or the deadline.
        case draining(Instant)
        case stopping
    }

    /// While draining, only the counters show the end of the last connection.
    private static let drainPoll = TimeSpan.milliseconds(10)
    /// How long a disk may take with what was handed to it before the end.
    private static let diskPatience = TimeSpan.seconds(2)
    private static let worthExcusing = TimeSpan.milliseconds(100)

    /// - Parameter signals: from `cl_signal_open`; closed with the loop.
    init(
        _ node: RunningNode, _ manager: ServiceManager, signals: Descriptor, monitor: AddressMonitor?,
        admin: (any AdminDoor)?
    ) {
        self.node = node
        self.manager = manager
        self.signals = signals
        self.monitor = monitor
        self.admin = admin
    }

    deinit { _ = cl_close(signals.number) }

    /// Runs until the workers have ended.
    consuming func run() {
        var woke = Instant(nanoseconds: cl_now())
        while true {
            let busy = Instant(nanoseconds: cl_now()).since(woke)
            if busy > ControlLoop.worthExcusing { admin?.excuse(busy) }
            var items: [cl_poll_item] = [.readable(signals.number)]
            if let monitor { items.append(.readable(monitor.descriptor.number)) }
            if let probes = node.headerProbes { items.append(.readable(probes.number)) }
            // Nobody else needs it, and poll(2) takes no more than may be open.
            if let notice = node.resetsNotice { items.append(.readable(notice.number)) }
            if let notice = node.namesNotice { items.append(.readable(notice.number)) }
            items += node.routesNotices.map { .readable($0.number) }
            if let notice = node.updates?.notice { items.append(.readable(notice)) }
            let firstAdmin = items.count
            if let admin { items += admin.waits(Instant(nanoseconds: cl_now())) }
            let failed = Poll.wait(&items, until: nextDue())
            woke = Instant(nanoseconds: cl_now())
            guard failed >= 0 else {
                // The wait can't fail for open descriptors; if it does, ending is the only safe reaction.
                node.log.say("stopping", "the control loop stops: poll: \(kernelError(-failed))")
                node.fleet.order(.stop)
                return
            }
            takeSignals()
            if let monitor, items[1].got != 0 { node.addressesChanged(monitor.take()) }
            let now = woke
            if let admin { admin.serve(items[firstAdmin...], now, node, manager) }
            node.tick(now)
            if case .settling(let deadline) = phase { settle(deadline, now) }
            if isOver(now) { return }
        }
    }

    /// When the next timer is due; nil: none.
    private func nextDue() -> Instant? {
        let now = Instant(nanoseconds: cl_now())
        if admin?.isPreparing == true { return now }
        var due = [node.nextTick, admin?.nextDeadline(now)].compactMap { $0 }
        switch phase {
        case .serving: break
        case .settling(let deadline): due.append(deadline)
        case .draining, .stopping: due.append(now + ControlLoop.drainPoll)
        }
        return due.min()
    }

    // MARK: Signals

    private mutating func takeSignals() {
        while true {
            var (user, process): (UInt32, Int32) = (0, 0)
            let signal = cl_signal_take(signals.number, &user, &process)
            guard signal > 0 else { return }
            let name = SignalNumber.name(signal)
            let peer = JournalEntry.Peer(user: user, process: process)
            switch signal {
            case SignalNumber.hangup:
                node.afterUpdates { [node, manager] in _ = node.reload(by: name, peer, ReloadOptions(), manager) }
            case SignalNumber.user1 where node.writer.reopen():
                node.record(signal: name, from: peer, "log files are opened again")
            case _ where SignalNumber.ofOtherProxies.contains(signal): ignore(signal)
            default: stop(signal, peer)
            }
        }
    }

    /// Scripts for other proxies send them to rotate logs or to upgrade: they must end no connection here.
    private func ignore(_ signal: Int32) {
        node.log.say(
            "signal_ignored",
            "\(SignalNumber.name(signal)) does nothing here: "
                + (signal == SignalNumber.user1
                    ? "neither `connection_log` nor `event_log` is a file that could be opened again"
                    : "reload by SIGHUP; a new node may start beside one that drains")
        ) { $0.field("signal", SignalNumber.name(signal)) }
    }

    /// The first signal drains until the deadline; a second one ends it at once.
    private mutating func stop(_ signal: Int32, _ peer: JournalEntry.Peer) {
        switch phase {
        case .serving:
            node.record(signal: SignalNumber.name(signal), from: peer, "the node drains")
            node.updates?.close(.stopping)
            manager.stopping()
            self.signal = signal
            let now = Instant(nanoseconds: cl_now())
            phase = .settling(now + ControlLoop.diskPatience)
            settle(now + ControlLoop.diskPatience, now)
        case .settling:
            drain()
            stop(signal, peer)
        case .draining:
            node.record(signal: SignalNumber.name(signal), from: peer, "open connections are reset")
            resetRest("a second signal: open connections are reset", .kill)
        case .stopping: break
        }
    }

    /// What was handed to the disk is answered before the node that follows may go on with it.
    private mutating func settle(_ deadline: Instant, _ now: Instant) {
        guard !(node.updates?.isBusy ?? false) || deadline <= now else { return }
        drain()
    }

    private mutating func drain() {
        node.endUpdates()
        node.routesWatch = nil
        node.interception?.end()
        let timeout = node.program.node.drainTimeout
        node.log.say("draining") { line in
            line.field("signal", SignalNumber.name(signal))
            line.field("connections", node.fleet.total(.active))
            line.field("deadline_ms", timeout.milliseconds)
        }
        phase = .draining(Instant(nanoseconds: cl_now()) + timeout)
        node.drainWorkers()
    }

    private mutating func resetRest(_ why: String, _ order: WorkerOrder) {
        node.log.say("stopping", why) { $0.field("connections", node.fleet.total(.active)) }
        phase = .stopping
        node.fleet.order(order)
    }

    private mutating func isOver(_ now: Instant) -> Bool {
        guard node.isStopping else { return false }
        if node.fleet.hasEnded { return true }
        if case .draining(let deadline) = phase, deadline <= now { resetRest("the drain deadline has passed", .stop) }
        return false
    }
}

enum SignalNumber {
    static let hangup: Int32 = 1
    static let interrupt: Int32 = 2
    static let terminate: Int32 = 15
    static let user1: Int32 = 10
    static let user2: Int32 = 12
    static let ofOtherProxies = [user1, user2]

    static func name(_ number: Int32) -> String {
        switch number {
        case hangup: "SIGHUP"
        case interrupt: "SIGINT"
        case terminate: "SIGTERM"
        case user1: "SIGUSR1"
        case user2: "SIGUSR2"
        default: "signal \(number)"
        }
    }
}
