import CLinux
import Glibc
import Pipeline
import PipelineRuntime

/// The sockets of probes in flight: a fixed number of places, one epoll. One thread.
struct ProbesInFlight {
    struct End {
        let identity: ProbeSchedule.Identity
        let outcome: ProbeConversation.Outcome
        /// The beginning of the answer, for people.
        var heard: [UInt8] = []
    }

    private struct ProbeInFlight {
        let identity: ProbeSchedule.Identity
        let descriptor: Int32
        var conversation: ProbeConversation
        var isConnected = false
        /// The sent bytes of the opening, which always fits into an empty socket's buffer.
        var unsent: [UInt8]
    }

    private let epoll: Int32
    private let limit: Int
    private var inFlight: [ProbeInFlight?]
    /// Incremented with each use of a place, so that stale events are recognised.
    private var generations: [UInt32]
    private var free: [Int]
    private var events: [cl_event]
    private var buffer: [UInt8]

    init(epoll: Int32, limit: Int) {
        self.epoll = epoll
        self.limit = limit
        inFlight = Array(repeating: nil, count: limit)
        generations = Array(repeating: 0, count: limit)
        free = Array((0..<limit).reversed())
        events = Array(repeating: cl_event(), count: 64)
        buffer = Array(repeating: 0, count: ProbeConversation.answerLimit)
    }

    var isFull: Bool { free.isEmpty }
    /// The earliest deadline of a probe.
    var deadline: Instant? { inFlight.lazy.compactMap { $0?.conversation.deadline }.min() }

    /// Starts a probe. Returns an outcome if it is over at once.
    mutating func begin(_ identity: ProbeSchedule.Identity, _ target: ProbeTarget, _ now: Instant) -> End? {
        guard let place = free.popLast() else { return End(identity: identity, outcome: .init(.node)) }
        let probed = target.settings.place(of: target.key.endpoint)
        let descriptor = ProbesInFlight.connect(probed, from: target.source)
        guard descriptor >= 0 else {
            free.append(place)
            return End(identity: identity, outcome: .init(ProbeResult(connectError: -descriptor)))
        }
        generations[place] &+= 1
        let key = UInt64(generations[place]) << 32 | UInt64(place)
        guard cl_watch(epoll, descriptor, key) >= 0 else {
            _ = cl_close_with_reset(descriptor)
            free.append(place)
            return End(identity: identity, outcome: .init(.node))
        }
        let isElsewhere = target.settings.probesElsewhere && !probed.isUnixSocket
        let conversation = ProbeConversation(
            target.settings.probe, usesProxy: target.key.usesProxy && !isElsewhere, isText: target.proxyIsText,
            timeout: target.settings.timeout, begun: now,
            place: probed.isUnixSocket ? "localhost" : "\(probed)")
        inFlight[place] = ProbeInFlight(
            identity: identity, descriptor: descriptor, conversation: conversation, unsent: conversation.opening)
        return nil
    }

    private static func connect(_ place: Endpoint, from source: SourceSpec?) -> Int32 {
        if let path = UnixSockets.path(place) {
            var process: Int32 = 0
            let fd = cl_unix_connect_to_other(path, &process)
            if fd >= 0, cl_process_is_node(process) == 1 {
                _ = cl_close(fd)
                return -ErrorNumber.ofItself
            }
            return fd >= 0 ? fd : -ErrorNumber.ofUnixConnect(-fd)
        }
        var to = cl_endpoint(place)
        var options = cl_connect_options()
        let addresses = source?.addresses(isIPv4: place.address.isIPv4) ?? []
        guard !addresses.isEmpty else { return cl_connect(&to, &options) }
        var outcome = -ErrorNumber.noSuchSource
        for address in addresses.prefix(sourcesTried) where outcome == -ErrorNumber.noSuchSource {
            var way = cl_way(UpstreamWay(source: address), mark: 0)
            outcome = cl_connect_by(&to, &way, &options)
        }
        return outcome
    }

    /// The most addresses of `source` that one probe tries.
    private static let sourcesTried = 64

    /// The finished probes, by events or deadlines.
    mutating func take() -> [End] {
        let count = events.withUnsafeMutableBufferPointer {
            Int(cl_wait(epoll, $0.baseAddress, Int32(clamping: $0.count), 0))
        }
        let later = Instant(nanoseconds: cl_now())
        var ends: [End] = []
        for index in 0..<max(0, min(count, events.count)) {
            let key = events[index].key
            let place = Int(key & 0xFFFF_FFFF)
            guard place < limit, generations[place] == UInt32(key >> 32), inFlight[place] != nil else { continue }
            if let outcome = happened(place, events[index].readiness, later) { end(place, outcome, &ends) }
        }
        for place in 0..<limit where inFlight[place].map({ $0.conversation.deadline <= later }) == true {
            if let outcome = inFlight[place]?.conversation.timePassed(later) { end(place, outcome, &ends) }
        }
        return ends
    }

    mutating func closeAll() {
        var ends: [End] = []
        for place in 0..<limit where inFlight[place] != nil { end(place, .init(.node), &ends) }
    }

    /// RST, not FIN: a probe leaves no TIME_WAIT, and a backend that waits for a client's bytes knows at once.
    private mutating func end(_ place: Int, _ outcome: ProbeConversation.Outcome, _ ends: inout [End]) {
        guard let probe = inFlight[place] else { return }
        _ = cl_close_with_reset(probe.descriptor)
        inFlight[place] = nil
        free.append(place)
        ends.append(End(identity: probe.identity, outcome: outcome, heard: probe.conversation.heard))
    }

    // MARK: Events

    private mutating func happened(_ place: Int, _ readiness: UInt8, _ now: Instant) -> ProbeConversation.Outcome? {
        if inFlight[place]?.isConnected == false {
            guard readiness & UInt8(CL_WRITABLE | CL_HANGUP) != 0 else { return nil }
            if let outcome = connected(place, now) { return outcome }
        }
        return receive(place)
    }

    private mutating func connected(_ place: Int, _ now: Instant) -> ProbeConversation.Outcome? {
        guard var probe = inFlight[place] else { return nil }
        let error = cl_socket_error(probe.descriptor)
        guard error == 0 else { return .init(ProbeResult(connectError: error)) }
        probe.isConnected = true
        if !probe.unsent.isEmpty {
            let sent = probe.unsent.withUnsafeBytes { cl_send(probe.descriptor, $0.baseAddress, $0.count, nil, 0) }
            // A peer that closed before it had the opening: the read returns the reason.
            if sent >= 0, sent < probe.unsent.count { return .init(.node) }
            probe.unsent = []
        }
        let outcome = probe.conversation.connected(now)
        inFlight[place] = probe
        return outcome
    }

    private mutating func receive(_ place: Int) -> ProbeConversation.Outcome? {
        while let descriptor = inFlight[place]?.descriptor {
            let count = buffer.withUnsafeMutableBytes { cl_receive(descriptor, $0.baseAddress, $0.count) }
            switch count {
            case -Int(EAGAIN): return nil
            case 0: return inFlight[place]?.conversation.ended(reset: false)
            case ..<0: return inFlight[place]?.conversation.ended(reset: true)
            default:
                if let outcome = inFlight[place]?.conversation.received(buffer.prefix(count)) { return outcome }
                if let outcome = reply(place, descriptor) { return outcome }
            }
        }
        return nil
    }

    /// Sends what the probe says next: little, to a socket whose peer has read what came before.
    private mutating func reply(_ place: Int, _ descriptor: Int32) -> ProbeConversation.Outcome? {
        guard let bytes = inFlight[place]?.conversation.takeOutgoing(), !bytes.isEmpty else { return nil }
        let sent = bytes.withUnsafeBytes { cl_send(descriptor, $0.baseAddress, $0.count, nil, 0) }
        return sent >= 0 && sent < bytes.count ? .init(.node) : nil
    }
}
