import FilterCatalog
import Pipeline
import PipelineLanguage
import Testing

/// Sets and names from files.
@Suite struct ListFileTests {
    private let rest =
        "pipeline p {\n    address  deny @s\n    sni  timeout 3s, deny names n\n    backend round_robin\n}\n"
        + "listen [::]:443 tls_passthrough via p\n"

    private func compiled(
        set: String = "192.0.2.0/24\n", names: String = "a.example\n",
        head: String = "set s file s.txt\nnames n file n.txt\n"
    ) -> Compilation {
        compile(Array((head + rest).utf8), file: "x", catalog: catalog) { path throws(UnreadableFile) in
            switch path {
            case "s.txt": Array(set.utf8)
            case "n.txt": Array(names.utf8)
            default: throw UnreadableFile(path: "/etc/\(path)", problem: "no such file", remedy: "check the path")
            }
        }
    }

    @Test("comments, blank lines, spaces, CRLF, a byte order mark and a last line without its break are fine")
    func tolerant() {
        let compilation = compiled(
            set: "\u{FEFF}# list\r\n\r\n 192.0.2.0/24 # a\r\n\t2001:db8::/32\n\n10.0.0.0/8",
            names: "# list\r\nA.example\r\n  *.b.example\n.c.example # all\n")
        #expect(render(compilation.diagnostics, source: compilation.source) == "")
        #expect(compilation.program != nil)
    }

    @Test("what is wrong has the file's line, and stands at the path")
    func lines() {
        let compilation = compiled(set: "192.0.2.0/24\n# x\n10.0.0.1/8\nnonsense\n", names: "a..b\nok.example\n1.2.3.4")
        #expect(
            compilation.diagnostics.map(\.message) == [
                "s.txt:3: `10.0.0.1/8` has bits set beyond its length", "s.txt:4: `nonsense` is not a prefix",
                "n.txt:1: `a..b` is not a hostname", "n.txt:3: `1.2.3.4` is not a hostname",
            ])
        #expect(
            compilation.diagnostics.map(\.span) == [
                SourceSpan(11, 16), SourceSpan(11, 16), SourceSpan(30, 35), SourceSpan(30, 35),
            ])
        #expect(compilation.program == nil)
    }

    @Test("R27: twenty wrong lines are shown, of others the number")
    func many() {
        let compilation = compiled(set: String(repeating: "x\n", count: 1000))
        #expect(compilation.diagnostics.count == 21)
        #expect(compilation.diagnostics.last?.message == "s.txt: 980 more lines are wrong")
    }

    @Test("an unreadable file is an error at its place, an empty one is said")
    func unreadable() {
        let missing = compiled(head: "set s file other.txt\nnames n file n.txt\n")
        #expect(missing.diagnostics.map(\.message) == ["can't read /etc/other.txt: no such file"])
        #expect(missing.program == nil)
        let empty = compiled(set: "# nothing\n", names: "\n")
        #expect(empty.diagnostics.map(\.severity) == [.note, .note])
        #expect(empty.program != nil)
    }

    @Test(
        "a path is one word",
        arguments: ["set s file", "set s file a b", "set s file \"\"", "set s", "set s fil a", "set s file a {}"])
    func form(_ line: String) {
        #expect(compiled(head: line + "\nnames n file n.txt\n").hasErrors)
    }

    @Test("it is formatted as it stands")
    func formatting() {
        let text = "set s file \"a b.txt\"\n\nnames n file n.txt\n"
        #expect(format(Array(text.utf8), file: "x", catalog: catalog).formatted == text)
    }
}
