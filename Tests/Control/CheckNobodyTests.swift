import Foundation
import PipelineNode
import Testing

@Suite("R5: `check` lists what is served for nobody at a first start") struct CheckNobodyTests {
    private static let config = """
        pipeline tls {
            sni      timeout 3s, max 16KiB
            backend  round_robin
        }
        pipeline raw {
            backend  round_robin
        }
        listen [::]:443   tls_passthrough  via tls
        listen [::]:5432  tcp_raw          via raw
        routes file state.json
        """

    private func check(_ routes: [String], names: [String] = []) -> LoadedConfig {
        let envs = ["a", "b", "c"].map { "{\"env_id\":\"\($0)\",\"app_id\":\"x\",\"org_id\":\"o\"}" }
        let document = """
            {"format":"pipelined.state/1","envs":[\(envs.joined(separator: ","))],"instances":[],
             "routes":[\(routes.joined(separator: ","))],"hostnames":[\(names.joined(separator: ","))]}
            """
        return ConfigLoader.check(Array(Self.config.utf8), file: "edge.pipeline") { _ in Array(document.utf8) }
    }

    private func route(_ id: String, _ env: String, _ name: String?) -> String {
        let (port, hint) = name == nil ? (5432, "tcp_raw") : (443, "tls_passthrough")
        let host = name.map { "\"\($0)\"" } ?? "null"
        return "{\"route_id\":\"\(id)\",\"env_id\":\"\(env)\",\"hostname\":\(host),\"listen_port\":\(port),"
            + "\"protocol_hint\":\"\(hint)\",\"backend_process_type\":\"w\",\"backend_port\":1}"
    }

    private func nobody(_ loaded: LoadedConfig) -> [String] {
        loaded.diagnostics.map(\.message).filter { $0.contains("served for nobody") }
    }

    @Test("names that two envs ask for, a name under another's wildcard, a port; with an entry they are served")
    func listed() throws {
        let routes = [
            route("1", "a", "one.example"), route("2", "b", "one.example"), route("3", "a", "mine.example"),
            route("4", "b", "x.wild.example"), route("5", "c", "*.wild.example"), route("6", "a", nil),
            route("7", "b", nil),
        ]
        let loaded = check(routes)
        #expect(loaded.node != nil, "\(loaded.diagnosticText)")
        let texts = nobody(loaded)
        #expect(
            texts.map { $0.split(separator: " is served").first ?? "" }
                == ["*.wild.example", "one.example", "port 5432", "x.wild.example"])
        #expect(
            texts.contains { $0.contains("one.example is served for nobody at a first start: o/x/a, o/x/b ask for it") }
        )
        // Each is left out by the same code.
        #expect(loaded.leftOut == 6)
        let entries = ["one.example", "x.wild.example"].map { "{\"hostname\":\"\($0)\",\"env_id\":\"b\"}" }
        #expect(nobody(check(routes, names: entries)).map { $0.prefix(9) } == ["port 5432"])
    }

    @Test("nothing is listed where nobody clashes, nor what one env has twice") func none() {
        #expect(nobody(check([route("1", "a", "one.example"), route("2", "b", "two.example")])).isEmpty)
        #expect(nobody(check([route("1", "a", "one.example"), route("2", "a", "one.example")])).isEmpty)
    }
}
