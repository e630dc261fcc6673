import Foundation
import TestSupport

/// Every revision, with when its change began and when the node said that it was in force.
final class TenantTimeline: @unchecked Sendable {
    struct Entry: Sendable {
        let model: TenantModel
        let begun: UInt64
        var acknowledged: UInt64?
    }

    private let lock = NSLock()
    private var entries: [Entry]

    init(_ first: TenantModel) {
        entries = [Entry(model: first, begun: 0, acknowledged: 0)]
    }

    var count: Int { lock.withLock { entries.count } }
    var all: [Entry] { lock.withLock { entries } }
    func begin(_ model: TenantModel) {
        lock.withLock { entries.append(Entry(model: model, begun: Deadline.now(), acknowledged: nil)) }
    }
    /// When the node was killed, until it was whole again.
    var deaths: [ClosedRange<UInt64>] { lock.withLock { killed } }
    private var killed: [ClosedRange<UInt64>] = []
    func wasDead(_ range: ClosedRange<UInt64>) { lock.withLock { killed.append(range) } }
    func acknowledge() { lock.withLock { entries[entries.count - 1].acknowledged = Deadline.now() } }
}

/// What one client asked for, and what came of it.
struct TenantVisit: Sendable {
    enum Way: String, Sendable, CaseIterable {
        /// The hello at once; in two parts; the same at an env's own IPv4 address; after a while; of a route whose addresses may
        /// not answer; a raw port's; never.
        case quick, slow, dedicated, silent, late, raw, idle
    }
    let way: Way
    let target: Int
    /// The dedicated address that it came to; nil: one of everybody's.
    let own: Int?
    /// Its own socket's.
    let place: Place
    /// Before it connected.
    let came: UInt64
    /// Just before the last thing that the lookup needed was sent.
    let asked: UInt64
    let answered: UInt64
    /// The address that answered; nil: it was closed.
    let by: String?
}

/// Judges visits by the timeline.
struct TenantJudge {
    private let entries: [TenantTimeline.Entry]
    private let addresses: [String: Int]
    /// What a connect waits at least for an address that does not answer.
    private let connectTimeout: UInt64
    private let deaths: [ClosedRange<UInt64>]
    private let cooldowns: TenantCooldowns?

    /// - Parameter cooldown: in nanoseconds; 0: there is none.
    init(_ timeline: TenantTimeline, connectTimeout: UInt64, cooldown: UInt64 = 0) {
        entries = timeline.all
        deaths = timeline.deaths
        cooldowns = cooldown > 0 ? TenantCooldowns(entries, cooldown) : nil
        self.connectTimeout = connectTimeout
        addresses = Dictionary(
            uniqueKeysWithValues: (entries.first?.model.addresses ?? []).enumerated().map { ($1.text, $0) })
    }

    /// The newest revision that was in force at the time, and the newest one that had begun to be.
    private func window(_ from: UInt64, _ to: UInt64) -> ClosedRange<Int> {
        // Both are in order: the first that is later, less one.
        let low = first { ($0.acknowledged ?? .max) > from } - 1
        let high = first { $0.begun > to } - 1
        return max(0, low)...max(0, low, high)
    }

    private func first(_ isLater: (TenantTimeline.Entry) -> Bool) -> Int {
        var (low, high) = (0, entries.count)
        while low < high {
            let middle = (low + high) / 2
            if isLater(entries[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }

    /// Nil: it is as it should be.
    /// - Parameter attempts: as the node's log has it. Each but the last ran into its timeout, if the target's addresses do that.
    func problem(_ visit: TenantVisit, attempts: Int) -> String? {
        let target = (entries[0].model.targets[visit.target])
        // A change that takes a backend away ends an attempt at once: each may have saved one its wait.
        let changes = window(visit.asked, visit.answered).count - 1
        let waited = target.kind == .dark ? UInt64(max(0, attempts - 1 - changes)) * connectTimeout : 0
        let window = window(visit.asked + waited, visit.answered)
        if visit.way == .idle { return visit.by.map { "\(name(visit)): \($0) answered" } }
        guard let by = visit.by else {
            // Nothing changed meanwhile, and there was nobody in the way.
            guard window.count == 1, target.kind == .live, !metDeath(visit),
                answers(entries[window.lowerBound].model, visit)
            else {
                return nil
            }
            return "\(name(visit)): nobody answered, at revision \(window.lowerBound + 1)"
        }
        guard let address = addresses[by] else { return "\(name(visit)): \(by) answered, and is nobody's" }
        let allowing = window.filter { entries[$0].model.allows(visit.target, address, at: visit.own) }
        if let cooldowns, !allowing.isEmpty {
            let early = allowing.compactMap { cooldowns.problem(address, visit.own, at: $0, answered: visit.answered) }
            guard early.count == allowing.count else { return nil }
            return "\(name(visit)): \(by) answered too early: \(early[0])"
        }
        if !allowing.isEmpty { return nil }
        if attempts > 1, wasGivenUp(visit, address) { return nil }
        let said = window.prefix(8).map { revision in
            let model = entries[revision].model
            let holder = model.holders[address].map { "e\($0.env), \($0.status)" } ?? "nobody's"
            let own = visit.own.map { ", \(TenantModel.dedicatedAddresses[$0]) e\(model.dedicated[$0])'s" } ?? ""
            return "\(revision + 1): it is e\(model.owners[visit.target])'s\(own), the address is \(holder)"
        }
        return "\(name(visit)), attempt \(attempts): \(by) answered; revisions \(said.joined(separator: "; "))"
    }

    private func metDeath(_ visit: TenantVisit) -> Bool {
        deaths.contains { $0.overlaps(min(visit.came, visit.answered)...visit.answered) }
    }

    /// Somebody must answer. What has moved may wait for its cooldown.
    private func answers(_ model: TenantModel, _ visit: TenantVisit) -> Bool {
        guard cooldowns != nil else { return model.answers(visit.target, at: visit.own) }
        return visit.own == nil
            && model.addresses.indices.contains {
                !model.moving.contains($0) && model.allows(visit.target, $0) && model.addresses[$0].isLive
            }
    }

    /// An attempt also ends, at once, when a change takes its backend away while the connect is under way. What follows is looked
    /// up in that change's table.
    private func wasGivenUp(_ visit: TenantVisit, _ address: Int) -> Bool {
        let window = window(visit.asked, visit.answered)
        return window.dropFirst().contains { revision in
            let inForce = entries[revision].acknowledged ?? .max - Self.soon
            return entries[revision].model.allows(visit.target, address, at: visit.own)
                && visit.answered < inForce + Self.soon
        }
    }

    /// Nanoseconds: how long after a change a loaded machine's answer may come.
    private static let soon: UInt64 = 200_000_000

    private func name(_ visit: TenantVisit) -> String {
        let target = entries[0].model.targets[visit.target]
        return "\(visit.way) client of \(target.name ?? "port \(target.port)")"
    }
}
