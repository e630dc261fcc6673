import Foundation
import Glibc
import TestSupport
import Testing

/// What nginx's and HAProxy's own tests hold, asked of them and of this node in one run: the same, or the difference that
/// FROM-NGINX.md and FROM-HAPROXY.md name.
@Suite("Behaviours of nginx and HAProxy", .enabled(if: Child.find("haproxy") != nil && Child.find("nginx") != nil))
struct BehaviourTests {
    static let all = BalanceBehaviours.all + AttemptBehaviours.all + AccessBehaviours.all + ProbeBehaviours.all

    @Test("the same answer from all that have it", arguments: all)
    func same(_ behaviour: Behaviour) throws {
        let servers = try BehaviourServers(behaviour.servers)
        var asked: [(name: String, answer: String, entry: Place)] = []
        var running: [Any] = []
        if let nginx = behaviour.nginx?(servers.places) {
            let (entry, ready) = (try Self.entry(), try Self.entry())
            running.append(try Nginx(stream: Self.nginx(entry, ready, nginx), ready: ready))
            asked.append(("nginx", behaviour.nginxAnswers ?? behaviour.answer, entry))
        }
        if let haproxy = behaviour.haproxy?(servers.places) {
            let (entry, ready) = (try Self.entry(), try Self.entry())
            running.append(try HAProxy(Self.haproxy(entry, ready, haproxy), ready: ready))
            asked.append(("HAProxy", behaviour.haproxyAnswers ?? behaviour.answer, entry))
        }
        let entry = try Self.entry()
        running.append(try Node(Self.node(entry, behaviour.ours(servers.places))))
        asked.append(("this node", behaviour.answer, entry))
        for (name, answer, entry) in asked {
            let given = try behaviour.ask(Behaviour.Asked(entry: entry, servers: servers, answer: answer))
            #expect(given == answer, "\(name)")
        }
        withExtendedLifetime(running) {}
    }

    /// IPv4, where a machine has many addresses of its own to come from.
    private static func entry() throws -> Place { Place("127.0.0.1", try FreePort.take()) }

    // A look whether they listen takes nobody's turn: it has a listener of its own.

    private static func nginx(_ entry: Place, _ ready: Place, _ lines: (upstream: [String], server: [String])) -> String
    {
        """
        upstream pool { \(lines.upstream.map { "\($0);" }.joined(separator: " ")) }
        server {
            listen \(entry);
            proxy_connect_timeout 300ms;
            \(lines.server.map { "\($0);" }.joined(separator: "\n    "))
            proxy_pass pool;
        }
        server { listen \(ready); return ""; }
        """
    }

    private static func haproxy(_ entry: Place, _ ready: Place, _ lines: [String]) -> String {
        """
        defaults
            mode tcp
            timeout connect 300ms
            timeout client 20s
            timeout server 20s
            timeout queue 300ms
            option redispatch 1
            retries 3
        listen ready
            bind \(ready)
            tcp-request connection reject
        listen pool
            bind \(entry)
        \(lines.map { "    \($0)\n" }.joined())
        """
    }

    private static func node(_ entry: Place, _ ours: Behaviour.Ours) -> String {
        ConfigText(
            settings: ["connect_timeout 300ms"], rawListeners: [entry], firstStages: ours.stages,
            backend: ours.backend, proxy: ours.proxy,
            routes: [RouteText(id: "rt", port: entry.port, backends: [], more: ours.route)],
            more: ours.more
        ).description
    }
}
