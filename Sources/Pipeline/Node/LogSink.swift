import CLinux
import Glibc
import Pipeline
import PipelineRuntime
import PipelineThreads

/// Writes a ``LogStream`` to its outlet, a piece at a time, without blocking. A failed write is retried, unless the
/// reader of a standard stream is gone for good (EPIPE). A reader that takes nothing for a while counts as stuck, before
/// any line is lost.
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
    static let shortestRetry = TimeSpan.milliseconds(100)
    static let longestRetry = TimeSpan.seconds(1)
    private static let datagramsInTurn = 64
    /// How long a reader may take nothing before it counts as stuck.
    static let stallTime = TimeSpan.seconds(5)
    /// How long a host that has refused datagrams must say nothing until it counts as taking them, and between them.
    private static let quiet = TimeSpan.milliseconds(500)
    private static let doubtfulPace = TimeSpan.milliseconds(100)

    let stream: LogStream
    private(set) var outlet: LogOutlet
    private(set) var retryAt: Instant?
    private var backoff = LogSink.shortestRetry
    private var last = Progress.idle
    private var blockedSince: Instant?
    private var isStalled = false
    var reopening = LogReopening()
    // Of syslog alone.
    private var frame: SyslogFrame?
    private var line: [UInt8] = []
    private var hasSent = false
    /// Its host has refused datagrams, and none of them arrive until it is found to take them. UDP alone.
    private var doubt: Doubt?

    private struct Doubt {
        /// Since when it has been given datagrams, and refused none.
        var goodSince: Instant?
        var lost: UInt64 = 0
    }

    init(_ stream: LogStream, _ outlet: LogOutlet) {
        (self.stream, self.outlet) = (stream, outlet)
        begin()
    }

    private mutating func begin() {
        (retryAt, backoff, doubt, hasSent, frame) = (nil, LogSink.shortestRetry, nil, false, nil)
        reopening = LogReopening()
        noteStall(.idle, now: .init(nanoseconds: 0))
        if case .syslog(let settings) = outlet.place { frame = SyslogFrame(settings) }
    }

    // MARK: Another outlet

    /// A line that is being written is finished first, unless nobody takes it.
    var mayMove: Bool { stream.isAtLineStart || stream.isEmpty || isStuck }
    /// Nobody takes what waits.
    var isStuck: Bool {
        switch last {
        case .blocked, .failed: true
        case .idle, .moved, .held: false
        }
    }

    mutating func move(to outlet: LogOutlet) {
        self.outlet = outlet
        stream.restart()
        begin()
    }

    // MARK: Writing

    /// One piece, or a few datagrams.
    mutating func write(_ now: Instant) -> Progress {
        last = writeSome(now)
        noteStall(last, now: now)
        return last
    }

    /// When a reader that takes nothing is to be told of; nil: there is none, or it is told.
    var stallDue: Instant? { isStalled ? nil : blockedSince.map { $0 + LogSink.stallTime } }

    private mutating func noteStall(_ progress: Progress, now: Instant) {
        guard case .blocked = progress else {
            blockedSince = nil
            return setStalled(false)
        }
        let since = blockedSince ?? now
        blockedSince = since
        setStalled(now.since(since) >= LogSink.stallTime)
    }

    private mutating func setStalled(_ stalled: Bool) {
        guard stalled != isStalled else { return }
        isStalled = stalled
        stream.stalled(stalled)
    }

    private mutating func writeSome(_ now: Instant) -> Progress {
        if let retryAt, now < retryAt { return stream.isEmpty ? .idle : .failed }
        if frame != nil { return writeDatagrams(now) }
        let isPolled = outlet.kind == Int32(CL_SINK_POLLED)
        let piece = stream.piece(limit: isPolled ? LogSink.pageBytes : LogSink.pieceBytes)
        guard !piece.isEmpty else { return .idle }
        guard !isPolled || Poll.isWritable(outlet.descriptor.number) else { return .blocked }
        let count = cl_sink_write(outlet.descriptor.number, outlet.kind, piece.baseAddress, piece.count)
        if count == -Int(EAGAIN) { return .blocked }
        guard count > 0 else { return fail(Int32(clamping: -count), now) }
        stream.wrote(count)
        (retryAt, backoff) = (nil, LogSink.shortestRetry)
        return .moved
    }

    /// - Parameter error: an errno; 0: nothing was taken, and no reason given.
    private mutating func fail(_ error: Int32, _ now: Instant) -> Progress {
        if error == EPIPE, case .standard = outlet.place {
            stream.end(error)
            return .idle
        }
        stream.failed(error == 0 ? EIO : error)
        retryAt = now + backoff
        backoff = min(LogSink.longestRetry, TimeSpan(nanoseconds: backoff.nanoseconds * 2))
        return .failed
    }

    // MARK: Syslog

    private mutating func writeDatagrams(_ now: Instant) -> Progress {
        var isMoved = false
        for _ in 0..<LogSink.datagramsInTurn where !stream.isEmpty {
            let unreachable = outlet.connect()
            guard unreachable == 0 else { return failDatagram(unreachable, now) }
            stream.copyLine(into: &line)
            let message = frame?.message(line, cl_wall_clock()) ?? []
            let count = message.withUnsafeBytes {
                cl_sink_write(outlet.descriptor.number, outlet.kind, $0.baseAddress, $0.count)
            }
            switch Int32(clamping: -min(0, count)) {
            case 0: break
            case EAGAIN: return isMoved ? .moved : .blocked
            // It never fits.
            case EMSGSIZE: stream.lost(1)
            case let error: return failDatagram(error, now)
            }
            (isMoved, hasSent) = (true, true)
            stream.wrote(line.count, isProven: doubt == nil)
            guard doubt == nil else { return probe(now) }
            (retryAt, backoff) = (nil, LogSink.shortestRetry)
        }
        return isMoved ? .moved : .idle
    }

    /// One that nothing was heard of yet: the next goes when something could have been.
    private mutating func probe(_ now: Instant) -> Progress {
        let goodSince = doubt?.goodSince ?? now
        doubt?.goodSince = goodSince
        retryAt = now + LogSink.doubtfulPace
        guard now.since(goodSince) >= LogSink.quiet else { return .failed }
        stream.failed(0)
        if let lost = doubt?.lost, lost > 0 {
            _ = stream.sayMissing(lost, "the syslog daemon's host said that nobody took them")
        }
        (doubt, backoff) = (nil, LogSink.shortestRetry)
        return .moved
    }

    private mutating func failDatagram(_ error: Int32, _ now: Instant) -> Progress {
        outlet.close()
        if case .syslog(let settings) = outlet.place, case .udp = settings.address {
            var doubt = doubt ?? Doubt()
            doubt.goodSince = nil
            // Only ICMP says so, and only of a datagram that was sent.
            if error == ECONNREFUSED, hasSent {
                doubt.lost += 1
                stream.lost(1)
            }
            self.doubt = doubt
        }
        hasSent = false
        return fail(error, now)
    }
}
