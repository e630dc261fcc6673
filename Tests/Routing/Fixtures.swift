import Pipeline
import PipelineRouting

let testSeed = HashSeed(0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210)

/// One route of a test's document.
struct TestRoute: Hashable {
    var id: String
    var env: String
    var hostname: String?
    var port: UInt16 = 443
    var raw = false
    var process = "web"
    var backendPort = 8080
    var extra = ""

    var json: String {
        let name = hostname.map { "\"hostname\": \"\($0)\", " } ?? ""
        return "{\"route_id\": \"\(id)\", \"env_id\": \"\(env)\", \(name)\"listen_port\": \(port), "
            + "\"protocol_hint\": \"\(raw ? "tcp_raw" : "tls_passthrough")\", \"backend_process_type\": \"\(process)\", "
            + "\"backend_port\": \(backendPort)\(extra)}"
    }
}

/// One entry of `hostnames`.
struct TestHostname: Hashable {
    var hostname: String
    var env: String
    var claimed: Int?

    init(_ hostname: String, _ env: String, _ claimed: Int? = nil) {
        self.hostname = hostname
        self.env = env
        self.claimed = claimed
    }

    var json: String {
        "{\"hostname\": \"\(hostname)\", \"env_id\": \"\(env)\", \"claimed\": \(claimed.map(String.init) ?? "null")}"
    }
}

func envObject(
    _ env: String, ipv4: String? = nil, app: String = "app", org: String = "org", suspended: Bool = false
) -> String {
    "{\"env_id\": \"\(env)\", \"app_id\": \"\(app)\", \"org_id\": \"\(org)\", "
        + "\"ipv4_address\": \(ipv4.map { "\"\($0)\"" } ?? "null")\(suspended ? ", \"suspended\": true" : "")}"
}

func orgObject(_ org: String, suspended: Bool) -> String {
    "{\"org_id\": \"\(org)\", \"suspended\": \(suspended)}"
}

/// A document of objects as they are.
func documentText(
    orgs: [String] = [], envObjects: [String], instances: [String] = [], routes: [String], hostnames: [String]
) -> String {
    """
    {"format": "pipelined.state/1", "revision": 1, "actor": "test",
    "orgs": [\(orgs.joined(separator: ",\n"))],
    "envs": [\(envObjects.joined(separator: ",\n"))],
    "instances": [\(instances.joined(separator: ",\n"))],
    "hostnames": [\(hostnames.joined(separator: ",\n"))],
    "routes": [\(routes.joined(separator: ",\n"))]}
    """
}

func documentText(
    envs: [String] = ["env_a", "env_b", "env_c"], instances: [String] = [], routes: [String]
) -> String {
    let envs = envs.map { "{\"env_id\": \"\($0)\", \"app_id\": \"app\", \"org_id\": \"org\", \"ipv4_address\": null}" }
    return """
        {"format": "pipelined.state/1", "revision": 1, "actor": "test",
        "envs": [\(envs.joined(separator: ",\n"))],
        "instances": [\(instances.joined(separator: ",\n"))],
        "routes": [\(routes.joined(separator: ",\n"))]}
        """
}

func instance(
    _ id: String, env: String = "env_a", process: String = "web", address: String, status: String = "ready"
) -> String {
    "{\"instance_id\": \"\(id)\", \"env_id\": \"\(env)\", \"process_type\": \"\(process)\", "
        + "\"overlay_ipv6\": \"\(address)\", \"node_id\": \"n1\", \"status\": \"\(status)\", \"drain_grace_seconds\": 10}"
}

extension RoutingState {
    convenience init() { self.init(seed: testSeed) }

    /// Reads and applies; the problems of both.
    @discardableResult func applyText(_ text: String) -> (report: ApplyReport?, problems: [RouteProblem]) {
        let (document, problems) = StateDocument.parse(text, seed: testSeed)
        guard let document else { return (nil, problems.list) }
        let report = apply(document)
        return (report, problems.list + report.problems.list)
    }

    @discardableResult func apply(
        envs: [String] = ["env_a", "env_b", "env_c", "env_d"], _ routes: [TestRoute], hostnames: [TestHostname]
    ) -> (report: ApplyReport?, problems: [RouteProblem]) {
        applyText(
            documentText(
                envObjects: envs.map { envObject($0) }, routes: routes.map(\.json), hostnames: hostnames.map(\.json)))
    }

    @discardableResult func apply(
        envs: [String] = ["env_a", "env_b", "env_c"], instances: [String] = [], _ routes: [TestRoute]
    ) -> (report: ApplyReport?, problems: [RouteProblem]) {
        applyText(documentText(envs: envs, instances: instances, routes: routes.map(\.json)))
    }
}

func destination(_ port: UInt16) -> DestinationAddress { DestinationAddress(Endpoint(.unspecified, port)) }

extension RouteTableSnapshot {
    func named(_ name: String, _ port: UInt16 = 443) -> FoundRoute? {
        var server = ServerName()
        let isName = Array(name.utf8).withUnsafeBufferPointer { server.set(wire: $0) }
        return isName ? handle.named(server, at: destination(port)) : nil
    }
    func sole(_ port: UInt16) -> FoundRoute? { handle.sole(at: destination(port)) }
}

extension RoutingState {
    /// What is served, by id.
    var served: [String: TestRoute] {
        var found: [String: TestRoute] = [:]
        snapshot.forEachRoute { route in
            let env = route.owner.split(separator: "/").last.map(String.init) ?? ""
            found[route.id] = TestRoute(
                id: route.id, env: env, hostname: route.hostname, port: route.port, raw: route.hint == .tcpRaw)
        }
        return found
    }
}

/// Problems without their places, which move with the objects.
func texts(_ problems: [RouteProblem]) -> [String] {
    problems.map {
        "\($0.severity) \($0.object) \($0.id ?? "-") \($0.field ?? "-"): \($0.problem); \($0.remedy)"
    }.sorted()
}

func isRejected(_ problems: [RouteProblem], _ id: String, _ parts: String...) -> Bool {
    problems.contains { problem in
        problem.severity == .rejected && problem.id == id && parts.allSatisfy { problem.description.contains($0) }
    }
}
