import FilterCatalog
import Foundation
import Pipeline
import PipelineLanguage
import Testing

/// What we ship compiles with the filters that we ship, without a remark, and is written the one way.
@Suite struct ConfigFileTests {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    static let files: [String] = {
        let folder = root.appendingPathComponent("config").path
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return names.filter { $0.hasSuffix(".pipeline") }.sorted()
    }()

    @Test("config/*.pipeline are found") func found() {
        #expect(ConfigFileTests.files.count >= 3)
    }

    @Test("config/*.pipeline compile, without a warning, and are formatted", arguments: files)
    func compiles(_ name: String) throws {
        let url = ConfigFileTests.root.appendingPathComponent("config/\(name)")
        let text = [UInt8](try Data(contentsOf: url))
        let compilation = compile(text, file: name, catalog: catalog)
        #expect(render(compilation.diagnostics, source: compilation.source) == "")
        #expect(compilation.program != nil)
        let formatted = format(text, file: name, catalog: catalog).formatted
        if GoldenTests.updates {
            try formatted?.write(to: url, atomically: true, encoding: .utf8)
        } else {
            #expect(formatted == String(decoding: text, as: UTF8.self), "run `pipelined fmt`")
        }
    }

    /// The fenced examples of a page of docs: ```pipeline compiles, ```pipeline-part is one block of a file.
    private static func examples(_ page: String) throws -> [(kind: String, text: String)] {
        let page = try String(contentsOf: root.appendingPathComponent("docs/\(page)"), encoding: .utf8)
        var found: [(String, String)] = []
        var open: (kind: String, lines: [String])?
        for line in page.components(separatedBy: "\n") {
            if line.hasPrefix("```") {
                if let done = open { found.append((done.kind, done.lines.joined(separator: "\n") + "\n")) }
                open = open == nil ? (String(line.dropFirst(3)), []) : nil
            } else {
                open?.lines.append(line)
            }
        }
        return found
    }

    @Test(
        "the examples of docs are right and formatted",
        arguments: [("LANGUAGE.md", 5), ("FROM-HAPROXY.md", 1), ("FROM-NGINX.md", 1)])
    func documentation(page: String, least: Int) throws {
        let parts = try ConfigFileTests.examples(page).filter { $0.kind.hasPrefix("pipeline") }
        #expect(parts.count >= least)
        for part in parts {
            let text = Array(part.text.utf8)
            #expect(format(text, file: "docs", catalog: catalog).formatted == part.text, "\(part.text)")
            guard part.kind == "pipeline" else { continue }
            let compilation = compile(text, file: "docs", catalog: catalog)
            #expect(render(compilation.diagnostics, source: compilation.source) == "", "\(part.text)")
        }
    }

    @Test("docs/LANGUAGE.md names every keyword, setting, built-in set and stage") func completeness() throws {
        let page = try String(
            contentsOf: ConfigFileTests.root.appendingPathComponent("docs/LANGUAGE.md"), encoding: .utf8)
        let words = languageKeywords(catalog) + BuiltInSets.names + catalog.map { $0.descriptor.keyword }
        for word in words { #expect(page.contains("`\(word)"), "\(word) is not in docs/LANGUAGE.md") }
    }
}
