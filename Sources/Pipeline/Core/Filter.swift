/// A filter stage: facts and bytes in, a verdict and effects out. It knows no socket, no clock and no thread.
///
/// A conforming type is a namespace (an enum without cases). Everything is static: a program holds a stage as a
/// metatype and a pointer, so that a call is one indirect call without reference counting (docs/adr/0002).
public protocol Filter: SendableMetatype {
    /// The compiled directive. Immutable, read by all workers concurrently; the data path may read only trivial values
    /// or a ``FrozenArray`` in it.
    associatedtype Settings: Sendable
    /// Worker memory of one stage. Only that worker touches it.
    associatedtype WorkerState

    static var descriptor: FilterDescriptor { get }

    /// Compiles a directive whose clauses already fit ``FilterDescriptor/clauses``.
    /// - Throws: ``SettingsError`` for what the clause grammar can't say (combinations).
    static func settings(_ directive: Directive) throws(SettingsError) -> Settings
    static func makeState(_ settings: Settings) -> WorkerState
    /// The same for a stage that shares worker memory with other stages or programs, or uses the node's ``Services``.
    /// Default: ``makeState(_:)``.
    static func makeState(_ settings: Settings, _ context: StageContext) -> WorkerState
    /// Prepares, on the control thread, what the worker memory of workers 0..<workers needs. False: not available,
    /// usually for lack of memory, and the change that adds this stage is refused.
    static func prepare(_ settings: Settings, workers: Int, _ services: Services) -> Bool

    /// How many bytes this stage needs; nil: none.
    static func peek(_ settings: Settings) -> PeekNeed?

    /// What this stage needs, reads and provides, given its directive. Default: ``FilterDescriptor/facts``.
    static func facts(_ settings: Settings) -> StageFacts

    static func evaluate(
        _ settings: Settings, _ state: inout WorkerState, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict

    /// For a stage that provides the route: looks it up in the newest table; nil: none. Called if the table may have
    /// changed since the stage passed.
    static func lookUp(_ settings: Settings, _ view: ConnectionView) -> FoundRoute?

    /// For a stage that provides backends: chooses again among those of `route`, without ``ConnectionFacts/tried``
    /// (R13). The connection's reservations stay as they are.
    static func reselect(
        _ settings: Settings, _ state: inout WorkerState, _ route: FoundRoute, _ view: ConnectionView,
        _ effects: Effects
    ) -> Verdict

    /// For a stage that has answered a client's opening (``Effects/upgradeBackend(within:)``): says the same to the connected
    /// backend by ``Effects/say(_:)``, before the client's bytes go there.
    /// - Parameter answer: what the backend has said since the last call; empty at the first one.
    static func upgrade(
        _ settings: Settings, _ answer: UnsafeBufferPointer<UInt8>, _ view: ConnectionView, _ effects: Effects
    ) -> UpgradeStep

    /// Called once, at the end of a connection that passed this stage.
    static func settle(_ settings: Settings, _ state: inout WorkerState, _ totals: ConnectionTotals)

    /// The interval of ``progress(_:_:_:)`` for open connections; nil: only ``settle(_:_:_:)`` is needed. The shortest
    /// of a worker's stages applies to all.
    static func progressInterval(_ settings: Settings) -> TimeSpan?

    /// Called periodically for open connections that passed this stage: first always, then on new bytes.
    /// ``ConnectionTotals/reported`` has what was reported before, here and in ``settle(_:_:_:)``, so that growth
    /// counts once.
    static func progress(_ settings: Settings, _ state: inout WorkerState, _ totals: ConnectionTotals)

    /// Called after every tick of ``progress(_:_:_:)``, and once when the worker ends: hands over what the worker
    /// memory keeps.
    /// - Parameter isLast: no other call follows, and blocking is allowed. - Returns: what is left. Always
    ///   ``FlushOutcome/done`` if `isLast`.
    static func flush(_ settings: Settings, _ state: inout WorkerState, isLast: Bool) -> FlushOutcome

    /// Frees raw memory of a worker's memory before it is destroyed.
    static func disposeState(_ state: inout WorkerState)

    /// Notes and warnings about a whole config without errors, from the combination of its stages and blocks.
    static func review(_ config: ConfigReview) -> [ConfigRemark]

    /// One sentence for `explain`: why the stage decided so, given the facts after it.
    static func explain(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String

    /// Frees what ``Settings`` holds in ``FrozenArray``s.
    static func dispose(_ settings: Settings)

    // The type-erased forms that a program calls. The defaults below are the only implementation.
    static func evaluateErased(
        _ settings: UnsafeRawPointer, _ state: UnsafeMutableRawPointer, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict
    static func lookUpErased(_ settings: UnsafeRawPointer, _ view: ConnectionView) -> FoundRoute?
    static func reselectErased(
        _ settings: UnsafeRawPointer, _ state: UnsafeMutableRawPointer, _ route: FoundRoute,
        _ view: ConnectionView, _ effects: Effects
    ) -> Verdict
    static func upgradeErased(
        _ settings: UnsafeRawPointer, _ answer: UnsafeBufferPointer<UInt8>, _ view: ConnectionView, _ effects: Effects
    ) -> UpgradeStep
    static func settleErased(
        _ settings: UnsafeRawPointer, _ state: UnsafeMutableRawPointer, _ totals: ConnectionTotals)
    static func explainErased(_ settings: UnsafeRawPointer, _ view: ConnectionView, _ verdict: Verdict) -> String
    static func progressErased(
        _ settings: UnsafeRawPointer, _ state: UnsafeMutableRawPointer, _ totals: ConnectionTotals)
    static func flushErased(
        _ settings: UnsafeRawPointer, _ state: UnsafeMutableRawPointer, isLast: Bool
    ) -> FlushOutcome
    static func makeStateErased(_ settings: UnsafeRawPointer, _ context: StageContext) -> UnsafeMutableRawPointer
    static func prepareErased(_ settings: UnsafeRawPointer, workers: Int, _ services: Services) -> Bool
    static func disposeStateErased(_ state: UnsafeMutableRawPointer)
    static func disposeErased(_ settings: UnsafeMutableRawPointer)
}

extension Filter {
    public static func makeState(_ settings: Settings, _ context: StageContext) -> WorkerState { makeState(settings) }
    public static func prepare(_ settings: Settings, workers: Int, _ services: Services) -> Bool { true }
    public static func review(_ config: ConfigReview) -> [ConfigRemark] { [] }
    @inlinable public static func peek(_ settings: Settings) -> PeekNeed? { nil }
    public static func facts(_ settings: Settings) -> StageFacts { descriptor.facts }
    public static func lookUp(_ settings: Settings, _ view: ConnectionView) -> FoundRoute? { nil }
    public static func reselect(
        _ settings: Settings, _ state: inout WorkerState, _ route: FoundRoute, _ view: ConnectionView,
        _ effects: Effects
    ) -> Verdict { .next }
    public static func upgrade(
        _ settings: Settings, _ answer: UnsafeBufferPointer<UInt8>, _ view: ConnectionView, _ effects: Effects
    ) -> UpgradeStep { .done }
    @inlinable public static func settle(
        _ settings: Settings, _ state: inout WorkerState, _ totals: ConnectionTotals
    ) {}
    @inlinable public static func dispose(_ settings: Settings) {}
    public static func progressInterval(_ settings: Settings) -> TimeSpan? { nil }
    @inlinable public static func progress(
        _ settings: Settings, _ state: inout WorkerState, _ totals: ConnectionTotals
    ) {}
    @inlinable public static func flush(
        _ settings: Settings, _ state: inout WorkerState, isLast: Bool
    ) -> FlushOutcome { .done }
    @inlinable public static func disposeState(_ state: inout WorkerState) {}

    @inlinable public static func evaluateErased(
        _ settings: UnsafeRawPointer, _ state: UnsafeMutableRawPointer, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        evaluate(
            settings.assumingMemoryBound(to: Settings.self).pointee,
            &state.assumingMemoryBound(to: WorkerState.self).pointee, view, effects)
    }
    public static func lookUpErased(_ settings: UnsafeRawPointer, _ view: ConnectionView) -> FoundRoute? {
        lookUp(settings.assumingMemoryBound(to: Settings.self).pointee, view)
    }
    public static func reselectErased(
        _ settings: UnsafeRawPointer, _ state: UnsafeMutableRawPointer, _ route: FoundRoute,
        _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        reselect(
            settings.assumingMemoryBound(to: Settings.self).pointee,
            &state.assumingMemoryBound(to: WorkerState.self).pointee, route, view, effects)
    }
    public static func upgradeErased(
        _ settings: UnsafeRawPointer, _ answer: UnsafeBufferPointer<UInt8>, _ view: ConnectionView, _ effects: Effects
    ) -> UpgradeStep {
        upgrade(settings.assumingMemoryBound(to: Settings.self).pointee, answer, view, effects)
    }
    @inlinable public static func settleErased(
        _ settings: UnsafeRawPointer, _ state: UnsafeMutableRawPointer, _ totals: ConnectionTotals
    ) {
        settle(
            settings.assumingMemoryBound(to: Settings.self).pointee,
            &state.assumingMemoryBound(to: WorkerState.self).pointee, totals)
    }
    @inlinable public static func progressErased(
        _ settings: UnsafeRawPointer, _ state: UnsafeMutableRawPointer, _ totals: ConnectionTotals
    ) {
        progress(
            settings.assumingMemoryBound(to: Settings.self).pointee,
            &state.assumingMemoryBound(to: WorkerState.self).pointee, totals)
    }
    @inlinable public static func flushErased(
        _ settings: UnsafeRawPointer, _ state: UnsafeMutableRawPointer, isLast: Bool
    ) -> FlushOutcome {
        flush(
            settings.assumingMemoryBound(to: Settings.self).pointee,
            &state.assumingMemoryBound(to: WorkerState.self).pointee, isLast: isLast)
    }
    public static func explainErased(
        _ settings: UnsafeRawPointer, _ view: ConnectionView, _ verdict: Verdict
    ) -> String {
        explain(settings.assumingMemoryBound(to: Settings.self).pointee, view, verdict)
    }
    public static func prepareErased(_ settings: UnsafeRawPointer, workers: Int, _ services: Services) -> Bool {
        prepare(settings.assumingMemoryBound(to: Settings.self).pointee, workers: workers, services)
    }
    public static func makeStateErased(
        _ settings: UnsafeRawPointer, _ context: StageContext
    ) -> UnsafeMutableRawPointer {
        let state = UnsafeMutablePointer<WorkerState>.allocate(capacity: 1)
        state.initialize(to: makeState(settings.assumingMemoryBound(to: Settings.self).pointee, context))
        return UnsafeMutableRawPointer(state)
    }
    public static func disposeStateErased(_ state: UnsafeMutableRawPointer) {
        let typed = state.assumingMemoryBound(to: WorkerState.self)
        disposeState(&typed.pointee)
        typed.deinitialize(count: 1)
        typed.deallocate()
    }
    public static func disposeErased(_ settings: UnsafeMutableRawPointer) {
        let typed = settings.assumingMemoryBound(to: Settings.self)
        dispose(typed.pointee)
        typed.deinitialize(count: 1)
        typed.deallocate()
    }
}

extension Filter where WorkerState == Void {
    @inlinable public static func makeState(_ settings: Settings) {}
}
