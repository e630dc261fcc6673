import Pipeline
import Testing

@testable import PipelineRouting

/// ``FlatRoute`` and ``FlatInstance`` read what ``StateBuilder`` would read, and nothing else.
@Suite("R24: objects as almost all are written")
struct FlatObjectTests {
    /// A kind of object that is read flat, as it usually is.
    struct Sample: Sendable, CustomTestStringConvertible {
        let kind: StateKind
        let text: String
        let names: [String]
        var testDescription: String { "\(kind)" }

        static let route = Sample(
            kind: .route,
            text: "{\"route_id\":\"rt_1\",\"env_id\":\"env_a\",\"hostname\":\"app.example.com\",\"listen_port\":443,"
                + "\"protocol_hint\":\"tls_passthrough\",\"backend_process_type\":\"web\",\"backend_port\":8443,"
                + "\"proxy_protocol\":\"off\",\"backend_expects_proxy_protocol\":false,\"max_connections\":null,"
                + "\"balance\":\"round_robin\",\"on_delete\":\"keep\"}",
            names: StateBuilder.routeKeys.names.map { "\($0)" } + ["unknown", "route\\u005fid"])
        static let instance = Sample(
            kind: .instance,
            text:
                "{\"instance_id\":\"i_1\",\"env_id\":\"env_a\",\"process_type\":\"web\",\"overlay_ipv6\":\"fd00::1:2\","
                + "\"node_id\":\"n_1\",\"status\":\"ready\",\"drain_grace_seconds\":30,\"weight\":1,"
                + "\"max_connections\":null,\"ipv4\":\"192.0.2.1\",\"interface\":null,\"priority\":0}",
            names: StateBuilder.instanceKeys.names.map { "\($0)" } + ["unknown", "instance\\u005fid"])

        var isFlat: Bool { isFlat(Array(text.utf8)) }
        func isFlat(_ text: [UInt8]) -> Bool {
            text.withUnsafeBufferPointer { bytes in
                var flat = JSONFlat(JSONReader(bytes, seed: testSeed))
                return kind == .route ? FlatRoute.route(&flat) != nil : FlatInstance.instance(&flat) != nil
            }
        }
    }
    private static let samples = [Sample.route, .instance]

    /// What a reader makes of an object, and what is said of it.
    private func read(_ text: [UInt8], _ sample: Sample, isFlat: Bool) -> [String] {
        var builder = StateBuilder(source: .state, seed: testSeed)
        builder.isFlat = isFlat
        let error = text.withUnsafeBufferPointer { bytes -> JSONError? in
            var reader = JSONReader(bytes, seed: testSeed)
            do throws(JSONError) { try builder.readElements(&reader, sample.kind) } catch { return error }
            return nil
        }
        let document = builder.finished()
        let routes = document.routes.map { route in
            "\(document.string(route.id)) \(document.hostname(route) ?? "-") \(document.symbol(route.env)) "
                + "\(document.symbol(route.processType)) \(route.port) \(route.backendPort) \(route.maxConnections) "
                + "\(route.options.rawValue) \(route.alpnLength) \(route.place) "
                + "\(route.backendList == 0 ? "" : "\(document.backendLists[Int(route.backendList) - 1])")"
        }
        let instances = document.instances.map { one in
            "\(document.string(one.id)) \(document.symbol(one.env)) \(document.symbol(one.processType)) \(one.address) "
                + "\(document.string(one.node)) \(one.status) \(one.drainGraceSeconds) \(one.weight) "
                + "\(one.maxConnections) \(one.priority) \(one.ipv4.map { "\($0)" } ?? "-") "
                + "\(document.string(one.interface)) \(one.place)"
        }
        return routes + instances + document.quarantined.flatMap(\.value).sorted() + document.mismatched.sorted()
            + builder.problems.list.map { "\($0)" } + [error.map { "\($0)" } ?? "read"]
    }

    @Test("the usual ones are read flat")
    func usual() {
        for sample in Self.samples {
            #expect(sample.isFlat)
            let spaced = sample.text.replacing("\":", with: "\" : ").replacing(",", with: "\n, ")
            #expect(sample.isFlat(Array(spaced.utf8)))
        }
        for (sample, old, new) in [
            (Sample.route, "app.ex", "App.ex"), (.route, "tls_passthrough", "tcp_raw"),
            (.instance, "fd00::1:2", "192.0.2.1"), (.instance, "\"node_id\"", "\"nodes_id\""),
        ] { #expect(!sample.isFlat(Array(sample.text.replacing(old, with: new).utf8)), "\(new)") }
    }

    @Test("every prefix, and every byte replaced, gives what the other reader gives", arguments: samples)
    func mutations(_ sample: Sample) {
        let text = Array(sample.text.utf8)
        for end in text.indices {
            let part = Array(text[..<end])
            #expect(read(part, sample, isFlat: true) == read(part, sample, isFlat: false))
        }
        let bytes = Array("\"\\{}[],: 0159aAzZ-._*/".utf8) + [0, 10, 31, 127, 128, 195]
        for index in text.indices {
            for byte in bytes {
                var changed = text
                changed[index] = byte
                let (flat, other) = (read(changed, sample, isFlat: true), read(changed, sample, isFlat: false))
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
        "\"\(String(repeating: "x", count: 129))\"", "\"ready\"", "\"booting\"", "\"Ready\"", "\"fd00::2\"",
        "\"::\"", "\"::ffff:192.0.2.1\"", "\"192.0.2.7\"", "\"192.0.2.07\"", "\"0.0.0.0\"", "\"eth0\"", "256", "257",
        "86400",
        "86401", "7",
    ]

    @Test("random values, names missing, twice, unknown and in any order", arguments: samples)
    func random(_ sample: Sample) {
        var random = SplitMix64(seed: 17)
        var flat = 0
        for _ in 0..<3000 {
            var fields = sample.text.dropFirst().dropLast().split(separator: ",").map(String.init)
            for _ in 0..<Int.random(in: 0...3, using: &random) {
                let value = Self.values.randomElement(using: &random) ?? "null"
                let field = "\"\(sample.names.randomElement(using: &random) ?? "")\":\(value)"
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
            if sample.isFlat(text) { flat += 1 }
            #expect(
                read(text, sample, isFlat: true) == read(text, sample, isFlat: false),
                "\(String(decoding: text, as: UTF8.self))")
        }
        #expect(flat > 300, "some are")
    }
}
