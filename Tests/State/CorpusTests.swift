import TestSupport
import Testing

@Suite("the corpus of LastGood")
struct LastGoodCorpusTests {
    @Test("R23: what the fuzzer found, again", .timeLimit(.minutes(5))) func replay() throws {
        for input in try Corpus.inputs("LastGood") { expect(input) }
    }

    @Test("R23: every prefix and every byte of it changed", .timeLimit(.minutes(5))) func variants() throws {
        Corpus.forEachVariant(try Corpus.inputs("LastGood"), budget: 1000) { expect($0) }
    }

    private func expect(_ input: Corpus.Input) {
        let violation = withExactBytes(input.bytes) { LastGoodProperties.violation($0) }
        #expect(violation == nil, "\(input.name): \(violation ?? "")")
    }
}
