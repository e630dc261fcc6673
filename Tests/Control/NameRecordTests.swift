import FilterBackendSelect
import Pipeline
import Testing

@testable import PipelineResolve

/// What a name's addresses are after each lookup.
@Suite("names: records")
struct NameRecordTests {
    private let settings: ResolveSettings = {
        var values = ResolveSettings.Values()
        values.minTTL = .seconds(5)
        values.maxTTL = .seconds(60)
        values.hold = .seconds(30)
        return ResolveSettings(values)
    }()

    private func at(_ seconds: UInt64) -> Instant { Instant(nanoseconds: seconds * 1_000_000_000) }
    private func address(_ text: String) throws -> IPAddress { try #require(IPAddress(text)) }

    private func host() -> NameRecord { NameRecord(BackendName(.host, "web.test"), at: at(0)) }

    private func result(_ v4: Answer<IPAddress>, _ v6: Answer<IPAddress> = .none(isGone: false)) -> LookupResult {
        LookupResult(hosts: ["web.test": HostAnswer(v4: v4, v6: v6)])
    }
    private func found(_ texts: String..., ttl: UInt32 = 20) throws -> Answer<IPAddress> {
        .found(try texts.map(address), ttl: ttl)
    }
    private func texts(_ record: NameRecord) -> [String] { record.addresses.map(\.text) }

    @Test("an answer holds for its TTL, within bounds; its order is nothing")
    func answers() throws {
        var record = host()
        #expect(record.take(result(try found("10.0.0.2", "10.0.0.1")), at: at(1), settings) == [.changed(before: [])])
        #expect(texts(record) == ["10.0.0.1", "10.0.0.2"] && record.next == at(21) && record.answered == at(1))
        #expect(record.take(result(try found("10.0.0.1", "10.0.0.2", ttl: 0)), at: at(21), settings) == [])
        #expect(record.next == at(26))
        #expect(record.take(result(try found("10.0.0.1", "10.0.0.2", ttl: .max)), at: at(26), settings) == [])
        #expect(record.next == at(86))
        // A reload while it is asked for: what comes is of the old settings.
        record.isAsking = true
        record.refresh(at: at(80))
        _ = record.take(result(try found("10.0.0.1", "10.0.0.2")), at: at(81), settings)
        #expect(record.next == at(81))
        let more = try result(found("10.0.0.1", ttl: 40), found("fd00::1", ttl: 10))
        #expect(record.take(more, at: at(86), settings).count == 1)
        #expect(texts(record) == ["10.0.0.1", "fd00::1"] && record.next == at(96))
    }

    @Test("what fails takes nothing; one family that fails takes nothing from the other")
    func failures() throws {
        var record = host()
        #expect(record.take(result(.failed("x"), .failed("x")), at: at(0), settings) == [.failing("x")])
        #expect(record.isKnown && record.next == at(5))
        _ = record.take(try result(found("10.0.0.1"), found("fd00::1")), at: at(5), settings)
        #expect(record.addresses.count == 2 && record.problem == nil)
        #expect(record.take(result(.failed("t"), .failed("t")), at: at(25), settings) == [.failing("t")])
        #expect(record.take(result(.failed("t"), .failed("t")), at: at(30), settings) == [])
        #expect(record.addresses.count == 2 && record.next == at(40) && record.answered == at(5))
        for _ in 0..<100 { _ = record.take(result(.failed("t"), .failed("t")), at: at(40), settings) }
        #expect(record.next == at(70))
        #expect(record.take(try result(found("10.0.0.9"), .failed("t")), at: at(70), settings).count == 1)
        #expect(Set(texts(record)) == ["10.0.0.9", "fd00::1"])
        #expect(record.take(try result(found("10.0.0.9")), at: at(80), settings).first == .answered)
        #expect(texts(record) == ["10.0.0.9"])
    }

    @Test("gone or empty: kept for `hold`, then nothing; a silence meanwhile decides nothing")
    func empty() throws {
        var record = host()
        let gone = result(.none(isGone: true), .none(isGone: true))
        #expect(record.take(gone, at: at(0), settings).count == 1)
        _ = record.take(try result(found("10.0.0.1")), at: at(5), settings)
        let held = record.take(gone, at: at(25), settings)
        #expect(held == [.held(why: "the name does not exist (NXDOMAIN)")] && record.next == at(30))
        #expect(record.take(gone, at: at(30), settings) == [])
        _ = record.take(result(.failed("t"), .failed("t")), at: at(60), settings)
        #expect(texts(record) == ["10.0.0.1"])
        let end = record.take(result(.none(isGone: false)), at: at(65), settings)
        #expect(end.last == .changed(before: [ResolvedAddress(try address("10.0.0.1"))]) && record.addresses.isEmpty)
        // Anew from the next time on.
        _ = record.take(try result(found("10.0.0.1")), at: at(70), settings)
        _ = record.take(gone, at: at(75), settings)
        #expect(texts(record) == ["10.0.0.1"])
    }

    @Test("without `allow`, no address of this host's, of cloud metadata, or of nobody's")
    func allow() throws {
        let bad = [
            "127.0.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1", "255.255.255.255", "240.0.0.1", "::", "::1",
            "fe80::1", "ff02::1", "fd00:ec2::254", "100.100.100.200",
        ]
        for text in bad { #expect(!ResolveSettings().allows(try address(text)), "\(text)") }
        #expect(!ResolveSettings().allows(try address("192.0.2.7"), isOwn: { _ in true }))
        for text in ["10.0.0.1", "192.0.2.1", "fd00::1", "2001:db8::1"] {
            #expect(ResolveSettings().allows(try address(text)), "\(text)")
        }
        var record = host()
        _ = record.take(try result(found("10.0.0.1")), at: at(0), settings)
        let events = record.take(try result(found("127.0.0.1", "169.254.169.254")), at: at(20), settings)
        #expect(events.count == 1 && texts(record) == ["10.0.0.1"] && record.refused == 2 && record.problem != nil)
        #expect(record.take(try result(found("127.0.0.1", "10.0.0.2")), at: at(25), settings).count == 2)
        #expect(texts(record) == ["10.0.0.2"] && record.refused == 1)
        // What a reload forbids goes with the next lookup, whatever that brings.
        var values = settings.values
        values.allowed = [AddressSet(name: "192.0.2.0/24", prefixes: [try #require(Prefix("192.0.2.0/24"))])]
        let strict = ResolveSettings(values)
        var other = record
        _ = record.take(try result(found("10.0.0.2")), at: at(30), strict)
        _ = other.take(result(.failed("t"), .failed("t")), at: at(30), strict)
        #expect(record.addresses.isEmpty && other.addresses.isEmpty)
    }

    @Test("at most 64 addresses, the same ones whatever the order")
    func many() throws {
        let all = (0..<100).map { IPAddress(v4: 0x0A00_0000 + UInt32($0)) }
        var (one, two) = (host(), host())
        _ = one.take(result(.found(all, ttl: 5)), at: at(0), settings)
        _ = two.take(result(.found(all.reversed(), ttl: 5)), at: at(0), settings)
        #expect(one.addresses == two.addresses && one.addresses.count == 64 && one.omitted == 36)
    }

    @Test("SRV: ports, weights as shares, priorities by rank; targets that fail keep what they had")
    func service() throws {
        var record = NameRecord(BackendName(.service, "_pg._tcp.test"), at: at(0))
        let records = [
            ServiceRecord(target: "a", port: 1, priority: 10, weight: 0),
            ServiceRecord(target: "a", port: 2, priority: 500, weight: 65535),
            ServiceRecord(target: "b", port: 1, priority: 10, weight: 32768),
            ServiceRecord(target: "b", port: 0, priority: 0, weight: 1),
        ]
        let hosts = [
            "a": HostAnswer(v4: try found("10.0.0.1"), v6: .none(isGone: false)),
            "b": HostAnswer(v4: try found("10.0.0.2", ttl: 7), v6: .none(isGone: false)),
        ]
        _ = record.take(LookupResult(service: .found(records, ttl: 30), hosts: hosts), at: at(0), settings)
        #expect(
            record.addresses == [
                ResolvedAddress(try address("10.0.0.1"), port: 1, weight: 1, priority: 1),
                ResolvedAddress(try address("10.0.0.1"), port: 2, weight: 256, priority: 2),
                ResolvedAddress(try address("10.0.0.2"), port: 1, weight: 128, priority: 1),
            ])
        #expect(record.next == at(7))
        let half = [
            "a": HostAnswer(v4: try found("10.0.0.3"), v6: .none(isGone: false)),
            "b": HostAnswer(v4: .failed("t"), v6: .failed("t")),
        ]
        _ = record.take(LookupResult(service: .found(records.reversed(), ttl: 30), hosts: half), at: at(7), settings)
        #expect(Set(texts(record)) == ["10.0.0.3:1", "10.0.0.3:2", "10.0.0.2:1"])
        _ = record.take(LookupResult(service: .failed("t")), at: at(20), settings)
        #expect(record.addresses.count == 3)
    }

    @Test("the least TTL of an answer; every cut of it is none, or less")
    func leastTTL() {
        let name: [UInt8] = [1, 97, 0]
        let record = { (ttl: UInt8) in [0xC0, 12, 0, 33, 0, 1, 0, 0, 0, ttl, 0, 7, 0, 1, 0, 2, 0, 3, 0] as [UInt8] }
        let whole = [0, 1, 0x84, 0, 0, 1, 0, 2, 0, 0, 0, 0] + name + [0, 33, 0, 1] + record(9) + record(4)
        #expect(whole.withUnsafeBufferPointer(AnswerTTL.least) == 4)
        for end in 0..<whole.count { #expect(Array(whole[..<end]).withUnsafeBufferPointer(AnswerTTL.least) == nil) }
        var random = SplitMix64(seed: 1)
        for _ in 0..<20_000 {
            var bytes = whole
            bytes[random.below(bytes.count)] = UInt8(truncatingIfNeeded: random.next())
            bytes[random.below(bytes.count)] = UInt8(truncatingIfNeeded: random.next())
            _ = Array(bytes.prefix(1 + random.below(bytes.count))).withUnsafeBufferPointer(AnswerTTL.least)
        }
    }
}
