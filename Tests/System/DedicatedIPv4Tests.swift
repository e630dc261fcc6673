import Foundation
import Glibc
import TestSupport
import Testing

@Suite("R9: an env's own IPv4 address", .enabled(if: Namespace.obstacle == nil, "no network namespace here"))
struct DedicatedIPv4Tests {
    /// An IPv4 address of a namespace, which the test gives and takes. The test's side of the link has a neighbour of it.
    private final class Dedicated: Sendable {
        let namespace: Namespace
        let address: String
        private let network: String

        private static let next = Counter(start: 0)

        init(_ namespace: Namespace) throws {
            self.namespace = namespace
            // From the range for benchmarks (RFC 2544), and not another test's.
            let net = "198.\(18 + Int(getpid()) / 250 % 2).\(Int(getpid()) % 250)"
            let base = Int(Dedicated.next.take() % 60) * 4
            (address, network) = ("\(net).\(base + 2)", "\(net).\(base)/30")
            try Namespace.run("ip", ["addr", "add", "\(net).\(base + 1)/30", "dev", namespace.link])
        }

        func change(_ verb: String) throws {
            try namespace.ip("addr \(verb) \(address)/32 dev eth0")
            // A link's routes go with its last address.
            if verb == "add" { try namespace.ip("route add \(network) dev eth0") }
        }
    }

    private struct Site {
        let node: Node
        let namespace: Namespace
        let address: Dedicated
        let port: UInt16
        let admin: String
        let server: Server
        let other: Server

        var dedicated: Place { Place(address.address, port) }
        var shared: Place { Place(namespace.host, port) }

        init() throws {
            let folder = try TemporaryFolder()
            admin = "\(folder.path)/admin.sock"
            namespace = try Namespace()
            address = try Dedicated(namespace)
            // Upstream is IPv6, whatever the client's side is.
            server = try Server.echo(namespace.near)
            // An address of its own for each env's instance: one of two envs would be nobody's.
            let (overlay, second) = (namespace.near, namespace.near.dropLast() + "3")
            try Namespace.run("ip", ["-6", "addr", "add", "\(second)/64", "dev", namespace.link, "nodad"])
            other = try Server.echo(String(second), port: server.place.port)
            port = try FreePort.take()
            let backend = server.place.port
            let route = { [port] (id: String, env: String, name: String, ipv4: Bool) in
                """
                {"route_id":"\(id)","env_id":"\(env)","hostname":"\(name)","listen_port":\(port),
                 "protocol_hint":"tls_passthrough","backend_process_type":"w","backend_port":\(backend),
                 "ipv4_required":\(ipv4)}
                """
            }
            try folder.write(
                "state.json",
                """
                {"format":"pipelined.state/1","revision":1,
                 "envs":[{"env_id":"env_a","app_id":"shop","org_id":"acme","ipv4_address":"\(address.address)"},
                         {"env_id":"env_b","app_id":"blog","org_id":"acme"}],
                 "instances":[
                  {"instance_id":"i_a","env_id":"env_a","process_type":"w","overlay_ipv6":"\(overlay)","status":"ready"},
                  {"instance_id":"i_b","env_id":"env_b","process_type":"w","overlay_ipv6":"\(second)","status":"ready"}],
                 "routes":[\(route("rt_a", "env_a", "a.example.com", true)),
                           \(route("rt_b", "env_b", "b.example.com", false))]}
                """)
            var config = ConfigText(
                settings: ["admin unix:\(admin)"], workers: 2, tlsListeners: [Place(namespace.host, port)])
            config.more =
                "expose dedicated_ipv4 ports \(port) tls_passthrough via tls\nroutes file state.json\n"
            node = try Node(config.description, folder: folder, in: namespace.name)
        }

        /// True if the hello came back.
        func echoes(_ name: String, at place: Place) throws -> Bool {
            let client = try Socket.connect(to: place)
            let hello = clientHello(name)
            try client.send(hello)
            let seen = try? client.receive(exactly: hello.count)
            return seen == hello
        }

        /// The event, for the `count`-th time.
        func wait(_ event: String, _ count: Int) throws -> String {
            try node.child.wait("\(event), \(count) times") { lines in
                let found = lines.filter { $0.isEvent(event) }
                return found.count >= count ? found[count - 1].text : nil
            }
        }

        func dedicatedState() throws -> String {
            let out = try Binary.run(["status", "--admin", admin, "--json"]).out
            let object = try JSONSerialization.jsonObject(with: Data(out.utf8)) as? [String: Any]
            let listeners = object?["listeners"] as? [[String: Any]] ?? []
            return listeners.first { $0["origin"] as? String == "dedicated_ipv4" }?["status"] as? String ?? "none"
        }
    }

    @Test("it appears, vanishes and reappears: its routes follow at once, and another env sees no error")
    func comesAndGoes() throws {
        let site = try Site()
        let (stop, failed) = (Flag(), Flag())
        let other = concurrently {
            var count = 0
            while !stop.isSet {
                if (try? site.echoes("b.example.com", at: site.shared)) != true { failed.set() }
                count += 1
            }
            return count
        }
        let said = try site.wait("ipv4_missing", 1)
        #expect(
            said.contains(#""org":"acme","app":"shop","env":"env_a""#) && said.contains(site.address.address), "\(said)"
        )
        #expect(try site.dedicatedState() == "degraded")
        for round in 1...3 {
            try site.address.change("add")
            _ = try site.wait("ipv4_restored", round)
            #expect(try site.dedicatedState() == "open")
            #expect(try site.echoes("a.example.com", at: site.dedicated))
            // Only that env's names are served on it.
            #expect(try !site.echoes("b.example.com", at: site.dedicated))
            try site.address.change("del")
            _ = try site.wait("ipv4_missing", round + 1)
            #expect(try site.dedicatedState() == "degraded")
        }
        stop.set()
        #expect(try other.value() > 0)
        #expect(!failed.isSet)
        // The env's routes are served on the shared address all the while.
        #expect(try site.echoes("a.example.com", at: site.shared))
    }
}
