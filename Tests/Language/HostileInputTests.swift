import Foundation
import Pipeline
import PipelineLanguage
import Testing

/// Whatever the bytes, the compiler and the formatter end, and say where what is wrong is.
@Suite struct HostileInputTests {
    static let full: [UInt8] = {
        let file = GoldenTests.folder.appendingPathComponent("full.pipeline")
        return (try? Data(contentsOf: file)).map { [UInt8]($0) } ?? []
    }()

    /// Compiles and formats; what comes out must hang together.
    private func check(_ text: [UInt8]) {
        let compilation = compile(text, file: "x", catalog: fakes)
        #expect((compilation.program == nil) == compilation.hasErrors)
        let length = compilation.source.bytes.count
        let inside = compilation.diagnostics.allSatisfy {
            $0.span.start >= 0 && $0.span.start <= $0.span.end && $0.span.end <= length
        }
        #expect(inside)
        #expect(render(compilation.diagnostics, source: compilation.source).isEmpty == compilation.diagnostics.isEmpty)
        if let once = format(text, file: "x", catalog: fakes).formatted {
            let twice = format(Array(once.utf8), file: "x", catalog: fakes).formatted
            #expect(twice == once)
        }
    }

    @Test("every prefix of a config compiles or says why not") func prefixes() {
        #expect(!HostileInputTests.full.isEmpty)
        for length in 0...HostileInputTests.full.count { check(Array(HostileInputTests.full.prefix(length))) }
    }

    @Test("every single-byte mutation compiles or says why not") func mutations() {
        let replacements: [UInt8] = [0, 0x20, 0x22, 0x23, 0x2C, 0x30, 0x40, 0x5C, 0x7B, 0x7D, 0x0A, 0x80, 0xFF]
        for (index, byte) in HostileInputTests.full.enumerated() {
            var text = HostileInputTests.full
            text[index] = replacements[index % replacements.count] ^ (index % 3 == 0 ? byte & 1 : 0)
            check(text)
            if index % 4 == 0 {
                text.remove(at: index)
                check(text)
            }
        }
    }

    @Test("random bytes and random words") func random() {
        var generator = SplitMix64(seed: 7)
        let words = String(decoding: HostileInputTests.full, as: UTF8.self).split { $0 == " " || $0 == "\n" }
        for _ in 0..<300 {
            check((0..<Int.random(in: 0...200, using: &generator)).map { _ in .random(in: 1...127, using: &generator) })
            let picked = (0..<40).compactMap { _ in words.randomElement(using: &generator) }
            check(Array(picked.joined(separator: Bool.random(using: &generator) ? "\n" : " ").utf8))
        }
    }

    @Test("R27: a source above the limit is refused, one at the limit is read") func size() {
        let over = [UInt8](repeating: UInt8(ascii: " "), count: SourceText.limit + 1)
        let refused = compile(over, file: "x", catalog: fakes)
        #expect(refused.program == nil)
        #expect(refused.diagnostics.count == 1)
        #expect(compile(Array(over.dropLast()), file: "x", catalog: fakes).program != nil)
    }

    @Test("R27: braces nested without end cost no stack") func nesting() {
        let text = [UInt8](repeating: UInt8(ascii: "{"), count: 100_000)
        check(text)
        check(Array("pipeline x ".utf8) + text)
        check(Array(String(repeating: "a {\n", count: 50_000).utf8))
        check(Array(String(repeating: "}", count: 50_000).utf8))
    }

    @Test("R27: a large hostile file ends soon, with a bounded number of diagnostics", .timeLimit(.minutes(5)))
    func large() {
        let lines = [
            "nonsense\n", ",", "\"", "a {}\n", "set s { 1.1.1.1 }\n", "set s { x y z }\n", "pipeline p { sni x, y }\n",
            "listen [::]:1 tcp_raw via x\n", "route { id }\n",
        ]
        for line in lines {
            let text = String(repeating: line, count: 300_000 / line.utf8.count)
            let compilation = compile(Array(text.utf8), file: "x", catalog: fakes)
            #expect(compilation.diagnostics.count <= 202)
            #expect(compilation.hasErrors)
        }
    }
}
