import FilterCatalog
import Glibc
import Pipeline
import Testing

@testable import PipelineLanguage

/// `include GLOB`: several files, one program.
@Suite struct IncludeTests {
    static let pipeline = "pipeline raw {\n    anti_spoof  refuse others\n    backend     round_robin\n}\n"

    /// Compiles `main` of these files, whose names are paths; "!" in front of a text: it can't be read, and why.
    static func compiled(_ files: [String: String], main: String = "etc/edge.pipeline") -> Compilation {
        let read = { (path: String) throws(UnreadableFile) -> [UInt8] in
            guard let text = files[path] else {
                throw UnreadableFile(path: path, problem: "no such file", remedy: "check the path")
            }
            guard !text.hasPrefix("!") else {
                throw UnreadableFile(path: path, problem: String(text.dropFirst()), remedy: "name a file in it")
            }
            return Array(text.utf8)
        }
        let includes = ConfigFiles(
            match: { pattern, directory throws(UnreadableFile) in
                files.keys.filter { fnmatch(directory + pattern, $0, FNM_PATHNAME | FNM_PERIOD) == 0 }
            },
            // As a link is the file that it leads to.
            identity: { $0 == "etc/alias" ? "etc/a" : $0 }, read: read)
        return compile(
            Array((files[main] ?? "").utf8), file: main, catalog: catalog, includes: includes, readFile: read)
    }

    private func said(_ compilation: Compilation) -> String {
        render(compilation.diagnostics, source: compilation.source)
    }

    @Test("files are read in the order of their names, byte by byte, and are one program")
    func order() throws {
        let compilation = Self.compiled([
            "etc/edge.pipeline": "include conf.d/*.pipeline\n\(Self.pipeline)",
            "etc/conf.d/10-a.pipeline": "listen [::]:1010 tcp_raw via raw\n",
            "etc/conf.d/9-b.pipeline": "listen [::]:9 tcp_raw via raw\n",
            "etc/conf.d/A.pipeline": "listen [::]:65 tcp_raw via raw\n",
            "etc/conf.d/a.pipeline": "listen [::]:97 tcp_raw via raw",
            "etc/conf.d/.hidden.pipeline": "nonsense\n", "etc/conf.d/a.pipeline~": "nonsense\n",
        ])
        #expect(said(compilation) == "")
        let program = try #require(compilation.program)
        #expect(program.listeners.map(\.endpoint.port) == [1010, 9, 65, 97])
        #expect(
            compilation.source.files == [
                "etc/edge.pipeline", "etc/conf.d/10-a.pipeline", "etc/conf.d/9-b.pipeline", "etc/conf.d/A.pipeline",
                "etc/conf.d/a.pipeline",
            ])
        #expect(program.listeners[1].line.description == "etc/conf.d/9-b.pipeline:1")
        #expect(program.chains[0].stages[0].line.description == "line 3")
        let printed = describe(program, from: compilation)
        #expect(printed.hasPrefix("# etc/edge.pipeline\n# etc/conf.d/10-a.pipeline\n"))
        #expect(printed.contains("listen [::]:97 tcp_raw via raw  # etc/conf.d/a.pipeline:1\n"))
        #expect(printed.contains("pipeline raw\n"))
    }

    @Test("a diagnostic has its file, line, column and excerpt, also where the two places are in two files")
    func places() {
        let compilation = Self.compiled([
            "etc/edge.pipeline": "include parts/raw.pipeline\n\nlisten [::]:1 tcp_raw via raw\n",
            "etc/parts/raw.pipeline": "\(Self.pipeline)listen [::]:1 tcp_raw via raw\nlisten [::]:2 tcp_raw via rau\n",
        ])
        #expect(
            said(compilation) == """
                etc/edge.pipeline:3:8: error: `listen [::]:1` is given twice
                   3 | listen [::]:1 tcp_raw via raw
                     |        ^~~~~~
                     = help: remove one of them
                etc/parts/raw.pipeline:5:8: note: the first is here
                   5 | listen [::]:1 tcp_raw via raw
                     |        ^~~~~~
                etc/parts/raw.pipeline:6:27: error: no pipeline is named `rau`
                   6 | listen [::]:2 tcp_raw via rau
                     |                           ^~~
                     = help: did you mean `raw`?

                """)
        let json = renderJSON(compilation.diagnostics, source: compilation.source)
        #expect(json.contains("\"file\":\"etc/parts/raw.pipeline\",\"line\":6,\"column\":27"), "\(json)")
        #expect(json.hasPrefix("{\"file\":\"etc/edge.pipeline\""))
    }

    @Test("the end of one file is not the beginning of the next: places at both, without a line break, are right")
    func ends() {
        let compilation = Self.compiled([
            "etc/edge.pipeline": "include a\nlisten",
            "etc/a": "include b\nexpose", "etc/b": "routes",
        ])
        let places = compilation.diagnostics.map { diagnostic in
            let place = compilation.source.position(of: diagnostic.span.start)
            return "\(compilation.source.file(of: diagnostic.span.start)):\(place.line):\(place.column)"
        }
        #expect(places == ["etc/edge.pipeline:2:7", "etc/a:2:7", "etc/b:1:7"])
    }

    @Test("a relative path starts at the folder of the file that says it, for includes, sets and routes alike")
    func relative() throws {
        let compilation = Self.compiled([
            "etc/edge.pipeline": "include sub/tenant.pipeline\n\(Self.pipeline)listen [::]:1 tcp_raw via raw\n",
            "etc/sub/tenant.pipeline": "include deeper/sets.pipeline\nroutes file routes.json\n",
            "etc/sub/deeper/sets.pipeline": "set blocked file blocked.txt\n",
            "etc/sub/deeper/blocked.txt": "192.0.2.0/24\n",
        ])
        #expect(compilation.diagnostics.map(\.message) == ["nothing uses the set `blocked`"])
        let routes = try #require(compilation.routesFile)
        let path = configPath(routes.value, from: compilation.source.file(of: routes.span.start))
        #expect(path == "etc/sub/routes.json")
        #expect(configPath("/abs", from: "etc/x") == "/abs" && configPath("rel", from: "x") == "rel")
    }

    @Test("a file that includes itself, by whichever way, is refused with the whole chain")
    func cycles() {
        let alias = Self.compiled(["etc/edge.pipeline": "include a\n", "etc/a": "include alias\n", "etc/alias": ""])
        #expect(
            said(alias).hasPrefix("etc/a:1:9: error: an include cycle: `etc/a` includes `etc/alias`\n"),
            "\(said(alias))")
        let direct = Self.compiled(["etc/edge.pipeline": "include *.pipeline\n"])
        #expect(
            said(direct).hasPrefix(
                "etc/edge.pipeline:1:9: error: an include cycle: `etc/edge.pipeline` includes `etc/edge.pipeline`\n"))
        #expect(said(direct).contains("help: narrow the pattern"))
        let round = Self.compiled([
            "etc/edge.pipeline": "include a\n", "etc/a": "include b\n", "etc/b": "include c\n", "etc/c": "include a\n",
        ])
        #expect(
            said(round).hasPrefix(
                "etc/c:1:9: error: an include cycle: `etc/a` includes `etc/b` includes `etc/c` includes `etc/a`\n"))
    }

    @Test("a file is included once: its definitions would all be there twice")
    func twice() {
        let compilation = Self.compiled([
            "etc/edge.pipeline": "include a\ninclude [ab]\n", "etc/a": Self.pipeline, "etc/b": "",
        ])
        #expect(
            said(compilation) == """
                etc/edge.pipeline:2:9: error: etc/a is included twice
                   2 | include [ab]
                     |         ^~~~
                     = help: remove one of them
                etc/edge.pipeline:1:9: note: the first is here
                   1 | include a
                     |         ^

                """)
    }

    @Test("a pattern that matches nothing is fine, and a note; a path that is not there is an error")
    func absent() {
        let compilation = Self.compiled([
            "etc/edge.pipeline": "\(Self.pipeline)listen [::]:1 tcp_raw via raw\ninclude conf.d/*.pipeline\n"
        ])
        #expect(compilation.program != nil)
        #expect(compilation.diagnostics.map(\.severity) == [.note])
        #expect(compilation.diagnostics.map(\.message) == ["no file matches `conf.d/*.pipeline`"])
        let missing = Self.compiled(["etc/edge.pipeline": "include conf.d/a.pipeline\n"])
        #expect(
            said(missing) == """
                etc/edge.pipeline:1:9: error: can't include etc/conf.d/a.pipeline: no such file
                   1 | include conf.d/a.pipeline
                     |         ^~~~~~~~~~~~~~~~~
                     = help: check the path

                """)
        let folder = Self.compiled(["etc/edge.pipeline": "include d*\n", "etc/d1": "!it is a directory"])
        #expect(folder.diagnostics.map(\.message) == ["can't include etc/d1: it is a directory"])
    }

    @Test("R27: depth, number and size are bounded")
    func bounds() {
        var deep: [String: String] = ["etc/edge.pipeline": "include 1\n"]
        for level in 1...20 { deep["etc/\(level)"] = "include \(level + 1)\n" }
        let tooDeep = Self.compiled(deep)
        #expect(tooDeep.diagnostics.map(\.message) == ["files include files more than 8 deep"])
        #expect(tooDeep.source.file(of: tooDeep.diagnostics[0].span.start) == "etc/8")
        #expect(tooDeep.diagnostics[0].help[0].contains("etc/edge.pipeline includes etc/1 includes"))

        var many: [String: String] = ["etc/edge.pipeline": "include m*\n"]
        for number in 0..<1100 { many["etc/m\(number)"] = "# \(number)\n" }
        let tooMany = Self.compiled(many)
        #expect(tooMany.diagnostics.map(\.message).first == "more than 1024 files are included")
        #expect(tooMany.diagnostics.count == 1)

        let large = String(repeating: "# 345678\n", count: SourceText.limit / 9)
        var heavy: [String: String] = ["etc/edge.pipeline": "include h*\n"]
        for number in 0..<10 { heavy["etc/h\(number)"] = large }
        #expect(
            Self.compiled(heavy).diagnostics.map(\.message) == [
                "the config and what it includes have more than 32MiB together"
            ])
        let lines = Self.compiled(["etc/edge.pipeline": String(repeating: "include none/*\n", count: 2000)])
        #expect(lines.diagnostics.filter { $0.severity == .error }.map(\.message) == ["more than 1024 `include` lines"])
        let one = Self.compiled(["etc/edge.pipeline": "include big\n", "etc/big": large + large])
        #expect(one.diagnostics.map(\.message) == ["etc/big has \(large.utf8.count * 2) bytes; the limit is 4MiB"])
    }

    @Test(
        "bad lines",
        arguments: [
            ("include\n", "`include` is not complete"), ("include a b\n", "unexpected `b`"),
            ("include a, b\n", "`include` takes no `,`"), ("include \"\"\n", "the path is empty or too long"),
            ("include a {\n}\n", "`include` takes no block"),
            ("node n {\n    include a\n}\n", "`include` has no place in a block"),
            ("pipeline p {\n    include a\n}\n", "`include` has no place in a block"),
            ("include bytes\n", "these bytes are not UTF-8"), ("includes a\n", "unknown keyword `includes`"),
        ])
    func bad(_ text: String, _ message: String) {
        let includes = ConfigFiles(
            match: { _, _ in [] }, identity: { $0 }, read: { _ in [0x23, 0xFF] })
        let compilation = compile(Array(text.utf8), file: "x", catalog: catalog, includes: includes)
        #expect(compilation.program == nil)
        #expect(compilation.diagnostics.first?.message == message)
    }

    @Test("without files, nothing is read; the formatter leaves the line, and looks at no other file")
    func formatted() {
        let text = "include   conf.d/*.pipeline   # all tenants\nlisten [::]:1   tcp_raw via raw\n"
        let none = compile(Array(text.utf8), file: "x", catalog: catalog)
        #expect(none.diagnostics.first?.message == "can't include conf.d/*.pipeline: files can't be read here")
        #expect(
            format(Array(text.utf8), file: "x", catalog: catalog).formatted
                == "include conf.d/*.pipeline  # all tenants\nlisten [::]:1  tcp_raw  via raw\n")
    }

    @Test("a config of included files alone compiles as it would in one file")
    func same() throws {
        let parts = [
            "set s { 192.0.2.0/24 }\n", "limit l {\n key client/64\n rate 1/s\n table 1k\n}\n",
            "pipeline p {\n address deny @s\n rate_limit l\n backend round_robin\n}\n", "listen [::]:1 tcp_raw via p\n",
            "route {\n id r\n owner a/b/c\n listen 1\n backend [fd00::1]:1\n}\n",
        ]
        var files = ["etc/edge.pipeline": "include p*\n"]
        for (number, part) in parts.enumerated() { files["etc/p\(number)"] = part }
        let apart = Self.compiled(files)
        let whole = compile(Array(parts.joined().utf8), file: "x", catalog: catalog)
        let (one, other) = (try #require(apart.program), try #require(whole.program))
        #expect(describe(one) == describe(other))
        #expect(apart.routes.map(\.id.value) == ["r"])
    }
}
