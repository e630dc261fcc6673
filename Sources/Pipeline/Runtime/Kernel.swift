import Pipeline

/// A file descriptor. The slot, pool or listener that holds it closes it.
@frozen package struct Descriptor: Hashable, Sendable {
    package let number: Int32
    @inlinable package init(_ number: Int32) { self.number = number }
    package static let none = Descriptor(-1)
    @inlinable package var isOpen: Bool { number >= 0 }
}

/// The result of a call: a count or a descriptor when `>= 0`, otherwise a negated errno.
@frozen package struct Outcome: Equatable, Sendable {
    package let value: Int
    @inlinable package init(_ value: Int) { self.value = value }
    @inlinable package var isError: Bool { value < 0 }
    /// The errno, or 0.
    @inlinable package var error: Int32 { value < 0 ? Int32(truncatingIfNeeded: -value) : 0 }
}

/// The kind of descriptor that an event is about.
package enum EventKind: UInt8, Sendable {
    case client = 0
    case upstream = 1
    case listener = 2
    case control = 3
}

/// What epoll hands back with an event: kind, index, and the generation of the slot at registration, so that an event
/// for a connection that is gone is recognised and dropped.
@frozen package struct EventKey: Hashable, Sendable {
    package let rawValue: UInt64
    @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
    package init(_ kind: EventKind, index: Int, generation: UInt32) {
        rawValue = UInt64(generation) << 32 | UInt64(kind.rawValue) << 30 | UInt64(index & 0x3FFF_FFFF)
    }
    @inlinable package var generation: UInt32 { UInt32(truncatingIfNeeded: rawValue >> 32) }
    @inlinable package var kind: EventKind { EventKind(rawValue: UInt8(rawValue >> 30 & 3)) ?? .control }
    @inlinable package var index: Int { Int(rawValue & 0x3FFF_FFFF) }
}

/// What happened to a descriptor since its last event.
@frozen package struct Readiness: OptionSet, Sendable {
    package let rawValue: UInt8
    @inlinable package init(rawValue: UInt8) { self.rawValue = rawValue }
    package static let readable = Readiness(rawValue: 1)
    package static let writable = Readiness(rawValue: 2)
    /// The peer's FIN is in the queue, behind whatever data is there (`EPOLLRDHUP`).
    package static let readEnd = Readiness(rawValue: 4)
    /// Reset, or both directions over (`EPOLLERR`, `EPOLLHUP`).
    package static let hangup = Readiness(rawValue: 8)
    /// Urgent data: a short read does not mean that the queue is empty (`EPOLLPRI`).
    package static let urgent = Readiness(rawValue: 16)
}

@frozen package struct Event: Sendable {
    package var key: EventKey
    package var readiness: Readiness
    package init(key: EventKey, readiness: Readiness) {
        self.key = key
        self.readiness = readiness
    }
}

/// An accepted connection.
package struct Accepted: Sendable {
    package let descriptor: Descriptor
    package let peer: Endpoint
    package init(descriptor: Descriptor, peer: Endpoint) {
        self.descriptor = descriptor
        self.peer = peer
    }
}

/// How an upstream connection leaves this host.
package struct UpstreamWay: Equatable, Sendable {
    /// Nil: the kernel chooses an address of this host.
    package var source: IPAddress?
    /// The source need not be this host's.
    package var isForeign = false
    /// Carries the node's mark, so that it is not intercepted again.
    package var isMarked = false

    package static let plain = UpstreamWay()

    package init(source: IPAddress? = nil, isForeign: Bool = false, isMarked: Bool = false) {
        self.source = source
        self.isForeign = isForeign
        self.isMarked = isMarked
    }
}

/// The system calls that a worker makes. Production uses ``LinuxKernel``; the simulation a seeded fake.
///
/// Threading: one worker, one kernel. None of these may block except ``wait(_:timeout:)``.
package protocol Kernel {
    /// The monotonic clock.
    mutating func now() -> Instant
    /// Nanoseconds since 1970, for log lines only.
    func wallClock() -> UInt64

    /// Duplicates the descriptor of a listening socket that control holds; `-errno` on failure.
    mutating func take(_ listener: Descriptor) -> Outcome
    /// Ends a listener, and closes the worker's descriptor of it. Nobody is accepted there any more, whoever else has it
    /// open.
    mutating func stopListening(_ listener: Descriptor)
    /// Closes the worker's descriptor of a listener. It ends if nobody else has it open: not control, no other process, no
    /// store of descriptors.
    mutating func letGo(_ listener: Descriptor)
    /// Takes one connection off a listener's queue. `-EAGAIN`: none waits; `-EMFILE`, `-ENFILE`: no descriptor left.
    mutating func accept(_ listener: Descriptor, _ accepted: inout Accepted) -> Outcome
    /// At descriptor exhaustion: accepts one connection and resets it, so that the client is not left waiting.
    /// `-EAGAIN`: there was none, since Linux says `-EMFILE` before it looks at the queue. Another error: that fails
    /// too.
    mutating func refuse(_ listener: Descriptor, _ peer: inout Endpoint) -> Outcome
    /// The local address of a connection; nil if it is gone.
    mutating func localAddress(_ descriptor: Descriptor) -> Endpoint?
    /// The original destination of a redirected connection; nil: it was not redirected.
    mutating func originalDestination(_ descriptor: Descriptor) -> Endpoint?
    /// The index of the interface that an accepted connection came by; 0: unknown. For refusals alone: it costs system
    /// calls.
    mutating func interface(of descriptor: Descriptor) -> UInt32
    /// Whether this host has the address. Costs a socket: for rare cases.
    mutating func isOwn(_ address: IPAddress) -> Bool

    /// Opens a non-blocking socket and begins to connect. Returns the descriptor, or `-errno` if the connect failed at
    /// once; later failures show in ``Readiness/writable`` or as the error of the first call.
    /// - Parameters:
    ///   - backend: or an intercepted client's original destination.
    ///   - idle: reuses this socket, for which ``disconnect(_:)`` returned true, of a connection to the same by the same
    ///     way. It is closed if the call fails.
    mutating func connect(_ backend: BackendAddress, _ way: UpstreamWay, on idle: Descriptor) -> Outcome
    /// Enables keepalive on an upstream socket, so that the kernel detects a dead peer (R14). Separate from
    /// ``connect(_:)``, so that short connections don't pay for it; accepted sockets inherit it.
    mutating func guardAgainstDeath(_ descriptor: Descriptor)
    /// Caps a socket's buffers near their current size, permanently.
    mutating func capBuffers(_ descriptor: Descriptor)
    /// How long the peer's TCP has been silent; nil: unknown.
    mutating func silence(of descriptor: Descriptor) -> PeerSilence?
    /// How long ago bytes were last sent to the peer; nil: unknown.
    mutating func lastSent(_ descriptor: Descriptor) -> TimeSpan?
    /// The longest interval between zero-window probes; nil: the system's. Older kernels do not support it.
    mutating func probe(_ descriptor: Descriptor, every longest: TimeSpan?)
    /// The pending error of a socket as errno, cleared by asking; 0: none.
    mutating func pendingError(_ descriptor: Descriptor) -> Int32

    mutating func receive(_ descriptor: Descriptor, _ buffer: UnsafeMutableRawBufferPointer) -> Outcome
    /// The same, but leaves the bytes in the queue.
    mutating func peek(_ descriptor: Descriptor, _ buffer: UnsafeMutableRawBufferPointer) -> Outcome
    /// Discards this many bytes that ``peek(_:_:)`` returned.
    mutating func discard(_ descriptor: Descriptor, _ count: Int) -> Outcome
    /// Both pieces in one write, in order; either may be empty.
    mutating func send(_ descriptor: Descriptor, _ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer)
        -> Outcome
    /// Sets SO_RCVLOWAT: the socket is readable once this many bytes wait, its stream ends, or its buffer is full.
    /// Lowering it reports bytes already queued. The kernel may use a lower mark.
    mutating func setLowWater(_ descriptor: Descriptor, _ bytes: Int)
    /// Moves up to `count` bytes between a socket and a pipe, without copying.
    /// - Parameter more: SPLICE_F_MORE: the caller must write more immediately, or the last bytes may stay in the
    ///   socket.
    mutating func splice(_ from: Descriptor, _ to: Descriptor, _ count: Int, more: Bool) -> Outcome
    /// The segment size in bytes if the socket's congestion control paces (BBR); nil: it does not pace.
    mutating func pacedSegment(_ descriptor: Descriptor) -> Int?
    /// A pipe that holds about `capacity` bytes. The read end's descriptor, or `-errno`; `writeEnd` is the other.
    mutating func makePipe(capacity: Int, writeEnd: inout Descriptor) -> Outcome

    /// Sends FIN.
    mutating func shutdownWrite(_ descriptor: Descriptor)
    mutating func close(_ descriptor: Descriptor)
    /// Closes with RST: the peer is informed, and no TIME_WAIT remains.
    mutating func closeWithReset(_ descriptor: Descriptor)

    /// Whether the peer has acknowledged everything that was sent, FIN included.
    mutating func isDelivered(_ descriptor: Descriptor) -> Bool
    /// Resets the connection like ``closeWithReset(_:)``, but keeps the socket, its options and its registration for
    /// reuse. False: it can't be reused, and must be closed.
    mutating func disconnect(_ descriptor: Descriptor) -> Bool

    /// Registers a socket, once, edge-triggered for everything. Current readiness is reported as well.
    mutating func watch(_ descriptor: Descriptor, _ key: EventKey) -> Outcome
    /// Registers a listener or a control descriptor, level-triggered for reading.
    mutating func watchLevel(_ descriptor: Descriptor, _ key: EventKey) -> Outcome
    /// Stops watching. Closing a descriptor does it as well.
    mutating func unwatch(_ descriptor: Descriptor)
    /// Has the workers with this number, or this and a multiple of ``WaitQueue/places``, look around now.
    mutating func wake(workersAt place: Int)
    /// Waits for events; `timeout` nil: for ever. The number of events written to `events`.
    mutating func wait(_ events: UnsafeMutableBufferPointer<Event>, timeout: TimeSpan?) -> Int
}

extension Kernel {
    package mutating func lastSent(_ descriptor: Descriptor) -> TimeSpan? { nil }
}

/// The state of the peer's TCP; the peer's application may be arbitrarily slow (R14).
package struct PeerSilence: Equatable, Sendable {
    /// Data for the peer is unacknowledged, or not sent yet.
    package var isOwed: Bool
    /// The peer was sent data or window probes, and has not answered since.
    package var isUnanswered: Bool
    /// How long ago its last acknowledgement came.
    package var lasts: TimeSpan
    /// How long ago it has sent bytes, or acknowledged some while others are pending.
    package var quiet: TimeSpan
    package init(isOwed: Bool, isUnanswered: Bool, lasts: TimeSpan, quiet: TimeSpan) {
        self.isOwed = isOwed
        self.isUnanswered = isUnanswered
        self.lasts = lasts
        self.quiet = quiet
    }
}
