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

    @Test("every probe is what it says, and is printed so that it means the same") func probes() throws {
        let cases: [(String, HealthSettings.Probe)] = [
            ("http", .http(HTTPProbe())), ("http /a", .http(HTTPProbe(path: "/a"))),
            (#"http /a\b"#, .http(HTTPProbe(path: #"/a\b"#))),
            ("http expect 204", .http(HTTPProbe(expect: 204...204))),
            (
                "http /a?b=c expect 200-299 host c.example:81",
                .http(HTTPProbe(path: "/a?b=c", host: "c.example:81", expect: 200...299))
            ),
            ("postgresql", .postgresql(user: "pipelined")), ("postgresql user p", .postgresql(user: "p")),
            ("mysql", .mysql(user: nil)), ("mysql user m", .mysql(user: "m")), ("redis", .redis), ("agent", .agent),
            ("smtp", .smtp(name: "localhost")), ("smtp name MX.example", .smtp(name: "mx.example")),
            (
                #"send "PING\r\n" expect "+PONG""#,
                .exchange([ProbeExchange(send: Array("PING\r\n".utf8), expect: Array("+PONG".utf8))])
            ),
            (
                #"expect "220" send "\0\t\x7f\xFF\\\"" expect "ü""#,
                .exchange([
                    ProbeExchange(send: [], expect: Array("220".utf8)),
                    ProbeExchange(send: [0, 9, 0x7F, 0xFF, 0x5C, 0x22], expect: Array("ü".utf8)),
                ])
            ),
        ]
        for (text, probe) in cases {
            #expect(try settings("probe \(text)").probe == probe, "\(text)")
            let lines = HealthSettings.lines.filter { $0.line.keyword == "probe" }
            let printed = try #require(lines.first?.text(try settings("probe \(text)").values))
            #expect(try settings("probe \(printed)").probe == probe, "\(printed)")
        }
        let elsewhere = try settings("port 81\naddress fd00::9")
        let backend = Endpoint(IPAddress(high: 1, low: 1), 80)
        #expect(elsewhere.place(of: backend) == Endpoint("[fd00::9]:81") && elsewhere.probesElsewhere)
        #expect(try settings("").place(of: backend) == backend)
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
            "probe tcp tls", "interval 1s, 2s", "probe http a", "probe http /a b", "probe http /ü",
            "probe http expect 99", "probe http expect 200-600", "probe http expect 300-200", "probe http expect 2xx",
            "probe http host \"a b\"", "probe http /a host a host b", "probe http host \"a\\r\\n\"", "probe redis x",
            "probe postgresql user", "probe postgresql user \"a b\"", "probe mysql name x", "probe smtp name -..",
            "probe send \"a\"", "probe send \"a\" expect", "probe send \"\" expect \"a\"",
            "probe send \"\\q\" expect \"a\"",
            "probe expect \"a\" expect \"b\"", "probe expect \"a\" send \"b\"", "probe send \"\\x0\" expect \"a\"",
            "probe expect \"a\"" + String(repeating: " send \"a\" expect \"b\"", count: 8), "port 0", "port 65536",
            "port x", "address ::", "address [::1]", "address ::1 80",
        ])
    func outOfRange(_ line: String) { #expect(errorCount(line) == 1) }
}
