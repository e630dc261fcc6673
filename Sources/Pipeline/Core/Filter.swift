/// A filter stage: facts and bytes in, a verdict and effects out. It knows no socket, no clock and no thread.
///
/// A conforming type is a namespace (an enum without cases). Everything static, so that a program holds a stage as a
/// metatype and a pointer, and calling it costs one indirect call and no reference counting (docs/adr/0002).
public protocol Filter: SendableMetatype {
    /// What its directive was compiled to. Immutable, read by every worker at once; anything in it that the data path
    /// reads must be trivial or a ``FrozenArray``.
    associatedtype Settings: Sendable
    /// What one worker keeps for one stage. Only that worker touches it.
    associatedtype WorkerState

    static var descriptor: FilterDescriptor { get }

    /// Compiles a directive whose clauses already fit ``FilterDescriptor/clauses``.
    /// - Throws: ``SettingsError`` for what the clause grammar can't say (combinations).
    static func settings(_ directive: Directive) throws(SettingsError) -> Settings
    static func makeState(_ settings: Settings) -> WorkerState
    /// The same for one that shares things of its worker's with other stages, and with other programs, or that uses what the
    /// node lends (``Services``). ``makeState(_:)`` unless implemented.
    static func makeState(_ settings: Settings, _ context: StageContext) -> WorkerState
    /// Makes what the states of workers 0..<workers will need and may not be there: before they do, by control. False: it can't
    /// be had, for want of memory as a rule, and the change that brings this stage is refused.
    static func prepare(_ settings: Settings, workers: Int, _ services: Services) -> Bool

    /// How far this stage wants to look; nil: not at all.
    static func peek(_ settings: Settings) -> PeekNeed?

    /// What this stage needs, reads and gives, if its directive makes a difference. ``FilterDescriptor/facts`` unless
    /// implemented.
    static func facts(_ settings: Settings) -> StageFacts

    static func evaluate(
        _ settings: Settings, _ state: inout WorkerState, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict

    /// Of a stage that gives the route: the one that the connection has by the newest table; nil: none. Asked when the table
    /// may have changed since the stage passed.
    static func lookUp(_ settings: Settings, _ view: ConnectionView) -> UnsafePointer<Route>?

    /// Of a stage that gives backends: chooses again among those of `route`, by a fresh turn, and none of
    /// ``ConnectionFacts/tried`` (R13). What the connection counts in stays as it is.
    static func reselect(
        _ settings: Settings, _ state: inout WorkerState, _ route: UnsafePointer<Route>, _ view: ConnectionView,
        _ effects: Effects
    ) -> Verdict

    /// Called once, at the end of a connection that passed this stage.
    static func settle(_ settings: Settings, _ state: inout WorkerState, _ totals: ConnectionTotals)

    /// How often it wants to hear of connections that live (``progress(_:_:_:)``); nil: their end is enough. The
    /// shortest of a worker's stages holds for all of them.
    static func progressInterval(_ settings: Settings) -> TimeSpan?

    /// A connection that passed this stage lives, and has moved bytes, or was not told of before. What it was told of
    /// is in ``ConnectionTotals/reported``, as it is in ``settle(_:_:_:)``: growth counts once.
    static func progress(_ settings: Settings, _ state: inout WorkerState, _ totals: ConnectionTotals)

    /// After every tick of ``progress(_:_:_:)``, and once when the worker ends: time to hand over what the state keeps.
    /// - Parameter isLast: no other call follows; there is time for whatever it takes.
    /// - Returns: what is left. Always ``FlushOutcome/done`` if `isLast`.
    static func flush(_ settings: Settings, _ state: inout WorkerState, isLast: Bool) -> FlushOutcome

    /// Frees what a worker's state holds in raw memory, before it is destroyed.
    static func disposeState(_ state: inout WorkerState)

    /// What is worth saying of a whole config without errors: notes and warnings about what its stages and blocks are together.
    static func review(_ config: ConfigReview) -> [ConfigRemark]

    /// One sentence for `explain`: why the stage decided so, given what is known after it.
    static func explain(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String

    /// Frees what ``Settings`` holds in ``FrozenArray``s.
    static func dispose(_ settings: Settings)

    // The erased forms that a program calls. Defaults below are the only implementation.
    static func evaluateErased(
        _ settings: UnsafeRawPointer, _ state: UnsafeMutableRawPointer, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict
    static func lookUpErased(_ settings: UnsafeRawPointer, _ view: ConnectionView) -> UnsafePointer<Route>?
    static func reselectErased(
        _ settings: UnsafeRawPointer, _ state: UnsafeMutableRawPointer, _ route: UnsafePointer<Route>,
        _ view: ConnectionView, _ effects: Effects
    ) -> Verdict
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
    public static func lookUp(_ settings: Settings, _ view: ConnectionView) -> UnsafePointer<Route>? { nil }
    public static func reselect(
        _ settings: Settings, _ state: inout WorkerState, _ route: UnsafePointer<Route>, _ view: ConnectionView,
        _ effects: Effects
    ) -> Verdict { .next }
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
    public static func lookUpErased(_ settings: UnsafeRawPointer, _ view: ConnectionView) -> UnsafePointer<Route>? {
        lookUp(settings.assumingMemoryBound(to: Settings.self).pointee, view)
    }
    public static func reselectErased(
        _ settings: UnsafeRawPointer, _ state: UnsafeMutableRawPointer, _ route: UnsafePointer<Route>,
        _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        reselect(
            settings.assumingMemoryBound(to: Settings.self).pointee,
            &state.assumingMemoryBound(to: WorkerState.self).pointee, route, view, effects)
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
