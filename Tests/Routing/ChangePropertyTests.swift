import Pipeline
import Testing

@testable import PipelineRouting

/// A change is applied by what it reaches; a document by everything. They must say the same.
@Suite("R5, R22: changes and documents")
struct ChangePropertyTests {
    // Ids may have what JSON means something by.
    private static let envs = ["env_a", "env_b", "env_c", "env},{d"]
    private static let names = [
        "a.example.com", "b.example.com", "a.x.example.com", "x.example.com", "b.x.example.com", "other.example.org",
    ]
    private static let wildcards = [
        "*.example.com", "*.x.example.com", ".example.com", ".x.example.com", ".b.x.example.com", ".org",
    ]
    private static let ports: [UInt16] = [443, 8443, 5432]
    private static let addresses = (1...5).map { "fd00::\($0)" }

    /// What a world is made of; more of the kinds makes more of their clashes.
    struct Mix {
        var wildcards = 4
        var raw = 6
        var twins = 0
        var bad = 0
        var envs = 0
        var instances = 0
        var paths = false
        /// `when_alpn` and `when_protocol`.
        var conditions = 0
        /// Suspended envs and orgs.
        var suspended = 0
    }

    private struct World {
        let store = ObjectStore()
        var touched = TouchedObjects()
        var isChanged = false

        mutating func set(_ kind: StateKind, _ id: String, _ objects: [String]) {
            guard store.set(kind, id, objects) else { return }
            touched.insert(kind, id.utf8)
            isChanged = true
        }
    }

    private func one(in count: Int, _ random: inout SplitMix64) -> Bool {
        count > 0 && Int.random(in: 0..<count, using: &random) == 0
    }

    private func host(_ mix: Mix, _ random: inout SplitMix64) -> String {
        let pool = one(in: mix.wildcards, &random) ? Self.wildcards : Self.names
        return pool.randomElement(using: &random) ?? "a.example.com"
    }

    private func env(_ random: inout SplitMix64) -> String { Self.envs.randomElement(using: &random) ?? "env_a" }

    private func route(_ id: String, _ mix: Mix, _ random: inout SplitMix64) -> String {
        let raw = one(in: mix.raw, &random)
        var route = TestRoute(
            id: id, env: env(&random), hostname: !raw || Bool.random(using: &random) ? host(mix, &random) : nil,
            port: Self.ports.randomElement(using: &random) ?? 443, raw: raw,
            process: ["web", "api"].randomElement(using: &random) ?? "web")
        if !raw, one(in: mix.conditions, &random) {
            if Bool.random(using: &random) {
                route.extra = ", \"when_alpn\": \"\(Bool.random(using: &random) ? "h2" : "http/1.1")\""
            } else {
                route.hostname = nil
                route.extra = ", \"when_protocol\": \"\(Bool.random(using: &random) ? "ssh" : "plain")\""
            }
        }
        if one(in: 8, &random) { route.extra += ", \"ipv4_required\": true" }
        if one(in: 8, &random) { route.extra += ", \"proxy_protocol\": \"v2\"" }
        if one(in: mix.bad, &random) { route.extra += ", \"balance\": 7" }
        return route.json
    }

    private func change(_ world: inout World, _ mix: Mix, _ random: inout SplitMix64) {
        for _ in 0..<Int.random(in: 0...3, using: &random) {
            let id = "r\(Int.random(in: 0..<14, using: &random))"
            let count = one(in: 4, &random) ? 0 : one(in: mix.twins, &random) ? 2 : 1
            world.set(.route, id, (0..<count).map { _ in route(id, mix, &random) })
        }
        if one(in: 2, &random) {
            let name = host(mix, &random)
            let count = Int.random(in: 0...2, using: &random)
            world.set(.hostname, name, (0..<count).map { _ in entry(name, mix, &random) })
        }
        if one(in: mix.envs, &random) {
            let id = env(&random)
            let count = one(in: 3, &random) ? 0 : one(in: mix.twins, &random) ? 2 : 1
            world.set(.env, id, (0..<count).map { _ in envText(id, mix, &random) })
        }
        if one(in: mix.suspended, &random) {
            let id = Self.orgs.randomElement(using: &random) ?? "org"
            let count = one(in: 3, &random) ? 0 : one(in: mix.twins, &random) ? 2 : 1
            world.set(.org, id, (0..<count).map { _ in orgText(id, mix, &random) })
        }
        for _ in 0..<(mix.instances > 0 ? Int.random(in: 0...mix.instances, using: &random) : 0) {
            let id = "i\(Int.random(in: 0..<7, using: &random))"
            let count = one(in: 4, &random) ? 0 : one(in: mix.twins, &random) ? 2 : 1
            world.set(.instance, id, (0..<count).map { _ in instanceText(id, mix, &random) })
        }
    }

    private func entry(_ name: String, _ mix: Mix, _ random: inout SplitMix64) -> String {
        let env = mix.paths && Bool.random(using: &random) ? "org/app/\(env(&random))" : env(&random)
        let text = TestHostname(name, env, one(in: 2, &random) ? Int.random(in: 1...4, using: &random) : nil).json
        return one(in: mix.bad, &random) ? text.replacing("\"claimed\": ", with: "\"claimed\": \"x\", \"was\": ") : text
    }

    private static let orgs = ["org", "other_org"]

    private func orgText(_ id: String, _ mix: Mix, _ random: inout SplitMix64) -> String {
        let text = orgObject(id, suspended: Bool.random(using: &random))
        return one(in: mix.bad, &random) ? text.replacing("suspended\": ", with: "suspended\": 1, \"was\": ") : text
    }

    private func envText(_ id: String, _ mix: Mix, _ random: inout SplitMix64) -> String {
        let ipv4 = one(in: 2, &random) ? ["192.0.2.1", "192.0.2.2"].randomElement(using: &random) : nil
        let text = envObject(
            id, ipv4: ipv4, app: one(in: 3, &random) ? "other" : "app",
            org: one(in: mix.suspended, &random) ? "other_org" : "org", suspended: one(in: mix.suspended, &random))
        return one(in: mix.bad, &random) ? text.replacing("org_id", with: "org") : text
    }

    private func instanceText(_ id: String, _ mix: Mix, _ random: inout SplitMix64) -> String {
        let status = ["ready", "ready", "ready", "draining", "stopped"].randomElement(using: &random) ?? "ready"
        let text = instance(
            id, env: env(&random), process: ["web", "api"].randomElement(using: &random) ?? "web",
            address: Self.addresses.randomElement(using: &random) ?? "fd00::1", status: status)
        return one(in: mix.bad, &random) ? text.replacing("overlay_ipv6", with: "overlay") : text
    }

    // MARK: What is compared

    /// Each route as it is served, with its owner and backends.
    private func served(_ state: RoutingState) -> [String] {
        state.snapshot.listing().map { "\($0)" }.sorted()
    }

    private func records(_ state: RoutingState) -> [String] {
        state.instances.records.map { id, record in
            "\(id) \(state.symbols.string(record.env)) \(record.address) \(record.status) \(record.isServing) "
                + "\(record.isHolder) \(record.isHere)"
        }.sorted()
    }

    /// R31: whose the addresses of backends are.
    private func servingEnvs(_ state: RoutingState) -> [IPAddress: Set<UInt32>] {
        state.instances.records.values.filter(\.isServing).reduce(into: [:]) {
            $0[$1.address, default: []].insert($1.env)
        }
    }

    private func owners(_ state: RoutingState) -> [String] {
        var found: [String] = []
        state.hostnames.visit { entry in
            // An entry that stays, though its path named nobody then, is in nobody's way.
            if !entry.isOwner, state.symbols.string(entry.env).contains("/") { return }
            let name = entry.kind.mark + String(decoding: state.hostnames.bytes(entry), as: UTF8.self)
            found.append("\(name) \(state.symbols.string(entry.env)) \(entry.rank) \(entry.isOwner)")
        }
        return found.sorted()
    }

    private func waiting(_ state: RoutingState) -> [String] {
        state.unserved.routes.map { id, route in
            let claims = route.claims.map { "\($0.name?.whole ?? "-"):\($0.port):\(state.symbols.string($0.env))" }
            return "\(id) \(claims.sorted())"
        }.sorted()
    }

    private func envs(_ state: RoutingState) -> [String] {
        state.envs.values.map { "\($0.path) \($0.sources) \($0.ipv4.map(\.description) ?? "-")" }.sorted()
    }

    /// R30: by name, and as lookups and instances of this node see it.
    private func suspended(_ state: RoutingState) -> [String] {
        var found = state.suspended.orgs.map { "org \($0)" } + state.suspended.envs.map { "env \($0)" }
        found += state.snapshot.suspendedRoutes.map { "route \($0)" }
        for identity in state.snapshot.instances.identities where identity.pointee.isSuspended {
            found.append("instance \(identity.pointee.id.string)")
        }
        return found
    }

    private func local(_ state: RoutingState) -> [String] {
        state.localInstances.map { "\($0.id) \($0.org)/\($0.app)/\($0.env) \($0.addresses)" }
    }

    /// R31: who waits for what, and for how long.
    private func cooling(_ state: RoutingState) -> [String] {
        state.cooling(100).named.map { "\($0.address) \($0.last) \($0.waits) \($0.left.milliseconds)" }
    }

    private func compare(_ state: RoutingState, _ whole: RoutingState, _ run: Comment) -> Bool {
        let pairs: [(RoutingState) -> [String]] = [served, records, owners, waiting, envs, local, suspended, cooling]
        for read in pairs {
            let (mine, theirs) = (Set(read(state)), Set(read(whole)))
            guard mine != theirs else { continue }
            Issue.record(
                "only by changes: \(mine.subtracting(theirs)), only whole: \(theirs.subtracting(mine)), \(run)")
            return false
        }
        #expect(state.snapshot.routeCount == whole.snapshot.routeCount, run)
        for (address, owners) in servingEnvs(whole) where owners.count > 1 {
            Issue.record("R31: \(address) is served for \(owners): \(run)")
            return false
        }
        #expect(state.dedicatedListeners.map { "\($0)" } == whole.dedicatedListeners.map { "\($0)" }, run)
        return true
    }

    /// Of those who are in a port's way a change names the ones that it has found.
    private func said(_ problems: [RouteProblem]) -> [String] {
        texts(problems).map { text in
            guard let start = text.firstRange(of: " is shared by name by "),
                let end = text.firstRange(of: "; a raw route")
            else {
                return text
            }
            return String(text[..<start.upperBound]) + String(text[end.lowerBound...])
        }
    }

    static let mixes: [Mix] = [
        Mix(), Mix(wildcards: 2, raw: 0), Mix(wildcards: 0, raw: 2), Mix(twins: 3), Mix(bad: 4), Mix(envs: 2),
        Mix(envs: 2, instances: 3), Mix(twins: 4, bad: 5, envs: 3, instances: 2),
        Mix(wildcards: 2, raw: 3, twins: 5, bad: 6, envs: 3, instances: 2, paths: true),
        Mix(raw: 4, bad: 8, envs: 4, conditions: 2),
        Mix(twins: 4, bad: 4, envs: 2, instances: 2, suspended: 2),
    ]

    @Test("what a change leaves is what the whole document would, step by step", arguments: 0..<200)
    func equal(seed: UInt64) {
        var random = SplitMix64(seed: seed &* 6151 &+ 17)
        let mix = Self.mixes[Int(seed) % Self.mixes.count]
        let (state, whole) = (RoutingState(), RoutingState())
        let clock = TestClock()
        for state in [state, whole] {
            state.nodeName = "n1"
            clock.drive(state)
        }
        var world = World()
        for id in Self.envs { world.set(.env, id, [envObject(id)]) }
        for step in 0..<30 {
            clock.pass(UInt32.random(in: 0...25, using: &random))
            change(&world, mix, &random)
            let before = world.store.document
            let report = state.apply(world.touched, of: world.store)
            let problems = whole.applyText(world.store.document).problems
            let run: Comment = "seed \(seed), step \(step): \(world.touched.ids) \(before)"
            guard compare(state, whole, run) else { return }
            // What is said of what the change reaches is what is said of it in the whole.
            let all = Set(said(problems))
            for text in said(report.problems.list) where !all.contains(text) {
                #expect(Bool(false), "only a change says: \(text)\n\(run)")
                return
            }
            let ids = Set(world.touched.strings(.route) + world.touched.strings(.hostname))
            let expected = problems.filter { $0.severity == .rejected && $0.id.map(ids.contains) ?? false }
            let told = Set(said(report.problems.list))
            for text in said(expected) where !told.contains(text) {
                #expect(Bool(false), "a change does not say: \(text)\n\(run)")
                return
            }
            world.touched = TouchedObjects()
        }
    }

    /// What a node keeps of how objects are applied: all that is not as desired.
    private struct Kept: AppliedObjects, CustomStringConvertible {
        var applied: [StateKind: [String: AppliedObject]] = [:]
        var lost: [IPAddress: LostAddress] = [:]

        mutating func take(_ changes: [(IPAddress, LostAddress?)]) {
            for (address, one) in changes { lost[address] = one }
        }

        /// - Parameter before: the objects before the change.
        mutating func take(_ report: ApplyReport, before: [StateKind: [String: [UInt8]]]) {
            let last = applied
            if report.isWhole { applied = [:] }
            for (kind, objects) in report.applied {
                for (id, object) in objects {
                    var object = object
                    if object.version == .earlier { object.version = version(last[kind]?[id], before[kind]?[id]) }
                    applied[kind, default: [:]][id] = object.isPlain ? nil : object
                }
            }
        }

        private func version(_ last: AppliedObject?, _ before: [UInt8]?) -> AppliedObject.Version {
            if let last, last.version != .desired { return last.version }
            return before.map { .text($0) } ?? .nothing
        }

        var description: String {
            applied.flatMap { kind, objects in
                objects.map { id, object in
                    var text = "\(object.version)"
                    if case .text(let bytes) = object.version { text = String(decoding: bytes, as: UTF8.self) }
                    let beside = String(decoding: object.beside, as: UTF8.self)
                    return "\n  \(kind) \(id): \(text) \(object.flags.rawValue) \(beside)"
                }
            }.sorted().joined()
        }

        func visit(_ body: (StateKind, Bytes, AppliedObject) -> Void) {
            for (kind, objects) in applied {
                for (id, object) in objects { Array(id.utf8).withUnsafeBufferPointer { body(kind, $0, object) } }
            }
        }
    }

    @Test("R5, R23: a restart that knows how objects were applied goes on as if there was none", arguments: 0..<200)
    func restart(seed: UInt64) {
        var random = SplitMix64(seed: seed &* 3571 &+ 5)
        var mix = Self.mixes[Int(seed) % Self.mixes.count]
        // A path that named nobody when its entry was read may name somebody now.
        mix.paths = false
        var state = RoutingState()
        let whole = RoutingState()
        let clock = TestClock()
        for state in [state, whole] {
            state.nodeName = "n1"
            clock.drive(state)
        }
        state.restore(lost: [])
        var world = World()
        var kept = Kept()
        for id in Self.envs { world.set(.env, id, [envObject(id)]) }
        for step in 0..<30 {
            clock.pass(UInt32.random(in: 0...25, using: &random))
            if step > 0, one(in: 3, &random) {
                let report: ApplyReport
                (state, report) = restarted(
                    world.store, kept, clock, ahead: UInt64.random(in: 0...1_000_000_000_000, using: &random))
                kept.take(report, before: world.store.texts)
                kept.take(state.takeLostAddresses())
                whole.applyText(world.store.document)
                let run: Comment = "restart, seed \(seed), step \(step): \(kept)\n\(world.store.document)"
                guard compare(state, whole, run) else { return }
            }
            let before = world.store.texts
            change(&world, mix, &random)
            let run: Comment = "seed \(seed), step \(step): \(world.touched.ids) \(world.store.document)"
            kept.take(state.apply(world.touched, of: world.store), before: before)
            whole.applyText(world.store.document)
            // What a change frees, who waits has with the next one; a restart is one.
            for _ in 0..<4 {
                kept.take(state.apply(TouchedObjects(), of: world.store), before: world.store.texts)
                whole.applyText(world.store.document)
            }
            kept.take(state.takeLostAddresses())
            guard compare(state, whole, run) else { return }
            world.touched = TouchedObjects()
        }
    }

    private func restarted(
        _ store: ObjectStore, _ kept: Kept, _ clock: TestClock, ahead: UInt64
    ) -> (RoutingState, ApplyReport) {
        let state = RoutingState()
        state.nodeName = "n1"
        clock.drive(state, ahead: ahead)
        state.restore(lost: kept.lost.map { ($0.key, $0.value) })
        return (state, state.restore(store, kept))
    }
}
