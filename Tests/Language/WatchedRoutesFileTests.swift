import Pipeline
import PipelineLanguage
import Testing

@Suite("`routes file PATH watch`") struct WatchedRoutesFileTests {
    private func compiled(_ line: String) -> Compilation {
        compile(Array("\(line)\n".utf8), file: "a.pipeline", catalog: fakes)
    }

    @Test("with the word it is watched, without it is not")
    func word() {
        let watched = compiled("routes file a.json watch")
        #expect(watched.watchesRoutes && watched.routesFile?.value == "a.json" && !watched.hasErrors)
        let read = compiled("routes file a.json")
        #expect(!read.watchesRoutes && read.routesFile?.value == "a.json" && !read.hasErrors)
        // A file may be called so.
        let named = compiled("routes file watch")
        #expect(!named.watchesRoutes && named.routesFile?.value == "watch")
    }

    @Test(
        "any other word, or more, is an error that says what may stand there",
        arguments: [
            ("routes file a.json wacth", "unexpected `wacth`", "`watch`, or the end of the line"),
            ("routes file a.json b.json", "unexpected `b.json`", "`watch`, or the end of the line"),
            ("routes file a.json watch watch", "unexpected `watch`", "the end of the line"),
            ("routes push watch", "unexpected `watch`", "the end of the line"),
        ])
    func wrong(_ line: String, _ message: String, _ expected: String) throws {
        let error = try #require(compiled(line).diagnostics.first { $0.severity == .error })
        #expect(error.message == message && error.expected == expected, "\(error)")
        #expect(!compiled(line).watchesRoutes)
    }
}
