import FilterAntiSpoof
import Foundation
import Pipeline
import TestSupport
import Testing

@Suite("anti_spoof refuse others")
struct AntiSpoofFilterTests {
    private static let v1 = Array("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".utf8)
    private static let v2: [UInt8] = [0x0D, 0x0A, 0x0D, 0x0A, 0, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A, 0x21]

    private func verdict(_ bytes: some Collection<UInt8>, _ input: InputState = .open) throws -> Verdict {
        var run = FilterHarness()
        return try run.evaluate(AntiSpoofFilter.self, [Clause(name: "refuse", values: [])], bytes: bytes, input: input)
    }

    @Test("R17: a signature is refused", arguments: [v1, v2])
    func signature(_ bytes: [UInt8]) throws {
        let refused = try verdict(bytes)
        #expect(FilterHarness.reason(refused, of: AntiSpoofFilter.self) == "anti_spoof.spoofed client")
        #expect(try verdict(bytes, .ended) == refused)
        #expect(try verdict(bytes, .timedOut) == refused)
    }

    @Test("R17: bytewise, it waits until the last byte of the signature", arguments: [(v1, 6), (v2, 12)])
    func bytewise(_ bytes: [UInt8], _ signature: Int) throws {
        for count in 0..<signature { #expect(try verdict(bytes.prefix(count)) == .inspect(count + 1)) }
        for count in signature...bytes.count { #expect(try verdict(bytes.prefix(count)) == .refuse(0)) }
    }

    @Test(
        "R17: a mere prefix passes if the stream ends with it: it never becomes a signature",
        arguments: [(v1, 6), (v2, 12)])
    func ended(_ bytes: [UInt8], _ signature: Int) throws {
        for count in 0..<signature { #expect(try verdict(bytes.prefix(count), .ended) == .next) }
    }

    @Test(
        "R17: at the deadline a begun signature is refused, and silence keeps the inspection open",
        arguments: [(v1, 6), (v2, 12)])
    func deadline(_ bytes: [UInt8], _ signature: Int) throws {
        #expect(try verdict([], .timedOut) == .inspect(1))
        for count in 1...signature { #expect(try verdict(bytes.prefix(count), .timedOut) == .refuse(0)) }
        for count in 1..<signature { #expect(try verdict(bytes.prefix(count) + [0x61], .timedOut) == .next) }
        for count in 1..<signature { #expect(try verdict(bytes.prefix(count), .full) == .refuse(0)) }
    }

    @Test("R17: what comes after silence is looked at as from the start", arguments: [(v1, 6), (v2, 12)])
    func afterSilence(_ bytes: [UInt8], _ signature: Int) throws {
        var run = FilterHarness()
        let refuse = [Clause(name: "refuse", values: [])]
        #expect(try run.evaluate(AntiSpoofFilter.self, refuse, input: .timedOut) == .inspect(1))
        run.isInspecting = true
        for count in 0..<signature {
            #expect(try run.evaluate(AntiSpoofFilter.self, refuse, bytes: bytes.prefix(count)) == .inspect(count + 1))
            let ended = try run.evaluate(AntiSpoofFilter.self, refuse, bytes: bytes.prefix(count), input: .ended)
            #expect(ended == .next)
        }
        #expect(try run.evaluate(AntiSpoofFilter.self, refuse, bytes: bytes) == .refuse(0))
        #expect(try run.evaluate(AntiSpoofFilter.self, refuse, bytes: bytes, input: .ended) == .refuse(0))
        #expect(try run.evaluate(AntiSpoofFilter.self, refuse, bytes: [0x16, 3]) == .next)
    }

    @Test("R17: what explain says at the deadline")
    func explains() throws {
        var run = FilterHarness()
        let refuse = [Clause(name: "refuse", values: [])]
        #expect(
            try run.run(AntiSpoofFilter.self, refuse, input: .timedOut).explanation
                == "nothing came in time; the first bytes are checked when they come")
        #expect(
            try run.run(AntiSpoofFilter.self, refuse, bytes: Array("PRO".utf8), input: .timedOut).explanation
                == "the first bytes begin a PROXY header's signature, and the rest did not come in time"
        )
    }

    @Test("what is no signature passes at its first different byte")
    func other() throws {
        #expect(try verdict(Array("GET".utf8)) == .next)
        #expect(try verdict(Array("PRI".utf8)) == .next)
        #expect(try verdict(Array("PROXYTCP4".utf8)) == .next)
        #expect(try verdict([0x0D, 0x0A, 0x0D, 0x0B]) == .next)
        #expect(try verdict([0x16]) == .next)
    }

    @Test("R17: it holds back only the client's bytes, for as long as it takes")
    func nonBlocking() throws {
        let settings = try AntiSpoofFilter.settings(
            Directive(keyword: "anti_spoof", clauses: [Clause(name: "refuse", values: [])]))
        defer { AntiSpoofFilter.dispose(settings) }
        #expect(AntiSpoofFilter.descriptor.isNonBlocking)
        #expect(AntiSpoofFilter.facts(settings) == StageFacts())
        #expect(AntiSpoofFilter.peek(settings) == PeekNeed(bytes: 12, timeout: nil))
    }

    @Test("R17: proxyv2.json", .enabled(if: Vectors.arePresent))
    func vectors() throws {
        for entry in try Vectors.load("proxyv2.json") {
            let stream = try #require(bytes(hex: entry["hex"] as? String ?? "none"))
            let name = entry["name"] as? String ?? ""
            switch entry["antispoof"] as? String {
            case "block": #expect(try verdict(stream) == .refuse(0), "\(name)")
            case "wait": #expect(try verdict(stream) == .inspect(stream.count + 1), "\(name)")
            case "pass": #expect(try verdict(stream) == .next, "\(name)")
            default: Issue.record("\(name) says nothing")
            }
        }
    }
}
