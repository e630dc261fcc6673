import TestSupport
import Testing

@Suite("the corpus of Language")
struct LanguageCorpusTests {
    @Test("R27: what the fuzzer found, again", .timeLimit(.minutes(1))) func replay() throws {
        for input in try Corpus.inputs("Language") { expect(input) }
    }

    @Test("R27: every prefix and every byte of it changed", .timeLimit(.minutes(1))) func variants() throws {
        Corpus.forEachVariant(try Corpus.inputs("Language"), budget: 2000) { expect($0) }
    }

    private func expect(_ input: Corpus.Input) {
        let violation = withExactBytes(input.bytes) { LanguageProperties.violation($0) }
        #expect(violation == nil, "\(input.name): \(hex(input.bytes))")
    }
}
