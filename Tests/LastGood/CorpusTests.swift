import TestSupport
import Testing

@Suite("the corpus of Boot")
struct BootCorpusTests {
    @Test("R29: what the fuzzer found, again", .timeLimit(.minutes(5))) func replay() throws {
        for input in try Corpus.inputs("Boot") { expect(input) }
    }

    @Test("R29: every prefix and every byte of it changed", .timeLimit(.minutes(5))) func variants() throws {
        Corpus.forEachVariant(try Corpus.inputs("Boot"), budget: 4000) { expect($0) }
    }

    private func expect(_ input: Corpus.Input) {
        let violation = withExactBytes(input.bytes) { BootProperties.violation($0) }
        #expect(violation == nil, "\(input.name): \(violation ?? "")")
    }
}
