import Pipeline
import Testing

@testable import PipelineLanguage

@Suite struct NearestNameTests {
    @Test("a misspelling finds its name") func misspelt() {
        #expect(nearest(to: "timout", among: ["timeout", "max"]) == "timeout")
        #expect(nearest(to: "tiemout", among: ["timeout", "max"]) == "timeout")
        #expect(nearest(to: "SNI", among: ["sni"]) == "sni")
        #expect(nearest(to: "tls", among: ["tls_passthrough", "tcp_raw"]) == "tls_passthrough")
    }

    @Test("something else finds nothing") func unrelated() {
        #expect(nearest(to: "banana", among: ["timeout", "max"]) == nil)
        #expect(nearest(to: "", among: ["timeout"]) == nil)
        #expect(nearest(to: String(repeating: "x", count: 5000), among: ["timeout"]) == nil)
    }

    @Test("edits are counted, swaps as one") func distance() {
        let distance = { (a: String, b: String) in editDistance(Array(a.utf8), Array(b.utf8)) }
        #expect(distance("", "") == 0)
        #expect(distance("", "abc") == 3)
        #expect(distance("abc", "acb") == 1)
        #expect(distance("kitten", "sitting") == 3)
    }
}

@Suite struct ValueTests {
    private func duration(_ text: String) -> TimeSpan? {
        try? ConfigValue.duration(text, .zero...TimeSpan(nanoseconds: .max))
    }

    @Test("durations need a unit and a whole number") func durations() {
        #expect(duration("200ms") == .milliseconds(200))
        #expect(duration("3s") == .seconds(3))
        #expect(duration("5m") == .seconds(300))
        #expect(duration("1h") == .seconds(3600))
        for wrong in [
            "", "s", "3", "3 s", "1.5s", "-1s", "03s", "3S", "3sec", "99999999999999999999s", "18446744073710s",
        ] {
            #expect(duration(wrong) == nil, "\(wrong)")
        }
    }

    @Test("sizes and counts") func numbers() throws {
        #expect(try ConfigValue.size("16KiB", 0...UInt64.max) == 16384)
        #expect(try ConfigValue.size("8192", 0...UInt64.max) == 8192)
        #expect(try ConfigValue.size("4GiB", 0...UInt64.max) == 4 << 30)
        #expect(try ConfigValue.count("10k", 0...UInt64.max) == 10000)
        #expect(try ConfigValue.count("1M", 0...UInt64.max) == 1_000_000)
        #expect(throws: ValueProblem.self) { try ConfigValue.size("16777216GiB000", 0...UInt64.max) }
        #expect(throws: ValueProblem.self) { try ConfigValue.size("99999999999GiB", 0...UInt64.max) }
        #expect(throws: ValueProblem.self) { try ConfigValue.count("٣", 0...UInt64.max) }
    }

    @Test("what the language writes, it reads") func roundTrip() throws {
        for span in [TimeSpan.milliseconds(1), .milliseconds(1500), .seconds(60), .seconds(86400), .zero] {
            #expect(duration(span.configText) == span)
        }
        for number in [0, 1, 1023, 1024, 65536, 1 << 30, UInt64.max] as [UInt64] {
            #expect(try ConfigValue.size(sizeText(number), 0...UInt64.max) == number)
            #expect(try ConfigValue.count(countText(number), 0...UInt64.max) == number)
        }
    }

    @Test("a prefix with bits behind its length gets the right advice") func prefixAdvice() {
        for (text, advice) in [
            ("192.0.2.1/24", "192.0.2.0/24"), ("2001:db8::1/32", "2001:db8::/32"), ("2001:db8::1/64", "2001:db8::/64"),
            ("::1/0", "::/0"), ("10.0.0.1/0", "0.0.0.0/0"), ("2001:db8::3/127", "2001:db8::2/127"),
        ] {
            #expect { try ConfigValue.prefix(text) } throws: {
                ($0 as? ValueProblem)?.help?.contains("`\(advice)`") == true
            }
        }
    }
}

@Suite struct DiagnosticTests {
    @Test("columns count characters, not bytes; tabs stay tabs") func columns() {
        let source = SourceText(file: "x", bytes: Array("a\n\tä ö bad\n".utf8))
        let span = SourceSpan(9, 12)
        #expect(source.position(of: 9) == SourcePosition(line: 2, column: 6))
        let text = render([Diagnostic(.error, at: span, "no", expected: "good")], source: source)
        #expect(text == "x:2:6: error: no\n   2 | \tä ö bad\n     | \t    ^~~ expected good\n")
    }

    @Test("a diagnostic of a later check finds its place") func appending() {
        var compilation = compile(Array("nonsense\n\nnonsense\n".utf8), file: "x", catalog: [])
        compilation.report(Diagnostic(.error, at: SourceSpan(9, 9), "between"))
        #expect(compilation.diagnostics.map(\.message)[1] == "between")
        #expect(compilation.hasErrors)
    }
}

@Suite struct LoweringTests {
    @Test("built-in sets: every text is a prefix, and bogons contain the others") func builtIns() throws {
        for texts in [
            BuiltInSets.privateUse, BuiltInSets.linkLocal, BuiltInSets.loopback, BuiltInSets.multicast,
            BuiltInSets.documentation, BuiltInSets.reserved, BuiltInSets.shared, BuiltInSets.unspecified,
            BuiltInSets.metadata, BuiltInSets.reachable,
        ] {
            for text in texts { #expect(Prefix(text) != nil, "\(text)") }
        }
        let bogons = try #require(BuiltInSets.named("bogons"))
        #expect(bogons.prefixes.count == BuiltInSets.bogons.count)
        #expect(Set(bogons.prefixes).count == bogons.prefixes.count)
        for name in BuiltInSets.names {
            let set = try #require(BuiltInSets.named(name))
            #expect(!set.prefixes.isEmpty)
            #expect(!BuiltInSets.summary(name).isEmpty)
            // Azure's agent talks to an address of the public internet.
            for prefix in set.prefixes where "\(prefix)" != "168.63.129.16/32" {
                #expect(bogons.prefixes.contains { $0.contains(prefix.first) && $0.contains(prefix.last) }, "\(prefix)")
            }
        }
        for text in [
            "8.8.8.8", "192.88.99.1", "2001:4860:4860::8888", "2606:4700::1", "64:ff9b::808:808", "192.0.0.9",
            "192.0.0.10", "2001::1", "2001:1::1", "2001:1::3", "2001:3::1", "2001:4:112::1", "2001:20::1", "2001:30::1",
            "2002::1",
            "2620:4f:8000::1", "2001:200::1", "192.31.196.1", "192.52.193.1", "192.175.48.1",
        ] {
            let address = try #require(IPAddress(text))
            #expect(!bogons.prefixes.contains { $0.contains(address) }, "\(text) is a public address")
        }
        for text in [
            "10.1.2.3", "100.64.0.1", "0.0.0.0", "255.255.255.255", "::", "::1", "fe80::1", "fd00::1",
            "192.0.0.8", "192.0.0.170", "192.88.99.2", "2001:1::4", "2001:1::", "2001:2::1", "2001:5::1", "2001:10::1",
            "2001:1ff::1",
            "3fff::1", "5f00::1", "100::1", "100:0:0:1::1", "64:ff9b:1::1", "169.254.169.254", "fd00:ec2::254",
        ] {
            let address = try #require(IPAddress(text))
            #expect(bogons.prefixes.contains { $0.contains(address) }, "\(text) is a bogon")
        }
    }

    @Test("a directive reaches its filter as checked values") func directive() throws {
        let text = """
            set ours { 192.0.2.0/24 }
            pipeline p {
                address  deny from @ours, allow to 2001:db8::/32, deny loopback
                sni      timeout 1500ms, max 16KiB
                backend  round_robin, tries 2, shadow
            }
            listen [::]:443 tls_passthrough via p
            """
        let program = try #require(compile(Array(text.utf8), file: "x", catalog: fakes).program)
        let stages = program.chains[0].stages
        let settings = (0..<3).map { stages[$0].settings.assumingMemoryBound(to: FakeSettings.self).pointee.directive }
        #expect(settings[0].clauses.count == 3)
        guard case .word("deny") = settings[0].clauses[0].values[0],
            case .word("from") = settings[0].clauses[0].values[1],
            case .set(let ours) = settings[0].clauses[0].values[2], case .absent = settings[0].clauses[2].values[1],
            case .set(let prefix) = settings[0].clauses[1].values[2],
            case .set(let loopback) = settings[0].clauses[2].values[2]
        else {
            Issue.record("unexpected values: \(settings[0])")
            return
        }
        #expect(ours.name == "@ours")
        #expect(ours.prefixes.map(\.description) == ["192.0.2.0/24"])
        #expect(prefix.name == "2001:db8::/32")
        #expect(loopback.prefixes.count == 2)
        #expect(settings[1].duration("timeout") == .milliseconds(1500))
        #expect(settings[1].size("max") == 16384)
        #expect(settings[2].clauses.map(\.name) == ["balance", "tries"])
        #expect(stages[2].shadow)
        #expect(stages[2].line == 5)
        #expect(stages[2].reasonBase == ReasonTable(catalog: fakes).bases[3])
        #expect(program.listeners[0].line == 7)
    }

    @Test("R26: settings of a program that is not made are freed, and those of one that is, once") func disposal() {
        let good = "pipeline p { counted }\n"
        CountedFilter.live.withLock { $0 = 0 }
        do {
            let made = compile(Array(good.utf8), file: "x", catalog: [CountedFilter.self])
            #expect(made.program != nil)
            #expect(CountedFilter.live.withLock { $0 } == 1)
        }
        #expect(CountedFilter.live.withLock { $0 } == 0)
        let bad = compile(Array((good + "nonsense\n").utf8), file: "x", catalog: [CountedFilter.self])
        #expect(bad.program == nil)
        #expect(CountedFilter.live.withLock { $0 } == 0)
    }
}
