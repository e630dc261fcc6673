import FilterBackendSelect
import Pipeline
import PipelineLanguage
import Testing

/// `health` blocks; the wording of what is said about wrong ones is in `Golden/health.*`.
@Suite struct HealthTests {
    private func settings(_ lines: String) throws -> HealthSettings {
        let text = "health web {\n\(lines)\n}\npipeline p {\n backend health web\n}\nlisten [::]:1 tcp_raw via p\n"
        let compilation = compile(Array(text.utf8), file: "x", catalog: fakes)
        #expect(render(compilation.diagnostics, source: compilation.source) == "")
        let program = try #require(compilation.program)
        return try #require(program.chains[0].stages[0].blocks.first as? HealthSettings)
    }

    private func errorCount(_ lines: String) -> Int {
        let text = "health web {\n\(lines)\n}\npipeline p {\n backend health web\n}\nlisten [::]:1 tcp_raw via p\n"
        return compile(Array(text.utf8), file: "x", catalog: fakes).diagnostics.count { $0.severity == .error }
    }

    @Test("an empty block means the defaults") func defaults() throws {
        let web = try settings("")
        #expect(web.name == "web" && web.probe == .tcp)
        #expect(web.interval == .seconds(2) && web.jitterPercent == 10 && web.timeout == .seconds(1))
        #expect(web.rise == 2 && web.fall == 3 && web.probesPerSecond == 1000 && web.panic == .failFast)
        #expect(web.ejection.pointee == EjectionPolicy(after: 5, base: .seconds(10), max: .seconds(300)))
    }

    @Test("every line says what it says") func lines() throws {
        let web = try settings(
            """
            probe expect "220 a\\"b"
            interval 500ms jitter 0%
            timeout 500ms
            rise 100
            fall 1
            rate 100k/s
            eject after 1 for 100ms max 24h
            panic use_all
            """)
        #expect(web.probe == .expect(Array("220 a\"b".utf8)))
        #expect(web.interval == .milliseconds(500) && web.jitterPercent == 0 && web.timeout == .milliseconds(500))
        #expect(web.rise == 100 && web.fall == 1 && web.probesPerSecond == 100_000 && web.panic == .useAll)
        #expect(web.ejection.pointee == EjectionPolicy(after: 1, base: .milliseconds(100), max: .seconds(86400)))
        #expect(try settings("probe off").probe == .off)
        #expect(try settings("probe tls").probe == .tls(serverName: nil))
        #expect(try settings("probe tls sni App.Example.COM").probe == .tls(serverName: "app.example.com"))
        let off = try settings("eject off")
        withExtendedLifetime(off) { #expect(off.ejection.pointee.after == 0) }
    }

    @Test("the default timeout never exceeds the interval") func shortInterval() throws {
        #expect(try settings("interval 100ms").timeout == .milliseconds(100))
        #expect(errorCount("interval 1s\ntimeout 1001ms") == 1)
        #expect(errorCount("interval 1s\ntimeout 1s") == 0)
    }

    @Test(
        "every value out of range is one error",
        arguments: [
            "interval 99ms", "interval 3601s", "interval 1s jitter 51%", "interval 1s jitter 5", "timeout 9ms",
            "rise 0",
            "rise 101", "fall 0", "fall 101", "rate 0/s", "rate 100001/s", "rate 5/m", "eject after 0 for 1s",
            "eject after 1001 for 1s", "eject after 1 for 99ms", "eject after 1 for 10s max 9s", "probe expect \"\"",
            "probe expect", "probe tls sni", "probe tls sni a..b", "probe tls sni 192.0.2.1", "panic", "panic off",
            "probe tcp tls", "interval 1s, 2s",
        ])
    func outOfRange(_ line: String) { #expect(errorCount(line) == 1) }
}
