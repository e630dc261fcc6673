import Pipeline
import Testing

@testable import FilterRateLimit

/// Words that only `limit` blocks have.
@Suite struct LimitWordsTests {
    @Test(
        "byte rates: bits by thousands, bytes by 1024",
        arguments: [
            ("8kbit/s", 1000), ("10Mbit/s", 1_250_000), ("100Gbit/s", 12_500_000_000), ("1KiB/s", 1024),
            ("5MiB/s", 5 << 20), ("1GiB/s", 1 << 30),
        ] as [(String, UInt64)])
    func byteRates(_ text: String, _ value: UInt64) throws {
        #expect(try LimitWords.byteRate(text) == value)
    }

    @Test(
        "what is no rate",
        arguments: [
            "", "/", "/s", "5", "5/", "5/d", "0/s", "-1/s", "1.5/s", "05/s", "5 /s", "5/S", "1000001/s", "5/s/s",
            "99999999999999999999/s",
        ])
    func badRates(_ text: String) {
        #expect(throws: ValueProblem.self) { try LimitWords.connectionRate(text) }
        #expect(throws: ValueProblem.self) { try LimitWords.byteRate(text) }
    }
}
