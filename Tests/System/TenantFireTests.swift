import Foundation
import Glibc
import Pipeline
import Synchronization
import TestSupport
import Testing

/// Names, wildcards, ports, instances and addresses move between envs by pushes, envs wait for names that others have, and
/// the node is killed and started again, while clients of every kind come: whoever answers one owned what it asked for when
/// it was looked up (R1, R5, R23, R31).
///
/// `TENANT_TRUTH_SECONDS` and `TENANT_TRUTH_SEED` as for ``TenantTruthTests``.
@Suite("Tenant truth under fire", .enabled(if: Namespace.obstacle == nil, "no network namespace here"))
struct TenantTruthFireTests {
    private static let seconds =
        ProcessInfo.processInfo.environment["TENANT_TRUTH_SECONDS"].flatMap { Double($0) } ?? 10
    private static let seed =
        ProcessInfo.processInfo.environment["TENANT_TRUTH_SEED"].flatMap { UInt64($0) } ?? .random(in: 1...1_000_000)

    @Test(
        "R5, R23, R31: pushes, kills and restarts, without a cooldown and with one, and starts from a table",
        arguments: [(false, false), (true, false), (true, true)])
    func fire(cools: Bool, usesTable: Bool) throws {
        let cooldown = cools ? (Self.seconds >= 60 ? 10 : 1) : 0
        let run = try FireRun(cooldown: cooldown, usesTable: usesTable)
        try run.go(seconds: Self.seconds / 2, seed: Self.seed)
        let verdict = try run.judge()
        print("tenant truth under fire, seed \(Self.seed), cooldown \(cooldown)s: \(verdict)")
        for (way, all) in verdict.problems {
            Issue.record(
                "seed \(Self.seed), \(way.rawValue): \(all.count) wrong, as:\n\(all.prefix(5).joined(separator: "\n"))")
        }
        for way in TenantVisit.Way.allCases where way != .idle && (way != .dedicated || !cools) {
            #expect(verdict.answered[way, default: 0] > 0, "\(way)")
        }
        #expect(verdict.kills > 0 && verdict.revisions > 5)
        #expect(!usesTable || verdict.fromTable > 0)
    }

    @Test(
        "the judge notices a node that looks up too early, and one that forgets at a restart",
        arguments: [FireRun.Mutation.decidesEarly, .forgets])
    func mutations(_ mutation: FireRun.Mutation) throws {
        for round in 0..<20 {
            let run = try FireRun(cooldown: mutation == .forgets && round % 2 == 0 ? 10 : 0, mutation: mutation)
            try run.go(seconds: 3, seed: Self.seed &+ UInt64(round))
            if !(try run.judge()).problems.isEmpty { return }
        }
        Issue.record("nobody noticed that the node \(mutation)")
    }
}

/// A node that is told by pushes, and killed now and then.
final class FireRun: Sendable {
    enum Mutation: String, Sendable {
        /// As if names were looked up in the table of the accept.
        case decidesEarly
        /// As if nothing outlived a restart but what is desired.
        case forgets
    }

    struct Verdict: CustomStringConvertible {
        var problems: [TenantVisit.Way: [String]] = [:]
        var answered: [TenantVisit.Way: Int] = [:]
        var (visits, kills, fromTable, revisions, retried, unlogged) = (0, 0, 0, 0, 0, 0)

        var description: String {
            "\(revisions) revisions, \(kills) kills, \(fromTable) starts from a table, \(visits) clients, "
                + "answered \(answered.map { "\($0.key.rawValue) \($0.value)" }.sorted()), \(retried) after a retry, "
                + "\(unlogged) without a log line, \(problems.values.reduce(0) { $0 + $1.count }) wrong"
        }
    }

    private static let connectTimeout = 300
    /// More than a node writes a table for (`TableImage.least`).
    private static let crowd = 4100
    private let namespace: Namespace
    private let folder: TemporaryFolder
    private let config: String
    private let admin: String
    private let first: TenantModel
    private let timeline: TenantTimeline
    private let clients: TenantClients
    private let cooldown: Int
    private let mutation: Mutation?
    private let stopped = Flag()
    private let nodes: Mutex<[Node]>
    private let visits = Mutex<[TenantVisit]>([])
    private let startsFromTable = Mutex(0)

    init(cooldown: Int, usesTable: Bool = false, mutation: Mutation? = nil) throws {
        (self.cooldown, self.mutation) = (cooldown, mutation)
        let namespace = try Namespace()
        self.namespace = namespace
        try TenantClients.prepare(namespace)
        let ports = try (0..<5).map { _ in try FreePort.take() }
        var model = TenantModel(tlsPort: ports[0], rawPorts: Array(ports[1..<4]), backendPort: ports[4])
        model.beginFire()
        if usesTable { model.add(crowd: Self.crowd, port: ports[0]) }
        first = model
        timeline = TenantTimeline(model)
        clients = TenantClients(model, timeline, mayBeDead: true, decidesEarly: mutation == .decidesEarly)
        let stopped = stopped
        try namespace.concurrently { try TenantClients.serve(ports[4], stopped) }.value()
        folder = try TemporaryFolder()
        admin = "\(folder.path)/admin.sock"
        config =
            ConfigText(
                settings: [
                    "admin unix:\(admin)", "state \(folder.path)/data", "connect_timeout \(Self.connectTimeout)ms",
                    "cooldown \(cooldown)s ipv4 \(cooldown)s",
                ], workers: 2, sniff: "timeout 30s, max 16KiB", tlsListeners: [Place("::", ports[0])],
                rawListeners: ports[1..<4].map { Place("::", $0) }, backend: "round_robin, health soak",
                more: "health soak {\n    probe off\n    eject off\n}\n"
                    + "expose dedicated_ipv4 ports \(ports[0]) tls_passthrough via tls\nroutes push\n"
            ).description
        nodes = Mutex([try Node(config, folder: folder, in: namespace.name)])
        _ = try push(model.document)
    }

    deinit { stopped.set() }

    private var node: Node { nodes.withLock { $0[$0.count - 1] } }

    // MARK: Moves

    func go(seconds: Double, seed: UInt64) throws {
        let stop = Flag()
        let ways: [(TenantVisit.Way, Int)] = [
            (.quick, 2), (.slow, 8), (.dedicated, 4), (.silent, 4), (.raw, 4), (.late, 4), (.idle, 4),
        ]
        let all = ways.flatMap { way, count in
            (0..<count).map { number in
                namespace.concurrently { [clients] in
                    try clients.visitUntil(stop, way, seed: seed &* 1000 &+ UInt64(number), of: way.rawValue)
                }
            }
        }
        let failure = Result { try drive(until: Deadline(seconds: seconds), seed: seed) }
        stop.set()
        let found = try all.flatMap { try $0.value(Deadline(seconds: 120), "end of a client") }
        visits.withLock { $0 = found }
        try failure.get()
    }

    private func drive(until deadline: Deadline, seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        var model = first
        var calm = 0
        while !deadline.hasPassed {
            let before = model
            model.moveUnderFire(&random)
            timeline.begin(model)
            let isWhole = Int.random(in: 0..<8, using: &random) == 0
            calm += 1
            // Once in a while, and never too late for the first.
            if calm > 5, Int.random(in: 0..<20, using: &random) == 0 || calm > 40 {
                calm = 0
                try die(with: isWhole ? model.document : model.change(from: before), model, &random)
            } else {
                _ = try push(isWhole ? model.document : model.change(from: before))
            }
            try awaitWorkers()
            timeline.acknowledge()
            let enough = clients.count + Int.random(in: 0...60, using: &random)
            try awaitUntil("clients come between two moves") { clients.count >= enough }
        }
        guard timeline.deaths.isEmpty else { return }
        model.moveUnderFire(&random)
        timeline.begin(model)
        try die(with: model.document, model, &random)
        timeline.acknowledge()
    }

    /// The node is killed before, while or after it takes a push, and started again; then it is told once more.
    private func die(with text: String, _ model: TenantModel, _ random: inout SplitMix64) throws {
        let began = Deadline.now()
        switch Int.random(in: 0..<3, using: &random) {
        case 0: break
        case 1: try UnixSocket(connect: admin).send("{\"command\":\"apply\",\"length\":\(text.utf8.count)}\n\(text)")
        default: _ = try push(text)
        }
        let old = node
        Glibc.kill(old.child.pid, SIGKILL)
        _ = try old.child.waitForExit()
        if mutation == .forgets { try FileManager.default.removeItem(atPath: "\(folder.path)/data") }
        let fresh = try Node(config, folder: folder, in: namespace.name)
        nodes.withLock { $0.append(fresh) }
        let kept = try ask("{\"command\":\"status\"}\n")["desired_state"] as? [String: Any]
        if kept?["routes_mapped"] as? Int ?? 0 > 0 { startsFromTable.withLock { $0 += 1 } }
        _ = try push(model.document)
        try awaitWorkers()
        timeline.wasDead(began...Deadline.now())
    }

    private func ask(_ text: String) throws -> [String: Any] {
        let client = try UnixSocket(connect: admin)
        client.send(text)
        let answer = client.receiveToEnd()
        return try (try? JSONSerialization.jsonObject(with: Data(answer.utf8)) as? [String: Any]).unwrap(
            "answer: \(answer)")
    }

    private func push(_ text: String) throws -> [String: Any] {
        var answer: [String: Any] = [:]
        // A worker may not have had its turn since the last one, on a late machine.
        try awaitUntil("a push is taken, or refused for good") {
            answer = try ask("{\"command\":\"apply\",\"length\":\(text.utf8.count)}\n\(text)")
            return (answer["message"] as? String)?.hasPrefix("a worker has not applied") != true
        }
        guard ["applied", "quarantined"].contains(answer["outcome"] as? String ?? "") else {
            throw Failure("\(answer): \(text)")
        }
        return answer
    }

    /// It is in force on every worker, however late the machine lets them run.
    private func awaitWorkers() throws {
        try awaitUntil("every worker has the change") {
            let status = try ask("{\"command\":\"status\"}\n")
            let newest = status["generation"] as? Int ?? .max
            let workers = status["workers"] as? [[String: Any]] ?? []
            return !workers.isEmpty && workers.allSatisfy { $0["generation"] as? Int ?? 0 >= newest }
        }
    }

    // MARK: Judging

    func judge() throws -> Verdict {
        node.child.signal(SIGTERM)
        try node.child.waitForExit(Deadline(seconds: 120))
        let lines = nodes.withLock { $0 }.flatMap { $0.child.lines }.filter { $0.stream == .out }
            .compactMap { LogLine($0.text) }
        let byPeer = Dictionary(grouping: lines) { $0.peer ?? "" }
        let judge = TenantJudge(
            timeline, connectTimeout: UInt64(Self.connectTimeout) * 1_000_000 * 2 / 3,
            cooldown: UInt64(cooldown) * 1_000_000_000)
        var verdict = Verdict()
        (verdict.kills, verdict.revisions) = (timeline.deaths.count, timeline.count)
        verdict.fromTable = startsFromTable.withLock { $0 }
        for visit in visits.withLock({ $0 }) {
            verdict.visits += 1
            let line = byPeer[visit.place.description]?.first { $0.isOf(visit.place) }
            if line == nil { verdict.unlogged += 1 }
            // A node that is killed takes its last lines with it: then any number of attempts may be meant.
            let problems = (line.map { [$0.attempts] } ?? [1, 2, 3]).map { judge.problem(visit, attempts: $0) }
            if let problem = problems[0], !problems.contains(nil) {
                verdict.problems[visit.way, default: []].append(problem)
            }
            guard visit.by != nil else { continue }
            verdict.answered[visit.way, default: 0] += 1
            if (line?.attempts ?? 1) > 1 { verdict.retried += 1 }
        }
        return verdict
    }
}
