import FilterAntiSpoof
import Foundation
import Pipeline
import TestSupport
import Testing

/// What listed senders may say, and what becomes of it.
@Suite("anti_spoof accept and require")
struct AntiSpoofSenderTests {
    private static let v1 = Array("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".utf8)
    /// 192.0.2.1:123 to 192.0.2.2:5678, and an authority `AB`.
    private static let v2 =
        bytes(hex: "0d0a0d0a000d0a515549540a21110011c0000201c0000202007b162e0200024142") ?? []
    private static let local = bytes(hex: "0d0a0d0a000d0a515549540a20000000") ?? []

    private static func senders(_ duty: String, _ prefixes: String...) -> Clause {
        let set = AddressSet(name: "@lbs", prefixes: prefixes.compactMap { Prefix($0) })
        return Clause(name: "senders", values: [.word(duty), .set(set)])
    }
    private static let refuse = Clause(name: "refuse", values: [])
    private static let accept = [senders("accept", "2001:db8::/32", "10.0.0.0/8"), refuse]
    private static let require = [senders("require", "2001:db8::/32", "10.0.0.0/8"), refuse]

    private func reason(_ verdict: Verdict) -> String? { FilterHarness.reason(verdict, of: AntiSpoofFilter.self) }

    @Test(
        "R17: a header of a listed sender is believed, consumed, and its TLVs are found", arguments: [accept, require])
    func believed(_ clauses: [Clause]) throws {
        for (header, source) in [(Self.v1, "192.0.2.1:1"), (Self.v2, "192.0.2.1:123")] {
            var run = FilterHarness()
            let (verdict, text) = try run.run(AntiSpoofFilter.self, clauses, bytes: header + Array("hello".utf8))
            #expect(verdict == .next)
            #expect(run.facts.client.endpoint == FilterHarness.endpoint(source))
            #expect(run.facts.peer.endpoint == FilterHarness.endpoint("[2001:db8::99]:40000"))
            // R1: what the header says of the destination is for our own header, and routes go by where it really was.
            let wanted = header == Self.v1 ? "192.0.2.2:2" : "192.0.2.2:5678"
            #expect(run.facts.believedDestination?.endpoint == FilterHarness.endpoint(wanted))
            #expect(run.facts.destination.endpoint == FilterHarness.endpoint("[2001:db8::1]:443"))
            #expect(run.facts.consumed == header.count)
            let said = "header of \(header.count) bytes says that the client is \(source) and went to \(wanted)"
            #expect(text.hasSuffix(said), "\(text)")
            #expect(run.facts.tlvLength == (header == Self.v2 ? 5 : 0))
            #expect(run.facts.tlvOffset == (header == Self.v2 ? 28 : 0))
        }
    }

    @Test("R17: byte by byte, it waits for the whole header and asks for what is missing", arguments: [v1, v2, local])
    func bytewise(_ header: [UInt8]) throws {
        for clauses in [Self.accept, Self.require] {
            for count in 0..<header.count {
                var run = FilterHarness()
                let verdict = try run.evaluate(AntiSpoofFilter.self, clauses, bytes: header.prefix(count))
                guard case .needBytes(let total) = verdict, total > count, total <= header.count else {
                    Issue.record("\(verdict) at \(count)")
                    continue
                }
                #expect(run.facts.consumed == 0)
            }
        }
    }

    @Test("R17: LOCAL, UNKNOWN and unspec headers are consumed, and the client stays the peer")
    func realPeer() throws {
        let unspec = bytes(hex: "0d0a0d0a000d0a515549540a21000000") ?? []
        let undefined = bytes(hex: "0d0a0d0a000d0a515549540a20ff0003010203") ?? []
        for header in [Self.local, Array("PROXY UNKNOWN\r\n".utf8), unspec, undefined] {
            var run = FilterHarness()
            let (verdict, text) = try run.run(AntiSpoofFilter.self, Self.require, bytes: header + [1, 2, 3])
            #expect(verdict == .next)
            #expect(run.facts.client.endpoint == run.facts.peer.endpoint)
            #expect(run.facts.believedDestination == nil)
            #expect(run.facts.consumed == header.count && run.facts.tlvLength == 0)
            #expect(text.hasSuffix("conveys no address, so the client is the peer itself"), "\(text)")
        }
    }

    @Test(
        "R17: an IPv4-mapped source in a header is the IPv4 address",
        arguments: ["::ffff:192.0.2.1", "::FFFF:c000:201"])
    func mapped(_ source: String) throws {
        var run = FilterHarness()
        let header = Array("PROXY TCP6 \(source) 2001:db8::1 5 6\r\n".utf8)
        #expect(try run.evaluate(AntiSpoofFilter.self, Self.require, bytes: header) == .next)
        #expect(run.facts.client.endpoint.address.isIPv4)
        #expect(run.facts.client.endpoint == FilterHarness.endpoint("192.0.2.1:5"))
    }

    @Test("R17: without a header, accept passes the stream as it is, require refuses it")
    func without() throws {
        for stream in [Array("GET /".utf8), [0x16, 3, 1], Array("PRI * HTTP".utf8)] {
            var run = FilterHarness()
            #expect(try run.evaluate(AntiSpoofFilter.self, Self.accept, bytes: stream) == .next)
            #expect(run.facts.consumed == 0 && run.facts.client.endpoint == run.facts.peer.endpoint)
            let verdict = try run.evaluate(AntiSpoofFilter.self, Self.require, bytes: stream)
            #expect(reason(verdict) == "anti_spoof.header_missing client")
        }
    }

    @Test("R17: whom no clause lists is refused a header, whatever listed senders may do")
    func stranger() throws {
        for clauses in [Self.accept, Self.require] {
            var run = FilterHarness()
            run.peer = FilterHarness.endpoint("[2600::1]:1")
            for header in [Self.v1, Self.v2, Self.local] {
                #expect(
                    reason(try run.evaluate(AntiSpoofFilter.self, clauses, bytes: header))
                        == "anti_spoof.spoofed client")
                #expect(run.facts.consumed == 0)
            }
            #expect(try run.evaluate(AntiSpoofFilter.self, clauses, bytes: Array("GET".utf8)) == .next)
            for count in 0..<12 {
                #expect(
                    try run.evaluate(AntiSpoofFilter.self, clauses, bytes: Self.v2.prefix(count)) == .inspect(count + 1)
                )
            }
        }
    }

    @Test("R17: trust goes by the socket's address; an IPv4 peer is one however the kernel reports it")
    func trustsPeer() throws {
        var run = FilterHarness()
        for peer in ["10.1.2.3:5", "[::ffff:10.1.2.3]:5"] {
            run.peer = FilterHarness.endpoint(peer)
            #expect(try run.evaluate(AntiSpoofFilter.self, Self.require, bytes: Self.v1) == .next)
        }
        // A believed address in the list makes nobody a sender.
        run.peer = FilterHarness.endpoint("[2600::1]:1")
        run.lasting.client = ClientAddress(FilterHarness.endpoint("10.1.2.3:5"))
        let verdict = try run.evaluate(AntiSpoofFilter.self, Self.require, bytes: Self.v1)
        #expect(reason(verdict) == "anti_spoof.spoofed client")
    }

    @Test("R17: who must by one clause and may by another, must")
    func both() throws {
        let clauses = [Self.senders("accept", "::/0"), Self.senders("require", "2001:db8::99/128"), Self.refuse]
        var run = FilterHarness()
        let verdict = try run.evaluate(AntiSpoofFilter.self, clauses, bytes: Array("GET".utf8))
        #expect(reason(verdict) == "anti_spoof.header_missing client")
        run.peer = FilterHarness.endpoint("[2001:db8::98]:1")
        #expect(try run.evaluate(AntiSpoofFilter.self, clauses, bytes: Array("GET".utf8)) == .next)
    }

    @Test("R17: malformed, and larger than max, each known at once")
    func malformed() throws {
        var run = FilterHarness()
        let tooLarge = bytes(hex: "0d0a0d0a000d0a515549540a21110801") ?? []
        let wrong = Array("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n".utf8)
        for (header, flaw) in [(tooLarge, "is longer than the limit of 2048 bytes"), (wrong, "has a port")] {
            for clauses in [Self.accept, Self.require] {
                let (verdict, text) = try run.run(AntiSpoofFilter.self, clauses, bytes: header)
                #expect(reason(verdict) == "anti_spoof.header_malformed client")
                #expect(text.contains(flaw), "\(text)")
            }
        }
        let larger = Self.require + [Clause(name: "max", values: [.size(16384)])]
        #expect(try run.evaluate(AntiSpoofFilter.self, larger, bytes: tooLarge) == .needBytes(16 + 0x801))
        let full = try run.evaluate(AntiSpoofFilter.self, Self.require, bytes: Self.v2.prefix(20), input: .full)
        #expect(reason(full) == "anti_spoof.header_malformed client")
    }

    @Test("R17: what is not whole in time, or when the sender closes, is refused; silence is no header")
    func ends() throws {
        var run = FilterHarness()
        func verdict(_ clauses: [Clause], _ count: Int, _ input: InputState) throws -> String {
            let verdict = try run.evaluate(AntiSpoofFilter.self, clauses, bytes: Self.v2.prefix(count), input: input)
            return verdict == .next ? "next" : reason(verdict) ?? "\(verdict)"
        }
        for count in 0..<Self.v2.count {
            #expect(try verdict(Self.require, count, .timedOut) == "anti_spoof.header_timeout client")
            #expect(try verdict(Self.require, count, .ended) == "anti_spoof.header_closed client")
            // What has begun like a signature may go on after the deadline, but not after a FIN.
            let late = count == 0 ? "inspect(1)" : "anti_spoof.header_timeout client"
            #expect(try verdict(Self.accept, count, .timedOut) == late)
            let closed = count < 12 ? "next" : "anti_spoof.header_closed client"
            #expect(try verdict(Self.accept, count, .ended) == closed)
        }
    }

    @Test("R17: a header that comes after the deadline is closed by name, never payload", arguments: [v1, v2, local])
    func late(_ header: [UInt8]) throws {
        var run = FilterHarness()
        let (verdict, text) = try run.run(AntiSpoofFilter.self, Self.accept, input: .timedOut)
        #expect(verdict == .inspect(1))
        let said = "none came in time, so the client is the peer itself, and a later one is refused"
        #expect(text.hasSuffix(said), "\(text)")
        run.isInspecting = true
        let signature = header == Self.v1 ? 6 : 12
        for count in 0...header.count {
            let verdict = try run.evaluate(AntiSpoofFilter.self, Self.accept, bytes: header.prefix(count))
            if count < signature {
                #expect(verdict == .inspect(count + 1))
            } else {
                #expect(reason(verdict) == "anti_spoof.header_timeout client")
            }
        }
        #expect(run.facts.consumed == 0 && run.facts.client.endpoint == run.facts.peer.endpoint)
        for (bytes, input) in [("QUIT", InputState.open), ("PROMPT", .open), ("PRO", .ended), ("", .ended)] {
            let verdict = try run.evaluate(AntiSpoofFilter.self, Self.accept, bytes: Array(bytes.utf8), input: input)
            #expect(verdict == .next)
        }
    }

    @Test(
        "R17: behind a believed header, silence keeps the second stage's inspection open too, and half a signature is refused"
    )
    func innerDeadline() throws {
        var run = FilterHarness()
        #expect(try run.evaluate(AntiSpoofFilter.self, Self.require, bytes: Self.v2) == .next)
        let whole = Self.v2.count
        let silent = try run.evaluate(AntiSpoofFilter.self, [Self.refuse], bytes: Self.v2, input: .timedOut)
        #expect(silent == .inspect(whole + 1))
        let half = try run.evaluate(AntiSpoofFilter.self, [Self.refuse], bytes: Self.v2 + [0x50], input: .timedOut)
        #expect(reason(half) == "anti_spoof.spoofed client")
        run.isInspecting = true
        let late = try run.evaluate(AntiSpoofFilter.self, [Self.refuse], bytes: Self.v2 + Self.v1)
        #expect(reason(late) == "anti_spoof.spoofed client")
    }

    @Test("R17: a second stage judges what follows the header that the first has taken out")
    func inner() throws {
        var run = FilterHarness()
        let stream = Self.v2 + Self.v1
        #expect(try run.evaluate(AntiSpoofFilter.self, Self.accept, bytes: stream) == .next)
        let (verdict, text) = try run.run(AntiSpoofFilter.self, [Self.refuse], bytes: stream)
        #expect(reason(verdict) == "anti_spoof.spoofed client")
        #expect(text == "the bytes after the PROXY header are a PROXY header's signature, which clients may not send")
        for count in 0..<6 {
            let prefix = stream.prefix(Self.v2.count + count)
            #expect(try run.evaluate(AntiSpoofFilter.self, [Self.refuse], bytes: prefix) == .inspect(prefix.count + 1))
        }
        #expect(try run.evaluate(AntiSpoofFilter.self, [Self.refuse], bytes: Self.v2 + [0x16]) == .next)
    }

    @Test("it gives the client's address, and peeks, only as far as somebody is believed")
    func contract() throws {
        let clauses =
            Self.accept + [
                Clause(name: "timeout", values: [.duration(.seconds(5))]), Clause(name: "max", values: [.size(1024)]),
            ]
        let settings = try AntiSpoofFilter.settings(Directive(keyword: "anti_spoof", clauses: clauses))
        defer { AntiSpoofFilter.dispose(settings) }
        #expect(AntiSpoofFilter.facts(settings) == StageFacts(gives: [.client]))
        #expect(AntiSpoofFilter.peek(settings) == PeekNeed(bytes: 1024, timeout: .seconds(5), consumes: true))
    }

    @Test("timeout and max without a sender are errors that point there", arguments: ["timeout", "max"])
    func pointless(_ name: String) {
        let value: ArgumentValue = name == "max" ? .size(1024) : .duration(.seconds(1))
        let directive = Directive(
            keyword: "anti_spoof", clauses: [Self.refuse, Clause(name: name, values: [value])])
        let error = #expect(throws: SettingsError.self) { try AntiSpoofFilter.settings(directive) }
        #expect(error?.clause == name)
    }

    @Test("R17: proxyv2.json from a sender that must", .enabled(if: Vectors.arePresent))
    func vectors() throws {
        let clauses = Self.require + [Clause(name: "max", values: [.size(16384)])]
        for entry in try Vectors.load("proxyv2.json") {
            let stream = try #require(bytes(hex: entry["hex"] as? String ?? "none"))
            let name = entry["name"] as? String ?? ""
            var run = FilterHarness()
            let verdict = try run.evaluate(AntiSpoofFilter.self, clauses, bytes: stream)
            let accepted = [entry["expect"] ?? ""] + (entry["alt"] as? [Any] ?? [])
            #expect(accepted.contains { agrees(verdict, run.facts, $0) }, "\(name): \(verdict)")
        }
    }

    private func agrees(_ verdict: Verdict, _ facts: ConnectionFacts, _ expected: Any) -> Bool {
        switch expected as? String {
        case "incomplete"?: return verdict.wanted != nil
        case "malformed"?: return reason(verdict) == "anti_spoof.header_malformed client"
        case "not_proxy"?: return reason(verdict) == "anti_spoof.header_missing client"
        case .some: return false
        case nil:
            guard let header = expected as? [String: Any], verdict == .next,
                facts.consumed == header["consumed"] as? Int
            else { return false }
            let source = (header["src"] as? String).flatMap { IPAddress($0) }
            let port = (header["sport"] as? Int).flatMap { UInt16(exactly: $0) }
            guard let source, let port else { return facts.client.endpoint == facts.peer.endpoint }
            return facts.client.endpoint == Endpoint(source, port)
        }
    }
}
