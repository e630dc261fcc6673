import CLinux
import FilterEgressAccounting
import Glibc
import Pipeline
import PipelineRuntime
import PipelineThreads

/// The session with one collector: connects, encodes, sends, and restarts after failures. Exporter's thread only.
///
/// A record is in one of three places: the queue, `flows` (taken out, oldest first) or `message`, which stays until the
/// kernel has taken all of it. A TCP connection that breaks gives the records of its message back to `flows`: the next
/// connection is a new session, with templates and sequence numbers of its own (RFC 7011 §10.4).
///
/// UDP has no acknowledgements. ICMP errors are read before the next datagram, while there is nothing to send, and at
/// the end; the records of such a datagram are lost. Then the rest waits, and only templates are sent until they meet
/// no error for ``quiet``. ICMP that quotes none of our datagrams may be forged, and is ignored (``SentDatagrams``).
struct ExportSession {
    /// Fits an IPv6 packet through WireGuard's MTU of 1420 (RFC 7011 §10.3.3: not to be fragmented).
    static let datagramLimit = 1360
    /// Datagrams in a row before the collector gets time to read: its socket's buffer holds about a hundred.
    static let datagramsAtOnce = 16
    static let pause = TimeSpan.milliseconds(1)
    static let shortestRetry = TimeSpan.seconds(1)
    static let longestRetry = TimeSpan.seconds(30)
    /// After an error, this long without another means that the collector is back. An unresponsive neighbour is given
    /// up after 3 s.
    static let quiet = TimeSpan.seconds(5)

    private enum Link {
        case closed
        case connecting(Int32)
        case open(Int32)
    }

    private let settings: ExportSettings
    private let queue: ExportQueue
    private var link = Link.closed
    private var encoder: IPFIXEncoder
    private var flows: [ExportFlow] = []
    private var next = 0
    /// The message being sent, how much of it, and where its records begin in `flows`.
    private var message: [UInt8] = []
    private var sentBytes = 0
    private var messageRecords = 0
    private var messageSequence: UInt32 = 0
    private var templatesDue = Instant(nanoseconds: 0)
    /// No retry before this time.
    private var resumeAt = Instant(nanoseconds: 0)
    private var retry = ExportSession.shortestRetry
    // Of UDP alone.
    private var datagrams = SentDatagrams()
    /// An error was received, and no datagram has succeeded since.
    private var isDoubted = false
    /// When the test datagram counts as successful.
    private var quietAt: Instant?

    init(_ settings: ExportSettings, _ queue: ExportQueue) {
        self.settings = settings
        self.queue = queue
        encoder = ExportSession.encoder(settings)
    }

    private static func encoder(_ settings: ExportSettings, sequence: UInt32 = 0) -> IPFIXEncoder {
        IPFIXEncoder(
            domain: settings.domain, enterprise: settings.enterprise,
            messageLimit: settings.transport == .udp ? datagramLimit : IPFIX.longestMessage, sequence: sequence)
    }

    /// What to wait for: the socket, if needed, and a time.
    struct Wish {
        /// Errors are always waited for.
        var item: cl_poll_item?
        var until: Instant?
    }

    /// Does all work that does not block.
    mutating func advance(_ now: Instant, wallClock: UInt64) -> Wish {
        if case .open(let fd) = link, isUDP { hear(fd, now) }
        guard now >= resumeAt else { return pausing }
        if quietAt != nil {
            (quietAt, isDoubted) = (nil, false)
            reached()
        }
        switch link {
        case .closed: connect(now)
        case .connecting(let fd): finishConnecting(fd, now)
        case .open: break
        }
        if case .open(let fd) = link { send(fd, now, wallClock) }
        guard now >= resumeAt else { return pausing }
        switch link {
        case .closed: return Wish(until: resumeAt)
        case .connecting(let fd): return Wish(item: .writable(fd))
        // Data from a UDP collector is not read.
        case .open(let fd): return Wish(item: cl_poll_item(fd, reads: !isUDP, writes: !message.isEmpty))
        }
    }

    private var isUDP: Bool { settings.transport == .udp }

    private var pausing: Wish {
        if case .open(let fd) = link, isUDP { return Wish(item: cl_poll_item(fd), until: resumeAt) }
        return Wish(until: resumeAt)
    }

    /// Ends the session; unsent records are lost, and counted.
    mutating func close() {
        if case .open(let fd) = link, isUDP { hear(fd, resumeAt) }
        closeSocket()
        giveBack()
        flows += queue.takeAll()
        let left = UInt64(flows.count - next)
        flows = []
        next = 0
        queue.note {
            $0.lost += left
            $0.waiting -= Int(left)
            $0.isConnected = false
        }
    }

    // MARK: Connecting

    private mutating func connect(_ now: Instant) {
        var to = cl_endpoint(settings.collector)
        if isUDP {
            let fd = cl_connect_datagram(&to)
            if fd < 0 { fail(-fd, now) } else { opened(fd, now) }
            return
        }
        var options = cl_connect_options(port_range: 0, keepalive_idle_s: 30, user_timeout_ms: 30_000, congestion: nil)
        let fd = cl_connect(&to, &options)
        if fd < 0 { fail(-fd, now) } else { link = .connecting(fd) }
        guard fd >= 0 else { return }
        _ = cl_guard_against_death(fd, options.keepalive_idle_s, options.user_timeout_ms)
    }

    private mutating func finishConnecting(_ fd: Int32, _ now: Instant) {
        guard Poll.isWritable(fd) else { return }
        let error = cl_socket_error(fd)
        if error == 0 { opened(fd, now) } else { fail(error, now) }
    }

    private mutating func opened(_ fd: Int32, _ now: Instant) {
        link = .open(fd)
        templatesDue = now
        // An opened UDP socket proves no collector: it counts as reached once something was sent.
        guard settings.transport == .tcp else { return }
        encoder = ExportSession.encoder(settings)
        reached()
    }

    private mutating func reached() {
        retry = ExportSession.shortestRetry
        queue.note {
            $0.isConnected = true
            $0.error = 0
        }
    }

    /// TCP starts a new session; a UDP session continues its sequence numbers. Both after a pause.
    private mutating func fail(_ error: Int32, _ now: Instant) {
        if isUDP {
            (isDoubted, quietAt) = (true, nil)
            // It is encoded again, after templates: a restarted collector has lost them.
            if !message.isEmpty { encoder = ExportSession.encoder(settings, sequence: messageSequence) }
        } else {
            closeSocket()
        }
        giveBack()
        resumeAt = now + retry
        retry = min(ExportSession.longestRetry, TimeSpan(nanoseconds: retry.nanoseconds * 2))
        templatesDue = resumeAt
        queue.note {
            $0.failures += 1
            $0.isConnected = false
            $0.error = error
        }
    }

    private mutating func closeSocket() {
        switch link {
        case .closed: break
        case .connecting(let fd), .open(let fd): _ = cl_close(fd)
        }
        link = .closed
    }

    private mutating func giveBack() {
        next -= messageRecords
        messageRecords = 0
        message = []
        sentBytes = 0
    }

    // MARK: Sending

    private mutating func send(_ fd: Int32, _ now: Instant, _ wallClock: UInt64) {
        if settings.transport == .tcp, let error = ExportSession.peerEnd(fd) { return fail(error, now) }
        for turn in 0... {
            if message.isEmpty { prepare(now, wallClock) }
            guard !message.isEmpty else { return }
            if isUDP, turn == ExportSession.datagramsAtOnce {
                resumeAt = now + ExportSession.pause
                return
            }
            guard sendMessage(fd, now) else { return }
        }
    }

    /// A collector sends nothing: a read returns its end, or junk.
    private static func peerEnd(_ fd: Int32) -> Int32? {
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { room in
            let count = cl_receive(fd, room.baseAddress, room.count)
            if count == 0 { return EPIPE }
            return count < 0 && count != -Int(EAGAIN) ? Int32(clamping: -count) : nil
        }
    }

    /// True if the message was sent and the next may follow.
    private mutating func sendMessage(_ fd: Int32, _ now: Instant) -> Bool {
        let count = isUDP ? sendDatagram(fd, now) : trySend(fd)
        guard let count else { return false }
        guard count >= 0 else {
            switch Int32(clamping: -count) {
            case EAGAIN: return false
            // It won't fit later either.
            case EMSGSIZE:
                drop()
                return true
            case let error:
                fail(error, now)
                return false
            }
        }
        sentBytes += count
        guard sentBytes >= message.count else { return false }
        let records = messageRecords
        if isUDP { datagrams.note(message, records: records) }
        messageRecords = 0
        message = []
        sentBytes = 0
        queue.note {
            $0.sent += UInt64(records)
            $0.messages += 1
            $0.waiting -= records
        }
        guard isUDP else { return true }
        guard isDoubted else {
            reached()
            return true
        }
        resumeAt = now + ExportSession.quiet
        quietAt = resumeAt
        return false
    }

    /// A connected UDP socket reports the error of an earlier datagram instead of sending: the send is repeated once,
    /// unless the error is genuine.
    /// - Returns: as ``trySend(_:)``, an error being the host's own; nil: it stays for later.
    private mutating func sendDatagram(_ fd: Int32, _ now: Instant) -> Int? {
        for isLast in [false, true] {
            let count = trySend(fd)
            guard count < 0, count != -Int(EAGAIN) else { return count }
            let heard = hear(fd, now)
            if heard == .ours { return nil }
            // ECONNREFUSED comes only from ICMP.
            if isLast, heard == .nothing, count != -Int(ECONNREFUSED) { return count }
        }
        resumeAt = now + ExportSession.pause
        return nil
    }

    /// The ICMP error.
    private enum Heard {
        case nothing
        /// It quotes no known datagram, so it may be forged.
        case others
        case ours
    }

    /// Counts records lost by ICMP errors of earlier datagrams.
    @discardableResult private mutating func hear(_ fd: Int32, _ now: Instant) -> Heard {
        var (heard, error) = (Heard.nothing, Int32(0))
        // As many as there are datagrams to speak of; what is left is heard next.
        for _ in 0..<SentDatagrams.limit {
            guard let (said, records) = hearOne(fd) else { break }
            if heard == .nothing { heard = .others }
            guard let records else { continue }
            (heard, error) = (.ours, said)
            queue.note { $0.lost += UInt64(records) }
        }
        // An error that the kernel could not queue has no quote, and would block the next datagram.
        if cl_socket_error(fd) != 0, heard == .nothing { heard = .others }
        // Errors of one burst come one by one, and count as one failure.
        if heard == .ours, !isDoubted || quietAt != nil { fail(error, now) }
        return heard
    }

    /// The next one: an errno, and the records of the datagram that it quotes.
    private mutating func hearOne(_ fd: Int32) -> (error: Int32, records: Int?)? {
        withUnsafeTemporaryAllocation(byteCount: SentDatagrams.quoteBytes, alignment: 1) { room in
            var quoted = 0
            let error = cl_datagram_error(fd, room.baseAddress, room.count, &quoted)
            guard error > 0 else { return nil }
            return (error, datagrams.lose(UnsafeRawBufferPointer(rebasing: room[..<min(quoted, room.count)])))
        }
    }

    private func trySend(_ fd: Int32) -> Int {
        message.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else { return 0 }
            return cl_send(fd, base + sentBytes, bytes.count - sentBytes, nil, 0)
        }
    }

    private mutating func drop() {
        let records = messageRecords
        messageRecords = 0
        message = []
        sentBytes = 0
        queue.note {
            $0.lost += UInt64(records)
            $0.waiting -= records
            $0.failures += 1
            $0.error = EMSGSIZE
        }
    }

    /// Encodes the next message, if there are records.
    private mutating func prepare(_ now: Instant, _ wallClock: UInt64) {
        if next >= flows.count {
            flows = queue.takeAll()
            next = 0
        }
        guard next < flows.count else { return }
        if now >= templatesDue, encoder.appendTemplates() {
            let isOnce = settings.transport == .tcp
            templatesDue = isOnce ? Instant(nanoseconds: .max) : now + settings.templates
        }
        let first = next
        while !isDoubted, next < flows.count, encoder.append(flows[next].record, flows[next].names) { next += 1 }
        messageRecords = next - first
        messageSequence = encoder.sequence
        message = encoder.finish(exportTime: UInt32(truncatingIfNeeded: wallClock / 1_000_000_000)) ?? []
        sentBytes = 0
    }
}
