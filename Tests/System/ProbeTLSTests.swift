import Foundation
import Glibc
import TestSupport
import Testing

/// `probe tls` against servers as operators run them (R12): each is seen up, and seen down when it is.
@Suite("probe tls and real servers")
struct ProbeTLSTests {
    private static let names: [String?] = [nil, "app.example.com"]

    @Test("R12: the servers that make deps installs, asked with a name and without", arguments: TLSServer.usual)
    func usual(server: TLSServer) throws { for name in Self.names { try upAndDown(server, name) } }

    @Test(
        "R12: further servers, where they are installed", .enabled(if: TLSServer.others.contains(where: \.isInstalled)),
        arguments: TLSServer.others.filter(\.isInstalled))
    func others(server: TLSServer) throws { for name in Self.names { try upAndDown(server, name) } }

    private func upAndDown(_ server: TLSServer, _ name: String?) throws {
        let folder = try TemporaryFolder()
        let certificate = try Certificate.make("app.example.com", in: folder)
        let place = Place("::1", try FreePort.take())
        let child = try server.start(place, certificate, folder)
        try waitForListener(at: place, child)
        let site = try Site(place, name)
        // A backend counts as up until probes say otherwise: this says that one has succeeded.
        #expect(try site.probed("up or down") { $0 != "unknown" } == "up", "\(server.name), \(name ?? "no name")")
        // The listener stays full of connections that nobody answers: the process hangs.
        kill(-child.pid, SIGSTOP)
        #expect(try site.node.event("backend_down", of: place).text.contains("\"reason\":\"timeout\""))
        kill(-child.pid, SIGCONT)
        _ = try site.node.event("backend_up", of: place)
        kill(-child.pid, SIGKILL)
        #expect(try site.node.event("backend_down", of: place, 2).text.contains("\"reason\":\"refused\""))
    }

    @Test("R12: a name that the server has no certificate for is down, by its alert")
    func unknownName() throws {
        let folder = try TemporaryFolder()
        let certificate = try Certificate.make("app.example.com", in: folder)
        let text = try [certificate.keyFile, certificate.certificateFile].map {
            try String(contentsOfFile: $0, encoding: .utf8)
        }
        let both = try folder.write("both.pem", text.joined())
        let place = Place("::1", try FreePort.take())
        let proxy = try HAProxy(
            """
            defaults
                mode http
                timeout connect 5s
                timeout client 5s
                timeout server 5s
            frontend tls
                bind \(place) ssl crt \(both) strict-sni
                http-request return status 200

            """, ready: place)
        let right = try Site(place, "app.example.com")
        #expect(try right.probed("up or down") { $0 != "unknown" } == "up")
        let wrong = try Site(place, "other.example.com")
        #expect(try wrong.node.event("backend_down", of: place).text.contains("\"reason\":\"TLS alert\""))
        #expect(!proxy.child.hasEnded)
    }

    /// A node that probes one backend.
    private struct Site {
        let node: Node
        let admin: String

        init(_ backend: Place, _ name: String?) throws {
            let folder = try TemporaryFolder()
            admin = "\(folder.path)/admin.sock"
            let entry = Place("::1", try FreePort.take())
            node = try Node(
                ConfigText(
                    settings: ["admin unix:\(admin)"], tlsListeners: [entry], backend: "round_robin, health web",
                    routes: [RouteText(host: "app.example.com", id: "rt", port: entry.port, backends: [backend])],
                    more: """

                        health web {
                            probe     tls\(name.map { " sni \($0)" } ?? "")
                            interval  300ms jitter 10%
                            timeout   300ms
                            rise      1
                            fall      2
                        }

                        """
                ).description, folder: folder)
        }

        func probed(_ what: String, _ isReached: (String) -> Bool) throws -> String {
            try awaitValue("a probe that is \(what)") {
                let rows = try (Admin.json(["backends"], admin)["backends"] as? [[String: Any]]).unwrap("backends")
                let probe = try (rows.first?["probe"] as? String).unwrap("probe")
                return isReached(probe) ? probe : nil
            }
        }
    }
}
