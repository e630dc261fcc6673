import Pipeline
import TestSupport
import Testing

private func canonical(_ raw: [UInt8]) -> String? {
    var name = ServerName()
    return raw.withUnsafeBufferPointer { name.set(wire: $0) } ? name.string : nil
}

@Suite("Hostnames on the wire")
struct ServerNameTests {
    @Test("R3: the shared vectors", .enabled(if: Vectors.arePresent, "no shared vectors beside this checkout"))
    func vectors() throws {
        let vectors = try Vectors.load("hostnames.json")
        #expect(vectors.count > 50)
        for vector in vectors {
            let input = try #require(vector["input"] as? String)
            let raw = (vector["input_hex"] as? String).flatMap { bytes(hex: $0) } ?? Array(input.utf8)
            #expect(canonical(raw) == vector["canonical_wire"] as? String, "\(input)")
        }
    }

    @Test("R3: every prefix of a name is a name or refused by a rule, and never more than it was given")
    func prefixes() {
        let text = Array("WWW.Ex_ample-1.co.uk.".utf8)
        for count in 0...text.count {
            let prefix = Array(text[..<count])
            let found = canonical(prefix)
            let endsInEmptyLabel = prefix.isEmpty
            #expect((found == nil) == endsInEmptyLabel, "\(count)")
            var wanted = String(decoding: prefix, as: UTF8.self).lowercased()
            if wanted.hasSuffix(".") { wanted.removeLast() }
            #expect(found == nil || found == wanted)
        }
    }

    @Test("R3: every byte in every place: accepted exactly if it is LDH, underscore or a fitting dot")
    func mutations() {
        let text = Array("ab.cd".utf8)
        for place in text.indices {
            for byte in UInt8.min...UInt8.max {
                var changed = text
                changed[place] = byte
                let isName =
                    (byte >= 0x30 && byte <= 0x39) || (byte | 0x20 >= 0x61 && byte | 0x20 <= 0x7A) || byte == 0x2D
                    || byte == 0x5F
                // A dot fits inside or at the end of a label of two, but not beside the other dot or in front.
                let fits = byte == 0x2E && place == 4 || byte == 0x2E && place == 2
                #expect((canonical(changed) != nil) == (isName || fits), "\(byte) at \(place)")
            }
        }
    }

    @Test("R3: limits of labels and names, and reuse after a refusal")
    func limits() {
        let label = [UInt8](repeating: 0x61, count: 63)
        #expect(canonical(label) != nil)
        #expect(canonical(label + [0x61]) == nil)
        let long = label + [0x2E] + label + [0x2E] + label + [0x2E] + label.prefix(61)
        #expect(long.count == 253)
        #expect(canonical(long)?.utf8.count == 253)
        #expect(canonical(long + [0x2E])?.utf8.count == 253)
        #expect(canonical(long + [0x61]) == nil)
        var name = ServerName()
        let isSet = Array("a.b".utf8).withUnsafeBufferPointer { name.set(wire: $0) }
        let isSetAgain = Array("a..b".utf8).withUnsafeBufferPointer { name.set(wire: $0) }
        #expect(isSet && !isSetAgain && name.isEmpty, "a refused name leaves none behind")
    }

    @Test("R3: IP literals are no names", arguments: ["192.0.2.1", "1", "a.1", "1.2.3.4.", "0x7f.1", "::1", "[::1]"])
    func literals(text: String) { #expect(canonical(Array(text.utf8)) == nil) }
}
