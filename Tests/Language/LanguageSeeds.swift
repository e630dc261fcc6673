import FilterCatalog
import Foundation
import Pipeline
import PipelineLanguage
import TestSupport

/// What the fuzz target Language begins with besides its corpus. Fuzz/run finds the same texts.
enum LanguageSeeds {
    private static let root = Corpus.folder.deletingLastPathComponent()

    static func all() throws -> [Corpus.Input] { try files("config") + files("Tests/Language/Golden") + examples() }

    private static func files(_ folder: String) throws -> [Corpus.Input] {
        let names = try FileManager.default.contentsOfDirectory(atPath: root.appendingPathComponent(folder).path)
        return try names.filter { $0.hasSuffix(".pipeline") }.sorted().compactMap { name in
            let bytes = [UInt8](try Data(contentsOf: root.appendingPathComponent("\(folder)/\(name)")))
            // Some are about size alone.
            return bytes.count <= 8000 ? Corpus.Input(name: "\(folder)/\(name)", bytes: bytes) : nil
        }
    }

    /// Fenced blocks of the docs, and indented ones that begin with a keyword of the language.
    private static func examples() throws -> [Corpus.Input] {
        let docs = root.appendingPathComponent("docs")
        let names = [
            "LANGUAGE.md", "HEALTH.md", "EGRESS.md", "EXPORT.md", "FROM-HAPROXY.md", "FROM-NGINX.md",
        ]
        let pages = names.map { docs.appendingPathComponent($0) }
        let filters = try FileManager.default.contentsOfDirectory(
            at: docs.appendingPathComponent("filters"), includingPropertiesForKeys: nil)
        return try (pages + filters).flatMap { page in
            let lines = try String(contentsOf: page, encoding: .utf8).components(separatedBy: "\n")
            return blocks(lines).enumerated().map {
                Corpus.Input(name: "\(page.lastPathComponent) \($0)", bytes: Array($1.utf8))
            }
        }
    }

    private static func blocks(_ lines: [String]) -> [String] {
        var blocks: [String] = []
        var block: [String] = []
        var fence: String?
        for line in lines + [""] {
            if line.hasPrefix("```") {
                if fence?.hasPrefix("```pipeline") == true { blocks.append(block.joined(separator: "\n") + "\n") }
                (fence, block) = (fence == nil ? line : nil, [])
            } else if fence != nil {
                block.append(line)
            } else if line.hasPrefix("    ") || (line.isEmpty && !block.isEmpty && block.last != "") {
                block.append(String(line.dropFirst(4)))
            } else {
                let first = block.first?.split(separator: " ").first.map(String.init) ?? ""
                if languageKeywords(catalog).contains(first), block[0].hasSuffix("{") {
                    blocks.append(block.joined(separator: "\n") + "\n")
                }
                block = []
            }
        }
        return blocks
    }

    /// Keywords, settings, words of clauses, built-in sets, and what the shipped configs say.
    static func words() throws -> [String] {
        var words = languageKeywords(catalog) + BuiltInSets.names
        for descriptor in catalog.map({ $0.descriptor }) {
            words.append(descriptor.keyword)
            for element in descriptor.clauses.flatMap(\.elements) {
                switch element {
                case .word(let word): words.append(word)
                case .choice(_, let choices), .optional(_, let choices): words += choices
                default: break
                }
            }
        }
        words += [
            "shadow", "via", "ports", "file", "burst", "jitter", "weight", "max", "priority",
            "backup", "srv", "send", "user", "name", "in", "over", "sni", "for", "after",
        ]
        words += ["domain", "enterprise", "templates", "queue", "table", "minutes", "hours", "days", "interface"]
        words += LimitWords.keys
        for file in try files("config") {
            for line in String(decoding: file.bytes, as: UTF8.self).split(separator: "\n") {
                let code = line.split(separator: "#", omittingEmptySubsequences: false).first ?? ""
                words += code.split { " ,\"".contains($0) }.map(String.init)
            }
        }
        return Set(words.filter { $0.allSatisfy { $0.isASCII && $0 != "\\" } }).sorted()
    }

    /// What a limit may count by, as it is written.
    private enum LimitWords {
        static let keys = ["client/64", "client/32", "route", "env", "org", "instance", "listener"]
    }
}
