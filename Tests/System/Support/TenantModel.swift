import Foundation
import TestSupport

/// Who owns which names, ports and addresses, revision by revision: what a node is told, and what its answers are judged by.
struct TenantModel: Sendable {
    /// What an instance's address does to those who connect; its `process_type` too, so that a route has one kind only.
    enum Kind: String, Sendable, CaseIterable {
        /// Every address answers.
        case live = "w"
        /// Some drop what comes, so that a connect to them runs into its timeout.
        case dark = "d"
        /// Some refuse.
        case refusing = "r"
    }

    /// What a client can ask for.
    struct Target: Hashable, Sendable {
        /// Nil: a raw port.
        let name: String?
        let port: UInt16
        let kind: Kind
    }

    struct Holder: Equatable, Sendable {
        var env: Int
        var instance: Int
        var status = "ready"
    }

    struct Address: Sendable {
        let text: String
        let kind: Kind
        /// False: it drops or refuses.
        let isLive: Bool
    }

    static let envs = 4
    let targets: [Target]
    let addresses: [Address]
    let backendPort: UInt16
    var revision = 1
    /// By target: its env.
    var owners: [Int]
    /// By address; nil: nobody has it.
    var holders: [Holder?]
    /// By dedicated address: its env, which has no other.
    var dedicated = [0, 1]
    /// By target: since which revision a `hostnames` object says so too; nil: there is none.
    var claimed: [Int?]
    private var instances = 0

    static let dedicatedAddresses = ["198.18.0.1", "198.18.0.2"]
    /// Prefixes of a network that is local as a whole: what is in the last two has nobody who answers.
    static let (network, darkNetwork, refusingNetwork) = ("fd88::/32", "fd88:0:d::/48", "fd88:0:e::/48")

    init(tlsPort: UInt16, rawPorts: [UInt16], backendPort: UInt16) {
        self.backendPort = backendPort
        targets =
            (0..<12).map {
                Target(name: "n\($0).example.com", port: tlsPort, kind: Kind.allCases[$0 % 6 < 4 ? 0 : $0 % 6 - 3])
            } + rawPorts.map { Target(name: nil, port: $0, kind: .dark) }
        // As `inet_ntop` writes them.
        var addresses: [Address] = []
        for env in 0..<Self.envs {
            for number in 1...3 {
                for (kind, net) in [(Kind.live, "1"), (.dark, "2"), (.refusing, "3")] {
                    addresses.append(Address(text: "fd88:0:\(net)::\(env + 1)\(number)", kind: kind, isLive: true))
                }
            }
            addresses.append(Address(text: "fd88:0:d::\(env + 1)1", kind: .dark, isLive: false))
            addresses.append(Address(text: "fd88:0:e::\(env + 1)1", kind: .refusing, isLive: false))
        }
        self.addresses = addresses
        owners = targets.indices.map { $0 % Self.envs }
        claimed = targets.map { _ in nil }
        holders = addresses.map { _ in nil }
        for index in addresses.indices { give(index, to: index / (addresses.count / Self.envs)) }
    }

    private mutating func give(_ address: Int, to env: Int) {
        instances += 1
        holders[address] = Holder(env: env, instance: instances)
    }

    /// One to three changes, of which none contradicts another: each name, port and address is one env's in the document.
    mutating func move(_ random: inout some RandomNumberGenerator) {
        revision += 1
        for _ in 0...Int.random(in: 0...2, using: &random) {
            let own = Int.random(in: 0..<dedicated.count, using: &random)
            let env = Int.random(in: 0..<Self.envs, using: &random)
            let target = targets.indices.randomElement(using: &random) ?? 0
            let address = addresses.indices.randomElement(using: &random) ?? 0
            switch Int.random(in: 0..<11, using: &random) {
            case 10: if !dedicated.contains(env) { dedicated[own] = env }
            case 0..<4:
                owners[target] = env
                // A claim is the pair's: with another env it goes, or is a new one.
                claimed[target] = claimed[target] == nil ? nil : revision
            case 4..<7:
                if holders[address] != nil, holders[address]?.env != env { give(address, to: env) }
            case 7: holders[address] = nil
            case 8: if holders[address] == nil { give(address, to: env) } else { drain(address) }
            default: claimed[target] = claimed[target] == nil && targets[target].name != nil ? revision : nil
            }
        }
        // Who drains has gone at the next change but one.
        for (index, holder) in holders.enumerated() where holder?.status == "draining" && Bool.random(using: &random) {
            holders[index] = nil
        }
    }

    private mutating func drain(_ address: Int) { holders[address]?.status = "draining" }

    // MARK: Judging

    /// True if at this revision a connection for the target may go to the address.
    /// - Parameter own: the dedicated address that it came to; nil: one of everybody's.
    func allows(_ target: Int, _ address: Int, at own: Int? = nil) -> Bool {
        if let own, dedicated[own] != owners[target] { return false }
        guard let holder = holders[address], holder.status == "ready" else { return false }
        return holder.env == owners[target] && addresses[address].kind == targets[target].kind
    }

    /// True if somebody answers whoever asks for the target.
    func answers(_ target: Int, at own: Int? = nil) -> Bool {
        addresses.indices.contains { allows(target, $0, at: own) && addresses[$0].isLive }
    }

    // MARK: The document

    private func env(_ env: Int) -> String {
        let address = dedicated.firstIndex(of: env).map { "\"\(Self.dedicatedAddresses[$0])\"" }
        return
            "{\"env_id\":\"e\(env)\",\"app_id\":\"app\",\"org_id\":\"o\(env)\",\"ipv4_address\":\(address ?? "null")}"
    }

    var document: String {
        let envs = (0..<Self.envs).map { env($0) }
        let instances = zip(addresses, holders).compactMap { address, holder in
            holder.map {
                """
                {"instance_id":"i_\($0.instance)","env_id":"e\($0.env)","process_type":"\(address.kind.rawValue)",\
                "overlay_ipv6":"\(address.text)","status":"\($0.status)","drain_grace_seconds":1}
                """
            }
        }
        let routes = targets.indices.map { index in
            let target = targets[index]
            return """
                {"route_id":"\(routeID(index, env: owners[index]))","env_id":"e\(owners[index])",\
                "hostname":\(target.name.map { "\"\($0)\"" } ?? "null"),"listen_port":\(target.port),\
                "protocol_hint":"\(target.name == nil ? "tcp_raw" : "tls_passthrough")",\
                "backend_process_type":"\(target.kind.rawValue)","backend_port":\(backendPort),\
                "ipv4_required":\(target.name != nil && dedicated.contains(owners[index]))}
                """
        }
        let hostnames = targets.indices.compactMap { index -> String? in
            guard let claim = claimed[index], let name = targets[index].name else { return nil }
            return "{\"hostname\":\"\(name)\",\"env_id\":\"e\(owners[index])\",\"claimed\":\(claim)}"
        }
        return """
            {"format":"pipelined.state/1","revision":\(revision),"actor":"test",
             "envs":[\(envs.joined(separator: ","))],
             "instances":[\(instances.joined(separator: ",\n"))],
             "routes":[\(routes.joined(separator: ",\n"))],
             "hostnames":[\(hostnames.joined(separator: ","))]}
            """
    }

    private func routeID(_ target: Int, env: Int) -> String { "rt_\(target)_e\(env)" }
}

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

    init(_ timeline: TenantTimeline, connectTimeout: UInt64) {
        entries = timeline.all
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
            guard window.count == 1, target.kind == .live,
                entries[window.lowerBound].model.answers(visit.target, at: visit.own)
            else {
                return nil
            }
            return "\(name(visit)): nobody answered, at revision \(window.lowerBound + 1)"
        }
        guard let address = addresses[by] else { return "\(name(visit)): \(by) answered, and is nobody's" }
        if window.contains(where: { entries[$0].model.allows(visit.target, address, at: visit.own) }) { return nil }
        if attempts > 1, wasGivenUp(visit, address) { return nil }
        let said = window.prefix(8).map { revision in
            let model = entries[revision].model
            let holder = model.holders[address].map { "e\($0.env), \($0.status)" } ?? "nobody's"
            let own = visit.own.map { ", \(TenantModel.dedicatedAddresses[$0]) e\(model.dedicated[$0])'s" } ?? ""
            return "\(revision + 1): it is e\(model.owners[visit.target])'s\(own), the address is \(holder)"
        }
        return "\(name(visit)), attempt \(attempts): \(by) answered; revisions \(said.joined(separator: "; "))"
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
