import Foundation
import Glibc

/// A point in time after which a test gives up. Nothing in these tests sleeps instead of waiting: they wait for an event,
/// or ask by ``awaitUntil(_:_:_:)`` where there is none, and this is how long at most. Generous, since a busy machine is
/// no failure.
struct Deadline: Sendable {
    private let end: UInt64

    static let usual: Double = 60

    init(seconds: Double = Deadline.usual) {
        end = Deadline.now() &+ UInt64(seconds * 1e9)
    }

    static func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// For `poll`: milliseconds left, at least 0.
    var milliseconds: Int32 {
        let now = Deadline.now()
        return now >= end ? 0 : Int32(clamping: (end - now) / 1_000_000 + 1)
    }
    var date: Date { Date(timeIntervalSinceNow: Double(milliseconds) / 1000) }
    var hasPassed: Bool { Deadline.now() >= end }
}

/// What went wrong, for people.
struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
    /// With the text of `errno`.
    init(call: String, _ error: Int32 = errno) {
        description = "\(call): \(String(cString: strerror(error)))"
    }
}

/// Asks until it is so: for what has no event of its own to wait for, as a count that another thread or process brings
/// up to date in its own time.
func awaitUntil(
    _ what: @autoclosure () -> String, _ deadline: Deadline = Deadline(), _ isSo: () throws -> Bool
) throws {
    _ = try awaitValue(what(), deadline) { try isSo() ? true : nil }
}

/// The same for what there is then.
func awaitValue<Value>(
    _ what: @autoclosure () -> String, _ deadline: Deadline = Deadline(), _ find: () throws -> Value?
) throws -> Value {
    var pause: UInt32 = 1000
    while true {
        // The last look is after the deadline: whoever was not run for long still gets one.
        let isLast = deadline.hasPassed
        if let found = try find() { return found }
        guard !isLast else { throw Failure("not in time: \(what())") }
        usleep(pause)
        pause = min(2 * pause, 50_000)
    }
}

/// A value that one thread gives and others wait for.
final class Promise<Value: Sendable>: @unchecked Sendable {
    private let condition = NSCondition()
    private var result: Result<Value, any Error>?

    func fulfil(_ result: Result<Value, any Error>) {
        condition.withLock {
            if self.result == nil { self.result = result }
            condition.broadcast()
        }
    }

    func value(_ deadline: Deadline = Deadline(), _ what: String = "a result") throws -> Value {
        try condition.withLock {
            while result == nil {
                guard condition.wait(until: deadline.date) else { throw Failure("no \(what) in time") }
            }
            return try result.unwrap().get()
        }
    }
}

extension Optional {
    /// The value, or a thrown failure: tests don't trap.
    func unwrap(_ what: String = "a value") throws -> Wrapped {
        guard let self else { throw Failure("there is no \(what)") }
        return self
    }
}

/// Runs `body` on a thread of its own, so that a test can play several parties that block.
func concurrently<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) -> Promise<Value> {
    let promise = Promise<Value>()
    Thread.detachNewThread { promise.fulfil(Result { try body() }) }
    return promise
}

/// A folder that goes when its owner does.
final class TemporaryFolder: Sendable {
    let path: String

    init() throws {
        var template = Array("\(NSTemporaryDirectory())pipelined-test-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Failure(call: "mkdtemp") }
        path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        // nginx and HAProxy, started as root, may read here as someone else.
        chmod(path, 0o755)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    @discardableResult func write(_ name: String, _ text: String) throws -> String {
        let file = "\(path)/\(name)"
        try text.write(toFile: file, atomically: false, encoding: .utf8)
        return file
    }
}
