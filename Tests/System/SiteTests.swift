import Foundation
import Testing

/// A site by its config file: groups, several names and ports, names from a file (R4, R5, R11).
@Suite("A site of names and groups, by a running node")
struct SiteTests {
    private func ask(_ host: String, _ entry: Place) throws -> (answer: String, ending: Ending) {
        let client = try Socket.connect(to: entry)
        try client.send(clientHello(host))
        let (bytes, ending) = try client.receiveToEnd()
        client.finish()
        return (String(decoding: bytes, as: UTF8.self), ending)
    }

    @Test("several names and ports of one route: one id, one limit, one set of counts")
    func names() throws {
        let server = try Server.saying("web")
        let (one, two) = (Place("::1", try FreePort.take()), Place("::1", try FreePort.take()))
        let folder = try TemporaryFolder()
        let admin = folder.path + "/admin.sock"
        let text = ConfigText(
            settings: ["admin unix:\(admin)"], tlsListeners: [one, two],
            more: """
                route a.example.com *.b.example.com .c.example.com {
                    id       rt_web
                    owner    acme/shop/prod
                    listen   \(one.port) \(two.port)
                    backend  \(server.place)
                }
                """
        ).description
        let node = try Node(text, folder: folder)
        for entry in [one, two] {
            for host in ["a.example.com", "x.b.example.com", "c.example.com", "y.x.c.example.com"] {
                #expect(try ask(host, entry).answer == "web", "\(host) at \(entry)")
            }
            for host in ["b.example.com", "y.x.b.example.com", "d.example.com"] {
                #expect(try ask(host, entry).ending == .reset, "\(host) at \(entry)")
            }
        }
        let lines = try node.logs(14)
        #expect(lines.values.filter { $0.route == "rt_web" }.count == 8)
        #expect(lines.values.filter { $0.reason == "backend.no_route client" }.count == 6)
        let backends = try (Admin.json(["backends"], admin)["backends"] as? [[String: Any]]).unwrap("backends")
        #expect(backends.count == 1 && backends[0]["routes_count"] as? Int == 1, "\(backends)")
        #expect(backends[0]["routes"] as? [String] == ["rt_web"] && backends[0]["status"] as? String == "ready")
        let shown = try Binary.run(["check", "--print", node.config])
        #expect(shown.out.contains("route a.example.com *.b.example.com .c.example.com\n    id rt_web\n"), "\(shown)")
        let explained = try Binary.run([
            "explain", node.config, "--to", "\(two)", "--from", "[2001:db8::1]:40000", "--sni", "q.c.example.com",
        ])
        #expect(explained.out.contains("rt_web"))
    }

    @Test("route file: each name goes to its group; a reload reads the file again; a wrong line changes nothing")
    func file() throws {
        let (web, api) = (try Server.saying("web"), try Server.saying("api"))
        let entry = Place("::1", try FreePort.take())
        let folder = try TemporaryFolder()
        _ = try folder.write("sni.map", "a.example.com web\nb.example.com api\n*.example.net api\n")
        let text = ConfigText(
            tlsListeners: [entry],
            more: """
                backends web { backend \(web.place) }
                backends api { backend \(api.place) }
                route file sni.map {
                    id      rt_site
                    owner   acme/shop/prod
                    listen  \(entry.port)
                }
                """
        ).description
        let node = try Node(text, folder: folder)
        #expect(try ask("a.example.com", entry).answer == "web")
        #expect(try ask("b.example.com", entry).answer == "api")
        #expect(try ask("x.example.net", entry).answer == "api")
        #expect(try ask("c.example.com", entry).ending == .reset)
        _ = try folder.write("sni.map", "a.example.com api\nc.example.com web\n")
        #expect(try node.reload(text).isEvent("reloaded"))
        #expect(try ask("a.example.com", entry).answer == "api")
        #expect(try ask("b.example.com", entry).ending == .reset)
        #expect(try ask("c.example.com", entry).answer == "web")
        _ = try folder.write("sni.map", "a.example.com web\nc..example.com web\n")
        #expect(try node.reload(text).isEvent("reload_refused"))
        #expect(try ask("a.example.com", entry).answer == "api")
        let check = try Binary.run(["check", node.config])
        #expect(check.exit == .code(1) && check.error.contains("sni.map:2: "))
    }

    @Test("R5: a name of a file that another owner's route has is an error at its line, and both owners are named")
    func owners() throws {
        let folder = try TemporaryFolder()
        _ = try folder.write("sni.map", "x.example.com web\nb.a.example.com web\n")
        let entry = Place("::1", try FreePort.take())
        let route = RouteText(
            host: ".a.example.com", id: "rt_other", port: entry.port, backends: [], more: ["backends web"])
        let config = try folder.write(
            "site.pipeline",
            ConfigText(
                tlsListeners: [entry], routes: [route],
                more: """
                    backends web { backend [fd00::1]:80 }
                    route file sni.map {
                        id      rt_site
                        owner   acme/shop/prod
                        listen  \(entry.port)
                    }
                    """
            ).description)
        let check = try Binary.run(["check", config])
        #expect(check.exit == .code(1))
        #expect(check.error.contains("sni.map:2: ") && !check.error.contains("sni.map:1: "))
        #expect(check.error.contains("acme/shop/prod") && check.error.contains("acme/rt_other/prod"))
    }
}
