import CLinux
import Foundation
import Glibc
import TestSupport

/// Pushes over the admin socket, a connection each, as `apply` does, without a process each.
struct PushClient: Sendable {
    let admin: String

    struct Answer: Sendable {
        let outcome: String
        let message: String
        let revision: Int?
    }

    /// Nil: the node has ended before it answered.
    func push(_ text: String) throws -> Answer? {
        let connection = cl_unix_connect(admin, 60)
        guard connection >= 0 else { return nil }
        defer { close(connection) }
        let request = Array("{\"command\":\"apply\",\"length\":\(text.utf8.count)}\n\(text)".utf8)
        var sent = 0
        while sent < request.count {
            let count = request.withUnsafeBytes {
                cl_send(connection, $0.baseAddress?.advanced(by: sent), $0.count - sent, nil, 0)
            }
            guard count > 0 else { break }
            sent += count
        }
        var answer: [UInt8] = []
        var room = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = room.withUnsafeMutableBytes { cl_receive(connection, $0.baseAddress, $0.count) }
            guard count > 0 else { break }
            answer += room[..<count]
        }
        guard answer.last == 0x0A else { return nil }
        return try PushClient.read(Data(answer))
    }

    static func read(_ line: Data) throws -> Answer {
        let json = try (try JSONSerialization.jsonObject(with: line) as? [String: Any]).unwrap("an object")
        if let error = json["error"] as? String { return Answer(outcome: "error", message: error, revision: nil) }
        return Answer(
            outcome: try (json["outcome"] as? String).unwrap("outcome"), message: json["message"] as? String ?? "",
            revision: json["revision"] as? Int)
    }
}
