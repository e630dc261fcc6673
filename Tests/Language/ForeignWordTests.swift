import FilterCatalog
import Pipeline
import Testing

@testable import PipelineLanguage

/// Whoever comes from another proxy gets the word that is meant here.
@Suite struct ForeignWordTests {
    /// What the errors advise.
    private func help(_ text: String) -> [String] {
        let compilation = compile(Array(text.utf8), file: "x", catalog: catalog)
        return compilation.diagnostics.filter { $0.severity == .error }.flatMap(\.help)
    }

    private func advises(_ text: String, _ words: String) -> Bool { help(text).contains { $0.contains(words) } }

    @Test(
        "balances",
        arguments: [
            ("leastconn", "least_connections"), ("roundrobin", "round_robin"), ("ip_hash", "consistent_hash"),
            ("random", "random_of_two"),
        ])
    func balances(theirs: String, ours: String) {
        #expect(help("pipeline a {\n    backend  \(theirs)\n}\n").contains("write `\(ours)`"))
        #expect(help("route {\n    balance  \(theirs)\n}\n").contains("write `\(ours)`"))
    }

    @Test("`balance source` is a balance; the clause `source` is an address")
    func source() {
        #expect(help("route {\n    balance  source\n}\n").contains("write `consistent_hash`"))
        let compilation = compile(Array("pipeline a {\n    backend  source\n}\n".utf8), file: "x", catalog: catalog)
        #expect(compilation.diagnostics.contains { $0.expected?.contains("an address") == true })
    }

    @Test(
        "places and settings",
        arguments: [
            ("frontend web {\n}\n", "write `listen`"), ("global {\n}\n", "write `node`"),
            ("node a {\n    nbthread 4\n}\n", "write `workers`"),
            ("health a {\n    inter 2s\n}\n", "write `interval`"),
            ("route {\n    server [::1]:80\n}\n", "write `backend`"),
            ("route {\n    maxconn 80\n}\n", "write `max_connections`"),
            ("backend web {\n}\n", "write `backends`"), ("upstream web {\n}\n", "write `backends`"),
            ("route {\n    use_backend web\n}\n", "write `backends`"),
            ("backends web {\n    server [::1]:80\n}\n", "write `backend`"),
            ("listen [::]:80 tcp via a\n", "write `tcp_raw`"),
            ("listen [::]:443 tls via a\n", "write `tls_passthrough`"),
            ("pipeline a {\n    limit_conn x\n}\n", "write `rate_limit`"),
            ("pipeline a {\n    ssl_preread on\n}\n", "write `sni`"),
            ("state /etc/routes.json\n", "write `routes`"), ("map names {\n}\n", "write `route file PATH`"),
        ])
    func places(text: String, ours: String) { #expect(help(text).contains(ours), "\(help(text))") }

    @Test("a word that is something of several filters gets the advice of each; a name that a config makes gets none")
    func ofSeveral() {
        #expect(
            help("pipeline a {\n    tcp-request x\n}\n").contains(
                "for rules about addresses add an `address` stage; for a deadline of the first bytes write `sni timeout 3s`"
            ))
        #expect(help("pipeline http {\n    backend\n}\nlisten [::]:80 tcp_raw via https\n") == ["did you mean `http`?"])
        #expect(
            !help("route {\n    balance nothing_like_it\n}\n").contains {
                $0.contains("write `") && $0.contains("robin")
            })
    }

    @Test("without its filter a word of another proxy's means nothing")
    func withoutFilter() {
        let rest = catalog.filter { $0.descriptor.keyword != "rate_limit" }
        #expect(ForeignWords(catalog).meanings["limit_conn"] != nil && ForeignWords(rest).meanings["limit_conn"] == nil)
    }

    @Test("what is not here says so")
    func absent() {
        #expect(advises("listen [::]:80 http via a\n", "the relay reads no HTTP"))
        #expect(advises("pipeline a {\n    backup\n}\n", "`backup` follows the address of a backend"))
        #expect(advises("route {\n    backend [::1]:80 check\n}\n", "probes are set in a `health` block"))
        for text in ["node a {\n    timeout client 30s\n}\n", "node a {\n    idle_timeout 30s\n}\n"] {
            #expect(advises(text, "idle_timeout 5m"))
        }
        #expect(advises("node a {\n    maxconn 4\n}\n", "write `connections 1000 per worker`"))
        #expect(advises("pipeline a {\n    tcp-request inspect-delay 5s\n}\n", "`sni timeout 3s`"))
        #expect(advises("mode tcp\n", "a `listen` line says"))
    }
}
