import PipelineText
import Testing

@Suite("Times")
struct TimestampTests {
    @Test(
        "RFC 3339 times",
        arguments: [
            (0, "1970-01-01T00:00:00.000Z"), (951_782_400_000_000_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999_000_000, "2024-02-29T23:59:59.999Z"),
            (4_107_542_399_000_000_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000Z"), (.max, "2554-07-21T23:34:33.709Z"),
        ] as [(UInt64, String)])
    func times(_ nanoseconds: UInt64, _ expected: String) {
        #expect(Timestamp.text(nanoseconds) == expected)
    }

    @Test("times to the second, of years of more than four digits too")
    func seconds() {
        #expect(Timestamp.text(seconds: 0) == "1970-01-01T00:00:00Z")
        #expect(Timestamp.text(seconds: 253_402_300_799) == "9999-12-31T23:59:59Z")
        #expect(Timestamp.text(seconds: 253_402_300_800) == "10000-01-01T00:00:00Z")
    }
}
