import FilterCatalog
import Pipeline
import PipelineLanguage
import Testing

/// `route file PATH`: names and their backends from a file.
@Suite struct RouteFileTests {
    private let rest =
        "pipeline p {\n    sni  timeout 3s\n    backend round_robin\n}\nlisten [::]:443 tls_passthrough via p\n"
        + "backends web { backend [fd00::1]:80 }\nbackends api { backend [fd00::2]:80 }\n"
    private let route = "route file sni.map {\n    id rt_map\n    owner acme/shop/prod\n    listen 443 8443\n}\n"

    private func compiled(_ map: String, head: String? = nil) -> Compilation {
        compile(Array(((head ?? route) + rest).utf8), file: "x", catalog: catalog) { path throws(UnreadableFile) in
            guard path == "sni.map" else {
                throw UnreadableFile(path: "/etc/\(path)", problem: "no such file", remedy: "check the path")
            }
            return Array(map.utf8)
        }
    }

    @Test("lines, comments, blanks; every name with its block and line, at every port")
    func lines() throws {
        let map = "\u{FEFF}# all\r\na.example.com  web # one\r\n\r\n\t*.b.example.com\tapi\n.c.example.com api"
        let compilation = compiled(map)
        #expect(render(compilation.diagnostics, source: compilation.source) == "")
        let block = try #require(compilation.routes.first)
        #expect(block.claimCount == 6)
        let claims = (0..<6).map(block.claim)
        #expect(
            claims.map(\.hostname) == [
                "a.example.com", "a.example.com", "*.b.example.com", "*.b.example.com", ".c.example.com",
                ".c.example.com",
            ])
        #expect(claims.map(\.port.value) == [443, 8443, 443, 8443, 443, 8443])
        #expect(claims.map { $0.group?.name.value } == ["web", "web", "api", "api", "api", "api"])
        #expect(claims.map(\.line) == [2, 2, 4, 4, 5, 5])
        #expect(block.hint == .tlsPassthrough)
        let shown = describe(compilation)
        #expect(shown.contains("route file sni.map\n    id rt_map\n"), "\(shown)")
        #expect(shown.contains("    # 3 names; backends: web api\n"), "\(shown)")
    }

    @Test("what is wrong has the file's line and a remedy, and stands at the path")
    func wrong() {
        let compilation = compiled("a.example.com\nb.example.com wbe\nc.example.com web now\nd.example.com web\n")
        #expect(
            compilation.diagnostics.map(\.message) == [
                "sni.map:1: `a.example.com` has no backends", "sni.map:2: no backends block is named `wbe`",
                "sni.map:3: unexpected `now`",
            ])
        #expect(compilation.diagnostics[1].help == ["did you mean `web`?"])
        #expect(compilation.diagnostics.allSatisfy { $0.span == SourceSpan(11, 18) })
        #expect(compilation.program == nil)
        let fallback = compiled("a.example.com web\ndefault web\n")
        #expect(
            fallback.diagnostics.first?.message
                == "sni.map:2: `default` is no name of a map: a name that no line has is refused")
        let far = compiled("a.example.com something_else\n")
        #expect(far.diagnostics.first?.help == ["add `backends something_else { ... }` to the config"])
    }

    @Test("R27: twenty wrong lines are shown, of others the number")
    func many() {
        let compilation = compiled(String(repeating: "x\n", count: 1000))
        #expect(compilation.diagnostics.count == 21)
        #expect(compilation.diagnostics.last?.message == "sni.map: 980 more lines are wrong")
    }

    @Test("an unreadable file is an error at its place; an empty one is said, and so are its unused blocks")
    func unreadable() {
        let missing = compiled("", head: route.replacing("sni.map", with: "other.map"))
        #expect(missing.diagnostics.map(\.message) == ["can't read /etc/other.map: no such file"])
        let empty = compiled("# nothing\n")
        #expect(empty.diagnostics.map(\.severity) == [.note, .warning, .warning])
        #expect(empty.program != nil)
    }

    @Test(
        "what the blocks say has no place in the route",
        arguments: ["backends web", "backend [fd00::1]:80", "balance round_robin", "proxy_protocol v2"])
    func fields(_ line: String) {
        let compilation = compiled(
            "a.example.com web\nb.example.com api\n", head: route.replacing("id", with: "\(line)\n id"))
        #expect(compilation.diagnostics.count == 1)
        #expect(compilation.diagnostics.first?.message.contains("has no place in `route file`") == true)
    }

    @Test("R27: every prefix and every changed byte of a map is read or refused by line")
    func mutations() {
        let map = Array("a.example.com web\n# c\n*.b.example.com\tapi\n.c.example.com api # d\n".utf8)
        var random = SplitMix64(seed: 5)
        for round in 0..<400 {
            var bytes = round < map.count ? Array(map.prefix(round)) : map
            if round >= map.count {
                bytes[Int.random(in: bytes.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            let compilation = compile(Array((route + rest).utf8), file: "x", catalog: catalog) { _ in bytes }
            #expect((compilation.program != nil) == !compilation.hasErrors)
            for problem in compilation.diagnostics where problem.severity == .error {
                #expect(problem.message.hasPrefix("sni.map:"), "\(problem.message)")
            }
        }
    }

    @Test("it is formatted as it stands")
    func formatting() {
        let text = "route file \"a b.map\" {\n    id      rt\n    owner   o/a/e\n    listen  443\n}\n"
        #expect(format(Array(text.utf8), file: "x", catalog: catalog).formatted == text)
    }
}
