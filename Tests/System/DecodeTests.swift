import Foundation
import TestSupport
import Testing

/// The command itself, on the shared vectors.
@Suite("pipelined decode")
struct DecodeTests {
    @Test("R17: `decode proxy --hex --json` on all shared PROXY headers", .enabled(if: Vectors.arePresent))
    func proxyVectors() throws {
        let vectors = try Vectors.load("proxyv2.json")
        let input = vectors.map { ($0["hex"] as? String ?? "") + "\n" }.joined()
        let (exit, out, error) = try Binary.run(["decode", "proxy", "--hex", "--json"], input: input)
        #expect(error == "")
        let lines = out.split(separator: "\n")
        #expect(lines.count == vectors.count && vectors.count >= 80)
        // What the bytes are not is an answer too.
        #expect(exit == .code(0))
        for (line, vector) in zip(lines, vectors) {
            let said = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any] ?? [:]
            let expected = [vector["expect"] ?? ""] + (vector["alt"] as? [Any] ?? [])
            #expect(expected.contains { Self.agrees(said, $0) }, "\(vector["name"] ?? ""): \(line)")
        }
    }

    private static func agrees(_ said: [String: Any], _ expected: Any) -> Bool {
        guard let header = expected as? [String: Any] else { return said["outcome"] as? String == expected as? String }
        let isLocal = header["command"] as? String == "LOCAL"
        let family = isLocal ? "UNSPEC" : header["family"] as? String ?? "UNSPEC"
        let tlvs = { (object: [String: Any], value: String) in
            (object["tlvs"] as? [[String: Any]] ?? []).map { "\($0["type"] ?? "")=\($0[value] ?? "")" }
        }
        let transport = said["transport"] as? String ?? ""
        let saidFamily = (said["family"] as? String ?? "") + (transport == "unspec" ? "" : "_\(transport)")
        return said["outcome"] as? String == "ok" && said["version"] as? Int == header["version"] as? Int
            && (said["command"] as? String)?.uppercased() == header["command"] as? String
            && saidFamily.uppercased() == family && said["bytes"] as? Int == header["consumed"] as? Int
            && tlvs(said, "value") == tlvs(header, "value_hex")
            && said["source"] as? String == endpoint(header, "src", "sport")
            && said["destination"] as? String == endpoint(header, "dst", "dport")
    }

    private static func endpoint(_ header: [String: Any], _ address: String, _ port: String) -> String? {
        guard let address = header[address] as? String, let port = header[port] as? Int else { return nil }
        // The vectors write an address as the tool that made them did.
        let place = FilterHarness.endpoint(address.contains(":") ? "[\(address)]:\(port)" : "\(address):\(port)")
        return place.description
    }
}
