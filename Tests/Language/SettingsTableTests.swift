import FilterCatalog
import Foundation
import Testing

@testable import PipelineLanguage

@Suite("One list of keywords") struct GrammarTests {
    @Test("a forgotten `}` is seen before every keyword that may follow it")
    func unclosed() throws {
        for entry in Grammar(catalog).topLevel {
            let text = "pipeline p {\n    backend\n\(entry.keyword) x\n"
            let said = compile(Array(text.utf8), file: "x", catalog: catalog).diagnostics.map(\.message)
            #expect(
                said.contains("this `{` is not closed before `\(entry.keyword)` (line 3)"), "\(entry.keyword): \(said)")
        }
    }
}

/// docs/LANGUAGE.md has a table for each block of settings, made from the code.
/// `PIPELINED_UPDATE_DOCS=1 swift test --filter SettingsTableTests` writes them anew.
@Suite struct SettingsTableTests {
    private static let page = ConfigFileTests.root.appendingPathComponent("docs/LANGUAGE.md")
    private static let head = "<!-- settings of "
    private static let foot = "<!-- end -->"

    /// The page with every table as the code has it, and the blocks that it has tables of.
    private func renewed(_ page: String) throws -> (text: String, blocks: [String]) {
        var lines: [Substring] = []
        var blocks: [String] = []
        var isOld = false
        for line in page.split(separator: "\n", omittingEmptySubsequences: false) {
            if line == Self.foot { isOld = false }
            if isOld { continue }
            lines.append(line)
            guard line.hasPrefix(Self.head) else { continue }
            let block = String(line.dropFirst(Self.head.count).prefix { $0 != ":" })
            lines.append(Substring(try #require(settingsTable(block, catalog), "no block is called \(block)")))
            blocks.append(block)
            isOld = true
        }
        return (lines.joined(separator: "\n"), blocks)
    }

    @Test("the tables of docs/LANGUAGE.md are what the code says")
    func tables() throws {
        let page = try String(contentsOf: Self.page, encoding: .utf8)
        let (text, _) = try renewed(page)
        if ProcessInfo.processInfo.environment["PIPELINED_UPDATE_DOCS"] == "1" {
            try text.write(to: Self.page, atomically: true, encoding: .utf8)
        } else {
            #expect(text == page, "PIPELINED_UPDATE_DOCS=1 swift test --filter SettingsTableTests writes them anew")
        }
    }

    @Test("every block of settings has one")
    func complete() throws {
        let (_, blocks) = try renewed(String(contentsOf: Self.page, encoding: .utf8))
        let inNode = ["ledger", "conntrack"]
        let wanted = Set(languageSettings(catalog).map(\.block)).subtracting(inNode)
        #expect(Set(blocks) == wanted)
        #expect(try #require(settingsTable("node", catalog)).contains("`ledger PATH"))
    }

    @Test("a setting's row says how it is written, its default, its range, and whether a reload brings it about")
    func row() throws {
        let node = try #require(settingsTable("node", catalog))
        #expect(node.contains("| `backlog NUMBER` | `4096` | 1–65535; "))
        #expect(node.contains("; kept until the next start |"))
        let limit = try #require(settingsTable("limit", catalog))
        #expect(limit.contains("| `table N` | required | 1–16M; "))
        #expect(settingsTable("nothing", catalog) == nil)
    }
}
