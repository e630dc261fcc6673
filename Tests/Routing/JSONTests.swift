import PipelineRouting
import Testing

@Suite("State documents as JSON")
struct JSONTests {
    private func fatal(_ text: String) -> RouteProblem? {
        StateDocument.parse(text, seed: testSeed).problems.list.first { $0.severity == .fatal }
    }

    private func document(with member: String) -> String {
        "{\"format\": \"pipelined.state/1\", \"envs\": [], \"instances\": [], \"routes\": [], \(member)}"
    }

    static let whole = documentText(
        instances: [instance("i1", address: "fd00::10")],
        routes: [
            TestRoute(id: "r1", env: "env_a", hostname: "caf\\u00e9.example.com").json,
            TestRoute(id: "r2", env: "env_b", hostname: "m\u{FC}ller.example", extra: ", \"x\": [1, {\"y\": -2.5e3}]")
                .json,
            TestRoute(id: "r3", env: "env_c", port: 5432, raw: true, extra: ", \"max_connections\": null").json,
        ])

    @Test("R22: the whole document is read")
    func reads() throws {
        let (document, problems) = StateDocument.parse(JSONTests.whole, seed: testSeed)
        #expect(problems.isEmpty)
        let routes = try #require(document).routes
        #expect(routes.compactMap { document?.hostname($0) } == ["xn--caf-dma.example.com", "xn--mller-kva.example"])
        #expect(document?.revision == 1)
        #expect(document?.actor == "test")
    }

    @Test("R22: no proper prefix of a document is a document")
    func prefixes() {
        let text = Array(JSONTests.whole.utf8)
        for count in 0..<text.count {
            let result = text[..<count].withUnsafeBufferPointer { StateDocument.parse($0, seed: testSeed) }
            #expect(result.document == nil, "\(count)")
            #expect(result.problems.list.last?.severity == .fatal)
        }
    }

    @Test("R27: no mutation of a document traps, and one that is refused says where")
    func mutations() {
        var text = Array(JSONTests.whole.utf8)
        for index in text.indices {
            let byte = text[index]
            for other in [0x00, 0x22, 0x5C, 0x7B, 0x5D, 0x2C, 0x39, 0x80, 0xFF, byte ^ 1, byte ^ 0x20] as [UInt8] {
                text[index] = other
                let result = text.withUnsafeBufferPointer { StateDocument.parse($0, seed: testSeed) }
                if let document = result.document {
                    _ = RoutingState().apply(document)
                } else {
                    #expect(result.problems.list.contains { $0.severity == .fatal && $0.origin != nil })
                }
            }
            text[index] = byte
        }
    }

    @Test(
        "R22: what is no JSON is refused with place and expectation",
        arguments: [
            ("", "1:1", "the end of the document"), ("[]", "1:1", "an object"),
            (
                "{\"a\": 1 \"b\"}", "1:9",
                "\",\" or \"}\""
            ),
            ("{\n  \"a\" 1}", "2:7", "\":\""), ("{\"a\": tru}", "1:7", "true, false"),
            ("{\"a\": 01}", "1:7", "starts with 0"),
            ("{\"a\": 1.}", "1:9", "after the point"), ("{\"a\": 1e}", "1:9", "exponent"),
            ("{\"a\": -}", "1:8", "a digit"),
            ("{\"a\": \"\\x\"}", "1:8", "escape"), ("{\"a\": \"\\ud800\"}", "1:8", "escape"),
            ("{\"a\": \"\\udc00\"}", "1:8", "escape"), ("{\"a\": \"\\ud800\\u0041\"}", "1:8", "escape"),
            ("{\"a\": \"\t\"}", "1:8", "control"), ("{\"a\": [1,]}", "1:10", "a value"),
            ("{\"a\": 1,}", "1:9", "a name"),
            ("{\"a\": 1, \"\\u0061\": 2}", "1:10", "twice"), ("{\"envs\": [], \"envs\": []}", "1:14", "twice"),
            ("{\"a\": {\"b\": 1, \"b\": 2}}", "1:16", "twice"), ("{} x", "1:4", "the end"),
            ("{\"a\"", "1:5", "the end of the document"),
            ("\u{FEFF}{}", "1:1", "byte order mark"), ("{\"a\": NaN}", "1:7", "a value"),
        ])
    func errors(text: String, place: String, part: String) throws {
        let problem = try #require(fatal(text))
        #expect(problem.description.hasPrefix(place + ":"), "\(problem)")
        #expect(problem.description.contains(part), "\(problem)")
    }

    @Test("R22: bytes that are no UTF-8 are refused")
    func utf8() {
        let bad: [[UInt8]] = [
            [0x80], [0xC0, 0x80], [0xC3], [0xE0, 0x80, 0x80], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80], [0xFF],
            [0xF0, 0x80, 0x80, 0x80], [0xE2, 0x82],
        ]
        for sequence in bad {
            let text = Array("{\"a\": \"".utf8) + sequence + Array("\"}".utf8)
            let result = text.withUnsafeBufferPointer { StateDocument.parse($0, seed: testSeed) }
            #expect(result.problems.list.last?.description.contains("UTF-8") == true, "\(sequence)")
        }
        #expect(fatal(document(with: "\"a\": \"\u{E9}\u{20AC}\u{1F600} \\ud83d\\ude00\"")) == nil)
    }

    @Test("R27: nesting, names and strings are bounded")
    func bounds() throws {
        let deep = String(repeating: "[", count: 100_000)
        #expect(try #require(fatal(document(with: "\"a\": \(deep)"))).description.contains("nest deeper"))
        #expect(
            fatal(document(with: "\"a\": " + String(repeating: "[", count: 31) + String(repeating: "]", count: 31)))
                == nil)
        let names = (0..<300).map { "\"n\($0)\": 1" }.joined(separator: ",")
        #expect(try #require(fatal(document(with: names))).description.contains("unknown names"))
        let long = "\"" + String(repeating: "x", count: 70_000) + "\""
        #expect(fatal(document(with: "\"a\": \(long)")) == nil, "an unknown field may be long")
        #expect(try #require(fatal(document(with: "\"actor\": \(long)"))).description.contains("longer than"))
    }

    @Test(
        "R24: a document that is none as a whole",
        arguments: [
            ("{}", "\"format\" is missing"), ("{\"format\": \"pipelined.state/2\"}", "not supported by this version"),
            ("{\"format\": \"pipelined.state/10\"}", "not supported by this version"),
            ("{\"format\": 1}", "\"format\" is a number"),
            ("{\"format\": \"pipelined.state/1\", \"envs\": [], \"instances\": []}", "\"routes\" is missing"),
            ("{\"format\": \"pipelined.state/1\", \"envs\": {}}", "\"envs\" is an object"),
        ])
    func unusable(text: String, part: String) throws {
        let problem = try #require(fatal(text))
        #expect(problem.description.contains(part))
        #expect(StateDocument.parse(text, seed: testSeed).document == nil)
    }

    @Test("R24: the fatal problem is the last, after whatever others and however many")
    func fatalIsLast() throws {
        let bad = String(repeating: "1,", count: RouteProblems.limit + 10)
        let cut = "{\"format\": \"pipelined.state/1\", \"envs\": [\(bad)"
        let other = documentText(routes: ["1"]).replacing("pipelined.state/1", with: "pipelined.state/2")
        for text in [cut, other] {
            let (document, problems) = StateDocument.parse(text, seed: testSeed)
            #expect(document == nil)
            #expect(problems.hasFatal)
            #expect(problems.list.count { $0.severity == .fatal } == 1)
            #expect(problems.list.last?.severity == .fatal)
        }
    }

    @Test("unknown fields and a minor version are taken")
    func tolerant() {
        let text = documentText(routes: []).replacing("pipelined.state/1", with: "pipelined.state/1.4")
        #expect(StateDocument.parse(text, seed: testSeed).problems.isEmpty)
    }
}
