/// What stages need from and give to each other. The checker proves the order of a chain from these.
public enum Fact: String, Sendable, CaseIterable {
    /// Who the client is, if a PROXY header may say so. Without a stage that gives it, the client is the peer.
    case client
    /// The SNI, or the knowledge that there is none.
    case serverName = "server name"
    /// The route.
    case route
    /// The backends to try.
    case backend
    /// Which instance of this node the connection comes from (R19).
    case identity
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

/// All that is known of one connection while its stages run.
public struct ConnectionFacts: @unchecked Sendable {
    public let peer: PeerAddress
    public let destination: DestinationAddress
    /// Index of the listener in its program.
    public let listener: UInt16
    public let hint: ProtocolHint
    /// Node-unique number of the connection, for unique-id TLVs and logs.
    public let serial: UInt64
    public var client: ClientAddress
    public var sniff: SniffOutcome = .notAsked
    public var serverName = ServerName()
    /// Where the ALPN extension's protocol list stands in the client's bytes; 0 length: none.
    public var alpnOffset: UInt16 = 0
    public var alpnLength: UInt16 = 0
    /// By the newest table. The runtime asks again (``Filter/lookUp(_:_:)``) when it may have gone since.
    public var route: UnsafePointer<Route>?
    public var candidates = BackendCandidates()
    /// Backends that failed the connection: none is tried twice.
    public var tried = TriedBackends()
    /// Connect to where the client was going, and to no candidate (egress).
    public var direct = DirectConnect.no
    /// How long that connect may take: the internet loses a SYN or two, and there is nobody else to try.
    public var directTimeout = ConnectionFacts.usualDirectTimeout
    public static var usualDirectTimeout: TimeSpan { .seconds(60) }
    /// How long others are refused the same destination if that connect shows that nothing there answers this host
    /// (ADR 0049); zero: not at all.
    public var unreachableFor = TimeSpan.zero
    /// Which instance the connection comes from (R19); nil: unknown, or not asked. Pinned until the connection ends.
    public var identity: UnsafePointer<InstanceIdentity>?
    /// When a backend's connect failures take it out (R12); nil: never. Valid as long as the program.
    public var ejection: UnsafePointer<EjectionPolicy>?
    /// Given back at the end of the connection.
    public var reservations = Reservations()
    public var buckets = ConnectionBuckets()
    /// Where the TLVs of a PROXY header that we believed stand in the client's bytes; 0 length: none.
    public var tlvOffset: UInt16 = 0
    public var tlvLength: UInt16 = 0
    /// Where the client was going, as a PROXY header that we believed says; nil: none said. It goes with ``client`` into
    /// our own header. Routes are found by ``destination`` alone (R1).
    public var believedDestination: DestinationAddress?
    /// The IPv4 address that ``destination`` spells, where connections are intercepted; nil: none. What holds for the one holds
    /// for the other.
    public var spelledDestination: IPAddress?
    /// How many of the client's first bytes are not passed on (a PROXY header that we believed).
    public var consumed: Int = 0
    /// A stage has put the PROXY header in front that the route asks for (R16).
    public fileprivate(set) var hasProxyHeader = false

    /// From here on nobody looks at what a table has said, which may be gone.
    public mutating func forgetTable() {
        route = nil
        candidates = BackendCandidates()
    }

    /// The route's backend would take the client's first bytes for a PROXY header: never connect while this is true.
    public var owesProxyHeader: Bool { route.map { owesProxyHeader(of: $0.pointee.flags) } ?? false }

    /// The same for who knows the route's flags and no longer has the table that it came from.
    public func owesProxyHeader(of flags: Route.Flags) -> Bool { flags.contains(.proxyV2) && !hasProxyHeader }

    @inline(__always) public init(
        peer: PeerAddress, destination: DestinationAddress, listener: UInt16, hint: ProtocolHint, serial: UInt64
    ) {
        self.peer = peer
        self.destination = destination
        self.listener = listener
        self.hint = hint
        self.serial = serial
        self.client = ClientAddress(peer.endpoint)
    }
}

/// What the one stage of a chain that needs it keeps of a connection from one look to the next.
@frozen public struct StageMemory {
    /// In bytes; aligned to eight.
    public static let size = 384
    @usableFromInline var isKept = false
    @usableFromInline var words = InlineArray<48, UInt64>(repeating: 0)

    public init() {}
    /// Nothing is kept. Most connections never need the bytes: they are left as they are.
    public mutating func reset() { isKept = false }

    /// What is kept; if nothing is, `first`, which is from now on. Valid for the call that the stage is asked in.
    @inlinable mutating func kept<Value: BitwiseCopyable>(orFirst first: () -> Value) -> UnsafeMutablePointer<Value> {
        assert(MemoryLayout<Value>.size <= StageMemory.size)
        let pointer = withUnsafeMutablePointer(to: &words) { UnsafeMutableRawPointer($0) }
            .bindMemory(to: Value.self, capacity: 1)
        if !isKept { pointer.initialize(to: first()) }
        isKept = true
        return pointer
    }
}

/// Whether a connection goes on to its original destination, and from which address.
@frozen public enum DirectConnect: UInt8, Sendable, Equatable {
    /// To a route's backend.
    case no
    /// From an address of this host.
    case fromHost
    /// From the client's own address, which needs `IP_TRANSPARENT`, and a network that routes answers back here.
    case fromClient
}

/// What a stage may look at. Valid for the call only.
public struct ConnectionView {
    @usableFromInline let pointer: UnsafePointer<ConnectionFacts>
    /// The client's first bytes so far, at most the chain's peek budget. Empty before any stage asked for bytes.
    public let bytes: UnsafeBufferPointer<UInt8>
    public let input: InputState
    /// When this event happened.
    public let now: Instant
    /// The time by the wall then, nanoseconds since 1970: for stages that say ``StageCapabilities/readsWallClock``; else 0.
    public let wallClock: UInt64
    public let routes: RouteTableHandle
    /// Who has which address on this node (R19).
    public let instances: InstanceDirectory
    /// `explain` asks, and no connection is there: a stage answers as it would, and changes nothing that others share.
    public let isDryRun: Bool
    /// The stage inspects without blocking (``Verdict/inspect(_:)``), and the backend is connected already: what it sees now it can hold back,
    /// refuse or let pass. To take bytes out, or to say who the client is, is too late.
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

/// What a stage may do besides its verdict. Valid for the call only; what an effect sets, later stages see.
public struct Effects {
    private let facts: UnsafeMutablePointer<ConnectionFacts>
    private let prelude: UnsafeMutablePointer<Prelude>
    @usableFromInline let memory: UnsafeMutablePointer<StageMemory>

    public init(
        facts: UnsafeMutablePointer<ConnectionFacts>, prelude: UnsafeMutablePointer<Prelude>,
        memory: UnsafeMutablePointer<StageMemory>
    ) {
        self.facts = facts
        self.prelude = prelude
        self.memory = memory
    }

    /// What the stage has kept of the connection since an earlier look, for the one stage of a chain that keeps anything; at
    /// its first look, and after ``forgetKept()``, `first`. At most ``StageMemory/size`` bytes, valid for the call.
    @inlinable public func kept<Value: BitwiseCopyable>(orFirst first: () -> Value) -> UnsafeMutablePointer<Value> {
        memory.pointee.kept(orFirst: first)
    }
    public func forgetKept() { memory.pointee.reset() }

    /// - Parameter destination: where that client was going, if whoever names it says that too.
    public func setClient(_ client: ClientAddress, destination: DestinationAddress? = nil) {
        facts.pointee.client = client
        facts.pointee.believedDestination = destination
    }
    /// Records what sniffing found. The name must be canonical (``ServerName/set(wire:)``).
    public func setSniff(_ outcome: SniffOutcome, name: ServerName) {
        facts.pointee.sniff = outcome
        facts.pointee.serverName = name
    }
    /// The first bytes are looked at, and don't say enough yet.
    public func setSniffing() { facts.pointee.sniff = .incomplete }
    /// Where ALPN stands in the client's bytes.
    public func setALPN(offset: Int, length: Int) {
        facts.pointee.alpnOffset = UInt16(clamping: offset)
        facts.pointee.alpnLength = UInt16(clamping: length)
    }
    /// Where the TLVs of a believed PROXY header stand in the client's bytes.
    public func setTLVs(offset: Int, length: Int) {
        facts.pointee.tlvOffset = UInt16(clamping: offset)
        facts.pointee.tlvLength = UInt16(clamping: length)
    }
    /// Another choice among a route's backends, without touching what the connection counts in.
    public func setCandidates(_ candidates: BackendCandidates) { facts.pointee.candidates = candidates }
    /// Has the runtime take `count` back at the end of the connection, however it ends. The stage has counted it
    /// already. False if a connection can't hold more: then the stage takes it back itself.
    public func reserve(_ count: UnsafePointer<ReservationCount>) -> Bool { facts.pointee.reservations.append(count) }
    /// Has the relay obey a rate. What owns the bucket must be held as well. False if there is no room.
    public func pace(_ bucket: UnsafePointer<ByteBuckets>) -> Bool { facts.pointee.buckets.append(bucket) }
    /// R12: what connect failures lead to.
    public func setEjection(_ policy: UnsafePointer<EjectionPolicy>) { facts.pointee.ejection = policy }
    public func setRoute(_ route: UnsafePointer<Route>, candidates: BackendCandidates) {
        facts.pointee.route = route
        facts.pointee.candidates = candidates
    }
    /// The connection goes on to where the client was going, without a route.
    public func connectDirectly(
        _ direct: DirectConnect, timeout: TimeSpan = ConnectionFacts.usualDirectTimeout,
        unreachableFor: TimeSpan = .zero
    ) {
        facts.pointee.direct = direct
        facts.pointee.directTimeout = timeout
        facts.pointee.unreachableFor = unreachableFor
    }
    /// R19: whose connection it is.
    public func setIdentity(_ identity: UnsafePointer<InstanceIdentity>) { facts.pointee.identity = identity }
    /// The first `count` bytes of the stream are not passed on.
    public func consume(_ count: Int) { facts.pointee.consumed = max(0, count) }
    /// Bytes that go to the backend before the client's. False, and nothing added, if they don't fit.
    public func prepend(_ bytes: UnsafeBufferPointer<UInt8>) -> Bool { prelude.pointee.append(bytes) }
    /// The same for the PROXY header, which settles ``ConnectionFacts/owesProxyHeader``. It must be the first bytes
    /// of all: false, and nothing added, if others were put in front before it.
    public func prepend(proxyHeader bytes: UnsafeBufferPointer<UInt8>) -> Bool {
        guard prelude.pointee.count == 0, prepend(bytes) else { return false }
        facts.pointee.hasProxyHeader = true
        return true
    }
    /// The same, written in place. `write` gets the memory that there is and answers how many bytes of it, from the
    /// start, are the header; nil: it could not be written.
    public func prependProxyHeader(_ write: (UnsafeMutableBufferPointer<UInt8>) -> Int?) -> Bool {
        guard prelude.pointee.count == 0, prelude.pointee.fill(write) else { return false }
        facts.pointee.hasProxyHeader = true
        return true
    }
}

/// What goes to the backend before the client's first byte.
public struct Prelude {
    /// The most bytes that stages may put in front, together. A header of ours fits with every TLV at its
    /// longest; small enough that it, a connection's facts and a usual hello lie on two pages.
    public static let capacity = 2048
    private var storage: InlineArray<2048, UInt8>
    public private(set) var count: Int

    public init() {
        storage = InlineArray(repeating: 0)
        count = 0
    }

    public mutating func reset() { count = 0 }

    public mutating func append(_ bytes: UnsafeBufferPointer<UInt8>) -> Bool {
        guard bytes.count <= Prelude.capacity - count else { return false }
        for byte in bytes {
            storage[count] = byte
            count += 1
        }
        return true
    }

    /// Has `write` put bytes at the start, in place of what there is. False, and nothing there, if it answers nil or
    /// more than it was lent.
    public mutating func fill(_ write: (UnsafeMutableBufferPointer<UInt8>) -> Int?) -> Bool {
        let written = withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: UInt8.self, capacity: Prelude.capacity) {
                write(UnsafeMutableBufferPointer(start: $0, count: Prelude.capacity))
            }
        }
        guard let written, written >= 0, written <= Prelude.capacity else {
            count = 0
            return false
        }
        count = written
        return true
    }

    /// Calls `body` with the bytes, valid for the call.
    public func withBytes<Result>(_ body: (UnsafeBufferPointer<UInt8>) -> Result) -> Result {
        withUnsafePointer(to: storage) { pointer in
            pointer.withMemoryRebound(to: UInt8.self, capacity: Prelude.capacity) {
                body(UnsafeBufferPointer(start: $0, count: count))
            }
        }
    }
}

/// What stages were told of a connection before its end.
public struct ReportedTotals: Sendable {
    public var bytesToUpstream: UInt64 = 0
    public var bytesToClient: UInt64 = 0
    public init() {}
}

/// How a connection came out, or how far it is, for stages that keep accounts (``Filter/settle(_:_:_:)``).
public struct ConnectionTotals: @unchecked Sendable {
    public let route: UnsafePointer<RouteCell>?
    public let client: ClientAddress
    public let destination: DestinationAddress
    /// The one that was connected; nil: none was.
    public let backend: UnsafePointer<BackendCell>?
    /// Which instance it came from, see ``InstanceIdentity/number``; ``InstanceIdentity/unknown``: not known.
    public let instance: UInt32
    /// The address that it came from: the socket's, not a believed one.
    public let source: IPAddress
    /// Payload bytes written to the backend; our own PROXY header is not payload.
    public let bytesToUpstream: UInt64
    /// Payload bytes written to the client.
    public let bytesToClient: UInt64
    public let reason: ReasonCode
    public let duration: TimeSpan
    /// What ``Filter/progress(_:_:_:)`` was told before; included in the bytes above.
    public var reported = ReportedTotals()
    /// It was told at least once.
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
