import FilterSNI
import Pipeline
import TestSupport
import Testing

@Suite("sni")
struct SNIFilterTests {
    private static let hello = HelloBuilder("App.Example.com.").bytes
    private static let nameless = HelloBuilder().bytes
    private static let http = Array("GET / HTTP/1.1\r\n\r\n".utf8)

    private func harness(_ routes: FakeRoute...) -> FilterHarness {
        let run = FilterHarness()
        for route in routes { run.routes.add(route) }
        return run
    }
    private var one: FakeRoute { FakeRoute("rt_1", hosts: ["app.example.com"]) }
    private var other: FakeRoute { FakeRoute("rt_2", hosts: ["other.example.com"]) }

    private func reason(_ verdict: Verdict) -> String? { FilterHarness.reason(verdict, of: SNIFilter.self) }

    @Test("R3, R7: a name is given canonical")
    func name() throws {
        var run = harness(one, other)
        let (verdict, text) = try run.run(SNIFilter.self, bytes: Self.hello)
        #expect(verdict == .next)
        #expect(run.facts.sniff == .ok)
        #expect(run.facts.serverName.string == "app.example.com")
        #expect(text.contains("app.example.com"))
    }

    @Test("R7: one byte at a time, and no fact before the hello is whole")
    func bytewise() throws {
        var run = harness(one, other)
        for count in 0..<Self.hello.count {
            let verdict = try run.evaluate(SNIFilter.self, bytes: Self.hello.prefix(count))
            guard case .needBytes(let total) = verdict else {
                Issue.record("\(verdict) at \(count)")
                return
            }
            #expect(total > count && total <= Self.hello.count)
            #expect(run.facts.sniff == .incomplete)
        }
        #expect(try run.evaluate(SNIFilter.self, bytes: Self.hello) == .next)
        #expect(run.facts.sniff == .ok)
    }

    @Test("R7: a name across two records, at every cut")
    func acrossRecords() throws {
        var builder = HelloBuilder("app.example.com")
        builder.alpn = ["h2", "http/1.1"]
        for cut in 1..<builder.message.count {
            builder.recordLengths = [cut]
            var run = harness(one, other)
            #expect(try run.evaluate(SNIFilter.self, bytes: builder.bytes) == .next, "cut at \(cut)")
            #expect(run.facts.serverName.string == "app.example.com", "cut at \(cut)")
        }
    }

    @Test("ALPN's place is given where it stands in one piece")
    func alpn() throws {
        var builder = HelloBuilder("app.example.com")
        builder.alpn = ["h2"]
        var run = harness(one)
        #expect(try run.evaluate(SNIFilter.self, bytes: builder.bytes) == .next)
        let start = Int(run.facts.alpnOffset)
        #expect(Array(builder.bytes[start..<start + Int(run.facts.alpnLength)]) == [2] + Array("h2".utf8))
    }

    @Test("R6: no name passes only where there is no choice")
    func noName() throws {
        var ambiguous = harness(one, other)
        #expect(reason(try ambiguous.evaluate(SNIFilter.self, bytes: Self.nameless)) == "sni.no_sni client")
        #expect(ambiguous.facts.sniff == .noSNI)
        var single = harness(one)
        #expect(try single.evaluate(SNIFilter.self, bytes: Self.nameless) == .next)
        #expect(single.facts.sniff == .noSNI)
        #expect(single.facts.serverName.isEmpty)
        var none = harness()
        #expect(reason(try none.evaluate(SNIFilter.self, bytes: Self.nameless)) == "sni.no_sni client")
    }

    @Test("R6, R7: a timeout passes only where there is no choice", arguments: [0, 1, 7, 60])
    func timeout(_ count: Int) throws {
        let bytes = Self.hello.prefix(count)
        var ambiguous = harness(one, other)
        #expect(
            reason(try ambiguous.evaluate(SNIFilter.self, bytes: bytes, input: .timedOut)) == "sni.timeout client")
        #expect(ambiguous.facts.sniff == .timeout)
        var single = harness(one)
        #expect(try single.evaluate(SNIFilter.self, bytes: bytes, input: .timedOut) == .next)
        #expect(single.facts.sniff == .timeout)
    }

    @Test("R7: too large is known from the lengths, not from the bytes")
    func tooLarge() throws {
        var builder = HelloBuilder("app.example.com")
        builder.padding = 9000
        let maximum = [Clause(name: "max", values: [.size(16384)])]
        var ambiguous = harness(one, other)
        #expect(
            reason(try ambiguous.evaluate(SNIFilter.self, bytes: builder.bytes.prefix(5))) == "sni.too_large client")
        #expect(ambiguous.facts.sniff == .tooLarge)
        var single = harness(one)
        #expect(try single.evaluate(SNIFilter.self, bytes: builder.bytes.prefix(5)) == .next)
        #expect(single.facts.sniff == .tooLarge)
        var roomy = harness(one, other)
        #expect(try roomy.evaluate(SNIFilter.self, maximum, bytes: builder.bytes) == .next)
        #expect(roomy.facts.serverName.string == "app.example.com")
    }

    @Test("R7: a full buffer without a whole hello is too large")
    func full() throws {
        var run = harness(one, other)
        let verdict = try run.evaluate(SNIFilter.self, bytes: Self.hello.prefix(100), input: .full)
        #expect(reason(verdict) == "sni.too_large client")
    }

    @Test("R6: what is no TLS passes only to a single route that allows it")
    func notTLS() throws {
        var ambiguous = harness(one, other)
        #expect(reason(try ambiguous.evaluate(SNIFilter.self, bytes: Self.http)) == "sni.not_tls client")
        #expect(ambiguous.facts.sniff == .notTLS)
        var strict = harness(one)
        #expect(reason(try strict.evaluate(SNIFilter.self, bytes: Self.http)) == "sni.not_tls client")
        var lax = harness(FakeRoute("rt_1", hosts: ["app.example.com"], flags: .allowNonTLS))
        #expect(try lax.evaluate(SNIFilter.self, bytes: Self.http) == .next)
        var laxTwo = harness(FakeRoute("rt_1", hosts: ["app.example.com"], flags: .allowNonTLS), other)
        #expect(reason(try laxTwo.evaluate(SNIFilter.self, bytes: Self.http)) == "sni.not_tls client")
    }

    @Test("R7: malformed is refused at once, also where there is no choice")
    func malformed() throws {
        var bytes = Self.hello
        bytes[5] = 2  // a ServerHello
        var run = harness(FakeRoute("rt_1", hosts: ["app.example.com"], flags: .allowNonTLS))
        let (verdict, text) = try run.run(SNIFilter.self, bytes: bytes.prefix(6))
        #expect(reason(verdict) == "sni.malformed client")
        #expect(run.facts.sniff == .malformed)
        #expect(text == "the ClientHello is another handshake message")
    }

    @Test(
        "R3: a name that is no hostname is refused, also where there is no choice",
        arguments: ["192.0.2.1", "2001:db8::1", "a..example.com", "a b.example", ".", "a%2eexample.com", "a/../b"])
    func invalidName(_ name: String) throws {
        var run = harness(one)
        let verdict = try run.evaluate(SNIFilter.self, bytes: HelloBuilder(name).bytes)
        #expect(reason(verdict) == "sni.invalid_name client")
        #expect(run.facts.serverName.isEmpty)
    }

    @Test("R7: a client that closes early is told apart from one that is slow", arguments: [0, 1, 50])
    func closed(_ count: Int) throws {
        var run = harness(one)
        let verdict = try run.evaluate(SNIFilter.self, bytes: Self.hello.prefix(count), input: .ended)
        #expect(reason(verdict) == "sni.closed client")
    }

    @Test("R7: FIN with the last byte of a whole hello is no matter")
    func wholeAndClosed() throws {
        var run = harness(one, other)
        #expect(try run.evaluate(SNIFilter.self, bytes: Self.hello, input: .ended) == .next)
        #expect(run.facts.sniff == .ok)
    }

    @Test("R2: a raw listener is never peeked")
    func raw() throws {
        var run = FilterHarness()
        run.hint = .tcpRaw
        #expect(try run.evaluate(SNIFilter.self) == .next)
        #expect(run.facts.sniff == .notAsked)
    }

    @Test("R2: a raw route is no choice for a TLS connection")
    func rawRoute() throws {
        var run = harness(FakeRoute("rt_raw", flags: .raw))
        #expect(reason(try run.evaluate(SNIFilter.self, bytes: Self.nameless)) == "sni.no_sni client")
    }

    @Test("R17: the hello is looked for after a PROXY header that was believed")
    func afterHeader() throws {
        var run = harness(one, other)
        run.facts.consumed = 28
        let header = [UInt8](repeating: 0x0D, count: 28)
        #expect(try run.evaluate(SNIFilter.self, bytes: header) == .needBytes(29))
        #expect(try run.evaluate(SNIFilter.self, bytes: header + Self.hello) == .next)
        #expect(run.facts.serverName.string == "app.example.com")
    }

    @Test("R7: defaults and bounds")
    func settings() throws {
        let defaults = try SNIFilter.settings(Directive(keyword: "sni", clauses: []))
        #expect(SNIFilter.peek(defaults) == PeekNeed(bytes: 8192, timeout: .milliseconds(200)))
        let given = try SNIFilter.settings(
            Directive(
                keyword: "sni",
                clauses: [
                    Clause(name: "timeout", values: [.duration(.seconds(3))]),
                    Clause(name: "max", values: [.size(16384)]),
                ]))
        #expect(SNIFilter.peek(given) == PeekNeed(bytes: 16384, timeout: .seconds(3)))
    }
}
