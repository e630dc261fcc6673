import FilterEgressAccounting
import Pipeline
import PipelineFlows

/// A failed connection, or one that no stage recorded as a flow.
struct Attempt: Equatable, Sendable {
    let instance: UInt32
    let source: IPAddress
    let destination: Endpoint
    /// Refused by a stage or the destination, timed out, or given up by the instance.
    let isRefused: Bool
    /// There is a ``FlowRecord`` for it too.
    let isAccounted: Bool

    /// Nil if alerts don't need it: it has no instance, or succeeded and is recorded as a flow.
    init?(_ record: ConnectionRecord) {
        guard record.instanceNumber != InstanceIdentity.unknown else { return nil }
        let isRefused = Attempt.isRefusal(record.reason)
        guard isRefused || !record.isAccounted else { return nil }
        self.init(
            instance: record.instanceNumber, source: record.peer.address, destination: record.destination,
            isRefused: isRefused, isAccounted: record.isAccounted)
    }

    init(instance: UInt32, source: IPAddress, destination: Endpoint, isRefused: Bool, isAccounted: Bool) {
        self.instance = instance
        self.source = source
        self.destination = destination
        self.isRefused = isRefused
        self.isAccounted = isAccounted
    }

    /// Reasons of filters and failed connects, but not shortages of the node.
    static func isRefusal(_ reason: ReasonCode) -> Bool {
        guard reason.rawValue < ReasonCode.firstFilter else { return true }
        switch RuntimeReason(rawValue: reason.rawValue) {
        case .connectRefused, .connectTimeout, .connectUnreachable, .connectFailed, .clientLeftEarly: return true
        default: return false
        }
    }
}

/// Finds alerts in instances' traffic: fed with records, and evaluated once a second. It uses the arrival time of
/// records, a few seconds after their traffic. Bounded memory.
///
/// Threading: one thread at a time.
final class AlertEngine {
    /// The most watched instances; for others only their records are counted.
    static let instanceLimit = 4096
    /// (Destination, port) of all instances together.
    static let targetLimit = 262_144
    /// An instance without traffic for this long may be dropped, if its place is needed.
    private static let idleLimit = TimeSpan.seconds(3600)
    private static let sweepInterval = TimeSpan.seconds(60)
    /// The burst of alerts, then one a second; the rest is logged later (R27).
    private static let burst = 60

    /// What is known of one instance.
    private final class Watched {
        let number: UInt32
        var source: IPAddress
        var lastMove: Instant
        var places: RecentPlaces?
        var newPlaces = SlidingCount()
        var mails = SlidingCount()
        var refusedMails = SlidingCount()
        var targets = DistinctWindow()
        var refusals = SlidingCount()
        var volume = UsualVolume()
        var examples: [Alert.Kind: Endpoint] = [:]
        var ongoing: [Alert.Kind: Ongoing] = [:]

        init(_ number: UInt32, _ source: IPAddress, _ now: Instant) {
            self.number = number
            self.source = source
            lastMove = now
        }
    }

    private struct Ongoing {
        let since: Instant
        var lastAbove: Instant
        var lastSaid: Instant?
        var figures: Alert.Figures
        var peak: UInt64
    }

    private(set) var settings: AlertSettings
    private let seed: HashSeed
    private let startedAt: Instant
    private let instanceLimit: Int
    private var watched: [UInt32: Watched] = [:]
    private var targetsLeft: Int
    private var nextSweep: Instant
    private var tokens = AlertEngine.burst
    private var tokensAt: Instant

    /// How often each kind began.
    private(set) var begun: [Alert.Kind: UInt64] = [:]
    /// Records of instances that are not watched.
    private(set) var unwatched: UInt64 = 0

    init(
        _ settings: AlertSettings, now: Instant, seed: HashSeed = .random(),
        instanceLimit: Int = AlertEngine.instanceLimit, targetLimit: Int = AlertEngine.targetLimit
    ) {
        self.settings = settings
        self.seed = seed
        self.instanceLimit = instanceLimit
        targetsLeft = targetLimit
        startedAt = now
        nextSweep = now
        tokensAt = now
    }

    var instances: Int { watched.count }
    func active(_ kind: Alert.Kind) -> Int { watched.values.count { $0.ongoing[kind] != nil } }

    /// Applies new settings. Changed thresholds restart their counts; known destinations stay.
    func update(_ new: AlertSettings) {
        guard new != settings else { return }
        for one in watched.values {
            if new.fanOut != settings.fanOut { one.newPlaces = SlidingCount() }
            if new.smtp != settings.smtp { (one.mails, one.refusedMails) = (SlidingCount(), SlidingCount()) }
            if new.portScan != settings.portScan {
                targetsLeft += one.targets.count
                (one.targets, one.refusals) = (DistinctWindow(), SlidingCount())
            }
            if new.volume?.window != settings.volume?.window { one.volume = UsualVolume() }
        }
        settings = new
    }

    // MARK: What comes

    func observe(_ record: FlowRecord, _ now: Instant) {
        guard record.key.instance != InstanceIdentity.unknown,
            let one = find(record.key.instance, record.key.source, now)
        else { return }
        if settings.volume != nil { one.volume.add(out: record.bytesOut, into: record.bytesIn) }
        // Aggregated flows have no destination.
        guard !record.key.destination.isUnspecified else { return }
        let destination = Endpoint(record.key.destination, record.key.port)
        // Growth without a new connection may belong to one that an outsider began (conntrack), which is not the
        // instance's doing.
        if record.key.proto == 6 || record.connections > 0 { goes(one, to: destination, now) }
        if record.key.proto == 6, record.connections > 0 { mails(one, to: destination, record.connections) }
    }

    func observe(_ attempt: Attempt, _ now: Instant) {
        guard attempt.instance != InstanceIdentity.unknown, let one = find(attempt.instance, attempt.source, now)
        else { return }
        if !attempt.isAccounted { mails(one, to: attempt.destination, 1) }
        guard attempt.isRefused else { return }
        if AlertSettings.mailPorts.contains(attempt.destination.port) { one.refusedMails.add(1) }
        guard settings.portScan != nil else { return }
        one.refusals.add(1)
        one.examples[.portScan] = attempt.destination
        if one.targets.note(hash(attempt.destination), hasRoom: targetsLeft > 0) { targetsLeft -= 1 }
    }

    private func goes(_ one: Watched, to destination: Endpoint, _ now: Instant) {
        guard let fanOut = settings.fanOut else { return }
        if one.places == nil { one.places = RecentPlaces() }
        guard one.places?.insert(hash(Endpoint(destination.address, 0))) == true else { return }
        // After a start every destination is new to the node, but not to the instances.
        guard now >= startedAt + fanOut.window else { return }
        one.newPlaces.add(1)
        one.examples[.fanOut] = destination
    }

    private func mails(_ one: Watched, to destination: Endpoint, _ connections: UInt32) {
        guard settings.smtp != nil, AlertSettings.mailPorts.contains(destination.port) else { return }
        one.mails.add(connections)
        one.examples[.smtp] = destination
    }

    private func hash(_ endpoint: Endpoint) -> UInt64 {
        SipHash.hash(
            FlowKey(
                instance: 0, source: .unspecified, destination: endpoint.address, port: endpoint.port, proto: 0),
            seed: seed)
    }

    private func find(_ number: UInt32, _ source: IPAddress, _ now: Instant) -> Watched? {
        if let one = watched[number] {
            one.lastMove = now
            one.source = source
            advance(one, now)
            return one
        }
        if watched.count >= instanceLimit { sweep(now) }
        guard watched.count < instanceLimit else {
            unwatched += 1
            return nil
        }
        let one = Watched(number, source, now)
        watched[number] = one
        advance(one, now)
        return one
    }

    private func sweep(_ now: Instant) {
        guard nextSweep <= now else { return }
        nextSweep = now + AlertEngine.sweepInterval
        for one in watched.values where one.ongoing.isEmpty && one.lastMove + AlertEngine.idleLimit <= now {
            targetsLeft += one.targets.count
            watched[one.number] = nil
        }
    }

    private func advance(_ one: Watched, _ now: Instant) {
        let bucket = { (window: TimeSpan) in SlidingCount.bucket(now.nanoseconds, ofWindow: window.nanoseconds) }
        if let fanOut = settings.fanOut { one.newPlaces.advance(to: bucket(fanOut.window)) }
        if let smtp = settings.smtp {
            one.mails.advance(to: bucket(smtp.window))
            one.refusedMails.advance(to: bucket(smtp.window))
        }
        if let portScan = settings.portScan {
            targetsLeft += one.targets.advance(to: bucket(portScan.window))
            one.refusals.advance(to: bucket(portScan.window))
        }
        if let volume = settings.volume {
            one.volume.advance(
                to: now.nanoseconds / max(1, volume.window.nanoseconds), isAlerting: one.ongoing[.volume] != nil)
        }
    }

    // MARK: Reporting

    /// The alerts to log now, in order of instances. Call it once a second.
    func tick(_ now: Instant) -> [Alert] {
        refill(now)
        var alerts: [Alert] = []
        for number in watched.keys.sorted() {
            guard let one = watched[number] else { continue }
            advance(one, now)
            for kind in Alert.Kind.allCases {
                if let alert = judge(one, kind, now) { alerts.append(alert) }
            }
        }
        return alerts
    }

    private func refill(_ now: Instant) {
        let seconds = now.since(tokensAt).nanoseconds / 1_000_000_000
        guard seconds > 0 else { return }
        tokens = min(AlertEngine.burst, tokens + Int(min(seconds, 60)))
        tokensAt = now
    }

    private func judge(_ one: Watched, _ kind: Alert.Kind, _ now: Instant) -> Alert? {
        guard let figures = figures(one, kind) else {
            // It was switched off.
            guard let ongoing = one.ongoing[kind] else { return nil }
            return end(one, kind, ongoing, now)
        }
        guard figures.value > figures.bound else {
            guard let ongoing = one.ongoing[kind], ongoing.lastAbove + figures.window <= now else {
                return retry(one, kind, now)
            }
            return end(one, kind, ongoing, now)
        }
        var ongoing = one.ongoing[kind] ?? begin(kind, figures, now)
        ongoing.lastAbove = now
        ongoing.figures = figures
        ongoing.peak = max(ongoing.peak, figures.value)
        one.ongoing[kind] = ongoing
        return retry(one, kind, now)
    }

    private func begin(_ kind: Alert.Kind, _ figures: Alert.Figures, _ now: Instant) -> Ongoing {
        begun[kind, default: 0] += 1
        return Ongoing(since: now, lastAbove: now, figures: figures, peak: figures.value)
    }

    /// Logs an alert that began, or is due again.
    private func retry(_ one: Watched, _ kind: Alert.Kind, _ now: Instant) -> Alert? {
        guard var ongoing = one.ongoing[kind], tokens > 0 else { return nil }
        if let last = ongoing.lastSaid, last + settings.repeatEvery > now { return nil }
        let status: Alert.Status = ongoing.lastSaid == nil ? .started : .continues
        tokens -= 1
        ongoing.lastSaid = now
        one.ongoing[kind] = ongoing
        return alert(one, kind, status, ongoing, now)
    }

    /// The end of an unlogged alert is not logged either.
    private func end(_ one: Watched, _ kind: Alert.Kind, _ ongoing: Ongoing, _ now: Instant) -> Alert? {
        if ongoing.lastSaid != nil {
            guard tokens > 0 else { return nil }
            tokens -= 1
        }
        one.ongoing[kind] = nil
        return ongoing.lastSaid == nil ? nil : alert(one, kind, .ended, ongoing, now)
    }

    private func alert(_ one: Watched, _ kind: Alert.Kind, _ status: Alert.Status, _ ongoing: Ongoing, _ now: Instant)
        -> Alert
    {
        Alert(
            kind: kind, status: status, instance: one.number, source: one.source, figures: ongoing.figures,
            peak: ongoing.peak, lasted: now.since(ongoing.since))
    }

    /// Nil: this kind is off.
    private func figures(_ one: Watched, _ kind: Alert.Kind) -> Alert.Figures? {
        let count = { (value: UInt64, threshold: AlertSettings.Threshold) in
            Alert.Figures(
                value: value, bound: UInt64(threshold.count), window: threshold.window, example: one.examples[kind])
        }
        switch kind {
        case .fanOut: return settings.fanOut.map { count(one.newPlaces.sum, $0) }
        case .smtp:
            guard let smtp = settings.smtp else { return nil }
            var figures = count(one.mails.sum, smtp)
            figures.refused = one.refusedMails.sum
            return figures
        case .portScan:
            guard let portScan = settings.portScan else { return nil }
            var figures = count(UInt64(one.targets.count), portScan)
            figures.refused = one.refusals.sum
            figures.isAtBound = one.targets.isAtBound
            return figures
        case .volume:
            guard let volume = settings.volume else { return nil }
            return Alert.Figures(
                value: one.volume.isKnown ? one.volume.current : 0, bound: one.volume.bound(volume),
                window: volume.window, bytesOut: one.volume.bytesOut, bytesIn: one.volume.bytesIn,
                usual: UInt64(min(one.volume.average, 9e18)))
        }
    }
}
