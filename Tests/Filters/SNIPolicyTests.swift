import Pipeline
import PipelineSets
import TestSupport
import Testing

@testable import FilterSNI

@Suite("sni policies")
struct SNIPolicyTests {
    private static let limitName = String(repeating: String(repeating: "a", count: 60) + ".", count: 4) + "bc"

    private func rule(_ action: String, _ kind: String, _ text: String) -> Clause {
        Clause(name: kind, values: [.word(action), .text(text)])
    }

    private func alpn(_ name: String) -> Clause { Clause(name: "alpn", values: [.text(name)]) }

    private func names(_ action: String, _ names: String...) -> Clause {
        var entries = NameEntries()
        for name in names {
            var copy = name
            #expect(copy.withUTF8 { entries.add($0) })
        }
        return Clause(name: "names", values: [.word(action), .block(NameSet(name: "block", entries: entries))])
    }

    private func judge(
        _ clauses: [Clause], _ name: String?, offers: [String] = [], cuts: [Int] = []
    ) throws -> (verdict: String, why: String) {
        var hello = name.map { HelloBuilder($0) } ?? HelloBuilder()
        hello.alpn = offers
        hello.recordLengths = cuts
        var run = FilterHarness()
        run.routes.add(FakeRoute("rt_1", hosts: ["app.example.com"]))
        let (verdict, why) = try run.run(SNIFilter.self, clauses, bytes: hello.bytes)
        return (FilterHarness.reason(verdict, of: SNIFilter.self) ?? "\(verdict)", why)
    }

    @Test("the first clause that matches decides; without `allow` clauses others pass")
    func denies() throws {
        let clauses = [
            rule("deny", "name", "Evil.Example"), rule("deny", "suffix", "internal.example"),
            names("deny", "*.bad.example"), rule("deny", "pattern", #"x[0-9]+\..*"#),
        ]
        for name in [
            "evil.example", "internal.example", "a.b.internal.example", "a.bad.example", "x12.example.com", "X1.Com",
        ] {
            #expect(try judge(clauses, name).verdict == "sni.name_denied client", "\(name)")
        }
        for name in [
            "a.evil.example", "xinternal.example", "bad.example", "a.a.bad.example", "ax12.example.com", "x.com",
        ] {
            #expect(try judge(clauses, name).verdict == "next", "\(name)")
        }
    }

    @Test("with an `allow` clause, what none matches is refused")
    func allows() throws {
        let clauses = [rule("deny", "name", "b.example.com"), rule("allow", "suffix", "example.com")]
        #expect(try judge(clauses, "a.example.com").verdict == "next")
        let denied = try judge(clauses, "b.example.com")
        #expect(denied.verdict == "sni.name_denied client")
        #expect(denied.why == "`deny name b.example.com` matches b.example.com")
        let other = try judge(clauses, "example.org")
        #expect(other.verdict == "sni.name_denied client")
        #expect(other.why == "no `allow` clause matches example.org")
        let reversed = Array(clauses.reversed())
        #expect(try judge(reversed, "b.example.com").verdict == "next")
    }

    @Test("explain names the entry of a block")
    func explains() throws {
        #expect(
            try judge([names("deny", ".bad.example")], "x.y.bad.example").why
                == "`deny names block` (by .bad.example) matches x.y.bad.example")
    }

    @Test("R6: a client that names no server passes `deny` clauses, and never an `allow` clause")
    func nameless() throws {
        #expect(try judge([rule("deny", "pattern", ".*")], nil).verdict == "next")
        #expect(try judge([rule("allow", "pattern", ".*")], nil).verdict == "sni.name_denied client")
    }

    @Test("a pattern is about the whole name, in any case of letters")
    func anchored() throws {
        let clauses = [rule("deny", "pattern", "Mail|www")]
        #expect(try judge(clauses, "mail").verdict == "sni.name_denied client")
        #expect(try judge(clauses, "WWW").verdict == "sni.name_denied client")
        #expect(try judge(clauses, "mail.example.com").verdict == "next")
        #expect(try judge(clauses, "a.www").verdict == "next")
    }

    @Test("R27: a pattern that backtracks without end meets its limit, and the connection is refused either way")
    func limit() throws {
        for action in ["allow", "deny"] {
            let found = try judge([rule(action, "pattern", "([a.]+)+b")], Self.limitName)
            #expect(found.verdict == "sni.pattern_limit client")
            #expect(found.why.contains("hit its backtracking limit"))
        }
    }

    @Test("R27: the limits hold with the JIT and without", arguments: [true, false])
    func limits(jit: Bool) throws {
        let scratch = PatternScratch(isNeeded: true)
        for text in ["([a.]+)+b", "([a.]|[a.])*b", "(?:(?R)|a)*b", "(([a.]+)*)*b", "(.*)(.*)(.*)(.*)(.*)(.*)b"] {
            let pattern = try NamePattern(text, withJIT: jit)
            defer { pattern.deallocate() }
            var name = Self.limitName
            #expect(name.withUTF8 { pattern.matches($0, scratch) } == .limit, "\(text)")
        }
        let plain = try NamePattern("a+\\.example", withJIT: jit)
        defer { plain.deallocate() }
        for (text, answer) in [("aaa.example", NamePattern.Answer.yes), ("aab.example", .no), ("xaaa.example", .no)] {
            var name = text
            #expect(name.withUTF8 { plain.matches($0, scratch) } == answer)
        }
    }

    @Test(
        "a pattern that doesn't compile, or has no bound, is refused where it stands",
        arguments: [
            "(", "[a", "a{2,1}", "(?<=a+)b", "\\C", "(*UTF)a", "(*UCP)a", "", String(repeating: "a", count: 1025),
            "((a{1,9}b){1,99}){1,99}", "(?:" + String(repeating: "(a)", count: 300) + ")",
        ])
    func bad(_ text: String) {
        #expect {
            try SNIFilter.settings(
                Directive(keyword: "sni", clauses: [rule("deny", "name", "a.b"), rule("deny", "pattern", text)]))
        } throws: { error in (error as? SettingsError)?.clauseIndex == 1 }
    }

    @Test("the offset of PCRE2 is told")
    func offset() {
        #expect(
            throws: SettingsError(
                "the pattern doesn't compile: missing closing parenthesis, at byte 4",
                remedy: "correct it; `man pcre2pattern` has the syntax", clauseIndex: 0)
        ) { try SNIFilter.settings(Directive(keyword: "sni", clauses: [rule("deny", "pattern", "(ab")])) }
    }

    @Test(
        "R3: a name in a clause must be one",
        arguments: ["*.example.com", ".example.com", "192.0.2.1", "b\u{FC}cher.example", ""])
    func badName(_ text: String) {
        for kind in ["name", "suffix"] {
            #expect(throws: SettingsError.self) {
                try SNIFilter.settings(Directive(keyword: "sni", clauses: [rule("deny", kind, text)]))
            }
        }
    }

    @Test("one of the required protocols must be offered")
    func protocols() throws {
        let clauses = [alpn("h2"), alpn("http/1.1")]
        #expect(try judge(clauses, "a.b", offers: ["h3", "http/1.1"]).verdict == "next")
        #expect(try judge(clauses, "a.b", offers: ["h2"]).verdict == "next")
        #expect(try judge(clauses, nil, offers: ["h2"]).verdict == "next")
        let found = try judge(clauses, "a.b", offers: ["h", "h22", "http/1.0"])
        #expect(found.verdict == "sni.alpn_required client")
        #expect(found.why == "the client does not offer h2 or http/1.1; it offers h, h22, http/1.0")
        #expect(try judge(clauses, "a.b").verdict == "sni.alpn_required client")
    }

    @Test("protocols are found wherever records are cut")
    func cutProtocols() throws {
        var hello = HelloBuilder("a.b")
        hello.alpn = ["spdy/3", "h2"]
        for cut in 1..<hello.message.count {
            #expect(try judge([alpn("h2")], "a.b", offers: ["spdy/3", "h2"], cuts: [cut]).verdict == "next", "\(cut)")
            #expect(
                try judge([alpn("h3")], "a.b", offers: ["spdy/3", "h2"], cuts: [cut]).verdict
                    == "sni.alpn_required client")
        }
    }

    @Test("R6: without a hello no protocol is offered, even where there is only one route")
    func noHello() throws {
        var run = FilterHarness()
        run.routes.add(FakeRoute("rt_1", hosts: ["app.example.com"], flags: .allowNonTLS))
        let http = Array("GET / HTTP/1.1\r\n\r\n".utf8)
        for (bytes, input) in [(http, InputState.open), ([22, 3, 1], .timedOut), ([22, 3, 1], .full)] {
            let refused = try run.evaluate(SNIFilter.self, [alpn("h2")], bytes: bytes, input: input)
            #expect(FilterHarness.reason(refused, of: SNIFilter.self) == "sni.alpn_required client")
            let allowed = try run.evaluate(SNIFilter.self, [rule("allow", "suffix", "a.b")], bytes: bytes, input: input)
            #expect(FilterHarness.reason(allowed, of: SNIFilter.self) == "sni.name_denied client")
            #expect(
                try run.evaluate(SNIFilter.self, [rule("deny", "suffix", "a.b")], bytes: bytes, input: input) == .next)
        }
    }
}
