import Foundation
import Pipeline
import PipelineLanguage
import Testing

/// `Golden/NAME.pipeline` is compiled against the fake filters; `NAME.lowered` beside it is the program that comes
/// out, `NAME.diagnostics` what is said, and `NAME.formatted` what the formatter makes of it. A file that is not
/// there means: nothing comes out, or, for `formatted`, the source as it is. `PIPELINED_UPDATE_GOLDEN=1 swift test --filter LanguageTests` writes them anew.
@Suite struct GoldenTests {
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Golden")
    static let updates = ProcessInfo.processInfo.environment["PIPELINED_UPDATE_GOLDEN"] == "1"

    static let names: [String] = {
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return files.filter { $0.hasSuffix(".pipeline") }.map { String($0.dropLast(9)) }.sorted()
    }()

    @Test("the golden sources are found") func found() {
        #expect(GoldenTests.names.count >= 20)
    }

    @Test("source → program, diagnostics and formatted source", arguments: names)
    func golden(_ name: String) throws {
        let text = try source(name)
        let compilation = compile(text, file: "\(name).pipeline", catalog: fakes)
        let lowered = compilation.program.map { describe($0) + describe(compilation) }
        try compare(name, "lowered", lowered)
        let said = render(compilation.diagnostics, source: compilation.source)
        try compare(name, "diagnostics", said.isEmpty ? nil : said)
        let (formatted, _) = format(text, file: "\(name).pipeline", catalog: fakes)
        try compare(name, "formatted", formatted == String(decoding: text, as: UTF8.self) ? nil : formatted)
    }

    @Test("formatting twice is formatting once, and changes no meaning", arguments: names)
    func formatting(_ name: String) throws {
        let text = try source(name)
        guard let once = format(text, file: name, catalog: fakes).formatted else { return }
        #expect(format(Array(once.utf8), file: name, catalog: fakes).formatted == once)
        let before = compile(text, file: name, catalog: fakes)
        let after = compile(Array(once.utf8), file: name, catalog: fakes)
        #expect(before.program.map(describe) == after.program.map(describe))
        #expect(describe(before) == describe(after))
        #expect(before.diagnostics.count == after.diagnostics.count)
    }

    @Test("the JSON form says the same", arguments: names)
    func json(_ name: String) throws {
        let compilation = compile(try source(name), file: "\(name).pipeline", catalog: fakes)
        let text = renderJSON(compilation.diagnostics, source: compilation.source)
        let object = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
        let items = try #require(object["diagnostics"] as? [[String: Any]])
        #expect(items.map { $0["message"] as? String } == compilation.diagnostics.map(\.message))
        #expect(items.map { $0["expected"] as? String } == compilation.diagnostics.map(\.expected))
        #expect(items.map { $0["help"] as? [String] } == compilation.diagnostics.map(\.help))
        for (item, diagnostic) in zip(items, compilation.diagnostics) {
            let place = compilation.source.position(of: diagnostic.span.start)
            #expect(item["line"] as? Int == place.line)
            #expect(item["column"] as? Int == place.column)
        }
    }

    private func source(_ name: String) throws -> [UInt8] {
        [UInt8](try Data(contentsOf: GoldenTests.folder.appendingPathComponent("\(name).pipeline")))
    }

    private func compare(_ name: String, _ kind: String, _ text: String?) throws {
        let file = GoldenTests.folder.appendingPathComponent("\(name).\(kind)")
        if GoldenTests.updates {
            try? FileManager.default.removeItem(at: file)
            try text?.write(to: file, atomically: true, encoding: .utf8)
        }
        let wanted = try? String(contentsOf: file, encoding: .utf8)
        #expect(text == wanted, "\(name).\(kind)")
    }
}
