import CLinux
import Glibc
import Pipeline
import PipelineHost
import PipelineNode
import PipelineRouting
import PipelineRuntime
import PipelineThreads

/// The admin socket: one request a connection, a JSON object on a line; one document back, then the end
/// (docs/adr/0014). Every resource of a client is bounded, and no call blocks.
///
/// Threading: the control thread. Ownership: closes the socket and its clients, and removes the file.
package final class AdminServer: AdminDoor {
    static let clientLimit = 32
    /// Bytes of a request.
    static let requestLimit = 65536
    /// The idle timeout, without the time that the node was busy.
    static let idleLimit = TimeSpan.seconds(5)
    /// How long an upload may take, and the most bytes of it that are taken in one iteration.
    static let uploadLimit = TimeSpan.seconds(60)
    static let uploadPiece = 1 << 18
    static let streamPiece = 1 << 16
    /// How long a client that sends one push after the other may be silent between them.
    static let streamLimit = TimeSpan.seconds(60)
    /// How long reports are prepared in one iteration of the control loop: signals, addresses and other clients wait no longer.
    static let batchTime = TimeSpan.milliseconds(10)

    /// How long a node that drains may take to hand over, in seconds.
    private static let handOverPatience: Int32 = 5

    /// The most draining nodes that stay reachable.
    private static let drainingLimit = 16

    private var path: String
    private var hasGivenWay = false
    /// The socket file's identity: another node may have replaced it by the end.
    private let inode: UInt64
    private let listener: Descriptor
    private var clients: [AdminClient] = []
    private var turn = 0
    private let uploads = UploadRoom()
    /// While no descriptor is free for the next client, it waits in the kernel's queue.
    private var pause = AcceptPause()
    /// A reserve descriptor for one client: operators ask most when a node is short (R27). Nil: in use, or not
    /// available.
    private var reserve: Descriptor?

    /// Listens at `path`, with mode 0600, or 0660 for a group. A stale socket file is replaced.
    init(path: String, group: String?) throws(AdminSocketError) {
        let number = try group.map { name throws(AdminSocketError) in try AdminServer.number(of: name, path) }
        try AdminServer.makeRoom(path)
        let made = cl_unix_listen(path, 0o600, Int32(AdminServer.clientLimit))
        guard made >= 0 else { throw AdminServer.failure(path, -made) }
        let shared = number.map { cl_unix_share(path, $0) } ?? 0
        guard shared == 0 else {
            _ = cl_close(made)
            _ = cl_remove_path(path)
            throw AdminServer.unshared(path, group ?? "", -shared)
        }
        self.path = path
        inode = cl_path_inode(path)
        listener = Descriptor(made)
        keepReserve()
    }

    deinit {
        for client in clients { client.close() }
        giveReserve()
        _ = cl_close(listener.number)
        if cl_path_inode(path) == inode { _ = cl_remove_path(path) }
    }

    /// Hands its path to another node, once. Connected clients stay.
    /// - Returns: the new path; nil: it was handed over already, or the file can't be renamed.
    func giveWay() -> String? {
        guard !hasGivenWay, cl_path_inode(path) == inode else { return nil }
        // Several nodes may drain at once, and each stays reachable.
        let names = (1...AdminServer.drainingLimit).map { path + ".draining" + ($0 == 1 ? "" : ".\($0)") }
        guard let other = names.first(where: { cl_path_kind($0) == 0 }), cl_rename_path(path, other) == 0 else {
            return nil
        }
        hasGivenWay = true
        path = other
        return other
    }

    /// Whether a node answers at `path` that would hand it over: it drains.
    package static func isDraining(at path: String) -> Bool {
        guard cl_path_kind(path) == 1 else { return false }
        let request = AdminRequest(.status, isText: false)
        guard let answer = try? AdminConnection.ask(request, at: path, patience: handOverPatience) else { return false }
        return isDraining(answer.bytes)
    }

    /// - Parameter status: what a node says of itself; one of the version before has `state`.
    static func isDraining(_ status: [UInt8]) -> Bool {
        guard let said = try? FlatJSON.read(status, names: ["status", "state"]) else { return false }
        return (said.string("status") ?? said.string("state")) == "draining"
    }

    private static func number(of group: String, _ path: String) throws(AdminSocketError) -> UInt32 {
        switch Groups.find(group) {
        case .number(let number): return number
        case .unknown:
            throw AdminSocketError(
                description: "can't open the admin socket \(path): this host has no group \(group); see `getent group`")
        case .failed(let error): throw unshared(path, group, error)
        }
    }

    private static func unshared(_ path: String, _ group: String, _ error: Int32) -> AdminSocketError {
        let cause =
            error == EPERM
            ? "this user is no member of the group; make it one, or run the node as root"
            : "\(kernelError(error)); see `errno \(errorName(error))`"
        return AdminSocketError(
            description: "can't let the group \(group) use the admin socket \(path): \(cause)")
    }

    private static func isTaken(_ path: String) -> AdminSocketError {
        AdminSocketError(
            description: "can't open the admin socket \(path): another process answers on it; stop that one, or give "
                + "this node another `admin` path")
    }

    private static func makeRoom(_ path: String) throws(AdminSocketError) {
        switch cl_path_kind(path) {
        case 0: return
        case 1:
            let answer = cl_unix_connect(path, 0)
            // A full queue means that a node listens.
            if answer >= 0 || answer == -EAGAIN {
                if answer >= 0 { _ = cl_close(answer) }
                let request = AdminRequest(.handOver, isText: false)
                if let answer = try? AdminConnection.ask(request, at: path, patience: handOverPatience),
                    answer.exit == 0
                {
                    return
                }
                throw isTaken(path)
            }
            guard answer == -ECONNREFUSED else { throw failure(path, -answer) }
            let failed = cl_remove_path(path)
            guard failed == 0 else { throw failure(path, -failed) }
        case let kind where kind < 0: throw failure(path, -kind)
        default:
            throw AdminSocketError(
                description: "can't open the admin socket \(path): the file exists and is not a socket; move it away, "
                    + "or use another path")
        }
    }

    private static func failure(_ path: String, _ error: Int32) -> AdminSocketError {
        let cause: (String, String)
        switch error {
        case ENOENT: cause = ("its directory does not exist", "make it (systemd: RuntimeDirectory=)")
        case ENOTDIR: cause = ("a part of the path is not a directory", "check the path")
        case EACCES, EPERM: cause = ("no permission", "check the owner and mode of its directory")
        case EROFS: cause = ("the file system is read-only", "choose another place")
        case EADDRINUSE: cause = ("another process has just created it", "stop that one, or use another path")
        default: cause = (kernelError(error), "see `errno \(errorName(error))`")
        }
        return AdminSocketError(description: "can't open the admin socket \(path): \(cause.0); \(cause.1)")
    }

    // MARK: The loop's side

    /// What to wait for: the socket itself first, then each client.
    package func waits(_ now: Instant) -> [cl_poll_item] {
        [cl_poll_item(listener.number, reads: pause.isOver(at: now))] + clients.map(\.wait)
    }

    /// When the first idle client is to be closed, or the next one may be admitted.
    package func nextDeadline(_ now: Instant) -> Instant? {
        let idle = clients.compactMap(\.deadline).min()
        guard !pause.isOver(at: now), let until = pause.until else { return idle }
        return min(idle ?? until, until)
    }

    /// A report is being made: the next iteration is due at once.
    package var isPreparing: Bool { clients.contains(where: \.isPreparing) }

    /// The node did something else for so long: that is no client's fault.
    package func excuse(_ busy: TimeSpan) { for client in clients { client.excuse(busy) } }

    /// One batch for one client, in turns.
    private func prepareOne() {
        let waiting = clients.filter(\.isPreparing)
        guard !waiting.isEmpty else { return }
        turn = (turn + 1) % waiting.count
        let now = Instant(nanoseconds: cl_now())
        waiting[turn].prepare(until: now + AdminServer.batchTime, now)
    }

    package static func open(at path: String, group: String?) throws(AdminSocketError) -> any AdminDoor {
        try AdminServer(path: path, group: group)
    }

    package func serve(
        _ items: ArraySlice<cl_poll_item>, _ now: Instant, _ node: RunningNode, _ manager: ServiceManager
    ) {
        let commands = AdminCommands(node: node, manager: manager, giveWay: { [self] in giveWay() }, uploads: uploads)
        serve(items, now) { commands.answer($0, from: $1) }
    }

    /// Serves what has come. `items` are those of ``waits``.
    func serve(_ items: ArraySlice<cl_poll_item>, _ now: Instant, answer: AdminClient.Answer) {
        for (client, item) in zip(clients, items.dropFirst()) where item.got != 0 {
            client.move(item.got, now, answer: answer)
        }
        for client in clients where client.deadline.map({ $0 <= now }) ?? false { client.expire(now) }
        clients.removeAll { client in
            if client.isOver { client.close() }
            return client.isOver
        }
        if clients.isEmpty { keepReserve() }
        if items.first?.got ?? 0 != 0 { acceptAll(now) }
        prepareOne()
    }

    private func keepReserve() {
        guard reserve == nil else { return }
        let made = cl_open_null()
        if made >= 0 { reserve = Descriptor(made) }
    }

    private func giveReserve() {
        if let reserve { _ = cl_close(reserve.number) }
        reserve = nil
    }

    private func acceptOne() -> Int32 {
        let accepted = cl_unix_accept(listener.number)
        guard -accepted == EMFILE || -accepted == ENFILE, reserve != nil
        else {
            return accepted
        }
        giveReserve()
        return cl_unix_accept(listener.number)
    }

    private func acceptAll(_ now: Instant) {
        for _ in 0..<AdminServer.clientLimit {
            let accepted = acceptOne()
            guard accepted >= 0 else {
                if -accepted != EAGAIN, -accepted != ECONNABORTED {
                    _ = pause.begin(at: now)
                }
                return
            }
            pause.end()
            if clients.count < AdminServer.clientLimit {
                clients.append(AdminClient(Descriptor(accepted), now))
            } else {
                // R27: the newest is refused, with a reason.
                let refusal = AdminResponse.failure(
                    "the node serves \(AdminServer.clientLimit) admin clients, which is the limit",
                    "try again in a moment")
                _ = refusal.withUnsafeBytes { cl_send(accepted, $0.baseAddress, $0.count, nil, 0) }
                _ = cl_close(accepted)
            }
        }
    }
}
