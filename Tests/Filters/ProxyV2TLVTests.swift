import FilterProxyV2
import Pipeline
import PipelineWire
import TestSupport
import Testing

/// What our header carries besides the addresses.
@Suite("proxy_v2 TLVs")
struct ProxyV2TLVTests {
    private func tlv(_ word: String) -> Clause { Clause(name: "tlv", values: [.word(word)]) }
    private func id(_ word: String, _ type: UInt64? = nil) -> Clause {
        Clause(name: "ids", values: [.word(word), type.map { .count($0) } ?? .absent])
    }
    private let passThrough = Clause(name: "pass_through", values: [])

    private func harness() -> FilterHarness {
        var run = FilterHarness()
        run.facts.route = run.routes.add(FakeRoute("rt_1", hosts: ["app.example.com"], flags: .proxyHeader))
        var name = ServerName()
        _ = withExactBytes(Array("app.example.com".utf8)) { name.set(wire: $0) }
        run.facts.serverName = name
        return run
    }

    /// The TLVs of the prelude as `type:hex`; the header is parsed, so a checksum in it is right.
    private func tlvs(_ run: FilterHarness) -> [String] {
        withExactBytes(run.preludeBytes) { bytes in
            guard case .ok(let header) = ProxyHeader.parse(bytes), header.length == bytes.count else {
                return ["no header: \(ProxyHeader.parse(bytes))"]
            }
            return header.tlvs(in: bytes).map { "\($0.type):\(hex($0.value))" }
        }
    }

    /// A client's stream that begins with `tlvs` of a believed header, and an ALPN list behind them.
    private func stream(_ run: inout FilterHarness, tlvs: [UInt8] = [], alpn: [UInt8] = []) -> [UInt8] {
        run.facts.tlvOffset = 28
        run.facts.tlvLength = UInt16(tlvs.count)
        let start = [UInt8](repeating: 0xEE, count: 28)
        run.facts.alpnOffset = UInt16(28 + tlvs.count + 3)
        run.facts.alpnLength = UInt16(alpn.count)
        run.facts.alpnRecordEnd = run.facts.alpnOffset + run.facts.alpnLength
        return start + tlvs + [1, 2, 3] + alpn
    }

    @Test("R16: unique id is the process's prefix and the serial, sixteen bytes, as the log has it")
    func uniqueID() throws {
        var run = harness()
        #expect(try run.evaluate(ProxyV2Filter.self, [tlv("unique_id")]) == .next)
        let id = UniqueID(serial: run.facts.serial)
        #expect(tlvs(run) == ["5:" + hex((0..<16).map { id.byte($0) })])
        #expect(hex((8..<16).map { id.byte($0) }) == "0000000000000001")
        #expect(UniqueID(serial: 0).prefix == UniqueID.processPrefix)
    }

    @Test("R16: the checksum is over the whole header, whatever stands before and behind it")
    func checksum() throws {
        var run = harness()
        let clauses = [tlv("crc32c"), tlv("authority"), passThrough]
        let bytes = stream(&run, tlvs: [0xEA, 0, 2, 7, 7])
        #expect(try run.evaluate(ProxyV2Filter.self, clauses, bytes: bytes) == .next)
        let found = tlvs(run)
        #expect(found.count == 3 && found[0] == "2:" + hex("app.example.com".utf8) && found[2] == "234:0707")
        #expect(found[1].hasPrefix("3:") && found[1] != "3:00000000")
        // Any byte that changes, shows, unless it was what made the checksum one.
        let type = 52 + 3 + "app.example.com".utf8.count
        for index in 12..<run.preludeBytes.count where index != 14 && index != 15 && index != type {
            var broken = run.preludeBytes
            broken[index] ^= 0x40
            withExactBytes(broken) { bytes in
                if case .ok(let header) = ProxyHeader.parse(bytes) {
                    #expect(header.command == .local || header.family == .unspec, "unseen at \(index)")
                }
            }
        }
    }

    @Test("R16: ALPN is sent if the client offers exactly one protocol")
    func alpn() throws {
        for (list, expected) in [
            ([2, 0x68, 0x32], ["1:6832"]), ([2, 0x68, 0x32, 2, 0x68, 0x33], []), ([], []), ([3, 0x68, 0x32], []),
            ([0], []), ([1, 0x68, 0x32], []),
        ] as [([UInt8], [String])] {
            var run = harness()
            let bytes = stream(&run, alpn: list)
            #expect(try run.evaluate(ProxyV2Filter.self, [tlv("alpn")], bytes: bytes) == .next)
            #expect(tlvs(run) == expected, "\(list)")
        }
        var run = harness()
        _ = stream(&run, alpn: [2, 0x68, 0x32])
        #expect(try run.evaluate(ProxyV2Filter.self, [tlv("alpn")], bytes: []) == .next)
        #expect(tlvs(run).isEmpty, "the bytes are not there")
    }

    @Test("R16: ids of route, env and org, with the types that were asked for or the first private ones")
    func ids() throws {
        var run = harness()
        let (verdict, text) = try run.run(ProxyV2Filter.self, [id("org"), id("env"), id("route")])
        #expect(verdict == .next)
        #expect(
            tlvs(run) == [
                "224:" + hex("rt_1".utf8), "225:" + hex("org_1/app_1/env_1".utf8), "226:" + hex("org_1".utf8),
            ])
        #expect(text.hasSuffix(", route rt_1, env org_1/app_1/env_1, org org_1"), "\(text)")
        run = harness()
        #expect(try run.evaluate(ProxyV2Filter.self, [id("route", 0xEF), id("env", 0xE0)]) == .next)
        #expect(tlvs(run) == ["239:" + hex("rt_1".utf8), "224:" + hex("org_1/app_1/env_1".utf8)])
    }

    @Test("R16: the env's TLV tells envs apart that have the same id, whatever the others hold")
    func envPaths() throws {
        var seen: Set<[String]> = []
        for (org, app, env) in [
            ("acme", "shop", "prod"), ("globex", "web", "prod"), ("a/b", "c", "d"), ("a", "b/c", "d"),
            ("a%2Fb", "c", "d"),
        ] {
            var run = FilterHarness()
            var fake = FakeRoute("rt_1", env: env, flags: .proxyHeader)
            (fake.org, fake.app) = (org, app)
            run.facts.route = run.routes.add(fake)
            #expect(try run.evaluate(ProxyV2Filter.self, [id("env")]) == .next)
            #expect(tlvs(run) == ["225:" + hex(EnvName(org: org, app: app, env: env).path.utf8)])
            #expect(seen.insert(tlvs(run)).inserted, "\(org) \(app) \(env)")
        }
    }

    @Test("R16: a sender's TLVs go along as they came, but none that we write, no checksum, no padding")
    func passesThrough() throws {
        let foreign: [UInt8] =
            [2, 0, 1, 0x41] + [3, 0, 4, 1, 2, 3, 4] + [4, 0, 2, 0, 0] + [5, 0, 1, 9] + [0x20, 0, 0]
            + [0xEA, 0, 2, 7, 8] + [0xEA, 0, 1, 9]
        let same = ["32:", "234:0708", "234:09"]
        for (own, expected) in [
            ([], ["2:41", "5:09"] + same), ([tlv("authority")], ["2:" + hex("app.example.com".utf8), "5:09"] + same),
        ] as [([Clause], [String])] {
            var run = harness()
            let bytes = stream(&run, tlvs: foreign)
            let (verdict, text) = try run.run(ProxyV2Filter.self, own + [passThrough], bytes: bytes)
            #expect(verdict == .next)
            #expect(tlvs(run) == expected)
            #expect(text.hasSuffix("\(own.isEmpty ? 5 : 4) of the sender's TLVs"), "\(text)")
        }
        // Asked for, and not known: the sender's is better than none.
        var run = harness()
        run.facts.serverName = ServerName()
        let bytes = stream(&run, tlvs: foreign)
        #expect(try run.evaluate(ProxyV2Filter.self, [tlv("authority"), passThrough], bytes: bytes) == .next)
        #expect(tlvs(run) == ["2:41", "5:09"] + same)
        run = harness()
        _ = stream(&run, tlvs: foreign)
        #expect(try run.evaluate(ProxyV2Filter.self, [passThrough], bytes: [1, 2]) == .next)
        #expect(tlvs(run).isEmpty, "the bytes are not there")
    }

    @Test(
        "R16: TLVs fill what there is to the last byte; one more is a refusal of its own, and nothing is put in front")
    func tooLarge() throws {
        let room = Prelude.capacity - 52
        for (length, fits) in [(room, true), (room + 1, false)] {
            var run = harness()
            let value = [UInt8](repeating: 7, count: length - 3)
            let tlv = [0xEA, UInt8(value.count >> 8), UInt8(value.count & 255)] + value
            let bytes = stream(&run, tlvs: tlv)
            let (verdict, text) = try run.run(ProxyV2Filter.self, [passThrough], bytes: bytes)
            if fits {
                #expect(verdict == .next)
                #expect(run.preludeBytes.count == Prelude.capacity)
                #expect(tlvs(run) == ["234:" + hex(value)])
            } else {
                #expect(FilterHarness.reason(verdict, of: ProxyV2Filter.self) == "proxy_v2.tlvs_too_large client")
                #expect(text.contains("\(length) bytes of the sender's TLVs do not fit"), "\(text)")
                #expect(run.preludeBytes.isEmpty && run.facts.owesProxyHeader)
            }
        }
    }

    @Test("R16: our own header with every TLV at its longest fits")
    func largestOwn() throws {
        var run = FilterHarness()
        // What an env's path escapes makes it the longest.
        let long = String(repeating: "/", count: 128)
        var fake = FakeRoute(long, env: long, hosts: ["a"], flags: .proxyHeader)
        (fake.org, fake.app) = (long, long)
        run.facts.route = run.routes.add(fake)
        var name = ServerName()
        let label = String(repeating: "a", count: 61)
        let text = [label, label, label, label].joined(separator: ".") + ".abcde"
        #expect(withExactBytes(Array(text.utf8)) { name.set(wire: $0) } && name.count == 253)
        run.facts.serverName = name
        let bytes = stream(&run, alpn: [255] + [UInt8](repeating: 0x61, count: 255))
        let clauses = ["authority", "alpn", "unique_id", "crc32c"].map(tlv) + ["route", "env", "org"].map { id($0) }
        #expect(try run.evaluate(ProxyV2Filter.self, clauses, bytes: bytes) == .next)
        #expect(tlvs(run).count == 7)
    }

    @Test("the same TLV, id or type twice is an error at its clause")
    func twice() {
        for (clauses, place) in [
            ([tlv("alpn"), tlv("alpn")], "tlv"), ([id("env"), id("env", 0xE9)], "ids"),
            ([id("route", 0xE1), id("env")], "ids"),
        ] {
            let error = #expect(throws: SettingsError.self) {
                try ProxyV2Filter.settings(Directive(keyword: "proxy_v2", clauses: clauses))
            }
            #expect(error?.clause == place)
        }
    }

    @Test("it goes by the client's address; passing TLVs on needs somebody who believes a header")
    func facts() throws {
        let plain = try ProxyV2Filter.settings(Directive(keyword: "proxy_v2", clauses: []))
        #expect(
            ProxyV2Filter.facts(plain)
                == StageFacts(needs: [.backend], reads: [.client], capabilities: .injectsHeader))
        let passing = try ProxyV2Filter.settings(Directive(keyword: "proxy_v2", clauses: [passThrough]))
        #expect(
            ProxyV2Filter.facts(passing) == StageFacts(needs: [.backend, .client], capabilities: .injectsHeader))
    }
}
