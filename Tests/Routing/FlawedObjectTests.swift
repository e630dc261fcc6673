import Pipeline
import PipelineRouting
import Testing

@Suite("R24: what makes one object ambiguous costs that object alone")
struct FlawedObjectTests {
    private let state = RoutingState()
    private let good = TestRoute(id: "r1", env: "env_a", hostname: "a.example.com")
    private let other = TestRoute(id: "r2", env: "env_b", hostname: "b.example.com")

    static let flaws: [(extra: String, problem: String)] = [
        (", \"listen_port\": 444", "the name \"listen_port\" occurs twice"),
        (", \"x\": 1, \"\\u0078\": 2", "the name \"x\" occurs twice"),
        (", \"x\": {\"y\": 1, \"y\": 2}", "the name \"y\" occurs twice"),
        (", \"x\": \"\\ud800\"", "half of a surrogate pair"), (", \"x\": \"\\udc00 \\\\\"", "half of a surrogate pair"),
        (", \"\\ud800x\": [1, \"\\ud800\"]", "half of a surrogate pair"),
        (", " + (0..<257).map { "\"n\($0)\": {}" }.joined(separator: ", "), "more than 256 unknown names"),
        (", \"\(String(repeating: "k", count: 70_000))\": 1", "is longer than 65535 bytes"),
    ]

    @Test("its last good version stays, the rest is applied, and the problem has its id and place", arguments: flaws)
    func quarantined(extra: String, problem: String) throws {
        state.apply([good])
        var bad = good
        (bad.extra, bad.hostname) = (extra, "new.example.com")
        let result = state.applyText(documentText(routes: [bad.json, other.json]))
        #expect(isRejected(result.problems, "r1", problem), "\(result.problems)")
        #expect(result.problems.allSatisfy { $0.severity != .fatal && $0.origin != nil })
        #expect(result.report?.kept == 1)
        #expect(Set(state.served.keys) == ["r1", "r2"])
        #expect(state.served["r1"]?.hostname == "a.example.com")
    }

    @Test("256 unknown names are taken")
    func enough() {
        var route = good
        route.extra = ", " + (0..<256).map { "\"n\($0)\": 1" }.joined(separator: ", ")
        #expect(state.apply([route]).problems.isEmpty)
    }

    @Test("a string that is too long is its field's fault")
    func long() throws {
        state.apply([good, other])
        let bad = good.json.replacing("a.example.com", with: String(repeating: "a", count: 70_000))
        let result = state.applyText(documentText(routes: [bad, other.json]))
        #expect(isRejected(result.problems, "r1", "hostname", "longer than 65535 bytes"), "\(result.problems)")
        #expect(result.problems.count == 1 && Set(state.served.keys) == ["r1", "r2"])
    }

    @Test("an object that gives itself two ids may be either: both keep what they had, and neither is used")
    func twoIDs() throws {
        state.apply([good, other])
        var both = TestRoute(id: "r1", env: "env_c", hostname: "c.example.com")
        both.extra = ", \"route_id\": \"r2\""
        let result = state.applyText(documentText(routes: [both.json]))
        #expect(isRejected(result.problems, "r2", "the name \"route_id\" occurs twice"), "\(result.problems)")
        #expect(Set(state.served.keys) == ["r1", "r2"])
        #expect(state.served["r1"]?.hostname == "a.example.com")
    }

    @Test("envs, instances and names are no different")
    func otherKinds() throws {
        let text = documentText(
            envObjects: [envObject("env_a"), envObject("env_b").replacing("}", with: ", \"env_id\": \"env_b\"}")],
            instances: [
                instance("i1", address: "fd00::1"),
                instance("i2", address: "fd00::2").replacing("}", with: ", \"weight\": 1, \"weight\": 2}"),
            ],
            routes: [good.json],
            hostnames: [TestHostname("a.example.com", "env_a", 1).json.replacing("}", with: ", \"x\": \"\\ud800\"}")])
        let result = state.applyText(text)
        for id in ["env_b", "i2", "a.example.com"] {
            #expect(result.problems.contains { $0.id == id && $0.severity == .rejected }, "\(id): \(result.problems)")
        }
        #expect(result.problems.count == 3)
        #expect(state.served["r1"]?.env == "env_a")
    }

    @Test(
        "R22: what is no revision is refused, and none is none",
        arguments: [
            ("\"x\"", "is a string"), ("-1", "is negative"), ("1.5", "not a whole number"),
            (
                "1e3",
                "not a whole number"
            ),
            ("18446744073709551616", "too large"), ("true", "is true or false"), ("[1]", "is an array"),
        ])
    func noRevision(value: String, part: String) {
        let text = documentText(routes: [good.json]).replacing("\"revision\": 1", with: "\"revision\": \(value)")
        let (document, problems) = StateDocument.parse(text, seed: testSeed)
        #expect(document == nil)
        #expect(problems.list.last?.description.contains("\"revision\" is ") == true)
        #expect(problems.list.last?.description.contains(part) == true, "\(problems.list)")
    }

    @Test("a revision may be any whole number of 64 bits, null, or not there")
    func revisions() {
        for (value, revision) in [("0", 0), ("18446744073709551615", .max), ("null", nil)] as [(String, UInt64?)] {
            let text = documentText(routes: []).replacing("\"revision\": 1", with: "\"revision\": \(value)")
            let (document, problems) = StateDocument.parse(text, seed: testSeed)
            #expect(document?.revision == revision && problems.isEmpty)
        }
        let without = documentText(routes: []).replacing("\"revision\": 1, ", with: "")
        #expect(StateDocument.parse(without, seed: testSeed).document?.revision == nil)
    }
}
