import Foundation
import Testing

/// docs/INVARIANTS.md says how many there are of what; the code says it too.
@Suite("docs/INVARIANTS.md")
struct InvariantDocsTests {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    private func page() throws -> String {
        try String(contentsOf: Self.root.appendingPathComponent("docs/INVARIANTS.md"), encoding: .utf8)
            .split(whereSeparator: \.isWhitespace).joined(separator: " ")
    }

    /// The number in front of `words`, with its comma.
    private func number(before words: String, in page: String) throws -> Int {
        let end = try #require(page.range(of: words), "\(words)").lowerBound
        let digits = page[..<end].reversed().prefix { $0.isNumber || $0 == "," }.reversed().filter(\.isNumber)
        return try #require(Int(String(digits)), "\(words)")
    }

    @Test("its counts of seeds and mutations are the code's")
    func counts() throws {
        let page = try page()
        #expect(try number(before: " seeds. `SIMULATION_SEEDS", in: page) == SimulationTests.usualSeeds)
        #expect(try number(before: " ways; each must be noticed", in: page) == Mutation.allCases.count)
        #expect(try number(before: " seeds. `OldLookupTests`", in: page) == MutationTests.seeds)
    }

    @Test(
        "each invariant has a number of its own, none is missing between the first and the last, and the tests name each"
    )
    func numbers() throws {
        let page = try page()
        let numbers = page.components(separatedBy: "- **S").dropFirst().compactMap { Int($0.prefix { $0.isNumber }) }
        #expect(numbers.sorted() == Array(1...(numbers.max() ?? 0)))
        let folder = Self.root.appendingPathComponent("Tests")
        let files =
            FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil)?.compactMap { $0 as? URL } ?? []
        let code = try files.filter { $0.pathExtension == "swift" }.map { try String(contentsOf: $0, encoding: .utf8) }
            .joined()
        for number in numbers {
            let isNamed = ["S\(number):", "[S\(number)]", "S\(number),", "S\(number)–"].contains { code.contains($0) }
            #expect(isNamed, "no test names S\(number)")
        }
        #expect(code.contains("S1–S\(numbers.max() ?? 0)"), "the suite's name")
    }

    /// The files of the runtime.
    private func runtime() throws -> [String] {
        let folder = Self.root.appendingPathComponent("Sources/Pipeline/Runtime")
        return try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
            .filter { $0.pathExtension == "swift" }.map { try String(contentsOf: $0, encoding: .utf8) }
    }

    @Test("it says of each invariant where the worker asserts it, or why not; and of how many, and it is so")
    func assertions() throws {
        let page = try page()
        let files = try runtime()
        var asserted = 0
        let items = page.components(separatedBy: "- **S").dropFirst()
        for item in items {
            let number = Int(item.prefix { $0.isNumber }) ?? 0
            let holding = files.filter { $0.contains("\"S\(number): ") }
            guard let said = item.components(separatedBy: "*Asserted in ").dropFirst().first else {
                #expect(item.contains("*Not asserted: "), "S\(number)")
                #expect(holding.isEmpty, "S\(number) is asserted, and the page does not say where")
                continue
            }
            asserted += 1
            let names = said.components(separatedBy: "*").first?.components(separatedBy: "`") ?? []
            for name in stride(from: 1, to: names.count, by: 2).map({ names[$0] }) {
                let isThere = holding.contains { file in
                    ["func \(name)(", "var \(name):"].contains(where: file.contains)
                }
                #expect(isThere, "S\(number) is not asserted in \(name)")
            }
        }
        #expect(try number(before: " of these", in: page) == asserted)
        #expect(try number(before: " of itself as well", in: page) == items.count)
    }
}
