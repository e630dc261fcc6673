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
        /// What a client asks for; nil: a raw port.
        let name: String?
        /// What its route has: that name, or a wildcard over it.
        let pattern: String?
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
    /// By target: an env that asks for its name as well, after its owner; nil: nobody does.
    var rivals: [Int?]
    /// Addresses that go from env to env; the others stay with their first one.
    var moving: Set<Int>
    private var instances = 0
    /// Routes that nobody asks for and that never change: with them a start is from a table (ADR 0116).
    private var crowd: [String] = []

    static let dedicatedAddresses = ["198.18.0.1", "198.18.0.2"]
    /// Prefixes of a network that is local as a whole: what is in the last two has nobody who answers.
    static let (network, darkNetwork, refusingNetwork) = ("fd88::/32", "fd88:0:d::/48", "fd88:0:e::/48")

    init(tlsPort: UInt16, rawPorts: [UInt16], backendPort: UInt16) {
        self.backendPort = backendPort
        targets =
            (0..<12).map {
                Target(
                    name: $0 % 4 == 3 ? "a.n\($0).example.com" : "n\($0).example.com",
                    pattern: $0 % 4 == 3 ? "*.n\($0).example.com" : "n\($0).example.com", port: tlsPort,
                    kind: Kind.allCases[$0 % 6 < 4 ? 0 : $0 % 6 - 3])
            } + rawPorts.map { Target(name: nil, pattern: nil, port: $0, kind: .dark) }
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
        rivals = targets.map { _ in nil }
        moving = Set(addresses.indices)
        holders = addresses.map { _ in nil }
        for index in addresses.indices { give(index, to: index / (addresses.count / Self.envs)) }
    }

    private mutating func give(_ address: Int, to env: Int) {
        instances += 1
        holders[address] = Holder(env: env, instance: instances)
    }

    /// The first env of an address.
    func home(_ address: Int) -> Int { address / (addresses.count / Self.envs) }

    /// From here on only the third address of each kind of an env moves, and envs ask for names that others have.
    mutating func beginFire() {
        moving = moving.filter { (6..<9).contains($0 % (addresses.count / Self.envs)) }
    }

    mutating func add(crowd count: Int, port: UInt16) {
        crowd = (0..<count).map { number in
            """
            {"route_id":"crowd_\(number)","env_id":"e\(number % Self.envs)","hostname":"c\(number).example.org",\
            "listen_port":\(port),"protocol_hint":"tls_passthrough","backend_process_type":"\(Kind.live.rawValue)",\
            "backend_port":\(backendPort)}
            """
        }
    }

    /// The owner lets the name go, and whoever waits has it; or somebody begins to wait.
    private mutating func contest(_ target: Int, _ env: Int) {
        guard targets[target].name != nil else { return }
        if let rival = rivals[target] {
            (owners[target], rivals[target], claimed[target]) = (rival, nil, nil)
        } else if env != owners[target] {
            rivals[target] = env
        }
    }

    /// As ``move(_:)``, with rivals.
    mutating func moveUnderFire(_ random: inout some RandomNumberGenerator) {
        let before = self
        move(&random)
        // What somebody waits for goes to nobody else.
        for target in targets.indices where before.rivals[target] != nil {
            (owners[target], claimed[target]) = (before.owners[target], before.claimed[target])
        }
        for _ in 0...1 {
            let target = targets.indices.randomElement(using: &random) ?? 0
            if owners[target] == before.owners[target] {
                contest(target, Int.random(in: 0..<Self.envs, using: &random))
            }
        }
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
                if holders[address] != nil, holders[address]?.env != env, moving.contains(address) {
                    give(address, to: env)
                }
            case 7: holders[address] = nil
            case 8:
                if holders[address] == nil {
                    give(address, to: moving.contains(address) ? env : home(address))
                } else {
                    drain(address)
                }
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

    /// Each object, by its list and its id.
    var objects: [String: [String: String]] {
        var objects: [String: [String: String]] = [:]
        for number in 0..<Self.envs { objects["envs", default: [:]]["e\(number)"] = env(number) }
        for (address, holder) in zip(addresses, holders) {
            guard let holder else { continue }
            objects["instances", default: [:]]["i_\(holder.instance)"] = """
                {"instance_id":"i_\(holder.instance)","env_id":"e\(holder.env)","process_type":"\(address.kind.rawValue)",\
                "overlay_ipv6":"\(address.text)","status":"\(holder.status)","drain_grace_seconds":1}
                """
        }
        for index in targets.indices {
            for env in [owners[index], rivals[index]].compactMap({ $0 }) {
                objects["routes", default: [:]][routeID(index, env: env)] = route(index, env)
            }
        }
        // One that stays, since a list that becomes empty is held.
        objects["hostnames"] = [
            "kept.example.org": "{\"hostname\":\"kept.example.org\",\"env_id\":\"e0\",\"claimed\":1}"
        ]
        for index in targets.indices {
            guard let claim = claimed[index], let name = targets[index].pattern else { continue }
            objects["hostnames"]?[name] =
                "{\"hostname\":\"\(name)\",\"env_id\":\"e\(owners[index])\",\"claimed\":\(claim)}"
        }
        return objects
    }

    private func route(_ index: Int, _ env: Int) -> String {
        let target = targets[index]
        return """
            {"route_id":"\(routeID(index, env: env))","env_id":"e\(env)",\
            "hostname":\(target.pattern.map { "\"\($0)\"" } ?? "null"),"listen_port":\(target.port),\
            "protocol_hint":"\(target.name == nil ? "tcp_raw" : "tls_passthrough")",\
            "backend_process_type":"\(target.kind.rawValue)","backend_port":\(backendPort),\
            "ipv4_required":\(target.name != nil && dedicated.contains(env))}
            """
    }

    var document: String {
        let lists = ["envs", "instances", "routes", "hostnames"].map { list in
            let texts = (objects[list] ?? [:]).sorted { $0.key < $1.key }.map(\.value) + (list == "routes" ? crowd : [])
            return "\"\(list)\":[\(texts.joined(separator: ",\n"))]"
        }
        return "{\"format\":\"pipelined.state/1\",\"revision\":\(revision),\"actor\":\"test\",\n"
            + lists.joined(separator: ",\n") + "}"
    }

    /// What is different from an earlier model.
    func change(from before: TenantModel) -> String {
        let (mine, theirs) = (objects, before.objects)
        var (put, gone): ([String], [String]) = ([], [])
        for list in mine.keys.sorted() {
            let (new, old) = (mine[list] ?? [:], theirs[list] ?? [:])
            let texts = new.filter { old[$0.key] != $0.value }.map(\.value)
            if !texts.isEmpty { put.append("\"\(list)\":[\(texts.joined(separator: ","))]") }
            let ids = old.keys.filter { new[$0] == nil }
            if !ids.isEmpty { gone.append("\"\(list)\":[\(ids.map { "\"\($0)\"" }.joined(separator: ","))]") }
        }
        return "{\"format\":\"pipelined.change/1\",\"revision\":\(revision),\"actor\":\"test\","
            + "\"put\":{\(put.joined(separator: ","))},\"delete\":{\(gone.joined(separator: ","))}}"
    }

    private func routeID(_ target: Int, env: Int) -> String { "rt_\(target)_e\(env)" }
}
