import Foundation
import TestSupport
import Testing

/// `Fuzz/targets` against what is checked in beside it.
@Suite("fuzz targets")
struct FuzzTargetsTests {
    /// Name, properties, file, longest input.
    private static let rows: [[String]] = {
        let text = try? String(contentsOf: Corpus.folder.appendingPathComponent("targets"), encoding: .utf8)
        return (text ?? "").split(separator: "\n").filter { !$0.hasPrefix("#") }
            .map { $0.split(separator: " ").map(String.init) }
    }()

    @Test("each has its properties, and a small corpus that fits its longest input")
    func corpora() throws {
        #expect(Self.rows.count >= 7)
        for row in Self.rows {
            try #require(row.count >= 5, "\(row)")
            let source = row[2].split(separator: ",").first.map(String.init) ?? ""
            let file = Corpus.folder.deletingLastPathComponent().appendingPathComponent(source)
            #expect(try String(contentsOf: file, encoding: .utf8).contains("enum \(row[1]) {"), "\(row[2])")
            let inputs = try Corpus.inputs(row[0])
            #expect(inputs.count >= 8 && inputs.count < 300, "\(row[0]): \(inputs.count) files")
            #expect(inputs.map(\.bytes.count).reduce(0, +) < 400 << 10, "\(row[0]): minimize it")
            let longest = try #require(Int(row[3]))
            #expect(
                inputs.allSatisfy { $0.bytes.count <= longest }, "\(row[0]): libFuzzer cuts inputs at \(longest) bytes")
        }
    }

    @Test("no corpus and no dictionary is left of a target that is gone")
    func leftovers() throws {
        for folder in ["corpus", "dictionaries"] {
            let path = Corpus.folder.appendingPathComponent(folder).path
            let names = try FileManager.default.contentsOfDirectory(atPath: path)
            #expect(Set(names).isSubset(of: Self.rows.map { $0[0] }), "\(folder)")
        }
    }
}
