import Pipeline

/// The clocks of a node at one moment.
public struct NodeTime: Sendable {
    public var monotonic: Instant
    /// Nanoseconds since 1970.
    public var wall: UInt64

    public init(monotonic: Instant, wall: UInt64) {
        self.monotonic = monotonic
        self.wall = wall
    }
}

/// An address that an env has lost: whose it was, and when (R31). As it is kept.
public struct LostAddress: Sendable, Equatable {
    /// The env's path.
    public var owner: String
    /// Nanoseconds since 1970.
    public var at: UInt64

    public init(owner: String, at: UInt64) {
        self.owner = owner
        self.at = at
    }
}

/// An address that is not served yet, for people.
public struct CoolingAddress: Sendable, Equatable {
    public let address: IPAddress
    /// The paths of the envs.
    public let last: String
    public let waits: String
    public let left: TimeSpan
}

/// Addresses that envs have lost, each until its cooldown is over (R31).
///
/// Times are monotonic, so that a step of the wall clock changes none while the node runs. What is kept has wall time.
struct AddressCooldowns {
    /// Beyond so many the oldest go, which have the least time left.
    static let limit = 131_072

    private struct Entry {
        /// The symbols of the env's path, and of its id.
        let owner: UInt32
        let env: UInt32
        /// Monotonic nanoseconds; below zero: before the machine was started.
        var lost: Int64
    }

    struct Waiting {
        let env: UInt32
        /// Of the instance, the first of several; of a dedicated address empty.
        let id: String
        /// One that is not there has no use for the address, but must be looked at again.
        let isEnvThere: Bool
    }

    var setting = CooldownSetting.off
    private var entries: [IPAddress: Entry] = [:]
    /// Of those the dedicated ones.
    private var dedicated: Set<IPAddress> = []
    /// Addresses that an instance or an env asks for, with that env.
    private(set) var waiting: [IPAddress: Waiting] = [:]
    /// What a store has to learn; nil: nothing is kept.
    private var changed: Set<IPAddress>?
    /// The wall clock's lead when times were given to the store last.
    private var lead: Int64?
    /// How many have gone because there were too many.
    private(set) var forgotten: UInt64 = 0

    var isEmpty: Bool { entries.isEmpty }
    var count: Int { entries.count }

    private func span(_ address: IPAddress) -> Int64 {
        Int64(clamping: (address.isIPv4 ? setting.ipv4 : setting.instances).nanoseconds)
    }

    private func end(_ address: IPAddress, _ entry: Entry) -> Int64 {
        let (sum, isOver) = entry.lost.addingReportingOverflow(span(address))
        return isOver ? .max : sum
    }

    /// True if there was one.
    @discardableResult private mutating func set(_ address: IPAddress, _ entry: Entry?) -> Bool {
        if entry == nil { dedicated.remove(address) } else if address.isIPv4 { dedicated.insert(address) }
        if let entry { return entries.updateValue(entry, forKey: address) != nil }
        return entries.removeValue(forKey: address) != nil
    }

    /// Dedicated addresses that are nobody's yet, but for who had them.
    func coolingIPv4(at now: Int64) -> [IPAddress] {
        dedicated.filter { address in entries[address].map { end(address, $0) > now } ?? false }
    }

    // MARK: What happens to addresses

    mutating func lose(_ address: IPAddress, _ owner: UInt32, _ env: UInt32, at now: Int64) {
        guard span(address) > 0 else { return }
        if entries.count >= AddressCooldowns.limit, entries[address] == nil { makeRoom(now) }
        set(address, Entry(owner: owner, env: env, lost: now))
        changed?.insert(address)
    }

    /// An instance of whoever had it last was still there until now.
    mutating func prolong(_ address: IPAddress, _ env: UInt32, at now: Int64) {
        guard let entry = entries[address], entry.env == env else { return }
        lose(address, entry.owner, env, at: now)
    }

    /// The env has it, or has it again.
    mutating func take(_ address: IPAddress) {
        waiting[address] = nil
        if set(address, nil) { changed?.insert(address) }
    }

    /// Somebody has lost it, lately or long ago.
    func has(_ address: IPAddress) -> Bool { entries[address] != nil }

    /// It was another env's too recently.
    func isCooling(_ address: IPAddress, for owner: UInt32, at now: Int64) -> Bool {
        guard let entry = entries[address], entry.owner != owner else { return false }
        return end(address, entry) > now
    }

    mutating func wait(_ address: IPAddress, _ new: Waiting) {
        if let known = waiting[address], (known.isEnvThere ? 0 : 1, known.id) < (new.isEnvThere ? 0 : 1, new.id) {
            return
        }
        waiting[address] = new
    }
    mutating func endWait(_ address: IPAddress) { waiting[address] = nil }
    mutating func endWaits(ipv4: Bool) { waiting = waiting.filter { $0.key.isIPv4 != ipv4 } }

    /// Those whose time is over, and some besides if that is not enough.
    private mutating func makeRoom(_ now: Int64) {
        for (address, entry) in entries where end(address, entry) <= now && waiting[address] == nil { forget(address) }
        guard entries.count >= AddressCooldowns.limit else { return }
        let oldest = entries.sorted { (end($0.key, $0.value), $0.key) < (end($1.key, $1.value), $1.key) }
        for (address, _) in oldest.prefix(AddressCooldowns.limit / 16) {
            forget(address)
            forgotten += 1
        }
    }

    private mutating func forget(_ address: IPAddress) {
        set(address, nil)
        changed?.insert(address)
    }

    // MARK: Time

    /// When somebody who waits may have what he waits for.
    var next: Int64? {
        waiting.keys.map { address in entries[address].map { end(address, $0) } ?? .min }.min()
    }

    func over(at now: Int64) -> [IPAddress] {
        waiting.keys.filter { address in entries[address].map { end(address, $0) <= now } ?? true }
    }

    func left(_ address: IPAddress, at now: Int64) -> (owner: UInt32, time: TimeSpan)? {
        guard let entry = entries[address] else { return nil }
        let (left, isOver) = end(address, entry).subtractingReportingOverflow(now)
        return (entry.owner, TimeSpan(nanoseconds: isOver ? 0 : UInt64(max(0, left))))
    }

    // MARK: What is kept

    /// From here on a store is told what changes.
    mutating func keep() { changed = changed ?? [] }
    mutating func keepAll() { if changed != nil { changed = Set(entries.keys) } }

    mutating func restore(
        _ address: IPAddress, _ lost: LostAddress, owner: UInt32, env: UInt32, _ time: NodeTime
    ) {
        let now = Int64(clamping: time.monotonic.nanoseconds)
        // From the future: the clock was set back. It is as if it had been lost now, and that is kept.
        let age = Int64(clamping: time.wall > lost.at ? time.wall - lost.at : 0)
        let entry = Entry(owner: owner, env: env, lost: now.subtractingReportingOverflow(age).partialValue)
        // Also one whose time is over: what is left there of the env that had it may still prolong it.
        if entries.count < AddressCooldowns.limit {
            set(address, entry)
        } else {
            changed?.insert(address)
        }
        if lost.at > time.wall { changed?.insert(address) }
    }

    /// What has changed since this was asked last: nil, it is to be forgotten.
    mutating func takeChanges(_ time: NodeTime, path: (UInt32) -> String) -> [(IPAddress, LostAddress?)] {
        guard let all = changed else { return [] }
        changed = []
        let now = Int64(clamping: time.monotonic.nanoseconds)
        let lead = Int64(clamping: time.wall).subtractingReportingOverflow(now).partialValue
        // The wall clock was set: what is kept by the old one would be too long, or too short.
        let isMoved =
            self.lead.map { $0.subtractingReportingOverflow(lead).partialValue.magnitude > 1_000_000_000 } ?? false
        self.lead = lead
        return all.union(isMoved ? Set(entries.keys) : []).sorted().map { address in
            guard let entry = entries[address] else { return (address, nil) }
            let at = entry.lost.addingReportingOverflow(lead).partialValue
            return (address, LostAddress(owner: path(entry.owner), at: UInt64(max(0, at))))
        }
    }
}

extension RoutingState {
    /// R31: how long an address that was another env's is not served. Takes effect with the next apply of everything.
    public var cooldown: CooldownSetting {
        get { cooldowns.setting }
        set { cooldowns.setting = newValue }
    }

    var monotonic: Int64? { time.map { Int64(clamping: $0.monotonic.nanoseconds) } }

    var coolingIPv4: [IPAddress] { monotonic.map { cooldowns.coolingIPv4(at: $0) } ?? [] }

    func ownerPath(_ env: UInt32) -> UInt32 { symbols.intern(owner(env)) ?? RouteEntry.none }

    public static let rememberedAddressLimit = AddressCooldowns.limit

    /// When an address may be served that somebody waits for: apply an empty change then, or ``applyWaiting(at:)``.
    public var nextCooldown: Instant? {
        cooldowns.next.map { Instant(nanoseconds: UInt64(max(0, $0))) }
    }

    /// Addresses that are asked for and not served yet: some of them, and how many there are.
    public func cooling(_ limit: Int) -> (named: [CoolingAddress], count: Int) {
        guard !cooldowns.waiting.isEmpty, let now = clock?() else { return ([], 0) }
        let waiting = cooldowns.waiting.filter(\.value.isEnvThere)
        let named = waiting.keys.sorted().prefix(limit).compactMap { address -> CoolingAddress? in
            guard let left = cooldowns.left(address, at: Int64(clamping: now.monotonic.nanoseconds)),
                let env = cooldowns.waiting[address]?.env
            else { return nil }
            return CoolingAddress(
                address: address, last: symbols.string(left.owner), waits: owner(env), left: left.time)
        }
        return (named, waiting.count)
    }

    /// How many addresses are remembered, and how many were forgotten because there were too many.
    public var rememberedAddresses: (count: Int, forgotten: UInt64) { (cooldowns.count, cooldowns.forgotten) }

    /// Applies the last document again, for those who wait in it; nil: it is not at hand, and an empty change does it.
    public func applyWaiting(at now: Instant) -> ApplyReport? {
        waitingDocument.map { apply($0, at: now) }
    }

    /// - Parameter path: whose it was, if that is not whom the env's id means now.
    func lose(_ address: IPAddress, _ env: UInt32, _ path: UInt32? = nil, at now: Int64) {
        // Nothing is known any more of an env that has gone; its addresses were lost with it.
        guard envs[env] != nil else { return cooldowns.prolong(address, env, at: now) }
        cooldowns.lose(address, path ?? ownerPath(env), env, at: now)
    }

    /// What was kept, before ``restore(_:_:meanwhile:)``. From here on ``takeLostAddresses()`` has what changes.
    public func restore(lost: [(IPAddress, LostAddress)]) {
        cooldowns.keep()
        guard let now = clock?() else { return }
        for (address, one) in lost {
            let env = EnvName(path: one.owner).flatMap { symbols.intern($0.env) }
            cooldowns.restore(
                address, one, owner: symbols.intern(one.owner) ?? RouteEntry.none, env: env ?? RouteEntry.none, now)
        }
    }

    /// What is kept of times is lost: ``takeLostAddresses()`` and ``takeDrains()`` have all that there is.
    public func keepAllTimes() {
        cooldowns.keepAll()
        drains.keepAll()
    }

    /// What is to be kept of lost addresses; nil: no longer.
    public func takeLostAddresses() -> [(IPAddress, LostAddress?)] {
        guard let now = clock?() else { return [] }
        return cooldowns.takeChanges(now) { symbols.string($0) }
    }
}

extension ApplyRun {
    /// R31: addresses that envs have lost with this apply, and those that they ask for too early.
    /// - Parameter records: as they are to be, but for this.
    func coolDown(_ records: inout [String: Record]) {
        guard let now = state.monotonic else { return }
        if state.cooldown.instances > .zero { noteLost(records, now) }
        guard !state.cooldowns.isEmpty else { return state.cooldowns.endWaits(ipv4: false) }
        if scope == nil {
            state.cooldowns.endWaits(ipv4: false)
        } else {
            // Whoever is ready at these addresses is decided about; who drains there changes nothing for others.
            forEachBefore { if $1.status == .ready { state.cooldowns.endWait($1.address) } }
            for record in records.values where record.status == .ready { state.cooldowns.endWait(record.address) }
            // Of those nobody is left who asks for them.
            for address in state.cooldowns.over(at: now) where !address.isIPv4 { state.cooldowns.endWait(address) }
        }
        for (id, record) in records where record.status == .ready && state.cooldowns.has(record.address) {
            guard state.cooldowns.isCooling(record.address, for: state.ownerPath(record.env), at: now) else {
                if record.isServing { state.cooldowns.take(record.address) }
                continue
            }
            let isEnvThere = (state.envs[record.env]?.sources ?? 0) & StateDocument.Source.state.bit != 0
            state.cooldowns.wait(
                record.address, AddressCooldowns.Waiting(env: record.env, id: id, isEnvThere: isEnvThere))
            guard record.isServing else { continue }
            records[id]?.isServing = false
            records[id]?.isHolder = false
        }
    }

    private struct HeldAddress: Hashable {
        let address: IPAddress
        let env: UInt32
    }

    private func noteLost(_ records: [String: Record], _ now: Int64) {
        var lost: Set<HeldAddress> = []
        forEachBefore { id, before in
            let after = records[id]
            let isThere =
                after?.address == before.address && after?.env == before.env && pathsBefore[before.env] == nil
            if before.isServing {
                if !isThere || after?.isServing != true {
                    lost.insert(HeldAddress(address: before.address, env: before.env))
                }
            } else if before.isHolder || before.status == .draining, !isThere || after?.status != before.status {
                state.cooldowns.prolong(before.address, before.env, at: now)
            }
        }
        guard !lost.isEmpty else { return }
        for record in records.values where record.isServing && pathsBefore[record.env] == nil {
            lost.remove(HeldAddress(address: record.address, env: record.env))
        }
        for place in lost { state.lose(place.address, place.env, pathsBefore[place.env], at: now) }
    }

    // MARK: Dedicated addresses (R9)

    /// Takes back what was another env's too recently. Returns who has to wait.
    /// - Parameter granted: by env, what it is to have.
    func coolDown(_ granted: inout [UInt32: IPAddress]) -> Set<UInt32> {
        guard let now = state.monotonic else { return [] }
        state.cooldowns.endWaits(ipv4: true)
        // Whoever loses it to another loses it now.
        noteLost(granted)
        var cooled: Set<UInt32> = []
        for (env, address) in granted where state.cooldowns.has(address) {
            guard state.envs[env]?.ipv4 != address || pathsBefore[env] != nil else { continue }
            guard state.cooldowns.isCooling(address, for: state.ownerPath(env), at: now) else { continue }
            state.cooldowns.wait(address, AddressCooldowns.Waiting(env: env, id: "", isEnvThere: true))
            cooled.insert(env)
        }
        for env in cooled { granted[env] = nil }
        return cooled
    }

    /// What envs have had, and have no more.
    private func noteLost(_ granted: [UInt32: IPAddress]) {
        guard let now = state.monotonic, state.cooldown.ipv4 > .zero else { return }
        for (env, record) in state.envs {
            guard let address = record.ipv4, granted[env] != address || pathsBefore[env] != nil else { continue }
            state.lose(address, env, pathsBefore[env], at: now)
        }
    }
}
