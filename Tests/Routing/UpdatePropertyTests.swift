import Pipeline
import PipelineRouting
import TestSupport
import Testing

@Suite("Updates against the reader of documents")
struct UpdatePropertyTests {
    private func expect(_ bytes: [UInt8], _ run: Comment) {
        let violation = withExactBytes(bytes) { UpdateProperties.violation($0) }
        #expect(violation == nil, run)
    }

    @Test(
        "R22, R24: thousands of random documents and changes, good and bad, are split as they are judged",
        arguments: 0..<20)
    func random(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        for step in 0..<150 {
            let text = RandomUpdate.text(&random)
            var bytes = Array(text.utf8)
            expect(bytes, "seed \(seed) step \(step): \(text)")
            // Most places and problems behind a byte that is wrong are those of the text.
            let place = Int.random(in: bytes.indices, using: &random)
            bytes[place] = [0x22, 0x7B, 0x5D, 0x2C, 0x30, 0x0A, 0x5C, 0xC3].randomElement(using: &random) ?? 0
            expect(bytes, "seed \(seed) step \(step), byte \(place) changed: \(text)")
        }
    }

    @Test("R22: every prefix of a document and of a change, and every byte of them changed")
    func variants() {
        var random = SplitMix64(seed: 7)
        for text in [JSONTests.whole, RandomUpdate.text(&random), UpdatePropertyTests.whole] {
            let input = Corpus.Input(name: "whole", bytes: Array(text.utf8))
            Corpus.forEachVariant([input], budget: 4000) { expect($0.bytes, "\($0.name)") }
        }
    }

    static let whole = """
        {"format": "pipelined.change/1", "revision": 2, "base": 1, "actor": "a", "request": "b", "needs": ["weight"],
        "put": {"hostnames": [{"hostname": "*.\u{FC}.example", "env_id": "e", "claimed": 1}], "envs": [],
        "routes": [{"route_id": "r\\u0031", "x": [null, -1.5e3, {"\\ud83d\\ude00": true}]}, {"route_id": "r1"}]},
        "delete": {"instances": ["i1", "i2"], "routes": ["r2"]}}
        """
}

/// Documents and changes with objects of few ids, so that they meet, some of them bad in every way that is known.
private enum RandomUpdate {
    static func text(_ random: inout SplitMix64) -> String {
        let kinds: [(String, (inout SplitMix64) -> String)] = [
            ("orgs", { "{\"org_id\": \(id("org", &$0)), \"suspended\": \(["true", "false", "1"].any(&$0))}" }),
            (
                "envs",
                {
                    "{\"env_id\": \(id("env_", &$0)), \"app_id\": \"app\", \"org_id\": \(id("org", &$0)), \"ipv4_address\": \(["null", "\"192.0.2.1\"", "\"x\""].any(&$0))}"
                }
            ),
            (
                "instances",
                {
                    "{\"instance_id\": \(id("i", &$0)), \"env_id\": \(id("env_", &$0)), \"process_type\": \"web\", \"overlay_ipv6\": \"fd00::\(Int.random(in: 1...3, using: &$0))\", \"status\": \(["\"ready\"", "\"draining\"", "\"x\""].any(&$0))}"
                }
            ),
            (
                "routes",
                {
                    "{\"route_id\": \(id("r", &$0)), \"env_id\": \(id("env_", &$0)), \"hostname\": \(name(&$0)), \"listen_port\": 443, \"protocol_hint\": \"tls_passthrough\", \"backend_process_type\": \"web\", \"backend_port\": 1\(extra(&$0))}"
                }
            ),
            (
                "hostnames",
                {
                    "{\"hostname\": \(name(&$0)), \"env_id\": \(id("env_", &$0)), \"claimed\": \(["null", "1", "2", "-1"].any(&$0))}"
                }
            ),
        ]
        var lists = kinds.map { kind -> String in
            let objects = (0..<Int.random(in: 0...4, using: &random)).map { _ in
                Int.random(in: 0..<25, using: &random) == 0 ? ["5", "{}", "[]"].any(&random) : kind.1(&random)
            }
            return "\"\(kind.0)\": [\(objects.joined(separator: ", "))]"
        }
        lists.shuffle(using: &random)
        let isChange = Bool.random(using: &random)
        if Int.random(in: 0..<8, using: &random) == 0 || isChange { lists.removeLast() }
        guard isChange else {
            lists.insert("\"format\": \"pipelined.state/1\"", at: Int.random(in: 0...lists.count, using: &random))
            return "{\(lists.joined(separator: ",\n"))}"
        }
        let deleted = "\"delete\": {\"routes\": [\(id("r", &random)), \(id("x", &random))]}"
        var parts = ["\"format\": \"pipelined.change/1\"", "\"put\": {\(lists.joined(separator: ",\n"))}", deleted]
        parts.shuffle(using: &random)
        return "{\(parts.joined(separator: ", "))}"
    }

    private static func id(_ prefix: String, _ random: inout SplitMix64) -> String {
        let number = Int.random(in: 1...3, using: &random)
        switch Int.random(in: 0..<30, using: &random) {
        case 0: return "null"
        case 1: return "\"\""
        case 2: return "\"\\u0061\(number)\""
        case 3: return "\"\\ud800\""
        default: return "\"\(prefix)\(number)\""
        }
    }

    private static func name(_ random: inout SplitMix64) -> String {
        [
            "\"a.example.com\"", "\"A.Example.com.\"", "\"*.example.com\"", "\".example.com\"", "\"b\u{FC}r.example\"",
            "\"xn--br-xka.example\"", "\"1.2.3.4\"", "null", "\"*.com\"",
        ].any(&random)
    }

    private static func extra(_ random: inout SplitMix64) -> String {
        [
            "", "", "", ", \"x\": 1, \"x\": 2", ", \"route_id\": \"r9\"", ", \"x\": \"\\udc00\"",
            ", \"proxy_protocol\": \"v2\"",
            ", \"x\": {\"y\": [1, {}]}", ",\n\t\"x\" : true\n", ", \"x\": 1.5",
        ].any(&random)
    }
}

extension Array where Element == String {
    fileprivate func any(_ random: inout SplitMix64) -> String { randomElement(using: &random) ?? "" }
}

@Suite("the corpus of Update")
struct UpdateCorpusTests {
    @Test("R22: what the fuzzer found, again", .timeLimit(.minutes(5))) func replay() throws {
        for input in try Corpus.inputs("Update") + Corpus.inputs("State") { expect(input) }
    }

    @Test("R22: every prefix and every byte of it changed", .timeLimit(.minutes(5))) func variants() throws {
        Corpus.forEachVariant(try Corpus.inputs("Update"), budget: 6000) { expect($0) }
    }

    private func expect(_ input: Corpus.Input) {
        let violation = withExactBytes(input.bytes) { UpdateProperties.violation($0) }
        #expect(violation == nil, "\(input.name): \(hex(input.bytes))")
    }
}
