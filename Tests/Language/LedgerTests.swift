import FilterEgressAccounting
import Pipeline
import PipelineLanguage
import Testing

/// The `ledger` line of `node`.
@Suite struct LedgerTests {
    private func compiled(_ line: String) -> Compilation {
        let text = "node n {\n \(line)\n}\npipeline p {\n backend round_robin\n}\nlisten [::]:1 tcp_raw via p\n"
        return compile(Array(text.utf8), file: "x", catalog: fakes)
    }

    @Test("a path, and how long each level is kept") func settings() throws {
        let plain = try #require(compiled("ledger /var/lib/x/ledger.db").program?.ledger)
        #expect(plain == LedgerSettings(path: "/var/lib/x/ledger.db"))
        #expect(plain.hours == .seconds(30 * 86400))
        let full = try #require(compiled("ledger /l minutes 6h hours 7d days 3650d").program?.ledger)
        #expect(full.minutes == .seconds(6 * 3600) && full.hours == .seconds(7 * 86400))
        #expect(full.days == .seconds(3650 * 86400))
        #expect(try #require(compiled("").program).ledger == nil)
    }

    @Test(
        "one error each, and it says what to write",
        arguments: [
            ("ledger", "the path of a file"), ("ledger ledger.db", "absolute"), ("ledger /a/", "absolute"),
            ("ledger /l minutes", "how long"), ("ledger /l weeks 1d", "`minutes`"), ("ledger /l minutes 5m", "`1h`"),
            ("ledger /l minutes 0d", "out of range"), ("ledger /l days 99999d", "out of range"),
            ("ledger /l minutes 02d", "`1h`"), ("ledger /l days 2d days 2d", "twice"),
            ("ledger /l minutes 31d", "longer"), ("ledger /l days 1d", "longer"),
        ])
    func wrong(line: String, says: String) {
        let compilation = compiled(line)
        #expect(compilation.program == nil)
        let errors = compilation.diagnostics.filter { $0.severity == .error }
        #expect(errors.count == 1)
        let text = render(compilation.diagnostics, source: compilation.source)
        #expect(text.contains(says), "\(text)")
    }

    @Test("how often conntrack is read, and how many connections are followed") func conntrack() throws {
        let plain = try #require(compiled("conntrack every 5s").program?.conntrack)
        #expect(plain == ConntrackCounting(interval: .seconds(5)))
        let full = try #require(compiled("conntrack every 1m table 100k").program?.conntrack)
        #expect(full == ConntrackCounting(interval: .seconds(60), tableLimit: 100_000))
        #expect(try #require(compiled("").program).conntrack == nil)
    }

    @Test(
        "what is wrong with a `conntrack` line",
        arguments: [
            ("conntrack", "not complete"), ("conntrack 5s", "every"), ("conntrack every 10ms", "out of range"),
            ("conntrack every 5s table 10", "out of range"), ("conntrack every 5s tables 10k", "`table`"),
            ("conntrack every 5s\nconntrack every 6s", "twice"),
        ])
    func wrongConntrack(line: String, says: String) {
        let compilation = compiled(line)
        #expect(compilation.program == nil)
        let text = render(compilation.diagnostics, source: compilation.source)
        #expect(text.contains(says), "\(text)")
    }
}
