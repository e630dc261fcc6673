import Pipeline

/// The probe table: targets, results and schedule. Pure except for the targets' cells: it is the only writer of
/// `probe`.
struct ProbeTable {
    typealias Identity = ProbeSchedule.Identity

    /// New targets have their first probe within this time, however long their interval is.
    static let firstProbeWithin = TimeSpan.seconds(5)

    struct Entry {
        var target: ProbeTarget
        var counts: ProbeCounts
        /// The finding of the last answers to a PROXY header.
        var proxy: ProxyAnswer?
        /// A probe is in flight.
        var begun: Instant?
        /// When the next one may begin.
        var due: Instant
        /// The same backend, probed in the other way: see ``ProbeTable/write(_:)``.
        var sibling: Identity?
        /// The ejection of the cell, and the number of good probes in a row since it began.
        var ejection: UInt64 = 0
        var goodSinceEjection: UInt32 = 0
    }

    /// What is to be logged.
    enum Event: Equatable {
        case down(ProbeResult, bad: UInt32)
        case up(after: TimeSpan, good: UInt32)
        case proxyRejected(ProbeResult)
        case proxyAccepted
        /// It no longer rejects the header, but acceptance is not proved.
        case proxyUnknown
        /// Its agent wants no new connections for it, or some again.
        case drained, undrained
    }

    private(set) var entries: [Identity: Entry] = [:]
    private var byKey: [ProbeTarget.Key: Identity] = [:]
    private var schedule = ProbeSchedule()
    /// Queued in the schedule, and no target any more: skipped when their time comes.
    private var gone = 0
    private var random: SplitMix64
    private var nextIdentity: Identity = 1
    /// Backends whose connections are to be reset.
    private var resets: [WantedReset] = []
    /// Keeps alive what the targets' cells are part of.
    private var source = ProbeTargets.none

    init(seed: UInt64) { random = SplitMix64(seed: seed) }

    var wakeUp: Instant? { schedule.wakeUp }
    /// Waiting for their time, and gone meanwhile.
    var queued: Int { schedule.count }

    // MARK: Targets

    /// Replaces the targets. Existing ones keep their counts and schedule; cells without a target are reset.
    mutating func replace(by new: ProbeTargets, now: Instant) {
        let old = entries
        entries = [:]
        byKey = [:]
        schedule.removeAll()
        gone = 0
        var known: [ProbeTarget.Key: (Identity, Entry)] = [:]
        for (identity, entry) in old { known[entry.target.key] = (identity, entry) }
        for target in new.list {
            if let (identity, entry) = known.removeValue(forKey: target.key) {
                keep(identity, entry, target)
            } else {
                _ = add(target, now)
            }
        }
        for (identity, entry) in entries {
            let key = entry.target.key
            entries[identity]?.sibling =
                byKey[
                    ProbeTarget.Key(endpoint: key.endpoint, usesProxy: !key.usesProxy)]
        }
        for (_, entry) in known.values {
            entry.target.cell.pointee.probe.store(BackendCell.Probe.unknown.rawValue, ordering: .relaxed)
            entry.target.cell.pointee.agentPercent.store(100, ordering: .relaxed)
        }
        for identity in entries.keys { write(identity) }
        forgetResets()
        // Only now: cells of the old list were still written.
        source = new
    }

    /// Takes over what has changed of the targets.
    mutating func apply(_ change: ProbeChange, now: Instant) {
        switch change.kind {
        case .all(let list): replace(by: change.targets(list), now: now)
        case .some(let put, let removed):
            for key in removed { remove(key) }
            for target in put { self.put(target, now) }
            if gone > entries.count + ProbeTable.goneLimit { requeue() }
            forgetResets()
            // Only now: cells of targets that are gone were still written.
            source = change.targets([])
        }
    }
    private static let goneLimit = 1024

    private mutating func remove(_ key: ProbeTarget.Key) {
        guard let identity = byKey.removeValue(forKey: key), let entry = entries.removeValue(forKey: identity) else {
            return
        }
        if entry.begun == nil { gone += 1 }
        entry.target.cell.pointee.probe.store(BackendCell.Probe.unknown.rawValue, ordering: .relaxed)
        entry.target.cell.pointee.agentPercent.store(100, ordering: .relaxed)
        guard let sibling = entry.sibling else { return }
        entries[sibling]?.sibling = nil
        write(sibling)
    }

    private mutating func put(_ target: ProbeTarget, _ now: Instant) {
        let identity: Identity
        if let known = byKey[target.key], let old = entries[known] {
            entries[known]?.target = target
            // It may wait in another block's queue.
            let isElsewhere = old.begun == nil && old.target.settings.name != target.settings.name
            identity = isElsewhere ? move(known, now) : known
        } else {
            identity = add(target, now)
        }
        let other = ProbeTarget.Key(endpoint: target.key.endpoint, usesProxy: !target.key.usesProxy)
        if let sibling = byKey[other] {
            entries[identity]?.sibling = sibling
            entries[sibling]?.sibling = identity
        }
        write(identity)
    }

    /// Queues it as its new block says, under another identity: the place in the old queue is nobody's.
    private mutating func move(_ old: Identity, _ now: Instant) -> Identity {
        guard let entry = entries.removeValue(forKey: old) else { return old }
        gone += 1
        let identity = nextIdentity
        nextIdentity += 1
        entries[identity] = entry
        byKey[entry.target.key] = identity
        if let sibling = entry.sibling { entries[sibling]?.sibling = identity }
        schedule.add(identity, of: entry.target.settings, at: max(entry.due, now))
        return identity
    }

    /// A new target. Its first probe comes within ``firstProbeWithin``.
    private mutating func add(_ target: ProbeTarget, _ now: Instant) -> Identity {
        let identity = nextIdentity
        nextIdentity += 1
        let spread = min(target.settings.interval, ProbeTable.firstProbeWithin)
        let due = now + random.within(spread)
        entries[identity] = Entry(target: target, counts: ProbeCounts(since: now), due: due)
        byKey[target.key] = identity
        schedule.add(identity, of: target.settings, at: due)
        return identity
    }

    /// Without those that are gone.
    private mutating func requeue() {
        schedule.removeAll()
        gone = 0
        for (identity, entry) in entries where entry.begun == nil {
            schedule.add(identity, of: entry.target.settings, at: entry.due)
        }
    }

    /// The memory of other cells may become another backend's.
    private mutating func forgetResets() {
        guard !resets.isEmpty else { return }
        let cells = Set(entries.values.flatMap { [$0.target.cell] + $0.target.backups })
        resets.removeAll { !cells.contains($0.cell) }
    }

    var hasResets: Bool { !resets.isEmpty }
    mutating func takeResets() -> [WantedReset] {
        defer { resets = [] }
        return resets
    }

    private mutating func keep(_ identity: Identity, _ old: Entry, _ target: ProbeTarget) {
        var entry = old
        entry.target = target
        entry.sibling = nil
        entries[identity] = entry
        byKey[target.key] = identity
        // A target with a probe in flight returns to the queue when the probe is over.
        guard entry.begun == nil else { return }
        schedule.add(identity, of: target.settings, at: entry.due)
    }

    // MARK: Probes

    /// The next probe to begin; nil: none now.
    mutating func begin(_ now: Instant) -> (identity: Identity, target: ProbeTarget)? {
        while let identity = schedule.next(now) {
            guard entries[identity] != nil else {
                gone = max(0, gone - 1)
                continue
            }
            entries[identity]?.begun = now
            if let entry = entries[identity] { return (identity, entry.target) }
        }
        return nil
    }

    /// Records an outcome, and returns events to log. Outcomes of removed targets are ignored.
    mutating func finish(_ identity: Identity, _ outcome: ProbeConversation.Outcome, now: Instant) -> [Event] {
        guard var entry = entries[identity], let begun = entry.begun else { return [] }
        let settings = entry.target.settings
        entry.begun = nil
        var events: [Event] = []
        if let event = note(agent: outcome, of: entry.target) { events.append(event) }
        let change = entry.counts.add(outcome.result, rise: settings.rise, fall: settings.fall, now: now)
        if let event = note(outcome, &entry) { events.append(event) }
        entry.due = max(now, begun + random.jittered(settings.interval, percent: settings.jitterPercent))
        entries[identity] = entry
        switch change {
        case .wentDown?: events.append(.down(outcome.result, bad: entry.counts.badInARow))
        case .cameUp(let after)?: events.append(.up(after: after, good: entry.counts.goodInARow))
        case nil: break
        }
        unejectIfWell(identity, outcome.result, now)
        switch write(identity) {
        case .wentDown?:
            if settings.onDown == .end { resets.append(WantedReset(entry.target.cell, .backendDown)) }
        case .cameUp?:
            entry.target.cell.pointee.eligibleSince.store(now.nanoseconds, ordering: .relaxed)
            if settings.onUp == .endBackup {
                resets += entry.target.backups.map { WantedReset($0, .primaryBack) }
            }
        case nil: break
        }
        schedule.add(identity, of: settings, at: entry.due)
        return events
    }

    /// Un-ejects after `rise` good probes in a row since the ejection began.
    private mutating func unejectIfWell(_ identity: Identity, _ result: ProbeResult, _ now: Instant) {
        guard let entry = entries[identity] else { return }
        let cell = entry.target.cell
        let until = cell.pointee.ejectedUntil.load(ordering: .relaxed)
        guard until > now.nanoseconds, result != .node else { return }
        let good = result == .good ? (entry.ejection == until ? entry.goodSinceEjection : 0) + 1 : 0
        entries[identity]?.ejection = until
        entries[identity]?.goodSinceEjection = good
        if good >= entry.target.settings.rise { cell.pointee.uneject(at: now) }
    }

    /// Another kind of probe says nothing of shares, and the agent that did is gone.
    private func note(agent outcome: ProbeConversation.Outcome, of target: ProbeTarget) -> Event? {
        guard let percent = target.settings.probe == .agent ? outcome.percent : 100 else { return nil }
        let before = target.cell.pointee.agentPercent.exchange(percent, ordering: .relaxed)
        if before > 0, percent == 0 { return .drained }
        return before == 0 && percent > 0 ? .undrained : nil
    }

    /// R18. Probes do not override evidence from connections.
    private func note(_ outcome: ProbeConversation.Outcome, _ entry: inout Entry) -> Event? {
        let before = entry.proxy
        guard let answer = outcome.proxy else {
            guard before == .rejected, outcome.result == .good else { return nil }
            entry.proxy = nil
            entry.target.cell.pointee.proxy.store(BackendCell.HeaderVerdict.unknown.rawValue, ordering: .relaxed)
            return .proxyUnknown
        }
        entry.proxy = answer
        let cell = entry.target.cell
        switch answer {
        case .rejected:
            cell.pointee.proxy.store(answer.rawValue, ordering: .relaxed)
            cell.pointee.proxyRejections.wrappingAdd(1, ordering: .relaxed)
            return before == .rejected ? nil : .proxyRejected(outcome.result)
        case .accepted:
            if before == .rejected || cell.pointee.proxy.load(ordering: .relaxed) == 0 {
                cell.pointee.proxy.store(answer.rawValue, ordering: .relaxed)
            }
            return before == .rejected ? .proxyAccepted : nil
        }
    }

    /// Writes the cell. A backend that is probed both with and without a PROXY header is down only if both probes fail,
    /// since the header setting is not a question of health.
    @discardableResult private func write(_ identity: Identity) -> Change? {
        guard let entry = entries[identity] else { return nil }
        var verdict = entry.counts.verdict
        if let sibling = entry.sibling.flatMap({ entries[$0] }) {
            let other = sibling.counts.verdict
            if verdict == .down { verdict = other } else if verdict == .unknown, other == .up { verdict = .up }
        }
        let before = entry.target.cell.pointee.probe.exchange(verdict.rawValue, ordering: .relaxed)
        let wasDown = before == BackendCell.Probe.down.rawValue
        guard wasDown != (verdict == .down) else { return nil }
        return wasDown ? .cameUp : .wentDown
    }

    /// Of a cell, which may be of two targets.
    private enum Change { case wentDown, cameUp }

    // MARK: Status

    func statuses() -> [ProbeStatus] {
        entries.values.map { entry in
            ProbeStatus(
                endpoint: entry.target.key.endpoint, usesProxy: entry.target.key.usesProxy,
                block: entry.target.settings.name, verdict: entry.counts.verdict, since: entry.counts.since,
                last: entry.counts.last, goodInARow: entry.counts.goodInARow, badInARow: entry.counts.badInARow,
                proxy: entry.proxy)
        }
        .sorted {
            ProbeTarget.Key(endpoint: $0.endpoint, usesProxy: $0.usesProxy)
                < ProbeTarget.Key(endpoint: $1.endpoint, usesProxy: $1.usesProxy)
        }
    }
}

/// The established connections to a backend are to be ended.
package struct WantedReset: @unchecked Sendable, Equatable {
    package let cell: UnsafePointer<BackendCell>
    package let reason: RuntimeReason
    init(_ cell: UnsafePointer<BackendCell>, _ reason: RuntimeReason) {
        self.cell = cell
        self.reason = reason
    }
}

/// One target in admin reports.
package struct ProbeStatus: Sendable, Equatable {
    package let endpoint: Endpoint
    package let usesProxy: Bool
    /// The `health` block's name.
    package let block: String
    package let verdict: BackendCell.Probe
    /// Monotonic.
    package let since: Instant
    /// Nil: no probe is over yet.
    package let last: ProbeResult?
    package let goodInARow: UInt32
    package let badInARow: UInt32
    /// Nil: it gets no header, or the finding is undecided.
    package let proxy: ProxyAnswer?
}
