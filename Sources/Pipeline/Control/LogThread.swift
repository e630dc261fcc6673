import CLinux
import Pipeline
import PipelineRuntime
import PipelineThreads
import Synchronization

/// Takes ended connections from the workers' rings and writes them to standard output, one JSON line each. A reader
/// that is slow or gone holds up nobody: rings fill, workers drop the newest record and count it (R27).
final class LogThread: @unchecked Sendable {
    /// Written at once at most.
    private static let batchBytes = 1 << 18

    private let rings: [RecordRing]
    private let output: Int32
    private let writes: Bool
    private let pauseNanoseconds: Int64
    private let watch: FlowWatch?
    private let wake: Descriptor
    private var log: ConnectionLog
    private var handle: UInt64 = 0
    private let isEnding = Atomic<Bool>(false)
    private let hasEnded = Atomic<Bool>(false)
    private let outputError = Atomic<Int32>(0)

    /// - Parameters:
    ///   - reasons: names for reason codes; the same for every program of this build.
    ///   - isFed: false: workers put nothing into the rings, and nobody needs to look.
    ///   - writes: false: records only go to `watch`.
    ///   - watch: gets every record.
    init(
        rings: [RecordRing], reasons: ReasonTable, output: Int32 = 1, isFed: Bool = true, writes: Bool = true,
        watch: FlowWatch? = nil
    ) {
        pauseNanoseconds = isFed ? 50_000_000 : -1
        self.rings = rings
        self.writes = writes
        self.watch = watch
        self.output = output
        log = ConnectionLog(reasons)
        wake = Descriptor(cl_eventfd())
    }

    /// An errno, if the output broke: nothing is written after that.
    var brokenBy: Int32 { outputError.load(ordering: .relaxed) }

    /// 0 or a negative errno. The thread keeps this object alive until it has ended.
    func start() -> Int32 {
        NamedThread.start("log", stackBytes: 1 << 19, handle: &handle) { self.run() }
    }

    private func run() {
        while true {
            // Before the rings: what was pushed until then is written.
            let isLast = isEnding.load(ordering: .acquiring)
            while drainOnce() {}
            if isLast { break }
            cl_wait_readable(wake.number, pauseNanoseconds)
        }
        hasEnded.store(true, ordering: .releasing)
    }

    /// True if there is more.
    private func drainOnce() -> Bool {
        var isFull = false
        for ring in rings {
            while let record = ring.pop() {
                watch?.offer(record)
                guard writes else { continue }
                log.append(record)
                if log.bytes.count >= LogThread.batchBytes {
                    isFull = true
                    break
                }
            }
        }
        flush()
        return isFull
    }

    private func flush() {
        guard !log.bytes.isEmpty else { return }
        if brokenBy == 0 {
            let failed = log.bytes.withUnsafeBytes { cl_write_all(output, $0.baseAddress, $0.count) }
            if failed != 0 { sayBroken(-failed) }
        }
        log.removeAll()
    }

    private func sayBroken(_ error: Int32) {
        outputError.store(error, ordering: .relaxed)
        let why = error == 32 ? "its reader is gone" : "error \(error) from the kernel"
        ControlLog().say(
            "log_broken", "can't write standard output (\(why)): connections are relayed, and no longer logged")
    }

    /// Writes what there is and ends. False if the output took longer than `patience` milliseconds.
    func finish(patience: Int) -> Bool {
        isEnding.store(true, ordering: .releasing)
        _ = cl_eventfd_signal(wake.number)
        for _ in 0..<max(1, patience / 5) {
            if hasEnded.load(ordering: .acquiring) {
                _ = cl_thread_join(handle)
                return true
            }
            cl_sleep(5_000_000)
        }
        return false
    }
}
