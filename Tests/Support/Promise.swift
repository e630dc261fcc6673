import Foundation

/// A value that one thread gives and others wait for.
package final class Promise<Value: Sendable>: @unchecked Sendable {
    private let condition = NSCondition()
    private var result: Result<Value, any Error>?

    package init() {}

    package func fulfil(_ result: Result<Value, any Error>) {
        condition.withLock {
            if self.result == nil { self.result = result }
            condition.broadcast()
        }
    }

    package func value(_ deadline: Deadline = Deadline(), _ what: String = "a result") throws -> Value {
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
    package func unwrap(_ what: String = "a value") throws -> Wrapped {
        guard let self else { throw Failure("there is no \(what)") }
        return self
    }
}

/// Runs `body` on a thread of its own, so that a test can play several parties that block.
package func concurrently<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) -> Promise<Value> {
    let promise = Promise<Value>()
    Thread.detachNewThread { promise.fulfil(Result { try body() }) }
    return promise
}

/// Set once, by one thread for others.
package final class Flag: @unchecked Sendable {
    private let lock = NSLock()
    private var value = false
    package init() {}
    package func set() { lock.withLock { value = true } }
    package var isSet: Bool { lock.withLock { value } }
}
