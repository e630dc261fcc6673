import FilterCatalog
import Pipeline
import PipelineLanguage
import Testing

/// Words of the config that have another name now: the old one is taken, with a note that names the new one.
@Suite("Former words") struct FormerWordsTests {
    private func compiled(_ top: String) -> Compilation {
        let text = """
            \(top)
            pipeline out {
                anti_spoof  source assigned
                backend     original_destination
                account     every 5s
            }
            listen [::]:15001  transparent  via out

            """
        return compile(Array(text.utf8), file: "x", catalog: catalog)
    }

    private static let pairs: [(old: String, today: String, keyword: String)] = [
        ("hints {\n smtp 3 in 1m\n}", "alerts {\n smtp 3 in 1m\n}", "hints"),
        (
            "node n {\n spare_sockets 7 per worker\n}", "node n {\n idle_upstream_sockets 7 per worker\n}",
            "spare_sockets"
        ),
    ]

    @Test("the old word means what the new one does, and a note names the new one", arguments: pairs)
    func taken(_ pair: (old: String, today: String, keyword: String)) throws {
        let (old, today) = (compiled(pair.old), compiled(pair.today))
        let (was, now) = (try #require(old.program), try #require(today.program))
        // Lines of the file are part of it, and the same.
        #expect(describe(was) == describe(now))
        let notes = old.diagnostics.filter { $0.message.hasPrefix("`\(pair.keyword)` is called `") }
        #expect(notes.map(\.severity) == [.note])
        #expect(!today.diagnostics.contains { $0.message.contains("is called") })
    }

    @Test("both at once are the same setting twice") func twice() {
        let both = compiled("hints {\n smtp off\n}\nalerts {\n smtp 3 in 1m\n}")
        #expect(both.program == nil)
        #expect(both.diagnostics.contains { $0.message == "`alerts` is given twice" })
        let node = compiled("node n {\n spare_sockets 7 per worker\n idle_upstream_sockets 8 per worker\n}")
        #expect(node.diagnostics.contains { $0.message == "`idle_upstream_sockets` is given twice" })
    }

    @Test("an old word is never what a message offers") func messages() {
        let wrong = compiled("hint {\n smtp off\n}\nnode n {\n spare_socket 7 per worker\n}")
        #expect(!wrong.diagnostics.isEmpty)
        for diagnostic in wrong.diagnostics {
            let said = diagnostic.message + (diagnostic.expected ?? "") + diagnostic.help.joined()
            #expect(!said.contains("`hints`") && !said.contains("`spare_sockets`"), "\(said)")
        }
    }
}
