import FilterBackendSelect
import Pipeline

/// What is known of one name: its addresses, and when it is asked for again. Pure.
///
/// - What an answer has not, goes; what a query does not bring (a timeout, SERVFAIL), stays. Families and targets count apart,
///   so that one that fails takes nothing from the others.
/// - A name that is gone, or has no address any more, keeps its last ones for `hold`.
/// - The order of answers is nothing.
package struct NameRecord: Sendable {
    package enum Event: Equatable, Sendable {
        /// Other addresses than before.
        case changed(before: [ResolvedAddress])
        /// There are none any more, and those before are kept for the time of `hold`.
        case held(why: String)
        /// There are none from the beginning.
        case missing(why: String)
        /// Nobody answers: what is known is kept.
        case failing(String)
        /// Somebody answers again.
        case answered
    }

    package let name: BackendName
    /// In order.
    package private(set) var addresses: [ResolvedAddress] = []
    /// When it was last answered whole; nil: never.
    package private(set) var answered: Instant?
    package private(set) var next: Instant
    /// What is wrong with the last lookup; nil: nothing.
    package private(set) var problem: String?
    /// What the last answer says that has no address; nil: it had some.
    package private(set) var emptiness: String?
    /// Addresses of the last answer that `allow` refuses, and that are too many.
    package private(set) var refused = 0
    package private(set) var omitted = 0
    package var isAsking = false
    /// The first lookup is over.
    package private(set) var isKnown = false

    private var hosts: [String: (v4: [IPAddress], v6: [IPAddress])] = [:]
    private var records: [ServiceRecord] = []
    /// Since when answers have had no address.
    private var emptySince: Instant?
    private var failures: UInt32 = 0
    private var isAskedAgain = false

    package init(_ name: BackendName, at now: Instant) {
        self.name = name
        next = now
    }

    /// Is asked for at once, or once more if it is being asked for: that was by other settings.
    package mutating func refresh(at now: Instant) {
        next = now
        isAskedAgain = isAsking
    }

    /// - Returns: in the order in which they happened.
    /// - Parameter isOwn: whether an address is one of this host's.
    package mutating func take(
        _ result: LookupResult, at now: Instant, _ settings: ResolveSettings,
        isOwn: (IPAddress) -> Bool = { _ in false }
    ) -> [Event] {
        isAsking = false
        let isFirst = !isKnown
        isKnown = true
        var heard = Heard()
        note(result, &heard)
        let found = permitted(settings, isOwn)
        // A reload may have forbidden some of those that are kept. Whose each is, the kernel is asked: only if they matter.
        let last = addresses
        func kept() -> [ResolvedAddress] { last.filter { settings.allows($0.address, isOwn: isOwn) } }
        var wanted = found
        if found.isEmpty, refused > 0 {
            heard.problem = "all \(refused) addresses of the answer are refused by `allow`"
            wanted = kept()
        }
        var events = noteProblem(heard.problem)
        if heard.problem == nil { answered = now }
        // Only what was answered shows that there is nothing.
        if wanted.isEmpty, !addresses.isEmpty, !hold(heard, at: now, settings, &events) { wanted = kept() }
        if !found.isEmpty {
            (emptySince, emptiness) = (nil, nil)
        } else if heard.problem == nil {
            emptiness = heard.why
        }
        if isFirst, wanted.isEmpty, heard.problem == nil { events.append(.missing(why: heard.why)) }
        if wanted != addresses {
            events.append(.changed(before: addresses))
            addresses = wanted
        }
        schedule(heard, at: now, settings)
        if isAskedAgain { next = now }
        isAskedAgain = false
        return events
    }

    // MARK: Parts

    /// What the queries of one lookup had in common.
    private struct Heard {
        var problem: String?
        var ttl: UInt32?
        var isGone = true

        var why: String { isGone ? "the name does not exist (NXDOMAIN)" : "the name has no addresses" }

        mutating func note(ttl other: UInt32) { ttl = min(ttl ?? other, other) }
    }

    private mutating func note(_ result: LookupResult, _ heard: inout Heard) {
        switch result.service {
        case .found(let list, let ttl)?:
            records = list
            heard.note(ttl: ttl)
        case .none(let isGone)?:
            records = []
            heard.isGone = isGone
        case .failed(let why)?: heard.problem = why
        case nil: break
        }
        for (host, answer) in result.hosts {
            var known = hosts[host] ?? ([], [])
            NameRecord.note(answer.v4, &known.v4, &heard)
            NameRecord.note(answer.v6, &known.v6, &heard)
            hosts[host] = known
        }
        let used = Set(name.kind == .host ? [name.host] : records.map(\.target))
        hosts = hosts.filter { used.contains($0.key) }
    }

    private static func note(_ answer: Answer<IPAddress>, _ known: inout [IPAddress], _ heard: inout Heard) {
        switch answer {
        case .found(let list, let ttl):
            known = list
            heard.note(ttl: ttl)
        case .none(let isGone):
            known = []
            if !isGone { heard.isGone = false }
        case .failed(let why): heard.problem = heard.problem ?? why
        }
    }

    /// What the answers lead to, in order and bounded.
    private mutating func permitted(
        _ settings: ResolveSettings, _ isOwn: (IPAddress) -> Bool
    ) -> [ResolvedAddress] {
        let all: Set<ResolvedAddress>
        switch name.kind {
        case .host: all = Set(addresses(of: name.host).map { ResolvedAddress($0) })
        case .service: all = Set(services())
        }
        let allowed = all.filter { settings.allows($0.address, isOwn: isOwn) }
        refused = all.count - allowed.count
        omitted = max(0, allowed.count - BackendName.addressLimit)
        return Array(allowed.sorted().prefix(BackendName.addressLimit))
    }

    private func addresses(of host: String) -> [IPAddress] { (hosts[host]?.v4 ?? []) + (hosts[host]?.v6 ?? []) }

    /// RFC 2782: the lowest priority is the first, and a weight of 0 next to others a very small share.
    private func services() -> [ResolvedAddress] {
        let most = records.map(\.weight).max() ?? 0
        let priorities = Set(records.map(\.priority)).sorted()
        var list: [Endpoint: ResolvedAddress] = [:]
        for record in records where record.port > 0 {
            let limit = Int(BackendSpec.weightLimit)
            let weight = most > BackendSpec.weightLimit ? Int(record.weight) * limit / Int(most) : Int(record.weight)
            let rank = priorities.firstIndex(of: record.priority) ?? 0
            for address in addresses(of: record.target) {
                let found = ResolvedAddress(
                    address, port: record.port, weight: UInt16(clamping: max(1, weight)),
                    priority: UInt8(clamping: min(rank, Int(BackendSpec.backupPriority))))
                let endpoint = Endpoint(address, record.port)
                // Twice: the better of both, whatever their order.
                if let known = list[endpoint],
                    (known.priority, ~(known.weight ?? 0)) <= (found.priority, ~(found.weight ?? 0))
                {
                    continue
                }
                list[endpoint] = found
            }
        }
        return Array(list.values)
    }

    private mutating func noteProblem(_ new: String?) -> [Event] {
        let old = problem
        problem = new
        failures = new == nil ? 0 : failures &+ 1
        if let new { return old == nil ? [.failing(new)] : [] }
        return old == nil ? [] : [.answered]
    }

    /// The answer has no address. True: the time is over for which the last ones are kept.
    private mutating func hold(
        _ heard: Heard, at now: Instant, _ settings: ResolveSettings, _ events: inout [Event]
    ) -> Bool {
        guard heard.problem == nil else { return false }
        let since = emptySince ?? now
        if now.since(since) >= settings.values.hold { return true }
        if emptySince == nil {
            events.append(.held(why: heard.why))
        }
        emptySince = since
        return false
    }

    private mutating func schedule(_ heard: Heard, at now: Instant, _ settings: ResolveSettings) {
        let (least, most) = (settings.values.minTTL, settings.values.maxTTL)
        guard heard.problem == nil else {
            // As often as a fresh answer at first, then less, for the servers' sake.
            let factor = UInt64(1) << UInt64(min(failures &- 1, 6))
            let (pause, isTooLong) = least.nanoseconds.multipliedReportingOverflow(by: factor)
            next = now + min(isTooLong ? most : TimeSpan(nanoseconds: pause), max(least, min(most, .seconds(30))))
            return
        }
        guard let ttl = heard.ttl else {
            next = now + least
            if let emptySince { next = min(next, max(emptySince + settings.values.hold, now + .milliseconds(100))) }
            return
        }
        next = now + max(least, min(most, .seconds(UInt32(min(UInt64(ttl), 86_400)))))
    }
}
