import Pipeline
import PipelineRuntime

/// Stages of the simulation's own: each does one thing that real ones do, and reports to the world.
protocol SimulatedStage: Filter where Settings == StageSettings, WorkerState == StageState {
    static func decide(_ settings: Settings, _ connection: Connection, _ view: ConnectionView, _ effects: Effects)
        -> Verdict
}

struct StageSettings: @unchecked Sendable {
    let world: World
    /// Its place in the chain.
    let stage: Int
    let chain: ChainPlan
    let reasonBase: UInt16
    let program: ProgramMark
    var isBackend: Bool { reasonBase == simulatedReasons.bases[3] }
}

/// Counted, so that a state that is never freed, or freed twice, shows.
final class StageState {
    private let world: World
    /// By connection: growth that was not handed over yet.
    var pending: [Int: Growth] = [:]
    init(_ world: World) {
        self.world = world
        world.statesAlive += 1
    }
    deinit { world.statesAlive -= 1 }

    func handOver() {
        for (connection, growth) in pending { world.connections[connection].accounted.add(growth) }
        pending = [:]
    }
}

let simulatedCatalog: [any Filter.Type] = [
    DoorStage.self, PeekStage.self, InspectStage.self, BackendStage.self, PreludeStage.self, AccountStage.self,
    LimitStage.self,
]

let simulatedReasons = ReasonTable(catalog: simulatedCatalog)

extension SimulatedStage {
    static func settings(_ directive: Directive) throws(SettingsError) -> StageSettings {
        throw SettingsError("simulated stages have no directive", remedy: "bind them")
    }
    static func makeState(_ settings: StageSettings) -> StageState { StageState(settings.world) }
    static func explain(_ settings: StageSettings, _ view: ConnectionView, _ verdict: Verdict) -> String { "" }

    static func evaluate(
        _ settings: StageSettings, _ state: inout StageState, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        guard let connection = settings.world.enter(settings, view) else { return .refuse(0) }
        let verdict = decide(settings, connection, view, effects)
        settings.world.decided(settings, connection, verdict, looks: peek(settings) != nil)
        return verdict
    }

    static func settle(_ settings: StageSettings, _ state: inout StageState, _ totals: ConnectionTotals) {
        settings.world.settled(settings, totals)
    }
}

/// Refuses by plan; in shadow mode where the chain says so. It also believes another client address.
enum DoorStage: SimulatedStage {
    static var descriptor: FilterDescriptor {
        FilterDescriptor(keyword: "door", summary: "", reasons: [ReasonSpec("refused", .client, "")])
    }
    static func decide(_ settings: StageSettings, _ connection: Connection, _ view: ConnectionView, _ effects: Effects)
        -> Verdict
    {
        let isRefused = settings.chain.shadows ? connection.plan.isShadowRefused : connection.plan.isRefused
        if isRefused { return .refuse(0) }
        if settings.world.scenario.looksUpOld, let route = view.routes.sole(at: view.facts.destination) {
            connection.oldRoute = settings.world.control.library.current(settings.world).last.map { (route, $0) }
        }
        let address = IPAddress(v4: 0xC000_0200 + UInt32(connection.plan.network))
        effects.setClient(ClientAddress(Endpoint(address, view.facts.peer.endpoint.port)))
        connection.isBelieved = true
        settings.world.hold(connection, connection.plan.reservations.prefix(1), effects)
        return .next
    }
}

/// Wants a whole TLS record, within a budget and a time.
enum PeekStage: SimulatedStage {
    static var descriptor: FilterDescriptor {
        FilterDescriptor(keyword: "peek", summary: "", reasons: [ReasonSpec("no_hello", .client, "")])
    }
    static func peek(_ settings: StageSettings) -> PeekNeed? {
        PeekNeed(bytes: settings.chain.peekBytes, timeout: settings.chain.peekTimeout)
    }
    static func facts(_ settings: StageSettings) -> StageFacts {
        StageFacts(capabilities: settings.chain.upgrades ? .upgradesToTLS : [])
    }
    static func upgrade(
        _ settings: StageSettings, _ answer: UnsafeBufferPointer<UInt8>, _ view: ConnectionView, _ effects: Effects
    ) -> UpgradeStep {
        settings.world.upgrade(settings, answer, view, effects)
    }
    static func decide(_ settings: StageSettings, _ connection: Connection, _ view: ConnectionView, _ effects: Effects)
        -> Verdict
    {
        let bytes = view.bytes
        let needed = bytes.count < 5 ? 5 : 5 + Int(bytes[3]) << 8 + Int(bytes[4])
        let isHello = bytes.isEmpty || bytes[0] == 0x16
        if isHello, bytes.count < needed, view.input == .open {
            connection.upgrade.answer(connection.plan, effects)
            guard settings.chain.asksByteByByte else { return .needBytes(needed) }
            // A stage may also be so careless as to ask for what it has; it must get more, and the node go on.
            return .needBytes(connection.index % 2 == 0 ? 1 : bytes.count + 1)
        }
        if !isHello || bytes.count < needed {
            return connection.plan.isRefusedWithoutBytes ? .refuse(0) : .next
        }
        if connection.plan.consumed <= bytes.count {
            effects.consume(connection.plan.consumed)
            connection.consumed = connection.plan.consumed
        }
        if let upgrade = connection.plan.upgrade, connection.upgrade.isAnswered {
            effects.upgradeBackend(within: upgrade.within)
            connection.upgrade.isPending = true
        }
        return .next
    }
}

/// Looks for the signature of a PROXY header while the other direction flows (R17).
enum InspectStage: SimulatedStage {
    static var descriptor: FilterDescriptor {
        FilterDescriptor(
            keyword: "inspect", summary: "", reasons: [ReasonSpec("spoofed", .client, "")], isNonBlocking: true)
    }
    private static let signature = Array("PROXY ".utf8)
    /// A trusted sender's first bytes may say who the client is.
    static func facts(_ settings: StageSettings) -> StageFacts {
        StageFacts(gives: settings.chain.believes ? [.client] : [])
    }
    static func peek(_ settings: StageSettings) -> PeekNeed? {
        PeekNeed(bytes: 32, timeout: settings.chain.peekTimeout)
    }
    static func decide(_ settings: StageSettings, _ connection: Connection, _ view: ConnectionView, _ effects: Effects)
        -> Verdict
    {
        // A trusted sender: a real wait, for what is not for the backend.
        let trusted = connection.plan.trusted
        if trusted > 0 {
            if view.bytes.count < trusted { return view.input == .open ? .needBytes(trusted) : .refuse(0) }
            effects.consume(trusted)
            connection.consumed = trusted
            return .next
        }
        let verdict = inspect(view)
        if verdict == .next, view.isInspecting {
            settings.world.pace(connection, connection.plan.buckets.suffix(1), effects)
        }
        return verdict
    }

    private static func inspect(_ view: ConnectionView) -> Verdict {
        let seen = view.bytes.prefix(signature.count)
        guard seen.elementsEqual(signature.prefix(seen.count)) else { return .next }
        if seen.count == signature.count { return .refuse(0) }
        switch view.input {
        case .open: return .inspect(seen.count + 1)
        // Silence keeps the inspection open, and half a signature has had its time.
        case .timedOut: return seen.isEmpty ? .inspect(1) : .refuse(0)
        case .ended, .full: return .next
        }
    }
}

/// Goes by the client's address alone, wherever it stands, and refuses by plan.
enum LimitStage: SimulatedStage {
    static var descriptor: FilterDescriptor {
        FilterDescriptor(keyword: "limit", summary: "", reads: [.client], reasons: [ReasonSpec("full", .client, "")])
    }
    static func decide(_ settings: StageSettings, _ connection: Connection, _ view: ConnectionView, _ effects: Effects)
        -> Verdict
    {
        connection.isCounted = true
        return connection.plan.isOverLimit ? .refuse(0) : .next
    }
}

/// Gives the backends that the plan names, as far as the table has them.
enum BackendStage: SimulatedStage {
    static var descriptor: FilterDescriptor {
        FilterDescriptor(
            keyword: "backend", summary: "", gives: [.route, .backend],
            reasons: [
                ReasonSpec("no_route", .client, ""), ReasonSpec("queue_full", .client, ""),
                ReasonSpec("queue_timeout", .client, ""),
            ])
    }
    static func lookUp(_ settings: StageSettings, _ view: ConnectionView) -> FoundRoute? {
        let world = settings.world
        if world.scenario.looksUpOld, let connection = world.connection(view.facts.peer.endpoint) {
            return connection.oldRoute?.route
        }
        return view.routes.sole(at: view.facts.destination)
    }
    static func reselect(
        _ settings: StageSettings, _ state: inout StageState, _ route: FoundRoute, _ view: ConnectionView,
        _ effects: Effects
    ) -> Verdict {
        let world = settings.world
        guard let connection = world.connection(view.facts.peer.endpoint) else { return .refuse(0) }
        world.checkProgram(connection, settings)
        world.actor = connection.index
        guard let plan = world.routeFound(connection, route) else { return .refuse(0) }
        let candidates = world.candidates(connection, plan, except: view.facts.tried)
        effects.setSource(world.sources?.addresses)
        effects.setCandidates(candidates)
        if let verdict = world.wait(connection, world.queueRule(route), candidates, view, effects, isNew: false) {
            effects.setCandidates(BackendCandidates())
            return verdict
        }
        if candidates.count == 0, view.facts.tried.count == 0 {
            connection.isRefusedByStage = ReasonCode(rawValue: settings.reasonBase)
        }
        return candidates.count > 0 ? .next : .refuse(0)
    }
    static func decide(_ settings: StageSettings, _ connection: Connection, _ view: ConnectionView, _ effects: Effects)
        -> Verdict
    {
        let world = settings.world
        guard let route = lookUp(settings, view), let plan = world.routeFound(connection, route) else {
            return .refuse(0)
        }
        connection.route = (plan.cell, plan.owner)
        let candidates = world.candidates(connection, plan, except: TriedBackends())
        effects.setRoute(route, candidates: candidates)
        if let verdict = world.wait(connection, world.queueRule(route), candidates, view, effects, isNew: true) {
            effects.setRoute(route, candidates: BackendCandidates())
            return verdict
        }
        if let ejection = settings.world.ejection { effects.setEjection(ejection) }
        effects.setIdleTimeout(world.scenario.idleTimeout)
        effects.setSource(world.sources?.addresses)
        settings.world.hold(connection, connection.plan.reservations.dropFirst(), effects)
        // An open inspection sets the last one, while bytes flow.
        let late = connection.inspection == .open ? 1 : 0
        settings.world.pace(connection, connection.plan.buckets.dropLast(late), effects)
        return .next
    }
}

/// Puts the plan's prelude in front.
enum PreludeStage: SimulatedStage {
    static var descriptor: FilterDescriptor { FilterDescriptor(keyword: "prelude", summary: "") }
    static func decide(_ settings: StageSettings, _ connection: Connection, _ view: ConnectionView, _ effects: Effects)
        -> Verdict
    {
        connection.plan.prelude.withUnsafeBufferPointer {
            connection.plan.hasHeader ? effects.prepend(proxyHeader: $0) : effects.prepend($0)
        } ? .next : .refuse(0)
    }
}

/// Keeps accounts of what connections move while they live, and hands them over in rounds.
enum AccountStage: SimulatedStage {
    static var descriptor: FilterDescriptor { FilterDescriptor(keyword: "account", summary: "") }
    static func progressInterval(_ settings: StageSettings) -> TimeSpan? { settings.world.scenario.accounts }
    static func progress(_ settings: StageSettings, _ state: inout StageState, _ totals: ConnectionTotals) {
        settings.world.grew(state, totals, isEnd: false)
    }
    static func settle(_ settings: StageSettings, _ state: inout StageState, _ totals: ConnectionTotals) {
        settings.world.settled(settings, totals)
        if settings.world.scenario.accounts != nil { settings.world.grew(state, totals, isEnd: true) }
    }
    static func flush(_ settings: StageSettings, _ state: inout StageState, isLast: Bool) -> FlushOutcome {
        settings.world.flush(state, isLast: isLast)
    }
    static func disposeState(_ state: inout StageState) { state.handOver() }
    static func decide(_ settings: StageSettings, _ connection: Connection, _ view: ConnectionView, _ effects: Effects)
        -> Verdict
    {
        connection.isThrough = true
        return .next
    }
}
