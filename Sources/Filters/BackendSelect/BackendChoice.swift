import Pipeline

/// Chooses the backends of one connection: up to three, each once, in the order in which to try them (R11–R13).
///
/// Only backends of one priority are chosen: the first with one that is eligible and was not tried. Of those, only
/// eligible ones are chosen: not down or ejected (R12), below their limit, and with a weight. The limit is checked here,
/// and enforced by the runtime at the connect. A priority whose backends are all at their limit stays the one in use:
/// load is no reason to use a backup (docs/adr/0060).
struct BackendChoice {
    /// After this many failed turns or draws in a row, the backends are tried in order.
    private static let tries = 32
    /// The initial share of a slowly starting backend: one tenth, as a fraction of 2^16.
    private static let firstShare: UInt64 = 6554

    private(set) var candidates = BackendCandidates()
    private let group: UnsafePointer<BackendGroup>
    private let cell: UnsafePointer<GroupCell>
    private let slowStart: TimeSpan
    private let panic: HealthSettings.Panic
    private let client: IPAddress
    /// Nil: the kernel chooses.
    private let source: UnsafePointer<SourceAddresses>?
    private let now: Instant
    /// A dry run: the shared cursor does not move.
    private let isDryRun: Bool
    private let tried: TriedBackends
    private var dryRunTurns: UInt64 = 0
    /// The backends and tables of the priority to choose from.
    private var backends = FrozenArray<Backend>(viewing: .init(start: nil, count: 0))
    private var schedule = FrozenArray<UInt16>(viewing: .init(start: nil, count: 0))
    private var maglev = FrozenArray<UInt16>(viewing: .init(start: nil, count: 0))
    /// Panic mode: all backends are out, and are used anyway.
    private var ignoresHealth = false

    init(_ route: FoundRoute, _ settings: BackendFilter.Settings, _ view: ConnectionView) {
        group = route.group
        cell = group.pointee.cell
        slowStart = settings.slowStart
        panic = settings.panic(of: route)
        client = view.facts.client.endpoint.address
        source = BackendFilter.source(of: route, settings)
        now = view.now
        isDryRun = view.isDryRun
        tried = view.facts.tried
    }

    /// Fills ``candidates``; they stay empty for ``refusal``.
    mutating func choose(_ balance: Balance, _ random: inout SplitMix64) {
        guard !group.pointee.backends.isEmpty else { return }
        chooseUsable(balance, &random)
        guard candidates.count == 0, panic == .useAll, refusal == .noHealthyBackend else { return }
        ignoresHealth = true
        chooseUsable(balance, &random)
    }

    private mutating func chooseUsable(_ balance: Balance, _ random: inout SplitMix64) {
        guard enterPriority() else { return }
        switch balance {
        case .roundRobin: takeTurn(&random)
        case .leastConnections: takeLeastLoaded()
        case .randomOfTwo: drawTwo(&random)
        case .consistentHash: lookUp()
        }
    }

    // MARK: Eligibility

    /// Takes the first priority with a backend that is eligible and was not tried. False: there is none.
    private mutating func enterPriority() -> Bool {
        let tiers = group.pointee.tiers
        for index in 0..<tiers.count {
            let tier = tiers.pointer(index)
            // Most groups have one priority, and no need to look at each backend.
            guard tiers.count == 1 || isInUse(tier) else { continue }
            (backends, schedule, maglev) = (tier.pointee.backends, tier.pointee.schedule, tier.pointee.maglev)
            return true
        }
        return false
    }

    private func isInUse(_ tier: UnsafePointer<PriorityTier>) -> Bool {
        for index in 0..<tier.pointee.backends.count {
            let backend = tier.pointee.backends.pointer(index)
            if isEligible(backend), !wasTried(backend) { return true }
        }
        return false
    }

    private func isUsable(_ backend: UnsafePointer<Backend>) -> Bool {
        isEligible(backend) && !backend.isFull && !wasTried(backend)
    }

    private func isEligible(_ backend: UnsafePointer<Backend>) -> Bool {
        isReached(backend) && (ignoresHealth ? backend.pointee.weight > 0 : backend.pointee.isEligible(at: now))
    }

    /// Some address of `source` is of its family. Another one is as good as down, for this client.
    private func isReached(_ backend: UnsafePointer<Backend>) -> Bool {
        guard let source else { return true }
        return source.pointee.reaches(backend.pointee.address.endpoint, from: client)
    }

    private func wasTried(_ backend: UnsafePointer<Backend>) -> Bool {
        tried.count > 0 && tried.contains(backend.pointee.address.endpoint)
    }

    /// Why no backend is eligible.
    var refusal: BackendFilter.Refusal {
        let all = group.pointee.backends
        guard !all.isEmpty else { return .noBackend }
        var isAnyReached = false
        for index in 0..<all.count where isReached(all.pointer(index)) {
            if isEligible(all.pointer(index)) { return .backendsFull }
            isAnyReached = true
        }
        return isAnyReached ? .noHealthyBackend : .sourceFamily
    }

    /// A backend's share as a fraction of 2^16: what its agent asks for, of what slow start gives.
    private func share(_ backend: UnsafePointer<Backend>) -> UInt64 {
        let percent = UInt64(backend.pointee.cell.pointee.agentPercent.load(ordering: .relaxed))
        let share = slowShare(backend)
        return percent == 100 ? share : max(1, share * percent / 100)
    }

    /// Under slow start it grows linearly from a tenth to the whole.
    private func slowShare(_ backend: UnsafePointer<Backend>) -> UInt64 {
        let since = backend.pointee.cell.pointee.eligibleSince.load(ordering: .relaxed)
        guard slowStart > .zero, since > 0 else { return 1 << 16 }
        // In units of about a millisecond, so that an hour fits.
        let (age, window) = (now.since(Instant(nanoseconds: since)).nanoseconds >> 20, slowStart.nanoseconds >> 20)
        guard age < window else { return 1 << 16 }
        return max(BackendChoice.firstShare, (age << 16) / window)
    }

    // MARK: Selection

    private mutating func add(_ backend: UnsafePointer<Backend>) {
        for index in 0..<Int(candidates.count) where candidates[index] == backend { return }
        candidates.append(backend)
    }

    private var isComplete: Bool { Int(candidates.count) >= min(BackendCandidates.capacity, backends.count) }

    /// The backends that follow the one at `start`, in the order of the group.
    private mutating func addFollowing(_ start: Int) {
        var index = start
        for _ in 0..<backends.count {
            if isComplete { return }
            let backend = backends.pointer(index)
            if isUsable(backend) { add(backend) }
            index = index + 1 == backends.count ? 0 : index + 1
        }
    }

    private var turns: Int { schedule.isEmpty ? backends.count : schedule.count }
    private func backendIndex(turn: Int) -> Int { schedule.isEmpty ? turn : Int(schedule[turn]) }

    /// The next turn, shared by all workers and all routes of the group.
    private mutating func nextTurn() -> Int {
        let turn: UInt64
        if isDryRun {
            turn = cell.pointee.cursor.load(ordering: .relaxed) &+ dryRunTurns
            dryRunTurns &+= 1
        } else {
            turn = cell.pointee.cursor.wrappingAdd(1, ordering: .relaxed).oldValue
        }
        return Int(truncatingIfNeeded: turn % UInt64(turns))
    }

    // MARK: Round robin

    /// An ineligible backend loses its turn: the next turn is taken instead, so that no other gets two. A slowly
    /// starting backend loses some of its turns, at random.
    private mutating func takeTurn(_ random: inout SplitMix64) {
        var reserve: Int?
        for _ in 0..<min(BackendChoice.tries, turns) {
            let turn = nextTurn()
            let backend = backends.pointer(backendIndex(turn: turn))
            guard isUsable(backend) else { continue }
            let share = share(backend)
            if share >= 1 << 16 || random.next() & 0xFFFF < share {
                addTurns(from: turn)
                return
            }
            reserve = reserve ?? turn
        }
        if let reserve { addTurns(from: reserve) } else { addFollowing(random.below(backends.count)) }
    }

    /// The backends of the next turns, without consuming them.
    private mutating func addTurns(from turn: Int) {
        var next = turn
        for _ in 0..<min(BackendChoice.tries, turns) {
            if isComplete { return }
            let backend = backends.pointer(backendIndex(turn: next))
            if isUsable(backend) { add(backend) }
            next = next + 1 == turns ? 0 : next + 1
        }
        addFollowing(backendIndex(turn: turn))
    }

    // MARK: By load

    /// Orders backends by connections per weight, least first.
    private func isLessLoaded(_ a: UnsafePointer<Backend>, than b: UnsafePointer<Backend>) -> Bool {
        let load = { (backend: UnsafePointer<Backend>) in UInt64(backend.pointee.cell.pointee.active.current) }
        let room = { (backend: UnsafePointer<Backend>) in UInt64(backend.pointee.weight) * share(backend) }
        // 32 bits of connections by 9 + 17 bits of room.
        return load(a) * room(b) < load(b) * room(a)
    }

    /// The three with the fewest connections per weight. Among equals the turn decides, so that an idle route uses its
    /// backends by weight.
    private mutating func takeLeastLoaded() {
        var best = (first: UnsafePointer<Backend>?.none, second: UnsafePointer<Backend>?.none)
        var third: UnsafePointer<Backend>?
        let start = backendIndex(turn: nextTurn())
        for offset in 0..<backends.count {
            let backend = backends.pointer((start + offset) % backends.count)
            guard isUsable(backend) else { continue }
            if best.first.map({ isLessLoaded(backend, than: $0) }) ?? true {
                (best.first, best.second, third) = (backend, best.first, best.second)
            } else if best.second.map({ isLessLoaded(backend, than: $0) }) ?? true {
                (best.second, third) = (backend, best.second)
            } else if third.map({ isLessLoaded(backend, than: $0) }) ?? true {
                third = backend
            }
        }
        if let first = best.first { add(first) }
        if let second = best.second { add(second) }
        if let third { add(third) }
    }

    /// Two random choices, by weight: the one with fewer connections per weight first.
    private mutating func drawTwo(_ random: inout SplitMix64) {
        guard let first = draw(&random, besides: nil) else {
            addFollowing(random.below(backends.count))
            return
        }
        guard let second = draw(&random, besides: first) else {
            add(first)
            addFollowing(random.below(backends.count))
            return
        }
        let isSecondBetter = isLessLoaded(second, than: first)
        add(isSecondBetter ? second : first)
        add(isSecondBetter ? first : second)
        addFollowing(random.below(backends.count))
    }

    private func draw(_ random: inout SplitMix64, besides other: UnsafePointer<Backend>?) -> UnsafePointer<Backend>? {
        for _ in 0..<BackendChoice.tries {
            let backend = backends.pointer(backendIndex(turn: random.below(turns)))
            guard backend != other, isUsable(backend) else { continue }
            let share = share(backend)
            if share >= 1 << 16 || random.next() & 0xFFFF < share { return backend }
        }
        return nil
    }

    // MARK: By client

    /// The client's place in the table, then the following ones: clients of a backend that is out spread over all
    /// others. A slowly starting backend gets a stable, growing part of its clients.
    private mutating func lookUp() {
        let hash = Hashing.address(client)
        let table = maglev
        guard !table.isEmpty else {
            addFollowing(Int(truncatingIfNeeded: hash.multipliedFullWidth(by: UInt64(backends.count)).high))
            return
        }
        let start = Int(truncatingIfNeeded: hash.multipliedFullWidth(by: UInt64(table.count)).high)
        let luck = hash & 0xFFFF
        var starting: UnsafePointer<Backend>?
        var place = start
        for _ in 0..<BackendChoice.tries {
            if isComplete { return }
            let backend = backends.pointer(Int(table[place]))
            place = place + 1 == table.count ? 0 : place + 1
            guard isUsable(backend) else { continue }
            if candidates.count > 0 || luck < share(backend) { add(backend) } else { starting = starting ?? backend }
        }
        if let starting { add(starting) }
        addFollowing(Int(table[place]))
    }
}

extension UnsafePointer<Backend> {
    /// It is at its connection limit.
    var isFull: Bool {
        pointee.maxConnections > 0 && pointee.cell.pointee.active.current >= pointee.maxConnections
    }
}
