import CLinux
import Foundation
import Glibc

/// TCP ports that are this process's until it ends: nobody else can have one in between.
///
/// A port that is bound, closed and bound again by its user can be lost meanwhile: to whoever takes any free port, and to a
/// program that is being started by another thread, whose copy of the socket is only closed by its `exec`. So each port
/// stays bound, on every address, by a socket that does not listen. Where both have `SO_REUSEADDR` Linux lets another socket
/// listen on it, as servers do, and refuses those who connect while none does; a second process that wants the port
/// for itself is refused, and the kernel gives it to no client.
package final class OwnedPort: @unchecked Sendable {
    private static let keeper = OwnedPort()

    private let condition = NSCondition()
    // Guarded by `condition`.
    private var wanted = 0
    private var ready: [UInt16] = []
    /// Of the thread alone.
    private var next = 20_000 + UInt32(getpid()) * 61 % 8_000
    private var held: [Int32] = []

    private init() { Thread.detachNewThread { self.run() } }

    /// A port of 20000 to 31999, each once.
    package static func take() -> UInt16? { keeper.take() }

    private func take() -> UInt16? {
        condition.withLock {
            wanted += 1
            condition.broadcast()
            while ready.isEmpty { condition.wait() }
            let port = ready.removeFirst()
            return port == 0 ? nil : port
        }
    }

    private func run() {
        // A table of its own: hundreds of ports don't count against what the tests may have open, and no child copies them.
        _ = cl_own_descriptors(nil, 0)
        while true {
            condition.withLock { while wanted == 0 { condition.wait() } }
            let port = hold() ?? 0
            condition.withLock {
                wanted -= 1
                ready.append(port)
                condition.broadcast()
            }
        }
    }

    private func hold() -> UInt16? {
        for _ in 0..<12_000 {
            next += 1
            let port = UInt16(20_000 + (next - 20_000) % 12_000)
            var socket = open(port)
            if socket == -EMFILE, !held.isEmpty {
                close(held.removeFirst())
                socket = open(port)
            }
            if socket < 0 { continue }
            held.append(socket)
            return port
        }
        return nil
    }

    /// Bound alone; from then on others may join it.
    private func open(_ port: UInt16) -> Int32 {
        let fd = socket(AF_INET6, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard fd >= 0 else { return -errno }
        var (off, on): (Int32, Int32) = (0, 1)
        let size = socklen_t(MemoryLayout<Int32>.size)
        setsockopt(fd, Int32(IPPROTO_IPV6), IPV6_V6ONLY, &off, size)
        var address = sockaddr_in6()
        address.sin6_family = sa_family_t(AF_INET6)
        address.sin6_port = port.bigEndian
        let bound = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(fd, $0, socklen_t(MemoryLayout<sockaddr_in6>.size))
            }
        }
        guard bound == 0, setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, size) == 0 else {
            let error = errno
            close(fd)
            return -error
        }
        return fd
    }
}
