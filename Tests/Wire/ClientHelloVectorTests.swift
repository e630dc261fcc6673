import Foundation
import Pipeline
import PipelineWire
import TestSupport
import Testing

/// One entry of clienthello.json.
struct HelloVector: CustomTestStringConvertible {
    /// What a verdict looks like in the file.
    enum Outcome: Equatable {
        case name(String?)
        case word(String)

        init?(_ json: Any?) {
            if let word = json as? String {
                self = .word(word)
            } else if let object = json as? [String: Any], let sni = object["sni"] {
                self = .name(sni as? String)
            } else {
                return nil
            }
        }

        init(_ verdict: HelloVerdict, in bytes: UnsafeBufferPointer<UInt8>) {
            switch verdict {
            case .ok(let hello):
                let name = hello.serverNameBytes(in: bytes)
                self = .name(name.map { String(String.UnicodeScalarView($0.map { Unicode.Scalar($0) })) })
            case .incomplete: self = .word("incomplete")
            case .notTLS: self = .word("not_tls")
            case .malformed: self = .word("malformed")
            case .tooLarge: self = .word("too_large")
            }
        }
    }

    let name: String
    let bytes: [UInt8]
    let accepted: [Outcome]
    /// `.some(nil)`: must match no route.
    let routingKey: String??
    var testDescription: String { name }

    static let all: [HelloVector] = {
        let entries = (try? Vectors.load("clienthello.json")) ?? []
        return entries.compactMap { entry in
            guard let name = entry["name"] as? String, let hex = entry["hex"] as? String,
                let bytes = TestSupport.bytes(hex: hex), let expect = Outcome(entry["expect"])
            else { return nil }
            let alternatives = (entry["alt"] as? [Any] ?? []).compactMap { Outcome($0) }
            let key = entry["routing_key"].map { $0 as? String }
            return HelloVector(name: name, bytes: bytes, accepted: [expect] + alternatives, routingKey: key)
        }
    }()
}

@Suite("clienthello.json", .enabled(if: Vectors.arePresent))
struct ClientHelloVectorTests {
    private static let limit = 65536

    @Test("the whole file is read")
    func count() throws {
        #expect(HelloVector.all.count == (try Vectors.load("clienthello.json")).count)
        #expect(HelloVector.all.count > 100)
    }

    @Test("R7: whole", arguments: HelloVector.all)
    func whole(_ vector: HelloVector) {
        withExactBytes(vector.bytes) { bytes in
            let verdict = ClientHello.parse(bytes, limit: Self.limit)
            let outcome = HelloVector.Outcome(verdict, in: bytes)
            #expect(vector.accepted.contains(outcome), "\(verdict)")
        }
    }

    /// Byte by byte and split at every offset come to the same: the verdict about each prefix, in turn.
    @Test("R7: a verdict on a prefix is either incomplete or the final one", arguments: HelloVector.all)
    func everyPrefix(_ vector: HelloVector) {
        let final = withExactBytes(vector.bytes) { ClientHello.parse($0, limit: Self.limit) }
        var decidedAt: Int?
        var awaited = 0
        for count in 0...vector.bytes.count {
            let verdict = withExactBytes(vector.bytes.prefix(count)) { ClientHello.parse($0, limit: Self.limit) }
            if case .incomplete(let needs) = verdict {
                #expect(needs > count && needs <= Self.limit, "needs \(needs) at \(count)")
                #expect(decidedAt == nil, "undecided again at \(count)")
                #expect(needs >= awaited, "asked for \(awaited), then \(needs)")
                awaited = needs
            } else {
                #expect(verdict == final, "at \(count)")
                decidedAt = decidedAt ?? count
            }
            if decidedAt != nil, count > (decidedAt ?? 0) + 64 { break }
        }
    }

    @Test("R7: who looks again only when asked to comes to the same verdict", arguments: HelloVector.all)
    func asAsked(_ vector: HelloVector) {
        let final = withExactBytes(vector.bytes) { ClientHello.parse($0, limit: Self.limit) }
        var count = 0
        var looks = 0
        var verdict = HelloVerdict.incomplete(needs: 1)
        while case .incomplete(let needs) = verdict, needs <= vector.bytes.count {
            count = needs
            looks += 1
            verdict = withExactBytes(vector.bytes.prefix(count)) { ClientHello.parse($0, limit: Self.limit) }
        }
        if case .incomplete = final {
            #expect({ if case .incomplete = verdict { true } else { false } }())
        } else {
            #expect(verdict == final)
        }
    }

    @Test("R3: the routing key is the canonical name", arguments: HelloVector.all)
    func routingKey(_ vector: HelloVector) {
        guard let expected = vector.routingKey else { return }
        withExactBytes(vector.bytes) { bytes in
            guard case .ok(let hello) = ClientHello.parse(bytes, limit: Self.limit) else {
                return #expect(expected == nil)
            }
            var name = ServerName()
            let isCanonical = hello.withServerName(in: bytes) { name.set(wire: $0) } ?? false
            #expect((isCanonical ? name.string : nil) == expected)
        }
    }

    @Test("R7: the default limit of 8192 bytes", arguments: HelloVector.all)
    func defaultLimit(_ vector: HelloVector) {
        withExactBytes(vector.bytes) { bytes in
            let unlimited = ClientHello.parse(bytes, limit: Self.limit)
            let limited = ClientHello.parse(bytes, limit: 8192)
            if limited != .tooLarge {
                #expect(limited == unlimited)
            } else if case .ok(let hello) = unlimited {
                #expect(hello.totalBytes > 8192)
            }
            if case .ok(let hello) = limited { #expect(hello.totalBytes <= 8192) }
        }
    }
}
