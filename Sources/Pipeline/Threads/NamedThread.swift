import CLinux

/// Starting a thread of the control side.
package enum NamedThread {
    private final class Work {
        let name: String
        let body: @Sendable () -> Void
        init(_ name: String, _ body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }

    /// Runs `body` on a new thread, and keeps its captures alive until it has ended.
    /// - Parameters:
    ///   - name: at most 15 bytes, as `top -H` shows it.
    ///   - handle: what to join it by.
    /// - Returns: 0, or a negated errno: nothing runs, and nothing is kept.
    package static func start(
        _ name: String, stackBytes: Int, handle: inout UInt64, _ body: @escaping @Sendable () -> Void
    ) -> Int32 {
        let context = Unmanaged.passRetained(Work(name, body))
        let failed = cl_thread_start(
            &handle, stackBytes,
            { context in
                guard let context else { return }
                let work = Unmanaged<Work>.fromOpaque(context).takeRetainedValue()
                _ = cl_name_thread(work.name)
                work.body()
            }, context.toOpaque())
        if failed != 0 { context.release() }
        return failed
    }
}
