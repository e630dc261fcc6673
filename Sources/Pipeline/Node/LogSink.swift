import CLinux
import Glibc
import Pipeline
import PipelineRuntime
import PipelineThreads

/// Writes a ``LogStream`` to its descriptor, a piece at a time, without blocking. A failed write is retried, unless the
/// reader is gone for good (EPIPE).
///
/// Threading: the writer's thread.
struct LogSink {
    enum Progress {
        case idle, moved
        /// Until its descriptor can be written.
        case blocked
        /// Until ``retryAt``.
        case failed
        /// Until the other stream has ended its line.
        case held
    }

    /// Small, so that the kernel's work for one write never delays the worker on this core for long.
    private static let pieceBytes = 16384
    /// What a pipe that can be written has room for (PIPE_BUF).
    private static let pageBytes = 4096
    private static let shortestRetry = TimeSpan.milliseconds(100)
    private static let longestRetry = TimeSpan.seconds(1)

    let stream: LogStream
    let descriptor: Descriptor
    private let kind: Int32
    private(set) var retryAt: Instant?
    private var backoff = LogSink.shortestRetry

    /// - Returns: nil, with an errno, if there is no descriptor for it.
    static func open(_ number: Int32, _ stream: LogStream) -> (sink: LogSink?, error: Int32) {
        var kind: Int32 = 0
        let own = cl_sink_open(number, &kind)
        guard own >= 0 else { return (nil, -own) }
        return (LogSink(stream: stream, descriptor: Descriptor(own), kind: kind), 0)
    }

    private init(stream: LogStream, descriptor: Descriptor, kind: Int32) {
        (self.stream, self.descriptor, self.kind) = (stream, descriptor, kind)
    }

    /// One piece.
    mutating func write(_ now: Instant) -> Progress {
        if let retryAt, now < retryAt { return stream.isEmpty ? .idle : .failed }
        let isPolled = kind == Int32(CL_SINK_POLLED)
        let piece = stream.piece(limit: isPolled ? LogSink.pageBytes : LogSink.pieceBytes)
        guard !piece.isEmpty else { return .idle }
        guard !isPolled || Poll.isWritable(descriptor.number) else { return .blocked }
        let count = cl_sink_write(descriptor.number, kind, piece.baseAddress, piece.count)
        if count == -Int(EAGAIN) { return .blocked }
        guard count > 0 else { return fail(Int32(clamping: -count), now) }
        stream.wrote(count)
        (retryAt, backoff) = (nil, LogSink.shortestRetry)
        return .moved
    }

    /// - Parameter error: an errno; 0: nothing was taken, and no reason given.
    private mutating func fail(_ error: Int32, _ now: Instant) -> Progress {
        if error == EPIPE {
            stream.end(error)
            return .idle
        }
        stream.failed(error == 0 ? EIO : error)
        retryAt = now + backoff
        backoff = min(LogSink.longestRetry, TimeSpan(nanoseconds: backoff.nanoseconds * 2))
        return .failed
    }
}
