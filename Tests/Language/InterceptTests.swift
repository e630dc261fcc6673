import FilterCatalog
import Pipeline
import PipelineLanguage
import Testing

@Suite("Intercepting listeners, as written") struct InterceptTests {
    private func said(_ text: String) -> String {
        let compilation = compile(Array(text.utf8), file: "t", catalog: catalog)
        return compilation.diagnostics.filter { $0.severity == .error }.map(\.message).joined(separator: "\n")
    }

    private func config(
        _ stages: String, listen: String = "listen [::]:15001 transparent via outbound\n", node: String = ""
    ) -> String {
        "node n {\n\(node)\n}\npipeline outbound {\n\(stages)\n}\n\(listen)"
    }

    private static let egress = "anti_spoof source assigned\nbackend original_destination\naccount"

    @Test(
        "modes become part of the listener, which is raw",
        arguments: [
            ("transparent", ListenerMode.transparent), ("redirect", ListenerMode.redirect),
        ])
    func modes(_ word: String, _ mode: ListenerMode) throws {
        let text = config(
            InterceptTests.egress,
            listen: "listen [::]:15001 \(word) via outbound\nlisten 0.0.0.0:15001 \(word) via outbound\n")
        let compilation = compile(Array(text.utf8), file: "t", catalog: catalog)
        #expect(compilation.diagnostics.isEmpty, "\(compilation.diagnostics.map(\.message))")
        let program = try #require(compilation.program)
        #expect(program.listeners.map(\.mode) == [mode, mode])
        #expect(program.listeners.allSatisfy { $0.hint == .tcpRaw })
        #expect(describe(program).contains("listen [::]:15001 \(word) via outbound"))
    }

    @Test("an intercepting listener needs the original destination, and no other may have it")
    func destination() {
        let routed = said(config("anti_spoof source assigned\nbackend round_robin"))
        #expect(routed == "`transparent` relays to original destinations, but `outbound` relays to routes")
        let direct = said(
            config(InterceptTests.egress, listen: "listen [::]:80 tcp_raw via outbound\n"))
        #expect(
            direct == "`outbound` connects to original destinations, which for this listener is the listener "
                + "itself")
        let exposed = said(
            config(InterceptTests.egress, listen: "expose [::] ports 80-90 via outbound\n"))
        #expect(
            exposed == "`outbound` connects to original destinations, which for this listener is the listener "
                + "itself")
    }

    @Test(
        "ADR 0049: how long others are refused what does not answer has its bounds and its place",
        arguments: [
            ("original_destination, unreachable_for 5s", true, ""),
            ("original_destination", true, ""),
            ("original_destination, connect_timeout 5s, unreachable_for off", false, ""),
            ("original_destination from instance", false, ""),
            ("original_destination from instance, unreachable_for off", false, ""),
            (
                "original_destination from instance, unreachable_for 5s", false,
                "a destination that does not answer one instance's address may answer another's"
            ),
            (
                "original_destination, unreachable_for 5s, unreachable_for off", false,
                "`unreachable_for` is given "
                    + "twice"
            ),
            ("round_robin, unreachable_for 5s", false, "`unreachable_for` applies to original destinations"),
            ("original_destination, unreachable_for 31s", false, "`31s` is out of range"),
        ])
    func unreachable(_ backend: String, _ refuses: Bool, _ error: String) {
        let text = config("anti_spoof source assigned\nbackend \(backend)")
        guard error.isEmpty else {
            #expect(said(text) == error)
            return
        }
        let program = compile(Array(text.utf8), file: "t", catalog: catalog).program
        #expect(program?.capabilities.contains(.refusesUnreachable) == refuses, "\(said(text))")
    }

    @Test("R2: stages that wait for the client have no place behind one") func waiting() {
        let text = said(config("anti_spoof source assigned\nsni\nbackend original_destination"))
        #expect(text == "a raw listener never waits for the client's first bytes, but `sni` (line 6) does")
    }

    @Test(
        "R20: limits by env, org and instance take the sender where there is no route",
        arguments: [
            "env", "org", "instance",
        ])
    func limits(_ key: String) {
        let block = "limit l {\nkey \(key)\nconcurrent 5\ntable 1k\n}\n"
        let good = block + config("anti_spoof source assigned\nrate_limit l\nbackend original_destination")
        #expect(said(good) == "")
        let unknown = block + config("rate_limit l\nbackend original_destination")
        #expect(said(unknown).contains("needs"), "\(said(unknown))")
        let late = block + config("rate_limit l\nanti_spoof source assigned\nbackend original_destination")
        #expect(said(late).contains("needs"), "\(said(late))")
    }

    @Test("a limit by route needs a route, whoever sends") func byRoute() {
        let text =
            "limit l {\nkey route\nconcurrent 5\ntable 1k\n}\n"
            + config("anti_spoof source assigned\nbackend original_destination\nrate_limit l")
        #expect(said(text) == "`rate_limit` needs the route, which no stage of `outbound` provides")
    }

    @Test(
        "what is intercepted, and the mark",
        arguments: [
            ("intercept interface vm* tap0 br-1.2", ""), ("mark 0x1", ""), ("mark 28777", ""),
            ("intercept", "`intercept` is not complete"),
            ("intercept interface", "`intercept interface` is not complete"),
            ("intercept vm*", "unexpected `vm*`"),
            ("intercept interface v*m", "`v*m` can't be the name of an interface"),
            ("intercept interface abcdefghijklmnop", "`abcdefghijklmnop` can't be the name of an interface"),
            ("intercept interface *", "`*` can't be the name of an interface"),
            ("intercept interface \"a b\"", "`a b` can't be the name of an interface"),
            ("intercept interface \"a\\\"x\"", "`a\"x` can't be the name of an interface"),
            ("intercept interface a a", "`a` is given twice"),
            ("intercept interface a\nintercept rules watch", ""), ("intercept rules off", ""),
            ("intercept rules manage\nintercept interface a", ""),
            ("intercept rules", "`intercept rules` is not complete"), ("intercept rules often", "unexpected `often`"),
            (
                "intercept rules manage",
                "there are no interception rules to watch: the config does not name the workloads' interfaces"
            ),
            (
                "intercept interface a\nintercept rules watch\nintercept rules off",
                "`intercept rules` is given twice"
            ),
            ("mark 0", "`0` is not a firewall mark"), ("mark 0x", "`0x` is not a firewall mark"),
            ("mark 0xffffffff", "`0xffffffff` is not a firewall mark"), ("mark -1", "`-1` is not a firewall mark"),
            ("mark 0x1ffffffff", "`0x1ffffffff` is not a firewall mark"), ("mark", "`mark` is not complete"),
            ("mark 1 2", "unexpected `2`"),
        ])
    func settings(_ line: String, _ message: String) {
        #expect(said(config(InterceptTests.egress, node: line)) == message)
    }
}
