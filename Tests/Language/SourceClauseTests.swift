import FilterCatalog
import Pipeline
import Testing

@testable import PipelineLanguage

/// `source` of the `backend` stage, compiled with the filters of this build.
@Suite("The clause `source`")
struct SourceClauseTests {
    private func compiled(_ backend: String, more: String = "") -> Compilation {
        let text = "pipeline raw {\n    backend  \(backend)\n}\nlisten [::]:25000 tcp_raw via raw\n\(more)"
        return compile(Array(text.utf8), file: "x", catalog: catalog)
    }

    private func said(_ backend: String) -> String {
        let compilation = compiled(backend)
        return render(compilation.diagnostics, source: compilation.source)
    }

    @Test("addresses among other clauses, and `client` with a note of what it takes")
    func fine() throws {
        let program = try #require(compiled("round_robin, source 192.0.2.10 2001:db8::/126, slow_start 30s").program)
        #expect(program.sources.map(\.configText) == ["192.0.2.10 2001:db8::/126"])
        #expect(!program.connectsAsClients)
        let client = compiled("source client")
        #expect(client.program?.sources == [.client] && client.program?.connectsAsClients == true)
        let notes = client.diagnostics.filter { $0.severity == .note }.map(\.message)
        #expect(notes.contains { $0.contains("must come back to this host's sockets") }, "\(notes)")
    }

    @Test("a route's and a block's are known to the program, each once")
    func ofRoutes() throws {
        let more = """
            backends web {
                backend  192.0.2.80:80
                source   192.0.2.10
            }
            route {
                id        rt
                owner     acme/shop/prod
                listen    25000
                backends  web
                source    client
            }
            """
        let program = try #require(compiled("source 192.0.2.10", more: more).program)
        #expect(program.sources.map(\.configText) == ["192.0.2.10", "client"])
        #expect(program.connectsAsClients)
    }

    @Test("a backend of a family that the stage has no address of is a warning, unless its route says")
    func families() {
        func warnings(_ more: String) -> [String] {
            let route = """
                route {
                    id        rt
                    owner     acme/shop/prod
                    listen    25000
                    backend   [fd00::1]:80 db.internal:80 unix:/run/a.sock
                    \(more)
                }
                """
            let said = compiled("source 192.0.2.10", more: route).diagnostics
            return said.filter { $0.severity == .warning }.map(\.message)
        }
        #expect(warnings("").contains { $0.contains("`raw` has no IPv6 address: connections to [fd00::1]:80 are") })
        #expect(warnings("source fd00::9") == [] && warnings("source off") == [] && warnings("source client") == [])
    }

    @Test(
        "what is wrong is said at its word, with what to write",
        arguments: [
            ("source", "`client`"), ("source 192.0.2.1/24", "write `192.0.2.0/24`"),
            ("source 192.0.2.1 usesrc clientip", "write `source client`"),
            ("source 192.0.2.1, source client", "write addresses or `client`"),
            ("source 10.0.0.0/24 10.0.0.9", "has 10.0.0.9 twice"), ("source 10.0.0.0/8", "more than 4096 addresses"),
            ("source fe80::1", "nothing can be sent from fe80::1"), ("source off", "is not an address"),
        ])
    func wrong(backend: String, words: String) {
        let text = said(backend)
        #expect(text.contains("error: ") && text.contains(words), "\(text)")
    }

    @Test("whoever comes from nginx or HAProxy gets the word", arguments: ["proxy_bind 192.0.2.1", "usesrc clientip"])
    func foreign(line: String) {
        let text = "route {\n    id rt\n    owner a/b/c\n    listen 25000\n    backend [fd00::1]:80\n    \(line)\n}\n"
        let compilation = compile(Array(text.utf8), file: "x", catalog: catalog)
        let help = compilation.diagnostics.flatMap(\.help)
        #expect(help.contains { $0.contains("`source`") || $0.contains("`source client`") }, "\(help)")
    }
}
