import Pipeline
import PipelineRouting
import Testing

/// R4 and R5 as plainly as they can be said: who claimed first, in a list. No hash, no index, no swap; a document changes
/// one thing, so that "first" needs no cleverness.
private struct NaiveOwners {
    struct Claim: Equatable {
        let id: String
        let env: String
        let host: String
    }
    private(set) var claims: [Claim] = []

    static func takes(_ wildcard: String, _ name: String) -> Bool {
        let (labels, suffix) = (name.split(separator: "."), wildcard.split(separator: "."))
        return suffix.first == "*" && labels.first != "*" && labels.count == suffix.count
            && labels.dropFirst().elementsEqual(suffix.dropFirst())
    }

    private func mayHave(_ host: String, _ claim: Claim) -> Bool {
        claims.allSatisfy { other in
            if other.id == claim.id { return true }
            if other.host == host { return false }
            let overlap = NaiveOwners.takes(other.host, host) || NaiveOwners.takes(host, other.host)
            return !overlap || other.env == claim.env
        }
    }

    /// A new claim, or another one for an id that has one: granted, or things stay as they were.
    mutating func want(_ claim: Claim) {
        guard mayHave(claim.host, claim) else { return }
        claims.removeAll { $0.id == claim.id }
        claims.append(claim)
    }
    mutating func drop(_ id: String) { claims.removeAll { $0.id == id } }

    func owner(_ name: String) -> String? {
        (claims.first { $0.host == name } ?? claims.first { NaiveOwners.takes($0.host, name) })?.env
    }
}

@Suite("Ownership, proven by play")
struct OwnershipPropertyTests {
    private static let envs = ["env_a", "env_b", "env_c", "env_d"]
    /// Names at three depths under two suffixes, and the wildcards over them.
    private static let names =
        ["a", "b", "c"].flatMap { ["\($0).example.com", "\($0).x.example.com", "\($0).y.example.com"] }
        + ["x.example.com", "y.example.com", "example.com"]
    private static let wildcards = ["*.example.com", "*.x.example.com", "*.y.example.com"]
    private static let pool = names + ["z.example.com", "z.x.example.com", "q.a.example.com", "z.y.example.com"]

    /// What each name reaches, in one table.
    private func owners(_ snapshot: RouteTableSnapshot) -> [String: String] {
        var found: [String: String] = [:]
        for name in Self.pool { found[name] = snapshot.named(name)?.pointee.owner.pointee.env.string }
        return found
    }

    private func wanted(_ random: inout SeededRandom) -> TestRoute {
        let isWildcard = Int.random(in: 0..<3, using: &random) == 0
        let host = (isWildcard ? Self.wildcards : Self.names).randomElement(using: &random)
        let id = Int.random(in: 0..<16, using: &random)
        return TestRoute(
            id: "r\(id)", env: Self.envs[Int.random(in: 0..<Self.envs.count, using: &random)], hostname: host)
    }

    @Test(
        "R4, R5: after any sequence of adds, changes and removes, a name reaches who claimed it first",
        arguments: 0..<60)
    func sequences(seed: UInt64) {
        var random = SeededRandom(seed &* 7919 &+ 3)
        let state = RoutingState()
        var oracle = NaiveOwners()
        var applied: [String: TestRoute] = [:]
        var held: [(snapshot: RouteTableSnapshot, owners: [String: String])] = []
        for step in 0..<80 {
            // One change a document: an add, a change of name or env, or a remove.
            let route = wanted(&random)
            if Int.random(in: 0..<4, using: &random) == 0 {
                applied[route.id] = nil
                oracle.drop(route.id)
            } else {
                applied[route.id] = route
                oracle.want(.init(id: route.id, env: route.env, host: route.hostname ?? ""))
            }
            _ = state.apply(envs: Self.envs, applied.values.sorted { $0.id < $1.id }.shuffled(using: &random))
            // What was refused is not asked for again: the next document has what is served.
            applied = served(state)
            let now = owners(state.snapshot)
            for name in Self.pool {
                #expect(now[name] == oracle.owner(name), "\(name), seed \(seed), step \(step)")
            }
            for (snapshot, before) in held { #expect(owners(snapshot) == before, "seed \(seed), step \(step)") }
            held.append((state.snapshot, now))
            if held.count > 5 { held.remove(at: Int.random(in: 0..<held.count, using: &random)) }
        }
    }

    private func served(_ state: RoutingState) -> [String: TestRoute] {
        var found: [String: TestRoute] = [:]
        state.snapshot.forEachRoute { route in
            let env = route.owner.split(separator: "/").last.map(String.init) ?? ""
            found[route.id] = TestRoute(id: route.id, env: env, hostname: route.hostname)
        }
        return found
    }

    @Test(
        "R4, R5: whatever a document asks for at once, no name changes hands but by its owner's word", arguments: 0..<60
    )
    func batches(seed: UInt64) {
        var random = SeededRandom(seed &* 104_729 &+ 11)
        let state = RoutingState()
        var document: [TestRoute] = []
        for step in 0..<40 {
            let before = served(state)
            let ownersBefore = owners(state.snapshot)
            for _ in 0..<Int.random(in: 1...5, using: &random) {
                let route = wanted(&random)
                document.removeAll { $0.id == route.id }
                if Int.random(in: 0..<4, using: &random) > 0 {
                    document.insert(route, at: Int.random(in: 0...document.count, using: &random))
                }
            }
            _ = state.apply(envs: Self.envs, document)
            let now = owners(state.snapshot)
            let after = served(state)
            for (name, owner) in ownersBefore where now[name] != nil && now[name] != owner {
                // It is another's now: then every route by which the old owner had it was removed, or asked to change.
                let theirs = before.values.filter {
                    $0.env == owner
                        && ($0.hostname == name || NaiveOwners.takes($0.hostname ?? "", name))
                }
                for route in theirs {
                    #expect(after[route.id] != route, "\(name) was taken from \(owner), seed \(seed), step \(step)")
                    #expect(!document.contains(route), "\(name) was taken from \(owner), seed \(seed), step \(step)")
                }
            }
            // No two of different envs can take the same name.
            for (name, owner) in now {
                let takers = after.values.filter {
                    $0.hostname == name || NaiveOwners.takes($0.hostname ?? "", name)
                }
                #expect(takers.allSatisfy { $0.env == owner }, "\(name), seed \(seed), step \(step)")
            }
        }
    }
}
