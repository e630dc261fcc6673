import Foundation
import TestSupport

/// Ports that nothing listens on and nobody else can have: see ``OwnedPort``. Each is given once in a process.
enum FreePort {
    static func take() throws -> UInt16 { try OwnedPort.take().unwrap("free port") }
}

final class Counter: @unchecked Sendable {
    private let lock = NSLock()
    private var value: UInt32
    init(start: UInt32) { value = start }
    func take() -> UInt32 {
        lock.withLock {
            value += 1
            return value
        }
    }
}
