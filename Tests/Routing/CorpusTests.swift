import TestSupport
import Testing

@Suite("the corpus of Hostname")
struct HostnameCorpusTests {
    @Test("R3: what the fuzzer found, again", .timeLimit(.minutes(5))) func replay() throws {
        for input in try Corpus.inputs("Hostname") { expect(input) }
    }

    @Test("R3: every prefix and every byte of it changed", .timeLimit(.minutes(5))) func variants() throws {
        Corpus.forEachVariant(try Corpus.inputs("Hostname"), budget: 6000) { expect($0) }
    }

    private func expect(_ input: Corpus.Input) {
        let violation = withExactBytes(input.bytes) { HostnameProperties.violation($0) }
        #expect(violation == nil, "\(input.name): \(hex(input.bytes))")
    }
}

@Suite("the corpus of State")
struct StateCorpusTests {
    @Test("R22: what the fuzzer found, again", .timeLimit(.minutes(5))) func replay() throws {
        for input in try Corpus.inputs("State") { expect(input) }
    }

    @Test("R22: every prefix and every byte of it changed", .timeLimit(.minutes(5))) func variants() throws {
        Corpus.forEachVariant(try Corpus.inputs("State"), budget: 3000) { expect($0) }
    }

    private func expect(_ input: Corpus.Input) {
        let violation = withExactBytes(input.bytes) { StateProperties.violation($0) }
        #expect(violation == nil, "\(input.name): \(hex(input.bytes))")
    }
}
