import PipelineText
import Testing

@Suite("The JSON writer")
struct JSONLineTests {
    @Test("strings escape what they must, and what a terminal might act upon")
    func strings() {
        #expect(JSONLine.quoted("a\"b\\c\n\u{1B}\u{9B}é") == #""a\"b\\c\n\u001b\u009bé""#)
        #expect(JSONLine.quoted("\r\t\u{7F}\u{202E}\u{2066}😀") == #""\r\t\u007f\u202e\u2066😀""#)
    }

    @Test("fields, lists and objects are separated, whatever is in them")
    func structure() {
        var line = JSONLine()
        line.open()
        line.field("none", nil as String?)
        line.list("empty", [String]()) { $0.string($1) }
        line.list("numbers", [0, UInt64.max]) { $0.number($1) }
        line.list("objects", [-1, 1]) { line, value in
            line.open()
            line.field("value", value)
            line.field("is", value > 0)
            line.close()
        }
        line.close()
        #expect(
            line.string == #"{"none":null,"empty":[],"numbers":[0,18446744073709551615],"#
                + #""objects":[{"value":-1,"is":false},{"value":1,"is":true}]}"#)
    }
}
