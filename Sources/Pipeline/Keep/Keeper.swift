import CLinux
import Glibc
import Pipeline
import PipelineText
import PipelineThreads

/// `run --keep`: starts a node, and again when it ends by a signal, with the listening sockets that it had: clients wait in
/// their queues meanwhile, and nobody is refused. Passes signals on to the node, and what it says on to the service manager.
///
/// Threading: one thread, the process's only one. One per process: it takes over the process's signals.
package struct Keeper: ~Copyable {
    private let program: String
    private let arguments: [String]
    private let sockets: KeptSockets
    private let signals: Int32
    private let notices: Int32
    private let address: String
    /// Of the keeper's own service manager; nil: there is none.
    private let manager: String?
    private var policy = RestartPolicy()
    private var node: Running?
    /// When the next node is started; nil: one runs.
    private var startAt: Instant?
    /// Somebody wants the end.
    private var isStopping = false

    private struct Running {
        let process: Int32
        /// Readable once it has ended.
        let end: Int32
        var readySince: Instant?
    }

    /// - Parameter arguments: of the node, after the program's name.
    /// - Returns: the process's exit code: that of the last node, or 128 and the signal that ended it.
    package static func run(_ arguments: [String]) -> Int32 {
        let given = ListenVariables.take()
        guard cl_hold_standard_streams() == 0, cl_signals_hold() == 0, cl_adopt_orphans() == 0 else {
            return refuse("can't take over the process's signals and standard streams")
        }
        _ = cl_raise_descriptor_limit()
        var path = [CChar](repeating: 0, count: Int(PATH_MAX))
        guard cl_own_program(&path, path.count) > 0 else { return refuse("can't find this program's file in /proc") }
        var address = [CChar](repeating: 0, count: 17)
        let (signals, notices) = (cl_signal_open(), cl_notify_listen(&address))
        guard signals >= 0, notices >= 0 else {
            return refuse("can't make a socket for the node's messages: \(kernelError(-min(signals, notices)))")
        }
        return Keeper(text(path), arguments, KeptSockets(given), signals, notices, text(address)).run()
    }

    private static func text(_ bytes: [CChar]) -> String {
        String(decoding: bytes.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private init(
        _ program: String, _ arguments: [String], _ sockets: KeptSockets, _ signals: Int32, _ notices: Int32,
        _ address: String
    ) {
        (self.program, self.arguments, self.sockets) = (program, arguments, sockets)
        (self.signals, self.notices, self.address) = (signals, notices, address)
        manager = getenv("NOTIFY_SOCKET").map { String(cString: $0) }
    }

    private consuming func run() -> Int32 {
        startAt = Instant(nanoseconds: cl_now())
        while true {
            if let due = startAt, due <= Instant(nanoseconds: cl_now()), let code = start() { return code }
            var items: [cl_poll_item] = [.readable(signals), .readable(notices)]
            if let node { items.append(.readable(node.end)) }
            let failed = Poll.wait(&items, until: startAt)
            guard failed >= 0 else { return Keeper.refuse("poll: \(kernelError(-failed))") }
            // What it has said comes before its end.
            takeNotices()
            takeSignals()
            if items.count > 2, items[2].got != 0, let code = nodeEnded() { return code }
            if node == nil, isStopping { return 0 }
        }
    }

    // MARK: The node

    /// - Returns: an exit code, if it can't be started; nil: it runs.
    private mutating func start() -> Int32? {
        startAt = nil
        sockets.removeEnded()
        let own = [ListenVariables.pid, ListenVariables.count, ListenVariables.names, "NOTIFY_SOCKET", "FDSTORE"]
        var variables = Keeper.environment().filter { line in !own.contains { line.hasPrefix($0 + "=") } }
        variables.append("NOTIFY_SOCKET=\(address)")
        variables.append("FDSTORE=\(ListenVariables.most)")
        if sockets.count > 0 {
            variables.append("\(ListenVariables.count)=\(sockets.count)")
            variables.append("\(ListenVariables.names)=\(sockets.names)")
        }
        let descriptors = sockets.descriptors
        let process = Keeper.withWords([program] + arguments) { words in
            Keeper.withWords(variables) { variables in
                cl_start_with(
                    program, words.baseAddress, variables.baseAddress, descriptors, Int32(clamping: descriptors.count))
            }
        }
        guard process > 0 else {
            say("keeper_failed", "can't start \(program): \(kernelError(-process))")
            return decide(life: nil, hasRefused: true, code: 1)
        }
        let end = cl_watch_process(process)
        guard end >= 0 else {
            _ = cl_send_signal(process, SIGTERM)
            return Keeper.refuse("can't watch the node: \(kernelError(-end))")
        }
        node = Running(process: process, end: end)
        return nil
    }

    private mutating func nodeEnded() -> Int32? {
        guard let ended = node else { return nil }
        var (code, signal): (Int32, Int32) = (0, 0)
        let outcome = cl_child_ended(ended.process, &code, &signal)
        guard outcome != 0 else { return nil }
        _ = cl_close(ended.end)
        node = nil
        // A process that was no child of ours can't be asked.
        let status = outcome < 0 ? 1 : signal > 0 ? 128 + signal : code
        guard !isStopping, status != 0 else { return status }
        let life = ended.readySince.map { Instant(nanoseconds: cl_now()).since($0) }
        say(
            "node_ended",
            signal > 0
                ? "the node was ended by signal \(signal): its open connections are lost, its listeners are kept"
                : "the node ended with exit code \(status)"
        ) { line in
            line.field("pid", Int(ended.process))
            line.field("sockets", sockets.count)
        }
        return decide(life: life, hasRefused: signal == 0, code: status)
    }

    private mutating func decide(life: TimeSpan?, hasRefused: Bool, code: Int32) -> Int32? {
        switch policy.ended(life: life, hasRefused: hasRefused) {
        case .start(let pause):
            startAt = Instant(nanoseconds: cl_now()) + pause
            return nil
        case .giveUp:
            if policy.failures > 1 {
                say(
                    "keeper_gave_up",
                    "the node ended \(policy.failures) times in a row before it was ready: its listeners are closed")
            }
            return code
        }
    }

    // MARK: Messages and signals

    private mutating func takeNotices() {
        var bytes = [UInt8](repeating: 0, count: NotifyMessage.limit)
        var descriptors = [Int32](repeating: -1, count: 253)
        while true {
            var (process, count): (Int32, Int32) = (0, Int32(clamping: descriptors.count))
            let got = cl_notify_receive(notices, &bytes, bytes.count, &process, &descriptors, &count)
            if got == -Int(EMSGSIZE) { continue }
            guard got >= 0 else { return }
            let given = Array(descriptors.prefix(Int(count)))
            guard let node, process == node.process else {
                for descriptor in given { _ = cl_close(descriptor) }
                continue
            }
            take(NotifyMessage(bytes.prefix(got)), given)
        }
    }

    private mutating func take(_ message: NotifyMessage, _ given: [Int32]) {
        for descriptor in given {
            if message.stores { sockets.add(descriptor, message.name) } else { _ = cl_close(descriptor) }
        }
        if message.removes { sockets.remove(message.name) }
        if message.isReady, node?.readySince == nil { node?.readySince = Instant(nanoseconds: cl_now()) }
        if message.isStopping { isStopping = true }
        if let next = message.mainProcess { follow(next) }
        guard let manager, !message.rest.isEmpty else { return }
        let bytes = Array(message.rest.utf8)
        _ = bytes.withUnsafeBytes { cl_send_datagram(manager, $0.baseAddress, $0.count) }
    }

    /// Another process is the node from here on.
    private mutating func follow(_ process: Int32) {
        guard let old = node, process != old.process else { return }
        let end = cl_watch_process(process)
        guard end >= 0 else { return }
        _ = cl_close(old.end)
        node = Running(process: process, end: end, readySince: old.readySince)
    }

    private mutating func takeSignals() {
        var (user, process): (UInt32, Int32) = (0, 0)
        while case let signal = cl_signal_take(signals, &user, &process), signal > 0 {
            if signal == SIGTERM || signal == SIGINT { isStopping = true }
            if let node { _ = cl_send_signal(node.process, signal) }
        }
    }

    // MARK: What it says

    private func say(_ event: String, _ message: String, _ fields: (inout JSONLine) -> Void = { _ in }) {
        // Who reads it may stand still, and must not stop us.
        guard Poll.isWritable(2) else { return }
        ControlLog { line in _ = line.withUnsafeBytes { cl_write_all(2, $0.baseAddress, $0.count) } }
            .say(event, message, fields)
    }

    private static func refuse(_ why: String) -> Int32 {
        let bytes = ControlLog.line("not_started", "nothing was started: \(why)", time: cl_wall_clock())
        _ = bytes.withUnsafeBytes { cl_write_all(2, $0.baseAddress, $0.count) }
        return 1
    }

    // MARK: Words of C

    private static func environment() -> [String] {
        var lines: [String] = []
        while let line = environ[lines.count] { lines.append(String(cString: line)) }
        return lines
    }

    private static func withWords<Result>(
        _ words: [String], _ body: (UnsafeBufferPointer<UnsafeMutablePointer<CChar>?>) -> Result
    ) -> Result {
        let copies = words.map { strdup($0) } + [nil]
        defer { for copy in copies { free(copy) } }
        return copies.withUnsafeBufferPointer { buffer in
            body(buffer)
        }
    }
}
