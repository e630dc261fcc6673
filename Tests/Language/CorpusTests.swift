import TestSupport
import Testing

@Suite("the corpus of Language")
struct LanguageCorpusTests {
    @Test("R27: what the fuzzer found, again", .timeLimit(.minutes(5))) func replay() throws {
        for input in try Corpus.inputs("Language") { expect(input) }
    }

    @Test("R27: every prefix and every byte of it changed", .timeLimit(.minutes(5))) func variants() throws {
        Corpus.forEachVariant(try Corpus.inputs("Language"), budget: 2000) { expect($0) }
    }

    @Test("R27: the shipped configs, the examples of the docs and the golden sources, which Fuzz/run begins with")
    func seeds() throws {
        let seeds = try LanguageSeeds.all()
        #expect(seeds.count >= 40, "\(seeds.count)")
        for input in seeds {
            expect(input)
            #expect(input.bytes.count <= 8000, "Fuzz/targets cuts it")
        }
    }

    @Test("the dictionary has every word that the language and its filters have")
    func dictionary() throws {
        let file = Corpus.folder.appendingPathComponent("dictionaries/Language")
        var text = try String(contentsOf: file, encoding: .utf8)
        let known = Set(text.split(separator: "\n"))
        let missing = try LanguageSeeds.words().filter { !known.contains("\"\($0)\"") }
        if GoldenTests.updates {
            for word in missing { text += "\"\(word)\"\n" }
            try text.write(to: file, atomically: true, encoding: .utf8)
        } else {
            #expect(missing.isEmpty)
        }
    }

    private func expect(_ input: Corpus.Input) {
        let violation = withExactBytes(input.bytes) { LanguageProperties.violation($0) }
        #expect(violation == nil, "\(input.name): \(hex(input.bytes))")
    }
}
