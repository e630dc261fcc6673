import TestSupport
import Testing

@Suite("the corpus of Hello")
struct HelloCorpusTests {
    @Test("R7: what the fuzzer found, again", .timeLimit(.minutes(5))) func replay() throws {
        for input in try Corpus.inputs("Hello") { expect(input) }
    }

    @Test("R7: every prefix and every byte of it changed", .timeLimit(.minutes(5))) func variants() throws {
        Corpus.forEachVariant(try Corpus.inputs("Hello"), budget: 2000) { expect($0) }
    }

    private func expect(_ input: Corpus.Input) {
        let violation = withExactBytes(input.bytes) { HelloProperties.violation($0) }
        #expect(violation == nil, "\(input.name): \(hex(input.bytes))")
    }
}

@Suite("the corpus of ProxyV1")
struct ProxyV1CorpusTests {
    @Test("R17: what the fuzzer found, again", .timeLimit(.minutes(5))) func replay() throws {
        for input in try Corpus.inputs("ProxyV1") { expect(input) }
    }

    @Test("R17: every prefix and every byte of it changed", .timeLimit(.minutes(5))) func variants() throws {
        Corpus.forEachVariant(try Corpus.inputs("ProxyV1"), budget: 4000) { expect($0) }
    }

    private func expect(_ input: Corpus.Input) {
        let violation = withExactBytes(input.bytes) { ProxyV1Properties.violation($0) }
        #expect(violation == nil, "\(input.name): \(hex(input.bytes))")
    }
}

@Suite("the corpus of ProxyV2")
struct ProxyV2CorpusTests {
    @Test("R17: what the fuzzer found, again", .timeLimit(.minutes(5))) func replay() throws {
        for input in try Corpus.inputs("ProxyV2") { expect(input) }
    }

    @Test("R17: every prefix and every byte of it changed", .timeLimit(.minutes(5))) func variants() throws {
        Corpus.forEachVariant(try Corpus.inputs("ProxyV2"), budget: 4000) { expect($0) }
    }

    private func expect(_ input: Corpus.Input) {
        let violation = withExactBytes(input.bytes) { ProxyV2Properties.violation($0) }
        #expect(violation == nil, "\(input.name): \(hex(input.bytes))")
    }
}

@Suite("the corpus of Reply")
struct ReplyCorpusTests {
    @Test("R18: what the fuzzer found, again", .timeLimit(.minutes(5))) func replay() throws {
        for input in try Corpus.inputs("Reply") { expect(input) }
    }

    @Test("R18: every prefix and every byte of it changed", .timeLimit(.minutes(5))) func variants() throws {
        Corpus.forEachVariant(try Corpus.inputs("Reply"), budget: 4000) { expect($0) }
    }

    private func expect(_ input: Corpus.Input) {
        let violation = withExactBytes(input.bytes) { ReplyProperties.violation($0) }
        #expect(violation == nil, "\(input.name): \(violation ?? "") \(hex(input.bytes))")
    }
}

@Suite("the corpus of First")
struct FirstBytesCorpusTests {
    @Test("R7: what the fuzzer found, again", .timeLimit(.minutes(5))) func replay() throws {
        for input in try Corpus.inputs("First") { expect(input) }
    }

    @Test("R7: every prefix and every byte of it changed", .timeLimit(.minutes(5))) func variants() throws {
        Corpus.forEachVariant(try Corpus.inputs("First"), budget: 4000) { expect($0) }
    }

    private func expect(_ input: Corpus.Input) {
        let violation = withExactBytes(input.bytes) { FirstBytesProperties.violation($0) }
        #expect(violation == nil, "\(input.name): \(violation ?? "") \(hex(input.bytes))")
    }
}
