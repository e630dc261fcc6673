import Foundation
import Testing

/// The table of targets in docs/ARCHITECTURE.md against `Package.swift` and every `import` of the sources.
@Suite("targets and who may import whom")
struct TargetTableTests {
    private struct Row {
        let target: String
        let imports: Set<String>
    }

    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    private static let seams: Set<String> = ["CLinux", "CIDN2", "CPCRE2", "CMnl", "CSQLite", "CCares", "CNettle"]

    private static func text(_ path: String) throws -> String {
        try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
    }

    private static func isOurs(_ module: String) -> Bool {
        module.hasPrefix("Pipeline") || module.hasPrefix("Filter") || seams.contains(module)
    }

    /// In order. `Filter*` stands for every filter above.
    private func rows() throws -> [Row] {
        var rows: [Row] = []
        for line in try Self.text("docs/ARCHITECTURE.md").split(separator: "\n") where line.hasPrefix("| `") {
            let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
            guard cells.count == 3, let target = cells.first?.filter({ $0 != "`" }) else { continue }
            guard Self.isOurs(target) || target == "pipelined" else { continue }
            var imports = Set(cells[2].split(separator: " ").map { $0.filter { $0 != "`" } })
            imports.remove("nothing")
            if imports.remove("Filter*") != nil {
                imports.formUnion(rows.map(\.target).filter { $0.hasPrefix("Filter") })
            }
            rows.append(Row(target: target, imports: imports))
        }
        return rows
    }

    private static func folder(_ target: String) -> String {
        if target == "Pipeline" { return "Sources/Pipeline/Core" }
        if target == "PipelinedCommand" { return "Sources/Command" }
        if target.hasPrefix("Pipeline") { return "Sources/Pipeline/" + target.dropFirst("Pipeline".count) }
        if target.hasPrefix("Filter") { return "Sources/Filters/" + target.dropFirst("Filter".count) }
        return "Sources/" + target
    }

    /// Modules that the files of a folder import.
    private static func imports(_ folder: String) throws -> Set<String> {
        let files = try FileManager.default.contentsOfDirectory(atPath: root.appendingPathComponent(folder).path)
        var found: Set<String> = []
        for file in files where file.hasSuffix(".swift") {
            for line in try text("\(folder)/\(file)").split(separator: "\n") {
                let words = line.split(separator: " ")
                guard let place = words.firstIndex(of: "import"), place + 1 < words.count,
                    words[..<place].allSatisfy({ $0.hasPrefix("@") || ["public", "package", "internal"].contains($0) })
                else { continue }
                found.insert(String(words[place + 1].prefix { $0 != "." }))
            }
        }
        return found
    }

    @Test("each names only lines above it, and imports just what its line says")
    func table() throws {
        let rows = try rows()
        #expect(rows.count >= 28, "docs/ARCHITECTURE.md has the table")
        var above = Self.seams
        for row in rows {
            let upwards = row.imports.subtracting(above)
            #expect(upwards.isEmpty, "\(row.target) names \(upwards.sorted()), which are not above it")
            above.insert(row.target)
            let imports = try Self.imports(Self.folder(row.target)).filter(Self.isOurs)
            #expect(imports == row.imports, "the imports of \(row.target) and its line in docs/ARCHITECTURE.md")
        }
        #expect(above.count == rows.count + Self.seams.count, "each has one line")
    }

    @Test("every folder of parts and filters has a line and a README")
    func folders() throws {
        let known = Set(try rows().map { Self.folder($0.target) })
        for parent in ["Sources/Pipeline", "Sources/Filters"] {
            let names = try FileManager.default.contentsOfDirectory(
                atPath: Self.root.appendingPathComponent(parent).path)
            #expect(names.count > 5)
            for name in names where !name.hasPrefix(".") && !name.hasSuffix(".md") {
                // What a checkout of an older commit leaves behind is empty.
                let files = try FileManager.default.contentsOfDirectory(
                    atPath: Self.root.appendingPathComponent("\(parent)/\(name)").path)
                guard !files.isEmpty else { continue }
                #expect(known.contains("\(parent)/\(name)"), "\(parent)/\(name) has no line in docs/ARCHITECTURE.md")
                let readme = try Self.text("\(parent)/\(name)/README.md").split(separator: "\n")
                #expect((5...20).contains(readme.count) && readme.first?.hasPrefix("# ") == true, "\(name)")
            }
        }
    }

    @Test("Core imports Synchronization and nothing else; nobody imports Foundation")
    func outside() throws {
        #expect(try Self.imports("Sources/Pipeline/Core") == ["Synchronization"])
        for row in try rows() {
            #expect(try !Self.imports(Self.folder(row.target)).contains("Foundation"), "\(row.target)")
        }
    }

    @Test("Package.swift has the same arrows") func package() throws {
        let package = try Self.text("Package.swift")
        for row in try rows() {
            let declared = try #require(Self.dependencies(of: row.target, in: package), "\(row.target) is declared")
            #expect(declared == row.imports, "the dependencies of \(row.target) in Package.swift")
        }
    }

    /// What stands between the brackets behind a target's name; nil: it is not there.
    private static func dependencies(of target: String, in package: String) -> Set<String>? {
        var implied: Set<String> = []
        var head = "name: \"\(target)\","
        if target.hasPrefix("Pipeline"), target != "Pipeline", target != "PipelinedCommand" {
            head = "part(\"\(target.dropFirst("Pipeline".count))\","
        } else if target.hasPrefix("Filter"), target != "FilterCatalog" {
            head = "filter(\"\(target.dropFirst("Filter".count))\""
            implied = ["Pipeline"]
        }
        // As it stands, however it was broken into lines.
        let flat = package.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }.joined(separator: " ")
            .replacingOccurrences(of: "( ", with: "(")
        // The product of the same name comes first.
        guard let found = flat.range(of: head, options: .backwards) else { return nil }
        var rest = flat[found.upperBound...]
        if rest.hasPrefix(")") { return implied }
        if target == "Pipeline" { return rest.prefix(60).contains("dependencies:") ? nil : [] }
        guard let open = rest.firstIndex(of: "[") else { return nil }
        rest = rest[rest.index(after: open)...]
        // Products of packages have no brackets in them.
        guard let close = rest.firstIndex(of: "]") else { return nil }
        let names = rest[..<close].split(separator: "\"").filter { isOurs(String($0)) }.map(String.init)
        return implied.union(names)
    }
}
