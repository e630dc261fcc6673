import FilterBackendSelect
import FilterSNI
import Pipeline
import TestSupport
import Testing

/// `sni` where routes ask for ALPN, or for first bytes that are no TLS (R6, R7; ADR 0096).
@Suite("sni, beside other protocols")
struct SNIClientTests {
    private static let ssh = Array("SSH-2.0-OpenSSH_9.2\r\n".utf8)
    private static let tlsRequest: [UInt8] = [0, 0, 0, 8, 4, 0xD2, 0x16, 0x2F]
    private static let http = Array("GET / HTTP/1.1\r\n\r\n".utf8)

    private func harness(_ clients: ClientProtocol...) -> FilterHarness {
        let run = FilterHarness()
        run.routes.add(FakeRoute("tls", hosts: ["app.example.com"]))
        for client in clients {
            var route = FakeRoute(client.name)
            route.client = client
            run.routes.add(route)
        }
        return run
    }

    private func reason(_ verdict: Verdict) -> String? { FilterHarness.reason(verdict, of: SNIFilter.self) }

    /// The id of the route that `backend` finds once `sni` has passed.
    private func route(_ run: inout FilterHarness, _ bytes: [UInt8]) throws -> String? {
        _ = try run.evaluate(BackendFilter.self, bytes: bytes)
        return run.facts.route?.pointee.id.string
    }

    @Test("SSH, PostgreSQL and what is neither go to their routes, byte by byte, and TLS by name as ever")
    func recognised() throws {
        for (bytes, client) in [(Self.ssh, "ssh"), (Self.tlsRequest, "postgresql"), (Self.http, "plain")] {
            var run = harness(.ssh, .postgresql, .plain)
            var count = 0
            while case .needBytes(let total) = try run.evaluate(SNIFilter.self, bytes: bytes.prefix(count)) {
                #expect(total > count && total <= 8)
                count += 1
            }
            let (verdict, text) = try run.run(SNIFilter.self, bytes: bytes.prefix(count))
            #expect(verdict == .next && run.facts.sniff == .notTLS && run.facts.serverName.isEmpty, "\(client)")
            #expect(text.contains("and a route takes that"), "\(text)")
            #expect(try route(&run, bytes) == client)
        }
        var run = harness(.ssh, .postgresql, .plain)
        let hello = HelloBuilder("app.example.com").bytes
        #expect(try run.evaluate(SNIFilter.self, bytes: hello) == .next)
        #expect(try route(&run, hello) == "tls")
    }

    @Test("R6: without a route for it, what is no TLS is refused at its first byte, as ever")
    func refused() throws {
        for bytes in [Self.ssh, Self.tlsRequest, Self.http] {
            var none = harness()
            #expect(reason(try none.evaluate(SNIFilter.self, bytes: bytes.prefix(1))) == "sni.not_tls client")
            var silent = harness(.silent)
            #expect(reason(try silent.evaluate(SNIFilter.self, bytes: bytes.prefix(1))) == "sni.not_tls client")
        }
        var ssh = harness(.ssh)
        let (verdict, text) = try ssh.run(SNIFilter.self, bytes: Self.tlsRequest)
        #expect(reason(verdict) == "sni.not_tls client")
        #expect(text.contains("PostgreSQL's, a request for TLS"), "\(text)")
    }

    @Test("R6: a hello without a name is refused beside other protocols: more than one route is possible")
    func nameless() throws {
        var run = harness(.ssh)
        #expect(reason(try run.evaluate(SNIFilter.self, bytes: HelloBuilder().bytes)) == "sni.no_sni client")
    }

    @Test("R7: half a mark waits to its deadline, and is plain then, or refused")
    func half() throws {
        var run = harness(.ssh, .plain)
        #expect(try run.evaluate(SNIFilter.self, bytes: Array("SS".utf8)) == .needBytes(4))
        #expect(run.facts.sniff == .incomplete)
        #expect(try run.evaluate(SNIFilter.self, bytes: Array("SS".utf8), input: .timedOut) == .next)
        #expect(try route(&run, Array("SS".utf8)) == "plain")
        var strict = harness(.ssh)
        let verdict = try strict.evaluate(SNIFilter.self, bytes: Array("SS".utf8), input: .timedOut)
        #expect(reason(verdict) == "sni.not_tls client")
    }

    @Test("silence goes to the route that takes it at the deadline, and not before; half a hello never")
    func silence() throws {
        var run = harness(.ssh, .silent)
        #expect(try run.evaluate(SNIFilter.self) == .needBytes(1))
        let (verdict, text) = try run.run(SNIFilter.self, input: .timedOut)
        #expect(verdict == .next && run.facts.sniff == .timeout && text.contains("nothing came"), "\(text)")
        #expect(try route(&run, []) == "silent")
        var none = harness(.ssh, .plain)
        #expect(reason(try none.evaluate(SNIFilter.self, input: .timedOut)) == "sni.timeout client")
        var begun = harness(.silent)
        let half = HelloBuilder("app.example.com").bytes.prefix(20)
        #expect(reason(try begun.evaluate(SNIFilter.self, bytes: half, input: .timedOut)) == "sni.timeout client")
        var gone = harness(.silent)
        #expect(reason(try gone.evaluate(SNIFilter.self, input: .ended)) == "sni.closed client")
    }

    @Test("name policies hold as without a name: allow clauses and require alpn refuse")
    func policies() throws {
        let alpn = Clause(name: "alpn", values: [.text("h2")])
        var run = harness(.ssh)
        #expect(
            reason(try run.evaluate(SNIFilter.self, [alpn], bytes: Self.ssh)) == "sni.alpn_required client")
    }

    @Test("ALPN chooses among routes of one name, also where the list crosses records, at every cut")
    func alpnAcrossRecords() throws {
        var builder = HelloBuilder("app.example.com")
        builder.alpn = ["grease", "h2", "http/1.1"]
        for cut in 0..<builder.message.count {
            builder.recordLengths = [cut]
            var run = FilterHarness()
            for alpn in [nil, "h2", "http/1.1"] {
                var route = FakeRoute(alpn ?? "rest", hosts: ["app.example.com"])
                route.alpn = alpn
                run.routes.add(route)
            }
            #expect(try run.evaluate(SNIFilter.self, bytes: builder.bytes) == .next, "cut at \(cut)")
            #expect(try route(&run, builder.bytes) == "h2", "cut at \(cut)")
        }
    }

    @Test("R27: a list of more than 1024 bytes across records is not read; in one record it is")
    func longSplit() throws {
        for (cut, expected) in [(0, "h2"), (900, "rest")] {
            var builder = HelloBuilder("app.example.com")
            builder.alpn = ["h2"] + (0..<6).map { String(repeating: "\($0)", count: 200) }
            builder.recordLengths = [cut]
            var run = FilterHarness()
            for alpn in [nil, "h2"] {
                var route = FakeRoute(alpn ?? "rest", hosts: ["app.example.com"])
                route.alpn = alpn
                run.routes.add(route)
            }
            #expect(try run.evaluate(SNIFilter.self, bytes: builder.bytes) == .next)
            #expect(try route(&run, builder.bytes) == expected, "cut at \(cut)")
        }
    }
}
