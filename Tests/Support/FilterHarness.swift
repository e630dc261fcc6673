import Pipeline

/// Runs a filter, or several in a row, on literals: the way to test a stage.
///
///     var run = FilterHarness()
///     run.hint = .tlsPassthrough
///     run.routes.add(FakeRoute("rt_web", hosts: ["app.example.com"], backends: ["[fd00::10]:8443"]))
///     #expect(try run.evaluate(SNIFilter.self, "sni", bytes: hello) == .next)
///     #expect(run.facts.serverName.string == "app.example.com")
///
/// Facts, prelude and each filter's worker state stay from one call to the next, as they do for one connection.
package struct FilterHarness {
    package var peer = FilterHarness.endpoint("[2001:db8::99]:40000") { didSet { resetFacts() } }
    package var destination = FilterHarness.endpoint("[2001:db8::1]:443") { didSet { resetFacts() } }
    package var hint = ProtocolHint.tlsPassthrough { didSet { resetFacts() } }
    package var now = Instant(nanoseconds: 1_000_000_000)
    /// As a non-blocking inspection is asked, once the backend is connected.
    package var isInspecting = false
    /// As `explain` asks.
    package var isDryRun = false
    package let routes = FakeRoutes()
    /// Who has which address on this node; the caller's to free.
    package var instances = InstanceDirectory.empty
    private var held: HeldFacts
    package var facts: ConnectionFacts
    package var prelude = Prelude()
    private var memory = StageMemory()
    private var message = NodeMessage()

    package init() {
        held = HeldFacts(FilterHarness.lasting(peer: peer, destination: destination, hint: hint))
        facts = ConnectionFacts(held.lasting)
    }

    /// What a worker's slot has of the connection, and ``facts`` refer to.
    package var lasting: LastingFacts {
        get { held.lasting.pointee }
        _modify { yield &held.lasting.pointee }
    }

    /// An endpoint literal; `[::]:0` if it is none, which no test expects.
    package static func endpoint(_ text: String) -> Endpoint { Endpoint(text) ?? Endpoint(.unspecified, 0) }

    /// A new connection: facts, prelude and memory as after accept.
    package mutating func resetFacts() {
        held = HeldFacts(FilterHarness.lasting(peer: peer, destination: destination, hint: hint))
        facts = ConnectionFacts(held.lasting)
        prelude.reset()
        memory.reset()
        message.reset()
    }

    /// What the filters have said themselves since this was asked last.
    package mutating func said() -> [UInt8] {
        defer { message.reset() }
        return message.withUnsent { Array($0) }
    }
    package var saysTooMuch: Bool { message.isOverfull }

    private static func lasting(peer: Endpoint, destination: Endpoint, hint: ProtocolHint) -> LastingFacts {
        LastingFacts(
            peer: PeerAddress(peer), destination: DestinationAddress(destination), listener: 0, hint: hint, serial: 1)
    }

    /// What the prelude holds.
    package var preludeBytes: [UInt8] { prelude.withBytes { Array($0) } }

    /// Evaluates `filter` with settings made of clauses: what `directive` of the config would compile to.
    package mutating func evaluate<F: Filter>(
        _ filter: F.Type, _ clauses: [Clause] = [], bytes: some Collection<UInt8> = [], input: InputState = .open
    ) throws(SettingsError) -> Verdict {
        try run(filter, clauses, bytes: bytes, input: input).verdict
    }

    /// The same, and what the filter says about it.
    package mutating func run<F: Filter>(
        _ filter: F.Type, _ clauses: [Clause] = [], bytes: some Collection<UInt8> = [], input: InputState = .open
    ) throws(SettingsError) -> (verdict: Verdict, explanation: String) {
        let settings = try F.settings(Directive(keyword: F.descriptor.keyword, clauses: clauses))
        defer { F.dispose(settings) }
        var state = F.makeState(settings)
        return evaluate(filter, settings, &state, bytes: bytes, input: input)
    }

    /// Evaluates with settings and worker state that the caller keeps, for filters that remember.
    package mutating func evaluate<F: Filter>(
        _ filter: F.Type, _ settings: F.Settings, _ state: inout F.WorkerState,
        bytes: some Collection<UInt8> = [], input: InputState = .open
    ) -> (verdict: Verdict, explanation: String) {
        let table = routes.handle
        let (now, isDryRun, instances, isInspecting) = (now, isDryRun, instances, isInspecting)
        return withExactBytes(bytes) { bytes in
            withEffects { facts, effects in
                let view = ConnectionView(
                    facts: facts, bytes: bytes, input: input, now: now, routes: table, instances: instances,
                    isDryRun: isDryRun, isInspecting: isInspecting)
                let verdict = F.evaluate(settings, &state, view, effects)
                return (verdict, F.explain(settings, view, verdict))
            }
        }
    }

    private mutating func withEffects<Result>(_ body: (UnsafePointer<ConnectionFacts>, Effects) -> Result) -> Result {
        withUnsafeMutablePointer(to: &facts) { facts in
            withUnsafeMutablePointer(to: &prelude) { prelude in
                withUnsafeMutablePointer(to: &memory) { memory in
                    withUnsafeMutablePointer(to: &message) { message in
                        body(facts, Effects(facts: facts, prelude: prelude, memory: memory, message: message))
                    }
                }
            }
        }
    }

    /// Has `filter` go on with the backend, which has said `answer`; nothing: it has just been connected.
    package mutating func upgrade<F: Filter>(
        _ filter: F.Type, _ settings: F.Settings, answer: some Collection<UInt8> = []
    ) -> UpgradeStep {
        let table = routes.handle
        let (now, isDryRun, instances) = (now, isDryRun, instances)
        return withExactBytes(answer) { answer in
            withEffects { facts, effects in
                let view = ConnectionView(
                    facts: facts, bytes: UnsafeBufferPointer(start: nil, count: 0), input: .open, now: now,
                    routes: table, instances: instances, isDryRun: isDryRun)
                return F.upgrade(settings, answer, view, effects)
            }
        }
    }

    /// The name of a refusal, as logs have it (`sni.timeout client`); nil if the verdict is none.
    package static func reason<F: Filter>(_ verdict: Verdict, of filter: F.Type) -> String? {
        guard case .refuse(let code) = verdict else { return nil }
        let reasons = F.descriptor.reasons
        guard Int(code) < reasons.count else { return "undeclared reason \(code)" }
        return "\(F.descriptor.keyword).\(reasons[Int(code)].name) \(reasons[Int(code)].side.rawValue)"
    }
}

/// Facts that stay where they are, as in a slot, for as long as somebody has this.
package final class HeldFacts {
    package let lasting: UnsafeMutablePointer<LastingFacts>
    package init(_ lasting: LastingFacts) {
        self.lasting = .allocate(capacity: 1)
        self.lasting.initialize(to: lasting)
    }
    deinit { lasting.deallocate() }
}
