import Foundation
import Pipeline
import Synchronization
import TestSupport
import Testing

/// Names, ports and addresses move from env to env while clients of every kind come: whoever answers one owned what it asked
/// for when it was looked up (R1, R5, R22).
///
/// `TENANT_TRUTH_SECONDS=600` says for how long, `TENANT_TRUTH_SEED` by which moves.
@Suite("Tenant truth on real sockets", .enabled(if: Namespace.obstacle == nil, "no network namespace here"))
struct TenantTruthTests {
    private static let seconds =
        ProcessInfo.processInfo.environment["TENANT_TRUTH_SECONDS"].flatMap { Double($0) } ?? 8
    private static let seed =
        ProcessInfo.processInfo.environment["TENANT_TRUTH_SEED"].flatMap { UInt64($0) } ?? .random(in: 1...1_000_000)
    private static let connectTimeout = 300

    @Test("R1, R5, R13, R22: nobody is answered by an env that had not the name or the address when it was looked up")
    func moves() throws {
        let site = try Site(connectTimeout: Self.connectTimeout)
        let stop = Flag()
        let deadline = Deadline(seconds: Self.seconds)
        // Long ones end with a move or two still to come, so that they are looked at as well.
        let ways: [(TenantVisit.Way, Int)] = [
            (.quick, 2), (.slow, 8), (.dedicated, 4), (.silent, 4), (.raw, 4), (.late, 4), (.idle, 4),
        ]
        let clients = ways.flatMap { way, count in
            (0..<count).map { number in
                site.namespace.concurrently {
                    try site.clients.visitUntil(stop, way, seed: Self.seed &* 1000 &+ UInt64(number), of: way.rawValue)
                }
            }
        }
        // Whatever comes of it, the clients end.
        let failure = Result { try site.drive(until: deadline, seed: Self.seed) }
        stop.set()
        let visits = try clients.flatMap { try $0.value(Deadline(seconds: 120), "end of a client") }
        try failure.get()
        try judge(visits, site)
    }

    private func judge(_ visits: [TenantVisit], _ site: Site) throws {
        site.node.child.signal(SIGTERM)
        try site.node.child.waitForExit(Deadline(seconds: 120))
        let lines = site.node.child.lines.filter { $0.stream == .out }.compactMap { LogLine($0.text) }
        let byPeer = Dictionary(grouping: lines) { $0.peer ?? "" }
        // A deadline counts from when the worker last looked at the clock, which may be before the client came.
        let judge = TenantJudge(site.timeline, connectTimeout: UInt64(Self.connectTimeout) * 1_000_000 * 2 / 3)
        var problems: [TenantVisit.Way: [String]] = [:]
        var (answered, retried) = ([TenantVisit.Way: Int](), 0)
        for visit in visits {
            let line = byPeer[visit.place.description]?.first { $0.isOf(visit.place) }
            let attempts = line?.attempts ?? 1
            if let problem = judge.problem(visit, attempts: attempts) {
                problems[visit.way, default: []].append(problem)
            }
            guard visit.by != nil else { continue }
            answered[visit.way, default: 0] += 1
            if attempts > 1 { retried += 1 }
        }
        let wrong = problems.values.reduce(0) { $0 + $1.count }
        print(
            "tenant truth, seed \(Self.seed): \(site.timeline.count) revisions, \(visits.count) clients, "
                + "answered \(answered.map { "\($0.key.rawValue) \($0.value)" }.sorted()), \(retried) after a retry, "
                + "\(wrong) wrong \(problems.map { "\($0.key.rawValue) \($0.value.count)" }.sorted())")
        for (way, all) in problems {
            Issue.record(
                "seed \(Self.seed), \(way.rawValue): \(all.count) wrong, as:\n\(all.prefix(5).joined(separator: "\n"))")
        }
        // The check means something: there was enough of everything.
        for way in TenantVisit.Way.allCases where way != .idle { #expect(answered[way, default: 0] > 0, "\(way)") }
        #expect(retried > 0)
        #expect(site.timeline.count > Int(Self.seconds))
    }
}

/// A node, its state file, and backends at addresses of a namespace, each of which says which one it is.
private final class Site: Sendable {
    let namespace: Namespace
    let node: Node
    let timeline: TenantTimeline
    private let folder: TemporaryFolder
    private let admin: String
    private let stopped = Flag()
    private let first: TenantModel
    let clients: TenantClients

    init(connectTimeout: Int) throws {
        let namespace = try Namespace()
        self.namespace = namespace
        try TenantClients.prepare(namespace)
        let ports = try (0..<5).map { _ in try FreePort.take() }
        let model = TenantModel(tlsPort: ports[0], rawPorts: Array(ports[1..<4]), backendPort: ports[4])
        first = model
        timeline = TenantTimeline(model)
        clients = TenantClients(model, timeline)
        let stopped = stopped
        try namespace.concurrently { try TenantClients.serve(ports[4], stopped) }.value()
        folder = try TemporaryFolder()
        admin = "\(folder.path)/admin.sock"
        try folder.write("state.json", model.document)
        node = try Node(
            ConfigText(
                settings: ["admin unix:\(admin)", "connect_timeout \(connectTimeout)ms"], workers: 2,
                sniff: "timeout 30s, max 16KiB", tlsListeners: [Place("::", ports[0])],
                rawListeners: ports[1..<4].map { Place("::", $0) }, backend: "round_robin, health soak",
                more: "health soak {\n    probe off\n    eject off\n}\n"
                    + "expose dedicated_ipv4 ports \(ports[0]) tls_passthrough via tls\nroutes file state.json\n"
            ).description, folder: folder, in: namespace.name)
    }

    deinit { stopped.set() }

    // MARK: Moves

    /// One change after the other, each once the one before is in force.
    func drive(until deadline: Deadline, seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        var model = first
        while !deadline.hasPassed {
            model.move(&random)
            timeline.begin(model)
            try folder.write("state.json", model.document)
            let answer = try reload()
            let problems = answer["diagnostics"] as? [String] ?? []
            guard answer["outcome"] as? String == "reloaded", problems.isEmpty else {
                throw Failure("revision \(model.revision): \(answer)")
            }
            timeline.acknowledge()
            let enough = clients.count + Int.random(in: 0...200, using: &random)
            try awaitUntil("clients come between two moves") { clients.count >= enough }
        }
    }

    private func reload() throws -> [String: Any] {
        let client = try UnixSocket(connect: admin)
        client.send("{\"command\":\"reload\"}\n")
        let text = client.receiveToEnd()
        return try (try? JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]).unwrap(
            "answer: \(text)")
    }
}

/// Small, and the same everywhere.
