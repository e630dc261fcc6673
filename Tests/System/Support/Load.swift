import Foundation
import TestSupport

/// Clients that connect, ask and check the answer, each on a thread of its own, one connection after the other, as fast
/// as it goes.
final class Load: Sendable {
    struct Outcome: Sendable {
        /// Each answer, and how often it came.
        var answers: [String: Int] = [:]
        /// What each failed client saw.
        var failures: [String] = []
        var count: Int { answers.values.reduce(0, +) + failures.count }
    }

    /// At most so many connections are open at any moment.
    let threads: Int
    private let stop = Flag()
    private let clients: [Promise<Outcome>]

    /// - Parameter names: what a client may be answered.
    init(threads: Int, at entry: Place, names: Set<String>) {
        self.threads = threads
        clients = (0..<threads).map { [stop] _ in
            concurrently {
                var outcome = Outcome()
                while !stop.isSet {
                    do {
                        let name = try Load.ask(entry)
                        guard names.contains(name) else { throw Failure("was answered \(name)") }
                        outcome.answers[name, default: 0] += 1
                    } catch { outcome.failures.append("\(error)") }
                }
                return outcome
            }
        }
    }

    /// Ends once each client has its answer.
    func end() throws -> Outcome {
        stop.set()
        var all = Outcome()
        for client in clients {
            let one = try client.value(Deadline(), "end of a client")
            all.answers.merge(one.answers, uniquingKeysWith: +)
            all.failures += one.failures
        }
        return all
    }

    deinit { stop.set() }

    /// The body of one HTTP answer.
    static func ask(_ entry: Place) throws -> String {
        let client = try Socket.connect(to: entry)
        try client.send("GET / HTTP/1.0\r\n\r\n")
        let (bytes, ending) = try client.receiveToEnd()
        guard ending == .fin,
            let body = String(decoding: bytes, as: UTF8.self).components(separatedBy: "\r\n\r\n").last,
            !body.isEmpty
        else { throw Failure("\(ending) after \(bytes.count) bytes") }
        return body
    }
}
