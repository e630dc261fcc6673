import Foundation
import Pipeline
import PipelineWire
import TestSupport
import Testing

/// One entry of proxyv2.json.
struct ProxyVector: CustomTestStringConvertible {
    enum Outcome: Equatable {
        case word(String)
        case header(Header)

        init?(_ json: Any?) {
            if let word = json as? String {
                self = .word(word)
            } else if let object = json as? [String: Any] {
                self = .header(Header(object))
            } else {
                return nil
            }
        }

        init(_ verdict: ProxyVerdict, in bytes: UnsafeBufferPointer<UInt8>) {
            switch verdict {
            case .ok(let header): self = .header(Header(header, in: bytes))
            case .incomplete: self = .word("incomplete")
            case .malformed: self = .word("malformed")
            case .notProxy: self = .word("not_proxy")
            }
        }
    }

    struct Header: Equatable {
        var version: Int
        var command: String
        var family: String
        var source: Endpoint?
        var destination: Endpoint?
        var tlvs: [String]
        var consumed: Int

        init(_ json: [String: Any]) {
            func endpoint(_ address: String, _ port: String) -> Endpoint? {
                guard let address = (json[address] as? String).flatMap({ IPAddress($0) }),
                    let port = (json[port] as? Int).flatMap({ UInt16(exactly: $0) })
                else { return nil }
                return Endpoint(address, port)
            }
            version = json["version"] as? Int ?? 0
            command = json["command"] as? String ?? ""
            // `LOCAL` has null here: its family means nothing.
            family = json["family"] as? String ?? "UNSPEC"
            source = endpoint("src", "sport")
            destination = endpoint("dst", "dport")
            tlvs = (json["tlvs"] as? [[String: Any]] ?? []).map {
                "\($0["type"] as? Int ?? -1):\($0["value_hex"] as? String ?? "")"
            }
            consumed = json["consumed"] as? Int ?? 0
        }

        init(_ header: ProxyHeader, in bytes: UnsafeBufferPointer<UInt8>) {
            version = Int(header.version)
            command = header.command.rawValue.uppercased()
            family =
                header.family == .unspec
                ? "UNSPEC" : "\(header.family.rawValue.uppercased())_\(header.transport.rawValue.uppercased())"
            source = header.source
            destination = header.destination
            tlvs = header.tlvs(in: bytes).map { "\($0.type):\(hex($0.value))" }
            consumed = header.length
        }
    }

    let name: String
    let bytes: [UInt8]
    let accepted: [Outcome]
    let antispoof: String
    var testDescription: String { name }

    static let all: [ProxyVector] = {
        let entries = (try? Vectors.load("proxyv2.json")) ?? []
        return entries.compactMap { entry in
            guard let name = entry["name"] as? String, let hex = entry["hex"] as? String,
                let bytes = TestSupport.bytes(hex: hex), let expect = Outcome(entry["expect"]),
                let antispoof = entry["antispoof"] as? String
            else { return nil }
            let alternatives = (entry["alt"] as? [Any] ?? []).compactMap { Outcome($0) }
            return ProxyVector(name: name, bytes: bytes, accepted: [expect] + alternatives, antispoof: antispoof)
        }
    }()
}

@Suite("proxyv2.json", .enabled(if: Vectors.arePresent))
struct ProxyVectorTests {
    @Test("the whole file is read")
    func count() throws {
        #expect(ProxyVector.all.count == (try Vectors.load("proxyv2.json")).count)
        #expect(ProxyVector.all.count > 50)
    }

    @Test("R17: whole", arguments: ProxyVector.all)
    func whole(_ vector: ProxyVector) {
        withExactBytes(vector.bytes) { bytes in
            let verdict = ProxyHeader.parse(bytes)
            #expect(vector.accepted.contains(ProxyVector.Outcome(verdict, in: bytes)), "\(verdict)")
        }
    }

    @Test("R17: a verdict on a prefix is either incomplete or the final one", arguments: ProxyVector.all)
    func everyPrefix(_ vector: ProxyVector) {
        let final = withExactBytes(vector.bytes) { ProxyHeader.parse($0) }
        var isDecided = false
        for count in prefixLengths(vector.bytes.count) {
            let verdict = withExactBytes(vector.bytes.prefix(count)) { ProxyHeader.parse($0) }
            if case .incomplete(let needs) = verdict {
                #expect(needs > count && !isDecided, "needs \(needs) at \(count)")
            } else {
                #expect(verdict == final, "at \(count)")
                isDecided = true
            }
        }
    }

    @Test("R17: the signature check agrees with `antispoof`", arguments: ProxyVector.all)
    func antispoof(_ vector: ProxyVector) {
        let final = withExactBytes(vector.bytes) { ProxySignature.check($0) }
        #expect(word(final) == vector.antispoof)
        for count in 0...min(vector.bytes.count, 16) {
            let check = withExactBytes(vector.bytes.prefix(count)) { ProxySignature.check($0) }
            if case .wait(let needs) = check { #expect(needs == count + 1) } else { #expect(check == final) }
        }
    }

    private func word(_ check: ProxySignature.Check) -> String {
        switch check {
        case .block: "block"
        case .wait: "wait"
        case .pass: "pass"
        }
    }

    /// Every length up to 600, then a sample: some vectors are 64 KiB of one byte.
    private func prefixLengths(_ count: Int) -> [Int] {
        Set(0...min(count, 600)).union(stride(from: 601, through: count, by: 997))
            .union([max(0, count - 1), count]).sorted()
    }
}
