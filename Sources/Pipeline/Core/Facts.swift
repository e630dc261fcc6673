/// Facts that stages need and provide. The checker proves the order of a chain from these.
public enum Fact: String, Sendable, CaseIterable {
    /// The client's address, if a PROXY header may name it. Without a stage that provides it, the client is the peer.
    case client
    /// The SNI, or that there is none.
    case serverName = "server name"
    /// The route.
    case route
    /// The backends to try.
    case backend
    /// The sending instance of this node (R19).
    case identity
    /// That clients begin TLS behind an opening in the clear, which the node has answered.
    case upgrade = "TLS upgrade"
}

/// The backends that a connection has tried, at most ``BackendCandidates/capacity`` (R13).
@frozen public struct TriedBackends: Sendable {
    private var items: InlineArray<3, Endpoint>
    public private(set) var count: UInt8 = 0

    public init() { items = InlineArray(repeating: Endpoint(.unspecified, 0)) }

    public mutating func insert(_ endpoint: Endpoint) {
        guard Int(count) < BackendCandidates.capacity else { return }
        items[Int(count)] = endpoint
        count += 1
    }
    public func contains(_ endpoint: Endpoint) -> Bool {
        for i in 0..<Int(count) where items[i] == endpoint { return true }
        return false
    }
}

/// Up to three backends, in the order in which to try them (R13). Valid for one event.
@frozen public struct BackendCandidates: @unchecked Sendable {
    public static let capacity = 3
    public var items: InlineArray<3, UnsafePointer<Backend>?>
    public private(set) var count: UInt8

    public init() {
        items = InlineArray(repeating: nil)
        count = 0
    }
    /// False if there was no room.
    @discardableResult public mutating func append(_ backend: UnsafePointer<Backend>) -> Bool {
        guard Int(count) < BackendCandidates.capacity else { return false }
        items[Int(count)] = backend
        count += 1
        return true
    }
    @inlinable public subscript(_ index: Int) -> UnsafePointer<Backend>? {
        index >= 0 && index < Int(count) ? items[index] : nil
    }
}

/// All that is known of one connection while its stages run: what only they and the connect need, and, by reference, what the
/// connection knows for as long as it lives.
public struct ConnectionFacts: @unchecked Sendable {
    /// In the connection's slot, which never moves and outlives this.
    @usableFromInline let lasting: UnsafeMutablePointer<LastingFacts>
    @inlinable public var peer: PeerAddress { lasting.pointee.peer }
    @inlinable public var destination: DestinationAddress { lasting.pointee.destination }
    /// Index of the listener in its program.
    @inlinable public var listener: UInt16 { lasting.pointee.listener }
    @inlinable public var hint: ProtocolHint { lasting.pointee.hint }
    /// Node-unique number of the connection, for unique-id TLVs and logs.
    @inlinable public var serial: UInt64 { lasting.pointee.serial }
    @inlinable public var client: ClientAddress { lasting.pointee.client }
    @inlinable public var sniff: SniffOutcome { lasting.pointee.sniff }
    /// Which instance the connection comes from (R19); nil: unknown, or not asked. Pinned until the connection ends.
    @inlinable public var identity: UnsafePointer<InstanceIdentity>? { lasting.pointee.identity }
    public var serverName = ServerName()
    /// The range of the ALPN extension's protocol list in the client's bytes; 0 length: none. It goes on in the next record
    /// where this one ends before it.
    public var alpnOffset: UInt16 = 0
    public var alpnLength: UInt16 = 0
    public var alpnRecordEnd: UInt16 = 0
    /// What the first bytes are where they are no TLS; nil: TLS, or nobody has looked.
    public fileprivate(set) var clientProtocol: ClientProtocol?
    /// The client began TLS behind an opening that a stage has answered: the same is said to the backend before the client's
    /// bytes, and it has so long for its part; zero: there was none.
    public fileprivate(set) var upgradeWithin = TimeSpan.zero
    public var isUpgraded: Bool { upgradeWithin > .zero }
    /// From the newest table. The runtime looks it up again (``Filter/lookUp(_:_:)``) if the table may have been freed
    /// since.
    public var route: FoundRoute?
    public var candidates = BackendCandidates()
    /// Backends that failed this connection: none is tried twice.
    public var tried = TriedBackends()
    /// R13: how many backends may be tried, 1 to ``BackendCandidates/capacity``; and how long after the first attempt began
    /// another may begin, zero: at any time.
    public var attempts = UInt8(BackendCandidates.capacity)
    public var retryWithin = TimeSpan.zero
    /// When the first attempt began.
    public var firstAttempt = Instant(nanoseconds: 0)
    /// Where connections to backends come from; nil: the kernel chooses. Valid as long as the program.
    public var source: UnsafePointer<SourceAddresses>?
    /// Connect to the original destination, and to no candidate (egress).
    public var direct = DirectConnect.no
    /// The timeout of that connect: the internet may lose a SYN or two, and there is no other candidate.
    public var directTimeout = ConnectionFacts.usualDirectTimeout
    public static var usualDirectTimeout: TimeSpan { .seconds(60) }
    /// How long the destination counts as unreachable if that connect times out (ADR 0049); zero: not at all.
    public var unreachableFor = TimeSpan.zero
    /// When a backend's connect failures take it out (R12); nil: never. Valid as long as the program.
    public var ejection: UnsafePointer<EjectionPolicy>?
    /// Where it may wait if a limit is reached; nil: nowhere.
    public fileprivate(set) var queue: QueueOffer?
    /// It has come to its turn in this queue: the next place is its own. Set by the runtime.
    public var turn: UnsafePointer<WaitQueue>?
    /// Where the TLVs of a PROXY header that we believed stand in the client's bytes; 0 length: none.
    public var tlvOffset: UInt16 = 0
    public var tlvLength: UInt16 = 0
    /// The destination in an accepted PROXY header; nil: none. It goes with ``client`` into our own header. Routes are
    /// looked up by ``destination`` alone (R1).
    public var believedDestination: DestinationAddress?
    /// The IPv4 address embedded in ``destination`` of an intercepted connection; nil: none. Rules for either apply to
    /// both.
    public var spelledDestination: IPAddress?
    /// How many of the client's first bytes are not passed on (an accepted PROXY header).
    public var consumed: Int = 0
    /// A stage has written the PROXY header that the route asks for (R16).
    public fileprivate(set) var hasProxyHeader = false

    /// A stage has counted the connection there (``Effects/reserve(_:)``).
    public func isReserved(_ count: UnsafePointer<ReservationCount>) -> Bool {
        lasting.pointee.reservations.contains(count)
    }

    /// Drops references to the table, which may be freed from here on.
    public mutating func forgetTable() {
        route = nil
        candidates = BackendCandidates()
    }

    /// The backend would read the client's first bytes as a PROXY header: never connect while this is true.
    public var owesProxyHeader: Bool { route.map { owesProxyHeader(of: $0.pointee.flags) } ?? false }

    /// The same from a route's flags, without its table.
    public func owesProxyHeader(of flags: Route.Flags) -> Bool { flags.contains(.proxyHeader) && !hasProxyHeader }
    /// It is owed as a line of text (version 1).
    public var owesProxyText: Bool { owesProxyHeader && sendsProxyText }
    /// Its route's header is of that version.
    public var sendsProxyText: Bool { route.map { $0.pointee.flags.contains(.proxyText) } ?? false }

    /// - Parameter lasting: stays where it is for as long as the facts are used.
    @inline(__always) public init(_ lasting: UnsafeMutablePointer<LastingFacts>) { self.lasting = lasting }
}

/// Per-connection memory between calls, for the one stage of a chain that needs it.
@frozen public struct StageMemory {
    /// In bytes; aligned to eight.
    public static let size = 384
    @usableFromInline var isKept = false
    @usableFromInline var words = InlineArray<48, UInt64>(repeating: 0)

    public init() {}
    /// Marks it empty. Most connections never need the bytes, so they are not cleared.
    public mutating func reset() { isKept = false }

    /// The kept value; if empty, `first`, which is kept from now on. Valid for the current call.
    @inlinable mutating func kept<Value: BitwiseCopyable>(orFirst first: () -> Value) -> UnsafeMutablePointer<Value> {
        assert(MemoryLayout<Value>.size <= StageMemory.size)
        let pointer = withUnsafeMutablePointer(to: &words) { UnsafeMutableRawPointer($0) }
            .bindMemory(to: Value.self, capacity: 1)
        if !isKept { pointer.initialize(to: first()) }
        isKept = true
        return pointer
    }
}

/// Whether a connection goes to its original destination, and from which source address.
@frozen public enum DirectConnect: UInt8, Sendable, Equatable {
    /// To a route's backend.
    case no
    /// From an address of this host.
    case fromHost
    /// From the client's own address: needs `IP_TRANSPARENT`, and a network that routes replies back here.
    case fromClient
}

/// A stage's inputs. Valid for the call only.
public struct ConnectionView {
    @usableFromInline let pointer: UnsafePointer<ConnectionFacts>
    /// The client's first bytes so far, at most the chain's peek budget. Empty before any stage asked for bytes.
    public let bytes: UnsafeBufferPointer<UInt8>
    public let input: InputState
    /// When this event happened.
    public let now: Instant
    /// The wall-clock time of the event, nanoseconds since 1970, for stages with ``StageCapabilities/readsWallClock``;
    /// else 0.
    public let wallClock: UInt64
    public let routes: RouteTableHandle
    /// The instances of this node by address (R19).
    public let instances: InstanceDirectory
    /// A dry run by `explain`: a stage answers as for a connection, and changes no shared memory.
    public let isDryRun: Bool
    /// Non-blocking inspection (``Verdict/inspect(_:)``): the backend is already connected. The stage can hold back,
    /// refuse or pass the bytes. It can no longer consume bytes or set the client.
    public let isInspecting: Bool

    @inlinable public var facts: ConnectionFacts {
        unsafeAddress { pointer }
    }

    public init(
        facts: UnsafePointer<ConnectionFacts>, bytes: UnsafeBufferPointer<UInt8>, input: InputState, now: Instant,
        wallClock: UInt64 = 0, routes: RouteTableHandle, instances: InstanceDirectory = .empty,
        isDryRun: Bool = false,
        isInspecting: Bool = false
    ) {
        self.isInspecting = isInspecting
        self.pointer = facts
        self.bytes = bytes
        self.input = input
        self.now = now
        self.wallClock = wallClock
        self.routes = routes
        self.instances = instances
        self.isDryRun = isDryRun
    }
}

/// A stage's outputs besides its verdict. Valid for the call only; later stages see the effects.
public struct Effects {
    private let facts: UnsafeMutablePointer<ConnectionFacts>
    private var lasting: UnsafeMutablePointer<LastingFacts> { facts.pointee.lasting }
    private let prelude: UnsafeMutablePointer<Prelude>
    @usableFromInline let memory: UnsafeMutablePointer<StageMemory>
    private let message: UnsafeMutablePointer<NodeMessage>?

    /// - Parameter message: what stages say themselves; nil: nobody listens, as in a dry run.
    public init(
        facts: UnsafeMutablePointer<ConnectionFacts>, prelude: UnsafeMutablePointer<Prelude>,
        memory: UnsafeMutablePointer<StageMemory>, message: UnsafeMutablePointer<NodeMessage>? = nil
    ) {
        self.facts = facts
        self.prelude = prelude
        self.memory = memory
        self.message = message
    }

    /// Says these bytes to the client, before the stage is asked again: only with ``Verdict/needBytes(_:)``, or as the last
    /// words with ``Verdict/refuse(_:)``. In ``Filter/upgrade(_:_:_:_:)``: to the backend. More than
    /// ``NodeMessage/capacity`` at a time ends the connection.
    public func say(_ bytes: UnsafeBufferPointer<UInt8>) { message?.pointee.append(bytes) }
    public func say(_ text: StaticString) {
        text.withUTF8Buffer { say($0) }
    }
    /// The client has been told to begin TLS: the backend is asked to do so too (``Filter/upgrade(_:_:_:_:)``).
    /// - Parameter within: how long the backend may take, from when it has accepted.
    public func upgradeBackend(within: TimeSpan) { facts.pointee.upgradeWithin = within }

    /// The value that the stage kept since an earlier call; `first` at its first call and after ``forgetKept()``. One
    /// stage of a chain may use it. At most ``StageMemory/size`` bytes, valid for the call.
    @inlinable public func kept<Value: BitwiseCopyable>(orFirst first: () -> Value) -> UnsafeMutablePointer<Value> {
        memory.pointee.kept(orFirst: first)
    }
    public func forgetKept() { memory.pointee.reset() }

    /// - Parameter destination: that client's destination, if the header names it.
    public func setClient(_ client: ClientAddress, destination: DestinationAddress? = nil) {
        lasting.pointee.client = client
        facts.pointee.believedDestination = destination
    }
    /// Records what sniffing found. The name must be canonical (``ServerName/set(wire:)``).
    public func setSniff(_ outcome: SniffOutcome, name: ServerName) {
        lasting.pointee.sniff = outcome
        facts.pointee.serverName = name
    }
    /// The first bytes are looked at, and don't say enough yet.
    public func setSniffing() { lasting.pointee.sniff = .incomplete }
    /// Where ALPN stands in the client's bytes, and where the TLS record ends that it begins in.
    public func setALPN(offset: Int, length: Int, recordEnd: Int) {
        facts.pointee.alpnOffset = UInt16(clamping: offset)
        facts.pointee.alpnLength = UInt16(clamping: length)
        facts.pointee.alpnRecordEnd = UInt16(clamping: recordEnd)
    }
    /// The first bytes are no TLS, and of this protocol: the route is found by it.
    public func setClientProtocol(_ client: ClientProtocol) { facts.pointee.clientProtocol = client }
    /// The range of an accepted PROXY header's TLVs in the client's bytes.
    public func setTLVs(offset: Int, length: Int) {
        facts.pointee.tlvOffset = UInt16(clamping: offset)
        facts.pointee.tlvLength = UInt16(clamping: length)
    }
    /// Replaces the choice of backends, and leaves the connection's reservations as they are.
    public func setCandidates(_ candidates: BackendCandidates) { facts.pointee.candidates = candidates }
    /// Has the runtime take `count` back at the end of the connection, however it ends. The stage has counted it
    /// already. False if a connection can't hold more: then the stage takes it back itself.
    public func reserve(_ count: UnsafePointer<ReservationCount>) -> Bool { lasting.pointee.reservations.append(count) }
    /// Takes back what ``reserve(_:)`` was given, if it was.
    public func unreserve(_ count: UnsafePointer<ReservationCount>) { lasting.pointee.reservations.remove(count) }
    /// Has the connection wait for a place in that queue, for ``Verdict/wait``, and if the backends turn out to be full when it
    /// is to be connected. Nil: nowhere.
    public func setQueue(_ offer: QueueOffer?) { facts.pointee.queue = offer }
    /// Has the relay obey a rate. What owns the bucket must be held as well. False if there is no room.
    public func pace(_ bucket: UnsafePointer<ByteBuckets>) -> Bool { lasting.pointee.buckets.append(bucket) }
    /// R12: what connect failures lead to.
    public func setEjection(_ policy: UnsafePointer<EjectionPolicy>) { facts.pointee.ejection = policy }
    /// R13: how many backends may be tried after the first one failed, and until when.
    /// - Parameter retries: at most two count.
    public func setRetries(_ retries: Int, within: TimeSpan) {
        facts.pointee.attempts = UInt8(clamping: min(max(0, retries), BackendCandidates.capacity - 1) + 1)
        facts.pointee.retryWithin = within
    }
    /// R14: ends the connection once both sides were quiet for so long; zero: never.
    public func setIdleTimeout(_ timeout: TimeSpan) {
        lasting.pointee.idleTimeout = UInt32(clamping: timeout.nanoseconds / 1_000_000)
    }
    /// Where the connection to a backend comes from; nil: the kernel chooses. It lives as long as the program.
    public func setSource(_ source: UnsafePointer<SourceAddresses>?) { facts.pointee.source = source }
    public func setRoute(_ route: FoundRoute, candidates: BackendCandidates) {
        facts.pointee.route = route
        facts.pointee.candidates = candidates
    }
    /// Sends the connection to its original destination, without a route.
    public func connectDirectly(
        _ direct: DirectConnect, timeout: TimeSpan = ConnectionFacts.usualDirectTimeout,
        unreachableFor: TimeSpan = .zero
    ) {
        facts.pointee.direct = direct
        facts.pointee.directTimeout = timeout
        facts.pointee.unreachableFor = unreachableFor
    }
    /// R19: whose connection it is, which pins that. What was said first stays.
    public func setIdentity(_ identity: UnsafePointer<InstanceIdentity>) { lasting.pointee.pin(identity) }
    /// The first `count` bytes of the stream are not passed on.
    public func consume(_ count: Int) { facts.pointee.consumed = max(0, count) }
    /// Adds bytes to send before the client's. False, and nothing added, if they don't fit.
    public func prepend(_ bytes: UnsafeBufferPointer<UInt8>) -> Bool { prelude.pointee.append(bytes) }
    /// The same for the PROXY header, which settles ``ConnectionFacts/owesProxyHeader``. It must come first: false, and
    /// nothing added, if other bytes were added before.
    public func prepend(proxyHeader bytes: UnsafeBufferPointer<UInt8>) -> Bool {
        guard prelude.pointee.count == 0, prepend(bytes) else { return false }
        facts.pointee.hasProxyHeader = true
        return true
    }
    /// The same, written in place. `write` gets the free memory and returns the header's length; nil: it could not be
    /// written.
    public func prependProxyHeader(_ write: (UnsafeMutableBufferPointer<UInt8>) -> Int?) -> Bool {
        guard prelude.pointee.count == 0, prelude.pointee.fill(write) else { return false }
        facts.pointee.hasProxyHeader = true
        return true
    }
}

/// What was reported to stages before a connection's end.
public struct ReportedTotals: Sendable {
    public var bytesToUpstream: UInt64 = 0
    public var bytesToClient: UInt64 = 0
    public init() {}
}

/// A connection's totals, final or so far, for accounting stages (``Filter/settle(_:_:_:)``).
public struct ConnectionTotals: @unchecked Sendable {
    public let route: UnsafePointer<RouteCell>?
    public let client: ClientAddress
    public let destination: DestinationAddress
    /// The connected backend; nil: none.
    public let backend: UnsafePointer<BackendCell>?
    /// Which instance it came from, see ``InstanceIdentity/number``; ``InstanceIdentity/unknown``: not known.
    public let instance: UInt32
    /// The source address: the socket's, not one from a PROXY header.
    public let source: IPAddress
    /// Payload bytes written to the backend; our own PROXY header is not payload.
    public let bytesToUpstream: UInt64
    /// Payload bytes written to the client.
    public let bytesToClient: UInt64
    public let reason: ReasonCode
    public let duration: TimeSpan
    /// What was reported by ``Filter/progress(_:_:_:)`` before; included in the bytes above.
    public var reported = ReportedTotals()
    /// At least one report was made.
    public var isReported = false
    /// Wall clock, nanoseconds since 1970; 0 where no stage of the chain has a ``Filter/progressInterval(_:)``.
    public var at: UInt64 = 0
    public init(
        route: UnsafePointer<RouteCell>?, client: ClientAddress, destination: DestinationAddress,
        backend: UnsafePointer<BackendCell>?, bytesToUpstream: UInt64, bytesToClient: UInt64, reason: ReasonCode,
        duration: TimeSpan, instance: UInt32 = InstanceIdentity.unknown, source: IPAddress = .unspecified
    ) {
        self.instance = instance
        self.source = source
        self.route = route
        self.client = client
        self.destination = destination
        self.backend = backend
        self.bytesToUpstream = bytesToUpstream
        self.bytesToClient = bytesToClient
        self.reason = reason
        self.duration = duration
    }
}
