import FilterCatalog
import Foundation
import Pipeline
import TestSupport
import Testing

/// Each filter's page is held to its descriptor: nobody reads about a clause that isn't there, or misses one that is.
@Suite("docs/filters")
struct DocsTests {
    private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("docs/filters")

    private func page(_ keyword: String) throws -> String {
        try String(contentsOf: Self.folder.appendingPathComponent("\(keyword).md"), encoding: .utf8)
    }

    private static var descriptors: [FilterDescriptor] { catalog.map { $0.descriptor } }

    @Test("a page a filter, and no other")
    func pages() throws {
        let files = try FileManager.default.contentsOfDirectory(atPath: Self.folder.path)
        #expect(Set(files) == Set(Self.descriptors.map { "\($0.keyword).md" }))
    }

    @Test("it says every clause, with its words")
    func clauses() throws {
        for descriptor in Self.descriptors {
            let page = try section("Clauses", of: descriptor.keyword)
            for clause in descriptor.clauses {
                for word in [clause.name] + clause.elements.flatMap(words) {
                    #expect(page.contains(word), "\(descriptor.keyword): \(word)")
                }
            }
            if descriptor.clauses.isEmpty { #expect(page.contains("None.")) }
        }
    }

    @Test("R28: it says every reason, as logs name it, with its side and the same sentence")
    func reasons() throws {
        for descriptor in Self.descriptors {
            let page = try section("Reasons", of: descriptor.keyword)
            for reason in descriptor.reasons {
                let row = "| `\(descriptor.keyword).\(reason.name)` | \(reason.side.rawValue) | \(reason.summary) |"
                #expect(page.contains(row), "\(row)")
            }
            let rows = page.split(separator: "\n").filter { $0.hasPrefix("| `") }
            #expect(rows.count == descriptor.reasons.count)
        }
    }

    @Test("R28: docs/OPERATING.md says every reason of the runtime, with its sides, and no other")
    func runtimeReasons() throws {
        let url = Self.folder.deletingLastPathComponent().appendingPathComponent("OPERATING.md")
        let parts = try String(contentsOf: url, encoding: .utf8).components(separatedBy: "\n## ")
        let section = try #require(parts.first { $0.hasPrefix("How connections end") })
        var sides: [String: [String]] = [:]
        let table = ReasonTable(catalog: catalog)
        for reason in RuntimeReason.allCases {
            let entry = try #require(table.entry(reason.code))
            sides[entry.name, default: []].append(entry.side.rawValue)
        }
        for (name, sides) in sides { #expect(section.contains("| `\(name)` | \(sides.joined(separator: ", ")) | ")) }
        #expect(section.split(separator: "\n").count { $0.hasPrefix("| `") } == sides.count)
    }

    @Test("it says every fact, and says so where there is none")
    func facts() throws {
        for descriptor in Self.descriptors {
            let page = try section("Facts", of: descriptor.keyword)
            for fact in descriptor.needs.union(descriptor.reads).union(descriptor.gives) {
                #expect(page.contains("**\(fact.rawValue)**"), "\(descriptor.keyword): \(fact.rawValue)")
            }
            #expect(page.lowercased().contains("needs none") == descriptor.needs.isEmpty, "\(descriptor.keyword)")
            #expect(page.lowercased().contains("gives none") == descriptor.gives.isEmpty, "\(descriptor.keyword)")
        }
    }

    @Test("R28: descriptors stay within the numbers that reason codes have, and no two share a name")
    func limits() {
        #expect(Set(Self.descriptors.map(\.keyword)).count == catalog.count)
        for descriptor in Self.descriptors {
            #expect(descriptor.reasons.count < 256)
            #expect(Set(descriptor.reasons.map(\.name)).count == descriptor.reasons.count)
            #expect(Set(descriptor.clauses.map(\.name)).count == descriptor.clauses.count)
        }
    }

    private func section(_ title: String, of keyword: String) throws -> String {
        let parts = try page(keyword).components(separatedBy: "\n## ")
        return try #require(parts.first { $0.hasPrefix(title) }, "\(keyword) has no section \(title)")
    }

    private func words(_ element: ClauseSpec.Element) -> [String] {
        switch element {
        case .word(let word): [word]
        case .choice(_, let words), .optional(_, let words): words
        case .duration, .size, .count, .optionalByte, .text, .block, .value, .list, .options, .several: []
        case .set: ["SET"]
        }
    }
}
