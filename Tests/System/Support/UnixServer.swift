import Foundation
import Glibc
import TestSupport

/// A server at a Unix socket: each connection gets a thread and `serve`.
final class UnixServer: Sendable {
    let path: String
    private let stop = Flag()
    private let ended: Promise<Void>

    init(_ path: String, serve: @escaping @Sendable (Socket) throws -> Void) throws {
        self.path = path
        let (listener, stop) = (try Socket.listen(path: path), stop)
        ended = concurrently {
            while let accepted = try? listener.accept(Deadline(seconds: 3600)), !stop.isSet {
                Thread.detachNewThread { try? serve(accepted) }
            }
        }
    }

    deinit { try? end() }

    /// Returns once nobody listens any more. The file stays, as after a crash.
    func end() throws {
        stop.set()
        _ = try? Socket.connect(path: path)
        try ended.value(Deadline(), "end of the server")
    }

    /// Sends back what comes, and FIN after FIN.
    static func echo(_ path: String) throws -> UnixServer {
        try UnixServer(path) { socket in
            while case .bytes(let chunk) = try socket.receive() { try socket.send(chunk) }
            socket.finish()
        }
    }

    /// Says `text`, then FIN.
    static func saying(_ text: String, at path: String) throws -> UnixServer {
        try UnixServer(path) { socket in
            try socket.send(text)
            socket.finish()
            _ = try socket.receiveToEnd()
        }
    }
}
