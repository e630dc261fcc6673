import Pipeline
import Testing

@testable import PipelineRouting

/// ``FlatRoute`` reads what ``StateBuilder`` would read, and nothing else.
@Suite("R24: routes as almost all are written")
struct FlatRouteTests {
    private static let usual =
        "{\"route_id\":\"rt_1\",\"env_id\":\"env_a\",\"hostname\":\"app.example.com\",\"listen_port\":443,"
        + "\"protocol_hint\":\"tls_passthrough\",\"backend_process_type\":\"web\",\"backend_port\":8443,"
        + "\"proxy_protocol\":\"off\",\"backend_expects_proxy_protocol\":false,\"max_connections\":null,"
        + "\"balance\":\"round_robin\",\"on_delete\":\"keep\"}"

    /// What a reader makes of an object: its route, what is said of it, and whether it was read flat.
    private func read(_ text: [UInt8], isFlat: Bool) -> [String] {
        var builder = StateBuilder(source: .state, seed: testSeed)
        builder.isFlat = isFlat
        let error = text.withUnsafeBufferPointer { bytes -> JSONError? in
            var reader = JSONReader(bytes, seed: testSeed)
            do throws(JSONError) { try builder.readElements(&reader, .route) } catch { return error }
            return nil
        }
        let document = builder.finished()
        let routes = document.routes.map { route in
            "\(document.string(route.id)) \(document.hostname(route) ?? "-") \(document.symbol(route.env)) "
                + "\(document.symbol(route.processType)) \(route.port) \(route.backendPort) \(route.maxConnections) "
                + "\(route.options.rawValue) \(route.alpnLength) \(route.place) "
                + "\(route.backendList == 0 ? "" : "\(document.backendLists[Int(route.backendList) - 1])")"
        }
        return routes + document.quarantined.flatMap(\.value).sorted() + document.mismatched.sorted()
            + builder.problems.list.map { "\($0)" } + [error.map { "\($0)" } ?? "read"]
    }

    private func isFlat(_ text: [UInt8]) -> Bool {
        text.withUnsafeBufferPointer { bytes in
            var flat = JSONFlat(JSONReader(bytes, seed: testSeed))
            return FlatRoute.route(&flat) != nil
        }
    }

    @Test("the usual ones are read flat")
    func usual() {
        #expect(isFlat(Array(Self.usual.utf8)))
        #expect(isFlat(Array(Self.usual.replacing(":", with: " : ").replacing(",", with: "\n, ").utf8)))
        #expect(!isFlat(Array(Self.usual.replacing("app.ex", with: "App.ex").utf8)))
        #expect(!isFlat(Array(Self.usual.replacing("tls_passthrough", with: "tcp_raw").utf8)))
    }

    @Test("every prefix, and every byte replaced, gives what the other reader gives")
    func mutations() {
        let text = Array(Self.usual.utf8)
        for end in text.indices {
            let part = Array(text[..<end])
            #expect(read(part, isFlat: true) == read(part, isFlat: false))
        }
        let bytes = Array("\"\\{}[],: 0159aAzZ-._*/".utf8) + [0, 10, 31, 127, 128, 195]
        for index in text.indices {
            for byte in bytes {
                var changed = text
                changed[index] = byte
                let (flat, other) = (read(changed, isFlat: true), read(changed, isFlat: false))
                #expect(flat == other, "\(String(decoding: changed, as: UTF8.self))")
            }
        }
    }

    private static let values = [
        "null", "true", "false", "0", "1", "443", "65535", "65536", "0443", "-1", "1.5", "1e3", "4294967295",
        "4294967296", "18446744073709551616", "\"\"", "\"off\"", "\"v2\"", "\"keep\"", "\"drain\"", "\"round_robin\"",
        "\"tls_passthrough\"", "\"tcp_raw\"", "\"app.example.com.\"", "\"*.example.com\"", "\".example.com\"",
        "\"xn--mnchen-3ya.de\"", "\"1.2.3.4\"", "\"a..b\"", "\"a b\"", "\"\\u0061.example.com\"",
        "\"ab--c.example.com\"",
        "\"münchen.de\"", "[]", "{}", "\"\(String(repeating: "x", count: 64)).de\"",
        "\"\(String(repeating: "x", count: 129))\"",
    ]

    @Test("random values, names missing, twice, unknown and in any order")
    func random() {
        var random = SplitMix64(seed: 17)
        let names = StateBuilder.routeKeys.names.map { "\($0)" } + ["unknown", "route\\u005fid"]
        var flat = 0
        for _ in 0..<3000 {
            var fields = Self.usual.dropFirst().dropLast().split(separator: ",").map(String.init)
            for _ in 0..<Int.random(in: 0...3, using: &random) {
                let value = Self.values.randomElement(using: &random) ?? "null"
                let field = "\"\(names.randomElement(using: &random) ?? "")\":\(value)"
                switch Int.random(in: 0..<4, using: &random) {
                case 0: fields.remove(at: Int.random(in: fields.indices, using: &random))
                case 1: fields.append(field)
                case 2: fields.shuffle(using: &random)
                default:
                    let index = Int.random(in: fields.indices, using: &random)
                    fields[index] = "\(fields[index].prefix { $0 != ":" }):\(value)"
                }
            }
            let text = Array("{\(fields.joined(separator: ","))}".utf8)
            if isFlat(text) { flat += 1 }
            #expect(read(text, isFlat: true) == read(text, isFlat: false), "\(String(decoding: text, as: UTF8.self))")
        }
        #expect(flat > 300, "some are")
    }
}
