import CLinux
import Glibc
import PipelineNode
import PipelineRouting
import PipelineThreads
import Synchronization

extension AdminConnection {
    /// What became of pushes on one connection.
    package struct Pushes: Sendable {
        package var sent = 0
        package var answered = 0
        /// The worst exit code of an answer: 1, then 6, 4 and 5.
        package var exit: Int32 = 0
    }

    /// Takes answers as they come, on a thread of its own: who sends waits for none of them.
    private final class Answers: @unchecked Sendable {
        private let connection: Int32
        private let each: @Sendable (Answer) -> Void
        let sent = Atomic<Int>(0)
        // Read once the thread has ended.
        private(set) var pushes = Pushes()
        private(set) var failure: Int?

        init(_ connection: Int32, _ each: @escaping @Sendable (Answer) -> Void) {
            (self.connection, self.each) = (connection, each)
        }

        func run() {
            var line: [UInt8] = []
            var room = [UInt8](repeating: 0, count: 65536)
            while true {
                let count = room.withUnsafeMutableBytes { cl_receive(connection, $0.baseAddress, $0.count) }
                if count == -Int(EAGAIN), sent.load(ordering: .acquiring) == pushes.answered { continue }
                guard count > 0 else {
                    failure = count < 0 && count != -Int(ECONNRESET) ? count : nil
                    return
                }
                for byte in room[..<count] {
                    line.append(byte)
                    guard byte == 0x0A else { continue }
                    take(AdminConnection.read(line, isText: false))
                    line.removeAll(keepingCapacity: true)
                }
            }
        }

        private func take(_ answer: Answer) {
            pushes.answered += 1
            let order: [Int32] = [
                1, ApplyAnswer.exitPartly, ApplyAnswer.exitHeld, ApplyAnswer.exitQuarantined, 0,
            ]
            let worst = order.first { $0 == answer.exit || $0 == pushes.exit }
            pushes.exit = worst ?? 1
            each(answer)
        }
    }

    private static let stackBytes = 1 << 19

    /// Pushes one document or change after the other, without a wait for the answer of one before the next.
    /// - Parameters:
    ///   - next: the next one; nil: that was the last. What it throws ends the pushes; those that were sent are answered.
    ///   - each: called with each answer, in order, on a thread of its own.
    package static func push(
        at path: String, isOlder: Bool, next: () throws -> [UInt8]?, each: @escaping @Sendable (Answer) -> Void
    ) throws -> Pushes {
        let connection = cl_unix_connect(path, patience)
        guard connection >= 0 else { throw Unreachable(description: reason(path, -connection)) }
        defer { _ = cl_close(connection) }
        let answers = Answers(connection, each)
        var handle: UInt64 = 0
        let failed = NamedThread.start("answers", stackBytes: stackBytes, handle: &handle) { answers.run() }
        guard failed == 0 else { throw Unreachable(description: "no thread for the answers: \(kernelError(-failed))") }
        var problem: (any Error)?
        do {
            while let body = try next() {
                let request = AdminRequest(.apply(length: body.count, isOlder: isOlder, goesOn: true), isText: false)
                answers.sent.add(1, ordering: .acquiringAndReleasing)
                guard send(request.bytes + body, connection) == nil else { break }
            }
        } catch { problem = error }
        _ = cl_shutdown_write(connection)
        _ = cl_thread_join(handle)
        if let problem { throw problem }
        var pushes = answers.pushes
        pushes.sent = answers.sent.load(ordering: .acquiring)
        if let failure = answers.failure { throw broken(path, failure) }
        guard pushes.answered >= pushes.sent || pushes.exit == 1 else {
            throw Unreachable(
                description:
                    "the node at \(path) ended when it had answered \(pushes.answered) of \(pushes.sent) pushes; see its log"
            )
        }
        return pushes
    }
}
