import CLinux
import Glibc
import PipelineNode
import PipelineRouting
import PipelineText
import PipelineThreads

/// The client side of the admin socket, for the subcommands.
package enum AdminConnection {
    /// Seconds for each read and write: a reload of a million routes takes some.
    package static let patience: Int32 = 60

    /// Why there is no answer.
    package struct Unreachable: Error, CustomStringConvertible {
        package let description: String
    }

    /// The node's answer to a request.
    package struct Answer: Sendable {
        /// The document or the table, as it is to be printed.
        package let bytes: [UInt8]
        /// 0, 1 for a refusal, or what else ``ApplyAnswer`` has.
        package let exit: Int32
        /// The node answers nothing but why, in words.
        package var isError = false
        /// The same in words, a line: `applied: 1 objects: …`.
        package var line: [UInt8] {
            let names: [StaticString] = ["error", "remedy", "outcome", "id", "message"]
            guard let fields = try? FlatJSON.read(bytes, names: names) else { return bytes }
            if let error = fields.string("error") {
                return Array("error: \(error)\(fields.string("remedy").map { "; \($0)" } ?? "")\n".utf8)
            }
            let id = fields.string("id").map { " as \($0)" } ?? ""
            let message = TextTable.harmless(fields.string("message") ?? "")
            return Array("\(fields.string("outcome") ?? "answered")\(id): \(message)\n".utf8)
        }
    }

    /// Sends one request and takes the whole answer.
    /// - Parameters:
    ///   - body: what follows the request.
    ///   - patience: seconds for each read and write.
    package static func ask(
        _ request: AdminRequest, body: [UInt8] = [], at path: String, patience: Int32 = patience
    ) throws(Unreachable) -> Answer {
        let connection = cl_unix_connect(path, patience)
        guard connection >= 0 else { throw Unreachable(description: reason(path, -connection)) }
        defer { _ = cl_close(connection) }
        for bytes in [request.bytes, body] {
            if let failed = send(bytes, connection) {
                // It may have answered without taking all, as a refusal.
                if failed == -Int(EPIPE) || failed == -Int(ECONNRESET) { break }
                throw broken(path, failed)
            }
        }
        return read(try receive(connection, path), isText: request.isText)
    }

    /// Nil, or why not all was sent.
    static func send(_ bytes: [UInt8], _ connection: Int32) -> Int? {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes {
                cl_send(connection, $0.baseAddress?.advanced(by: sent), $0.count - sent, nil, 0)
            }
            guard count > 0 else { return count }
            sent += count
        }
        return nil
    }

    private static func receive(_ connection: Int32, _ path: String) throws(Unreachable) -> [UInt8] {
        var answer: [UInt8] = []
        var room = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = room.withUnsafeMutableBytes { cl_receive(connection, $0.baseAddress, $0.count) }
            // A node that has not taken all that was sent resets the connection behind its answer.
            if count == 0 || (count == -Int(ECONNRESET) && !answer.isEmpty) { break }
            guard count > 0 else { throw broken(path, count) }
            answer += room[..<count]
        }
        guard answer.last == 0x0A else {
            throw Unreachable(description: "the node at \(path) ended before it had answered; see its log")
        }
        return answer
    }

    static func broken(_ path: String, _ result: Int) -> Unreachable {
        let why = result == -Int(EAGAIN) ? "no answer in \(patience) s" : kernelError(-result)
        return Unreachable(description: "the node at \(path) can't be reached: \(why); see its log")
    }

    static func reason(_ path: String, _ error: Int32) -> String {
        let cause: (String, String)
        switch error {
        case ENOENT:
            cause = (
                "there is no such socket", "start the node, give it an `admin` setting, or name its socket with --admin"
            )
        case ECONNREFUSED: cause = ("no node answers", "the node has ended: start it")
        case EACCES, EPERM:
            cause = ("no permission", "run as the node's user, as root, or in the group of its `admin` line")
        case ENAMETOOLONG: cause = ("the path is too long", "use at most 107 bytes")
        default: cause = (kernelError(error), "see `errno \(errorName(error))`")
        }
        return "the node at \(path) can't be reached: \(cause.0); \(cause.1)"
    }

    /// A refusal in JSON counts as one in either format.
    static func read(_ answer: [UInt8], isText: Bool) -> Answer {
        if isText, let end = answer.firstIndex(of: 0x0A), answer.first != UInt8(ascii: "{") {
            let exit = Int32(String(decoding: answer[..<end], as: UTF8.self)) ?? 1
            return Answer(bytes: Array(answer[(end + 1)...]), exit: exit)
        }
        let fields = try? FlatJSON.read(answer, names: ["error", "remedy", "outcome"])
        if let error = fields?.string("error") {
            guard isText else { return Answer(bytes: answer, exit: 1) }
            let remedy = fields?.string("remedy").map { "; \($0)" } ?? ""
            return Answer(bytes: Array("error: \(error)\(remedy)\n".utf8), exit: 1, isError: true)
        }
        return Answer(bytes: answer, exit: exit(of: fields?.string("outcome")))
    }

    private static func exit(of outcome: String?) -> Int32 {
        switch outcome {
        case nil, "relayed", "reloaded", "handed_over", "applied", "discarded": 0
        case "held": ApplyAnswer.exitHeld
        case "quarantined": ApplyAnswer.exitQuarantined
        case "taken_away": ApplyAnswer.exitPartly
        default: 1
        }
    }
}
