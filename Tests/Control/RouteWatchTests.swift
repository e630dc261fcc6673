import Pipeline
import PipelineHealth
import PipelineRouting
import PipelineText
import Synchronization
import Testing

/// What is said of routes that lose their last backend, by the changes of the table.
@Suite("health: the watch over routes")
struct RouteWatchTests {
    private final class Lines: Sendable {
        private let lines = Mutex<[String]>([])
        var log: ControlLog {
            ControlLog { line in
                let text = String(decoding: line, as: UTF8.self)
                self.lines.withLock { lines in lines.append(text) }
            }
        }
        /// What was said since the last call.
        func take() -> [String] {
            lines.withLock { lines in
                let said = lines
                lines = []
                return said
            }
        }
    }

    private final class Site {
        let state = RoutingState(seed: HashSeed(1, 2))
        let lines = Lines()
        private var watch = RouteWatch()
        private var now = Instant(nanoseconds: 1_000_000_000)

        /// - Parameter instances: of env `e`, by id.
        func apply(routes: [String], instances: [String]) throws {
            let routes = routes.map {
                "{\"route_id\":\"\($0)\",\"env_id\":\"\($0.hasPrefix("o") ? "o" : "e")\",\"hostname\":\"\($0).test\","
                    + "\"listen_port\":443,\"protocol_hint\":\"tls_passthrough\",\"backend_process_type\":\"web\","
                    + "\"backend_port\":80}"
            }
            let instances = instances.map {
                "{\"instance_id\":\"\($0)\",\"env_id\":\"e\",\"process_type\":\"web\",\"overlay_ipv6\":\"fd00::\($0)\","
                    + "\"node_id\":\"n\",\"status\":\"ready\",\"drain_grace_seconds\":1}"
            }
            let text =
                "{\"format\":\"pipelined.state/1\",\"envs\":[{\"env_id\":\"e\",\"app_id\":\"a\",\"org_id\":\"o\"},"
                + "{\"env_id\":\"o\",\"app_id\":\"a\",\"org_id\":\"o\"}],\"instances\":[\(instances.joined(separator: ","))],"
                + "\"routes\":[\(routes.joined(separator: ","))]}"
            _ = state.apply(try #require(StateDocument.parse(text, seed: HashSeed(1, 2)).document))
            watch.follow(state, state.takeNews())
        }

        /// A route of a config file, of two names.
        func apply(config backends: [String]) throws {
            let specs = try ["a.test", "b.test"].enumerated().map { index, host in
                var spec = RouteSpec(
                    index: index, id: "rt", org: "o", app: "a", env: "e", hostname: host, port: 443,
                    hint: .tlsPassthrough, backends: try backends.map { BackendSpec(try #require(Endpoint($0))) })
                if index > 0 { spec.claim = host }
                return spec
            }
            _ = state.apply(StateDocument.config(specs, seed: HashSeed(1, 2)).document)
            watch.follow(state, state.takeNews())
        }

        func look() -> [String] {
            // A check takes as many calls as there are batches.
            repeat {
                now = now + .seconds(1)
                watch.look(state, now, lines.log)
            } while watch.nextLook.map { $0 < now } ?? false
            return lines.take()
        }
        var routesDown: Int { watch.routesDown }
    }

    @Test("the last backend goes and comes back: each is said once, whatever else changes")
    func last() throws {
        let site = Site()
        try site.apply(routes: ["r1", "r2"], instances: ["1", "2"])
        #expect(site.look().isEmpty && site.routesDown == 0)
        try site.apply(routes: ["r1", "r2"], instances: ["2"])
        #expect(site.look().isEmpty)
        try site.apply(routes: ["r1", "r2"], instances: [])
        let said = site.look()
        #expect(said.count == 1 && said[0].contains("routes_down") && said[0].contains("no instance is ready"))
        #expect(said[0].contains("\"r1\"") && said[0].contains("\"r2\"") && site.routesDown == 2)
        // Another env's route, another route of its own, and another name of it.
        try site.apply(routes: ["r1", "r2", "o1"], instances: [])
        try site.apply(routes: ["r2", "r3", "o1"], instances: [])
        #expect(site.look().isEmpty && site.routesDown == 2)
        try site.apply(routes: ["r2", "r3", "o1"], instances: ["1"])
        let back = site.look()
        #expect(back.count == 1 && back[0].contains("routes_up") && site.routesDown == 0)
        // One that never had a backend has lost none.
        #expect(!back[0].contains("o1"))
    }

    @Test("what a route loses before the first check is said")
    func beforeTheFirstCheck() throws {
        let site = Site()
        try site.apply(routes: ["r1"], instances: ["1"])
        try site.apply(routes: ["r1"], instances: [])
        let said = site.look()
        #expect(said.count == 1 && said[0].contains("routes_down"), "\(said)")
        try site.apply(routes: ["r1"], instances: ["1"])
        #expect(site.look().count { $0.contains("routes_up") } == 1)
    }

    @Test("a route of a config whose addresses a reload changes is the same one: what was said holds")
    func reload() throws {
        let site = Site()
        try site.apply(config: ["[fd00::1]:80"])
        #expect(site.look().isEmpty)
        func probe(_ verdict: BackendCell.Probe) {
            for part in 0..<site.state.snapshot.partCount {
                site.state.snapshot.visit(part: part) { route, _ in
                    for backend in route.backends.buffer {
                        backend.cell.pointee.probe.store(verdict.rawValue, ordering: .relaxed)
                    }
                }
            }
        }
        probe(.down)
        let said = site.look()
        #expect(said.count == 1 && said[0].contains("routes_down") && site.routesDown == 1)
        try site.apply(config: ["[fd00::1]:80", "[fd00::2]:80"])
        probe(.down)
        #expect(site.look().isEmpty && site.routesDown == 1)
        probe(.up)
        let back = site.look()
        #expect(back.count == 1 && back[0].contains("routes_up") && back[0].contains("\"rt\""))
    }
}
