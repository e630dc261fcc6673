import Pipeline
import PipelineRouting
import PipelineWire

/// What must hold of a whole chain of the filters that ship, whatever bytes a client sends: it comes to an end, and to the
/// same one however the bytes are cut into segments. For the tests beside it and for Fuzz/run.
///
/// An input is three bytes and a stream. They say: the listener and the peer; how it ends (more could come, the client
/// closes, the time is over), or that the time is over before its first byte; where the stream is cut.
enum ChainProperties {
    /// Nil, or what is wrong.
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        guard let fixture else { return "the fixture doesn't compile" }
        guard bytes.count >= 3 else { return nil }
        let place = fixture.place(bytes[0])
        let end: InputState = [.open, .ended, .timedOut][Int(bytes[1]) % 3]
        let isLate = Int(bytes[1]) / 3 % 4 == 3
        let stream = UnsafeBufferPointer(rebasing: bytes[3...])
        if isLate { return late(place, stream, end: end == .timedOut ? .open : end, seed: bytes[2]) }
        let expected = outcome(place, stream, end: end, cuts: [stream.count])
        for cuts in [Cuts.random(stream.count, seed: bytes[2]), Cuts.single(stream.count)] {
            var found = outcome(place, stream, end: end, cuts: cuts)
            var wanted = expected
            // A stage may wait for the end of a record whose first part it would refuse: that delays, and decides nothing.
            if found.isWaiting != wanted.isWaiting {
                found = outcome(place, stream, end: .timedOut, cuts: cuts)
                if wanted.isWaiting { wanted = outcome(place, stream, end: .timedOut, cuts: [stream.count]) }
            }
            if found != wanted { return "\(wanted), in segments \(cuts.prefix(20)): \(found)" }
        }
        return plausible(expected, stream)
    }

    private static func outcome(
        _ place: ChainFixture.Place, _ stream: UnsafeBufferPointer<UInt8>, end: InputState, cuts: [Int],
        isLate: Bool = false
    ) -> ChainRun.Outcome {
        guard let fixture else { return ChainRun.Outcome() }
        var run = ChainRun(fixture, place, stream, end: end, isLate: isLate)
        return run.run(cuts: cuts)
    }

    /// R17: the stream comes after silence until the deadline. However it is cut, the same becomes of it; nothing is
    /// believed, and nobody's signature gets through.
    private static func late(
        _ place: ChainFixture.Place, _ stream: UnsafeBufferPointer<UInt8>, end: InputState, seed: UInt8
    ) -> String? {
        let expected = outcome(place, stream, end: end, cuts: [stream.count], isLate: true)
        for cuts in [Cuts.random(stream.count, seed: seed), Cuts.single(stream.count)] {
            let found = outcome(place, stream, end: end, cuts: cuts, isLate: true)
            if found != expected { return "late: \(expected), in segments \(cuts.prefix(20)): \(found)" }
        }
        guard expected.consumed == 0, expected.client?.endpoint == expected.peer else {
            return "late, and believed: \(expected)"
        }
        if expected.reason == nil, !expected.isWaiting, ProxySignature.check(stream) == .block {
            return "passed with a late PROXY header: \(expected)"
        }
        return plausible(expected, stream)
    }

    /// What no outcome may be.
    private static func plausible(_ outcome: ChainRun.Outcome, _ stream: UnsafeBufferPointer<UInt8>) -> String? {
        if outcome.reason == RuntimeReason.internalError.code {
            return "a stage that waits for what can't come: \(outcome)"
        }
        guard outcome.reason == nil, !outcome.isWaiting else { return nil }
        if outcome.route == nil { return "passed without a route: \(outcome)" }
        if outcome.owesHeader { return "passed, and owes a PROXY header: \(outcome)" }
        if outcome.consumed > stream.count { return "consumed \(outcome.consumed) of \(stream.count) bytes" }
        if !outcome.prelude.isEmpty, let problem = header(outcome) { return problem }
        if let problem = places(outcome, stream) { return problem }
        return outcome.isStranger ? forged(outcome, stream) : nil
    }

    /// R16: what goes in front is a whole header that says who the client is.
    private static func header(_ outcome: ChainRun.Outcome) -> String? {
        outcome.prelude.withUnsafeBufferPointer { bytes in
            guard case .ok(let header) = ProxyHeader.parse(bytes), header.length == bytes.count,
                header.source == outcome.client?.endpoint
            else { return "no header of this client: \(outcome)" }
            return nil
        }
    }

    /// What later stages are told to look at is where they are told, behind a header that was taken out.
    private static func places(_ outcome: ChainRun.Outcome, _ stream: UnsafeBufferPointer<UInt8>) -> String? {
        guard outcome.tlvs.upperBound <= outcome.consumed else { return "TLVs outside of the header: \(outcome)" }
        guard !outcome.alpn.isEmpty else { return nil }
        let rest = UnsafeBufferPointer(rebasing: stream[outcome.consumed...])
        guard outcome.alpn.upperBound <= stream.count,
            case .ok(let hello) = ClientHello.parse(rest, limit: PeekNeed.limit),
            hello.alpnProtocols(in: rest).flatMap({ [UInt8(truncatingIfNeeded: $0.count)] + $0 })
                == Array(stream[outcome.alpn])
        else { return "ALPN is not there: \(outcome)" }
        return nil
    }

    /// R17: of a client that nobody lists, nothing is believed, and no signature gets through.
    private static func forged(_ outcome: ChainRun.Outcome, _ stream: UnsafeBufferPointer<UInt8>) -> String? {
        if outcome.consumed > 0 || outcome.client?.endpoint != outcome.peer { return "believed a stranger: \(outcome)" }
        return ProxySignature.check(stream) == .block ? "passed with a PROXY header: \(outcome)" : nil
    }

    /// Lives as long as the process.
    static let fixture = ChainFixture()
}

/// How many bytes have come after each segment, ascending; the last is all.
private enum Cuts {
    static func single(_ count: Int) -> [Int] { Array(0...count) }

    static func random(_ count: Int, seed: UInt8) -> [Int] {
        var random = SplitMix64(seed: UInt64(seed))
        var cuts = [0]
        while let last = cuts.last, last < count {
            // Mostly small steps, at times a large one.
            cuts.append(min(count, last + 1 + random.below(random.below(16) == 0 ? 1500 : 90)))
        }
        return cuts
    }
}

/// One connection's way through its chain, as the worker goes it: stages in order, one that waits is asked again when it
/// has what it wanted or nothing more comes, and in a chain that does not block the rest goes on meanwhile.
private struct ChainRun: ~Copyable {
    struct Outcome: Equatable {
        /// Nil: not refused.
        var reason: ReasonCode?
        /// A stage still waits, because more could come.
        var isWaiting = false, route: String?
        var name = ""
        /// What the first bytes are, where they are no TLS.
        var speaks: ClientProtocol?
        var sniff = SniffOutcome.notAsked
        var client: ClientAddress?
        var consumed = 0
        /// Where they stand in the stream; empty: nowhere.
        var tlvs = 0..<0
        var alpn = 0..<0
        var prelude: [UInt8] = []
        var owesHeader = false, isStranger = false
        var peer: Endpoint?
    }

    private let fixture: ChainFixture
    private let place: ChainFixture.Place
    private let stream: UnsafeBufferPointer<UInt8>
    private var end: InputState
    /// As in a slot: it stays where it is.
    private let lasting: UnsafeMutablePointer<LastingFacts>
    private var facts: ConnectionFacts
    private var (prelude, memory) = (Prelude(), StageMemory())
    private var (count, isInspecting) = (0, false)
    private var input = InputState.open
    /// Nothing comes before the deadline.
    private let isLate: Bool

    init(
        _ fixture: ChainFixture, _ place: ChainFixture.Place, _ stream: UnsafeBufferPointer<UInt8>, end: InputState,
        isLate: Bool
    ) {
        (self.fixture, self.place, self.stream, self.end, self.isLate) = (fixture, place, stream, end, isLate)
        lasting = .allocate(capacity: 1)
        let to = DestinationAddress(Endpoint(IPAddress(high: 1, low: 1), place.port))
        lasting.initialize(
            to: LastingFacts(
                peer: PeerAddress(place.peer), destination: to, listener: place.listener, hint: place.hint, serial: 7))
        facts = ConnectionFacts(lasting)
    }
    deinit { lasting.deallocate() }

    mutating func run(cuts: [Int]) -> Outcome {
        var cuts = cuts[...]
        var inspecting: [Int] = []
        for number in place.chain.stages.buffer.indices {
            while let wanted = step(number) {
                guard wanted.reason == nil else { return outcome(wanted.reason) }
                if wanted.isNonBlocking, staysNonBlocking(number) {
                    inspecting.append(number)
                    break
                }
                guard canWait else { return outcome(RuntimeReason.internalError.code) }
                if isLate {
                    input = .timedOut
                    continue
                }
                guard gather(min(max(wanted.total, count + 1), place.chain.peekBytes), &cuts) else {
                    return outcome(nil, isWaiting: true)
                }
            }
        }
        // An inspection has no deadline.
        if !inspecting.isEmpty, input == .timedOut { input = .open }
        if end == .timedOut { end = .open }
        isInspecting = true
        while !inspecting.isEmpty {
            var still: [Int] = []
            for number in inspecting {
                guard let wanted = step(number) else { continue }
                guard wanted.reason == nil else { return outcome(wanted.reason) }
                still.append(number)
            }
            inspecting = still
            if !inspecting.isEmpty, !canWait { return outcome(RuntimeReason.internalError.code) }
            if !inspecting.isEmpty, !gather(count + 1, &cuts) { return outcome(nil, isWaiting: true) }
        }
        return outcome(nil)
    }

    /// Nil: the stage lets it pass.
    private mutating func step(_ number: Int) -> (reason: ReasonCode?, total: Int, isNonBlocking: Bool)? {
        let stage = place.chain.stages[number]
        switch evaluate(stage) {
        case .next, .wait: return nil
        case .needBytes(let total): return (nil, total, false)
        case .inspect(let total): return (nil, total, true)
        case .refuse(let code): return stage.shadow ? nil : (stage.code(code), 0, false)
        }
    }

    /// As the worker has it: nobody waits behind it, or nobody waits any more.
    private func staysNonBlocking(_ number: Int) -> Bool {
        guard count < place.chain.peekBytes else { return false }
        switch input {
        case .open: return place.chain.isNonBlocking(at: number)
        case .timedOut: return place.chain.stages[number].isNonBlocking
        case .ended, .full: return false
        }
    }

    /// A stage that wants more than can come would hold the client for ever.
    private var canWait: Bool { input == .open && count < place.chain.peekBytes }
    private var seen: Int { min(count, place.chain.peekBytes) }

    private mutating func evaluate(_ stage: Stage) -> Verdict {
        let bytes = UnsafeBufferPointer(rebasing: stream[..<seen])
        let state = input == .open && seen >= place.chain.peekBytes ? InputState.full : input
        let (routes, stageState) = (fixture.snapshot.handle, fixture.states[stage.stateIndex])
        return withUnsafeMutablePointer(to: &facts) { facts in
            withUnsafeMutablePointer(to: &prelude) { prelude in
                let view = ConnectionView(
                    facts: facts, bytes: bytes, input: state, now: Instant(nanoseconds: 1_000_000_000), routes: routes,
                    isInspecting: isInspecting)
                return withUnsafeMutablePointer(to: &memory) { memory in
                    stage.filter.evaluateErased(
                        stage.settings, stageState, view, Effects(facts: facts, prelude: prelude, memory: memory))
                }
            }
        }
    }

    /// Takes segments until there are `wanted` bytes or nothing more comes. False if more could come, but here doesn't.
    private mutating func gather(_ wanted: Int, _ cuts: inout ArraySlice<Int>) -> Bool {
        while count < wanted {
            guard let next = cuts.popFirst() else {
                guard end != .open else { return false }
                input = end
                return true
            }
            count = max(count, next)
        }
        return true
    }

    private func outcome(_ reason: ReasonCode?, isWaiting: Bool = false) -> Outcome {
        var outcome = Outcome(reason: reason, isWaiting: isWaiting)
        outcome.route = facts.route?.pointee.id.string
        outcome.name = facts.serverName.string
        (outcome.sniff, outcome.client, outcome.consumed) = (facts.sniff, facts.client, facts.consumed)
        outcome.tlvs = Int(facts.tlvOffset)..<Int(facts.tlvOffset) + Int(facts.tlvLength)
        // Where it stands in one piece.
        if Int(facts.alpnOffset) + Int(facts.alpnLength) <= Int(facts.alpnRecordEnd) {
            outcome.alpn = Int(facts.alpnOffset)..<Int(facts.alpnOffset) + Int(facts.alpnLength)
        }
        outcome.speaks = facts.clientProtocol
        outcome.prelude = prelude.withBytes { Array($0) }
        outcome.owesHeader = facts.owesProxyHeader
        (outcome.peer, outcome.isStranger) = (place.peer, place.isStranger)
        return outcome
    }
}
