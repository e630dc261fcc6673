import FilterCatalog
import Pipeline
import PipelineLanguage
import Testing

/// One rule says which words need quotes: for `fmt`, and for what `check --print` shows.
@Suite struct WrittenWordTests {
    @Test(
        "a word is written bare where the language reads it back so, else in quotes",
        arguments: [
            (#"/a\b"#, #"/a\b"#), ("ü", "ü"), ("a=b", "a=b"), ("=", #""=""#), ("", #""""#), ("a b", #""a b""#),
            (#"a"b"#, #""a\"b""#), (#"a\ b"#, #""a\\ b""#), ("a,b", #""a,b""#), ("{", #""{""#), ("a;", #""a;""#),
            ("#", ##""#""##),
        ])
    func written(text: String, word: String) {
        #expect(writtenWord(text) == word)
        let source = "pipeline p {\n    backend \(word)\n}\n"
        let quotedSource = "pipeline p {\n    backend \(quotedWord(text))\n}\n"
        let (one, other) = (formatted(source), formatted(quotedSource))
        #expect(one != nil && one == other, "\(String(describing: one)), \(String(describing: other))")
        #expect(one?.contains(" \(word)\n") == true)
    }

    @Test("no byte is lost, whichever it is")
    func everyByte() {
        for byte in 0...UInt8.max {
            let text = "a" + String(EscapedByte.scalar(byte))
            #expect(escapedBytes(text) == [0x61, byte])
            let source = "pipeline p {\n    backend \(writtenWord(text))\n}\n"
            #expect(formatted(source)?.contains(writtenWord(text)) == true, "\(byte)")
        }
    }

    private func formatted(_ text: String) -> String? {
        format(Array(text.utf8), file: "x", catalog: catalog).formatted
    }
}
