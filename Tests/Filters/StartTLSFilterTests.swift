import FilterSNI
import FilterStartTLS
import Pipeline
import TestSupport
import Testing

@Suite("starttls")
struct StartTLSFilterTests {
    static let request: [UInt8] = [0, 0, 0, 8, 4, 0xD2, 0x16, 0x2F]
    static let gss: [UInt8] = [0, 0, 0, 8, 4, 0xD2, 0x16, 0x30]
    static let startup: [UInt8] = [0, 0, 0, 9, 0, 3, 0, 0, 0]
    static let postgresql = [Clause(name: "protocol", values: [.word("postgresql")])]

    @Test("a request for TLS is answered once it is whole, and is not passed on")
    func request() throws {
        var run = FilterHarness()
        #expect(try run.evaluate(StartTLSFilter.self, Self.postgresql) == .needBytes(1))
        for count in 1..<8 {
            let part = Self.request.prefix(count)
            #expect(try run.evaluate(StartTLSFilter.self, Self.postgresql, bytes: part) == .needBytes(8))
            #expect(run.said() == [])
        }
        let (verdict, text) = try run.run(StartTLSFilter.self, Self.postgresql, bytes: Self.request)
        #expect(verdict == .needBytes(9) && run.said() == Array("S".utf8))
        #expect(run.facts.consumed == 8 && run.facts.upgradeWithin == .seconds(5))
        #expect(text.contains("is told to begin"))
        for input in [InputState.open, .ended, .timedOut] {
            #expect(try run.evaluate(StartTLSFilter.self, Self.postgresql, bytes: Self.request, input: input) == .next)
        }
        #expect(run.said() == [])
    }

    @Test("GSSAPI is declined once, and TLS may be asked for after it, or nothing")
    func gss() throws {
        var run = FilterHarness()
        #expect(try run.evaluate(StartTLSFilter.self, Self.postgresql, bytes: Self.gss) == .needBytes(9))
        #expect(run.said() == Array("N".utf8) && !run.facts.isUpgraded)
        var other = run
        let both = Self.gss + Self.request
        #expect(try run.evaluate(StartTLSFilter.self, Self.postgresql, bytes: both) == .needBytes(17))
        #expect(run.said() == Array("S".utf8) && run.facts.consumed == 16 && run.facts.isUpgraded)
        #expect(try other.evaluate(StartTLSFilter.self, Self.postgresql, bytes: Self.gss + Self.startup) == .next)
        other.resetFacts()
        #expect(try other.evaluate(StartTLSFilter.self, Self.postgresql, bytes: Self.gss) == .needBytes(9))
        _ = other.said()
        let again = try other.evaluate(StartTLSFilter.self, Self.postgresql, bytes: Self.gss + Self.gss)
        #expect(FilterHarness.reason(again, of: StartTLSFilter.self) == "starttls.malformed client")
    }

    @Test("CVE-2021-23214: bytes behind the request, before its answer, are nobody's")
    func pipelined() throws {
        for first in [Self.request, Self.gss] {
            let behind: [[UInt8]] = [[0], Self.startup, [22, 3, 1], Self.request]
            for more in behind {
                var run = FilterHarness()
                let (verdict, text) = try run.run(StartTLSFilter.self, Self.postgresql, bytes: first + more)
                #expect(FilterHarness.reason(verdict, of: StartTLSFilter.self) == "starttls.pipelined client")
                #expect(text.contains("before it was answered") && run.said() == [] && !run.facts.isUpgraded)
            }
        }
    }

    @Test("what is no request goes by untouched: TLS at once, a session, a cancel request, other protocols, silence")
    func others() throws {
        let cancel: [UInt8] = [0, 0, 0, 16, 4, 0xD2, 0x16, 0x2E] + [UInt8](repeating: 1, count: 8)
        let firsts: [[UInt8]] = [
            [22, 3, 1, 0, 5], Self.startup, cancel, Array("SSH-2.0-x\r\n".utf8), Array("S".utf8), [0, 1],
        ]
        for bytes in firsts {
            var run = FilterHarness()
            let (verdict, text) = try run.run(StartTLSFilter.self, Self.postgresql, bytes: bytes)
            #expect(verdict == .next && run.said() == [] && run.facts.consumed == 0 && !run.facts.isUpgraded)
            #expect(text.contains("no request for TLS"))
        }
        for input in [InputState.ended, .timedOut] {
            var run = FilterHarness()
            #expect(try run.evaluate(StartTLSFilter.self, Self.postgresql, input: input) == .next)
            #expect(
                try run.evaluate(StartTLSFilter.self, Self.postgresql, bytes: [0, 0, 0, 8], input: input) == .next)
        }
        var run = FilterHarness()
        run.hint = .tcpRaw
        #expect(try run.evaluate(StartTLSFilter.self, Self.postgresql, bytes: Self.request) == .next)
        #expect(run.said() == [])
    }

    @Test("behind a PROXY header the request begins where that ends")
    func behindHeader() throws {
        var run = FilterHarness()
        run.facts.consumed = 28
        let header = [UInt8](repeating: 13, count: 28)
        #expect(try run.evaluate(StartTLSFilter.self, Self.postgresql, bytes: header) == .needBytes(29))
        #expect(
            try run.evaluate(StartTLSFilter.self, Self.postgresql, bytes: header + Self.request) == .needBytes(37))
        #expect(run.facts.consumed == 36 && run.said() == Array("S".utf8))
    }

    @Test("R5: who was told to begin TLS and does not is refused, whatever routes there are for other protocols")
    func notTLS() throws {
        var run = FilterHarness()
        for client in [ClientProtocol.plain, .silent] {
            var route = FakeRoute("rt_\(client.name)")
            route.client = client
            run.routes.add(route)
        }
        _ = try run.evaluate(StartTLSFilter.self, Self.postgresql, bytes: Self.request)
        #expect(try run.evaluate(StartTLSFilter.self, Self.postgresql, bytes: Self.request + Self.startup) == .next)
        let plain = try run.evaluate(SNIFilter.self, bytes: Self.request + Self.startup)
        #expect(FilterHarness.reason(plain, of: SNIFilter.self) == "sni.not_tls client")
        let silent = try run.evaluate(SNIFilter.self, bytes: Self.request, input: .timedOut)
        #expect(FilterHarness.reason(silent, of: SNIFilter.self) == "sni.timeout client")
    }

    @Test("the backend is asked the same, and what it answers is willing, unwilling, or no answer at all")
    func backend() throws {
        let settings = try StartTLSFilter.settings(Directive(keyword: "starttls", clauses: Self.postgresql))
        func ask(_ answer: String) -> String {
            var run = FilterHarness()
            #expect(run.upgrade(StartTLSFilter.self, settings) == .more)
            #expect(run.said() == Self.request)
            switch run.upgrade(StartTLSFilter.self, settings, answer: Array(answer.utf8)) {
            case .more: return "more"
            case .done: return "done"
            case .refuse(let code): return FilterHarness.reason(.refuse(code), of: StartTLSFilter.self) ?? ""
            }
        }
        #expect(ask("S") == "done")
        for unwilling in ["N", "E", "E\0\0\0\u{8}x"] { #expect(ask(unwilling) == "starttls.backend_refused upstream") }
        for wrong in ["SX", "SS", "NN", "G", "\0", "HTTP/1.1 400", "s"] {
            #expect(ask(wrong) == "starttls.backend_malformed upstream", "\(wrong)")
        }
    }

    @Test("its times are those of the clauses")
    func times() throws {
        let settings = try StartTLSFilter.settings(
            Directive(
                keyword: "starttls",
                clauses: Self.postgresql + [
                    Clause(name: "timeout", values: [.duration(.seconds(9))]),
                    Clause(name: "backend_timeout", values: [.duration(.seconds(2))]),
                ]))
        #expect(StartTLSFilter.peek(settings) == PeekNeed(bytes: 16, timeout: .seconds(9), consumes: true))
        var run = FilterHarness()
        var state: Void = ()
        _ = run.evaluate(StartTLSFilter.self, settings, &state, bytes: Self.request)
        #expect(run.facts.upgradeWithin == .seconds(2))
    }
}

/// What a client of mail or of a directory is told, one request after the other.
@Suite("starttls, mail and directories")
struct StartTLSMailFilterTests {
    private static func clauses(_ name: String) -> [Clause] {
        let named = name == "smtp" ? [Clause(name: "name", values: [.text("mx.example.com")])] : []
        return [Clause(name: "protocol", values: [.word(name)])] + named
    }

    /// A conversation: each answer, and the last verdict.
    private func talk(_ name: String, _ requests: [[UInt8]]) throws -> (said: [String], verdict: Verdict, FilterHarness)
    {
        var run = FilterHarness()
        var (said, stream): ([String], [UInt8]) = ([], [])
        var verdict = try run.evaluate(StartTLSFilter.self, Self.clauses(name))
        said.append(String(decoding: run.said(), as: UTF8.self))
        for request in requests {
            stream += request
            verdict = try run.evaluate(StartTLSFilter.self, Self.clauses(name), bytes: stream)
            said.append(String(decoding: run.said(), as: UTF8.self))
            #expect(!run.saysTooMuch)
            guard case .needBytes = verdict else { break }
        }
        return (said, verdict, run)
    }

    private func talk(_ name: String, _ lines: [String]) throws -> (said: [String], verdict: Verdict, FilterHarness) {
        try talk(name, lines.map { Array($0.utf8) })
    }

    private func reason(_ verdict: Verdict) -> String? { FilterHarness.reason(verdict, of: StartTLSFilter.self) }

    @Test("SMTP: a greeting, EHLO, NOOP, and 530 for all that is not STARTTLS")
    func smtp() throws {
        let (said, verdict, run) = try talk(
            "smtp", ["EHLO me\r\n", "noop\r\n", "MAIL FROM:<a@b>\r\n", "STARTTLS x\r\n", "STARTTLS\r\n"])
        #expect(
            said == [
                "220 mx.example.com ESMTP\r\n", "250-mx.example.com\r\n250 STARTTLS\r\n", "250 2.0.0 OK\r\n",
                "530 5.7.0 Must issue a STARTTLS command first\r\n",
                "501 5.5.4 Syntax error (no parameters allowed)\r\n",
                "220 2.0.0 Ready to start TLS\r\n",
            ])
        #expect(run.facts.isUpgraded && run.facts.consumed == 9 + 6 + 17 + 12 + 10)
        #expect(verdict == .needBytes(run.facts.consumed + 1))
    }

    @Test("IMAP: a greeting, and each answer has its command's tag")
    func imap() throws {
        let (said, _, run) = try talk(
            "imap", ["a CAPABILITY\r\n", "b LOGIN u p\r\n", "c SELECT x\r\n", "nonsense\r\n", "d STARTTLS\r\n"])
        #expect(
            said == [
                "* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready\r\n",
                "* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\na OK done\r\n",
                "b NO [PRIVACYREQUIRED] STARTTLS first\r\n", "c BAD STARTTLS first\r\n",
                "* BAD a tag and a command, please\r\n", "d OK begin TLS now\r\n",
            ])
        #expect(run.facts.isUpgraded)
        #expect(try talk("imap", ["x LOGOUT\r\n"]).said.last == "* BYE\r\nx OK bye\r\n")
    }

    @Test("LDAP: StartTLS, a notice for anything else, and TLS at once goes by")
    func ldap() throws {
        let request: [UInt8] =
            [0x30, 0x1D, 2, 1, 9, 0x77, 0x18, 0x80, 0x16] + Array("1.3.6.1.4.1.1466.20037".utf8)
        let (said, verdict, run) = try talk("ldap", [request])
        #expect(Array(said[1].utf8) == [0x30, 0x0C, 2, 1, 9, 0x78, 7, 0x0A, 1, 0, 4, 0, 4, 0] && said[0].isEmpty)
        #expect(verdict == .needBytes(32) && run.facts.isUpgraded)
        let bind: [UInt8] = [0x30, 0x0C, 2, 1, 1, 0x60, 7, 2, 1, 3, 4, 0, 0x80, 0]
        let other = try talk("ldap", [bind])
        #expect(reason(other.verdict) == "starttls.no_tls client" && other.said[1].hasSuffix("1466.20036"))
        #expect(reason(try talk("ldap", [request + [22]]).verdict) == "starttls.pipelined client")
        #expect(reason(try talk("ldap", [Array("GET /".utf8)]).verdict) == "starttls.malformed client")
        #expect(try talk("ldap", [[22, 3, 1]]).verdict == .next)
    }

    @Test("CVE-2011-0411: what comes behind a line before its answer is nobody's, whichever line it is")
    func pipelined() throws {
        for (name, line) in [
            ("smtp", "STARTTLS\r\nMAIL FROM:<a@b>\r\n"), ("smtp", "EHLO me\r\nSTARTTLS\r\n"), ("smtp", "STARTTLS\r\nx"),
            ("imap", "a STARTTLS\r\nb LOGIN u p\r\n"),
        ] {
            let (said, verdict, run) = try talk(name, [line])
            #expect(reason(verdict) == "starttls.pipelined client" && said[1].isEmpty && !run.facts.isUpgraded)
        }
        // Before the greeting too.
        var run = FilterHarness()
        let early = try run.evaluate(StartTLSFilter.self, Self.clauses("smtp"), bytes: Array("EHLO me\r\n".utf8))
        #expect(reason(early) == "starttls.pipelined client" && run.said() == [])
    }

    @Test("R27: who says too much, too many things, or nothing is refused")
    func bounds() throws {
        let many = try talk("smtp", [String](repeating: "NOOP\r\n", count: 30))
        #expect(reason(many.verdict) == "starttls.no_tls client" && many.said.count == 22)
        let long = [String](repeating: "NOOP " + String(repeating: "x", count: 400) + "\r\n", count: 9)
        #expect(reason(try talk("smtp", long).verdict) == "starttls.no_tls client")
        let line = String(repeating: "x", count: 600)
        #expect(reason(try talk("smtp", [line]).verdict) == "starttls.malformed client")
        #expect(reason(try talk("imap", ["\0"]).verdict) == "starttls.malformed client")
        #expect(reason(try talk("smtp", ["\u{16}\u{3}\u{1}"]).verdict) == "starttls.malformed client")
        #expect(reason(try talk("smtp", ["QUIT\r\n"]).verdict) == "starttls.closed client")
        for (input, reason) in [
            (InputState.timedOut, "starttls.timeout client"), (.ended, "starttls.closed client"),
        ] {
            var run = FilterHarness()
            _ = try run.evaluate(StartTLSFilter.self, Self.clauses("smtp"))
            let verdict = try run.evaluate(
                StartTLSFilter.self, Self.clauses("smtp"), bytes: Array("EHL".utf8), input: input)
            #expect(self.reason(verdict) == reason)
        }
    }

    @Test("`name` is for SMTP, which can't do without")
    func names() {
        for (opening, name) in [("smtp", nil), ("imap", "mx.example.com"), ("smtp", "a b"), ("smtp", "")] {
            let clauses =
                [Clause(name: "protocol", values: [.word(opening)])]
                + (name.map { [Clause(name: "name", values: [.text($0)])] } ?? [])
            #expect(throws: SettingsError.self) {
                try StartTLSFilter.settings(Directive(keyword: "starttls", clauses: clauses))
            }
        }
    }

    /// What is said to a backend, and how it ends.
    private func ask(_ name: String, _ answers: [String]) throws -> (said: [String], end: String) {
        let settings = try StartTLSFilter.settings(Directive(keyword: "starttls", clauses: Self.clauses(name)))
        defer { StartTLSFilter.dispose(settings) }
        var run = FilterHarness()
        var step = run.upgrade(StartTLSFilter.self, settings)
        var said = [String(decoding: run.said(), as: UTF8.self)]
        for answer in answers where step == .more {
            step = run.upgrade(StartTLSFilter.self, settings, answer: Array(answer.utf8))
            said.append(String(decoding: run.said(), as: UTF8.self))
        }
        switch step {
        case .more: return (said, "more")
        case .done: return (said, "done")
        case .refuse(let code): return (said, reason(.refuse(code)) ?? "")
        }
    }

    @Test("backends of mail: their greeting, EHLO, STARTTLS, in any pieces, and nothing behind an answer")
    func mailBackends() throws {
        let greeting = "220-mx\r\n220 ready\r\n"
        let (said, end) = try ask("smtp", [greeting, "250-mx\r\n250 STARTTLS\r\n", "220 go\r\n"])
        #expect(said == ["", "EHLO mx.example.com\r\n", "STARTTLS\r\n", ""] && end == "done")
        let bytes = (greeting + "250 mx\r\n220 go\r\n").map { String($0) }.joined(separator: "|").split(separator: "|")
        #expect(try ask("smtp", bytes.map(String.init)).end == "done")
        for (answers, reason) in [
            (["554 no\r\n"], "backend_refused"), ([greeting, "502 no\r\n"], "backend_refused"),
            ([greeting, "250 a\r\n", "454 TLS not available\r\n"], "backend_refused"),
            ([greeting, "250 a\r\n", "220 go\r\n220 more\r\n"], "backend_malformed"),
            ([greeting + "250 a\r\n"], "backend_malformed"), (["HTTP/1.1 400\r\n"], "backend_malformed"),
        ] { #expect(try ask("smtp", answers).end == "starttls.\(reason) upstream", "\(answers)") }
        let imap = try ask("imap", ["* OK hi\r\n", "* CAPABILITY x\r\na OK go\r\n"])
        #expect(imap.said == ["", "a STARTTLS\r\n", ""] && imap.end == "done")
        for (answers, reason) in [
            (["* BYE\r\n"], "backend_refused"), (["* OK\r\n", "a NO\r\n"], "backend_refused"),
            (["* OK\r\n", "a OK\r\n\u{16}"], "backend_malformed"), (["* OK\r\na OK\r\n"], "backend_malformed"),
        ] { #expect(try ask("imap", answers).end == "starttls.\(reason) upstream", "\(answers)") }
    }

    @Test("backends of directories: success and nothing behind it")
    func directoryBackends() throws {
        func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
        let success: [UInt8] = [0x30, 0x0C, 2, 1, 1, 0x78, 7, 0x0A, 1, 0, 4, 0, 4, 0]
        #expect(try ask("ldap", [text(success)]).end == "done")
        #expect(try ask("ldap", success.map { text([$0]) }).end == "done")
        #expect(try ask("ldap", [text(success + [22])]).end == "starttls.backend_malformed upstream")
        let refusal: [UInt8] = [0x30, 0x0C, 2, 1, 1, 0x78, 7, 0x0A, 1, 2, 4, 0, 4, 0]
        #expect(try ask("ldap", [text(refusal)]).end == "starttls.backend_refused upstream")
        #expect(try ask("ldap", ["HTTP/1.1 400"]).end == "starttls.backend_malformed upstream")
    }
}
