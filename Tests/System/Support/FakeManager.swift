import CLinux
import Foundation
import Glibc
import PipelineKeep
import TestSupport

/// A service manager as systemd 252 is one: it takes messages of its service alone, keeps the descriptors that come with
/// them, each socket once, forgets those that have ended, and starts the service anew with them: first what its socket
/// units have, then what it keeps, each with a name.
final class FakeManager {
    private let notices: Int32
    private let address: String
    /// Of socket units: they stay.
    private let units: [(descriptor: Int32, name: String)]
    private(set) var kept: [(descriptor: Int32, name: String)] = []
    private(set) var child: Child?
    /// Whose messages are taken.
    private var main: Int32 = 0
    private(set) var isReady = false
    private(set) var said: [String] = []
    /// As FileDescriptorStoreMax=.
    var most = 4096

    init(units: [(descriptor: Int32, name: String)] = []) throws {
        var name = [CChar](repeating: 0, count: 17)
        notices = cl_notify_listen(&name)
        guard notices >= 0 else { throw Failure(call: "a socket for messages", -notices) }
        address = String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        self.units = units
    }

    deinit {
        close(notices)
        for one in kept { close(one.descriptor) }
    }

    /// Starts the service, and returns once it is ready.
    @discardableResult func start(_ arguments: [String], isReady wanted: Bool = true) throws -> Child {
        dropEnded()
        let all = units + kept
        // LISTEN_PID is known only where the program becomes itself.
        let script = all.isEmpty ? "exec \"$0\" \"$@\"" : "LISTEN_PID=$$ exec \"$0\" \"$@\""
        var environment = ["NOTIFY_SOCKET": address]
        if !all.isEmpty {
            environment["LISTEN_FDS"] = "\(all.count)"
            environment["LISTEN_FDNAMES"] = all.map(\.name).joined(separator: ":")
        }
        isReady = false
        let child = try Child(
            "/bin/sh", ["-c", script, Binary.path] + arguments, environment: environment,
            descriptors: all.map(\.descriptor))
        (self.child, main) = (child, child.pid)
        if wanted {
            try awaitUntil("it is ready: \(child.output)") {
                take()
                return isReady
            }
        }
        return child
    }

    /// SIGKILL, and it has ended; what it said before counts.
    func kill() throws {
        child?.signal(SIGKILL)
        _ = try child?.waitForExit()
        take()
    }

    func take() {
        var bytes = [UInt8](repeating: 0, count: 4096)
        var descriptors = [Int32](repeating: -1, count: 253)
        while true {
            var (process, count): (Int32, Int32) = (0, 253)
            let got = cl_notify_receive(notices, &bytes, bytes.count, &process, &descriptors, &count)
            guard got >= 0 else { break }
            let message = NotifyMessage(bytes.prefix(got))
            let given = descriptors.prefix(Int(count))
            guard process == main else {
                for descriptor in given { close(descriptor) }
                continue
            }
            said.append(String(decoding: bytes.prefix(got), as: UTF8.self))
            if message.isReady { isReady = true }
            if let next = message.mainProcess { main = next }
            for descriptor in given { keep(descriptor, message) }
            if message.removes { drop { $0.name == message.name } }
        }
        dropEnded()
    }

    private func keep(_ descriptor: Int32, _ message: NotifyMessage) {
        let isKnown = kept.contains { cl_is_same_socket($0.descriptor, descriptor) != 0 }
        guard message.stores, !isKnown, kept.count < most else {
            close(descriptor)
            return
        }
        kept.append((descriptor, message.name))
    }

    private func dropEnded() {
        drop { one in
            var item = pollfd(fd: one.descriptor, events: 0, revents: 0)
            return poll(&item, 1, 0) > 0
        }
    }

    private func drop(_ isGone: ((descriptor: Int32, name: String)) -> Bool) {
        kept.removeAll { one in
            guard isGone(one) else { return false }
            close(one.descriptor)
            return true
        }
    }
}
