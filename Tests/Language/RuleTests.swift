import Pipeline
import PipelineLanguage
import Testing

/// The rules of the design that the checker holds, one test each; the wording of the messages is in `Golden/`.
@Suite struct RuleTests {
    static let pipelines = """
        pipeline tls {
            sni      timeout 3s
            backend
        }
        pipeline raw {
            anti_spoof  refuse others
            backend
        }

        """

    private func compiled(_ text: String) -> Compilation {
        compile(Array((RuleTests.pipelines + text).utf8), file: "x", catalog: fakes)
    }

    private func errors(_ text: String) -> [String] {
        compiled(text).diagnostics.filter { $0.severity == .error }.map(\.message)
    }

    private func notes(_ text: String) -> [String] {
        compiled(text).diagnostics.filter { $0.severity == .note }.map(\.message)
    }

    @Test("R2: a raw listener takes no pipeline that waits for the client; one whose inspection does not block is fine")
    func raw() throws {
        #expect(errors("listen [::]:1 tcp_raw via tls").count == 1)
        #expect(errors("expose [::] ports 1000-2000 via tls").count == 1)
        let program = try #require(compiled("listen [::]:1 tcp_raw via raw").program)
        #expect(program.chains[1].isNonBlocking)
        #expect(
            program.listeners == [ListenerSpec(endpoint: Endpoint(.unspecified, 1), hint: .tcpRaw, chain: 1, line: 9)])
    }

    @Test("R17: a pipeline that believes senders fits a raw listener, and bounds its peek") func senders() throws {
        let program = try #require(
            compiled(
                "pipeline lb {\n anti_spoof accept from private, refuse others\n sni max 1024\n backend\n}\n"
                    + "pipeline rawlb {\n anti_spoof accept from private, refuse others\n backend\n}\n"
                    + "listen [::]:1 tcp_raw via rawlb\nlisten [::]:2 tls_passthrough via lb"
            ).program)
        #expect(program.chains[2].peekBytes == 2048 + 1024)
        #expect(!program.chains[2].isNonBlocking && program.chains[3].isNonBlocking)
        #expect(program.chains[3].peekTimeout == .seconds(3))
    }

    @Test("R27: a backend that is a listener of this node is refused, as far as the file shows it") func loops() {
        let route = { (listen: Int, backend: String) in
            "\nroute {\n id r\n owner a/b/c\n listen \(listen)\n backend \(backend)\n}\n"
        }
        let loop = { (text: String) in errors(text).count { $0.contains("is a listener of this node") } }
        #expect(loop("listen [2001:db8::1]:5000 tcp_raw via raw" + route(5000, "[2001:db8::1]:5000")) == 1)
        #expect(loop("listen [::]:5000 tcp_raw via raw" + route(5000, "[::1]:5000")) == 1)
        #expect(loop("listen 0.0.0.0:5000 tcp_raw via raw" + route(5000, "127.0.0.9:5000")) == 1)
        #expect(loop("expose [::] ports 5000-5009 via raw" + route(5003, "[::1]:5003")) == 1)
        // Another port, another family, another host, or a port that nobody asks to be opened.
        #expect(loop("listen [::]:5000 tcp_raw via raw" + route(5000, "[::1]:5001")) == 0)
        #expect(loop("listen [::]:5000 tcp_raw via raw" + route(5000, "127.0.0.1:5000")) == 0)
        #expect(loop("listen [::]:5000 tcp_raw via raw" + route(5000, "[fd00::10]:5000")) == 0)
        #expect(loop("expose [::] ports 5000-5009 via raw" + route(5003, "[::1]:5004")) == 0)
    }

    @Test("R16, R17: what goes by the client's address stands below what may change it") func clientFirst() {
        let chain = { (stages: [String]) in
            "pipeline p {\n \(stages.joined(separator: "\n "))\n backend\n}\nlisten [::]:1 tcp_raw via p"
        }
        let accept = "anti_spoof accept from private, refuse others"
        #expect(errors(chain([accept, "address deny bogons"])).isEmpty)
        #expect(errors(chain(["address deny bogons", accept])).count == 1)
        #expect(errors(chain(["address deny bogons", "anti_spoof refuse others"])).isEmpty)
    }

    @Test("R5: a pipeline that chooses the route before it knows the name is refused") func nameFirst() {
        let late = "pipeline late {\n backend\n sni timeout 3s\n}\nlisten [::]:1 tls_passthrough via late"
        #expect(errors(late).count == 1)
        #expect(errors("listen [::]:1 tls_passthrough via raw").count == 1)
        #expect(errors("listen [::]:1 tls_passthrough via tls").isEmpty)
    }

    @Test("R7: a peek under a second gets a note, one of a second none") func shortPeek() {
        let chain = { (text: String) in
            "pipeline p {\n sni timeout \(text)\n backend\n}\nlisten [::]:1 tls_passthrough via p"
        }
        #expect(notes(chain("999ms")).count == 1)
        #expect(notes(chain("1s")).isEmpty)
    }

    @Test("R8: denied ports stay closed, whoever asks", arguments: [23, 25, 137, 138, 139])
    func denied(_ port: Int) {
        #expect(errors("listen [::]:\(port) tcp_raw via raw").count == 1)
        #expect(errors("expose [::] ports \(port) via raw").count == 1)
        #expect(errors("expose [::] ports \(port - 1)-\(port + 3) via raw").isEmpty)
        #expect(notes("expose [::] ports \(port - 1)-\(port + 3) via raw").count == 1)
    }

    @Test("R8: the node block says which ports are denied") func deniedSetting() {
        let node = { (ports: String) in "node edge {\n    denied_ports \(ports)\n}\n" }
        #expect(errors(node("none") + "listen [::]:25 tcp_raw via raw").isEmpty)
        #expect(errors(node("8080 9000-9010") + "listen [::]:25 tcp_raw via raw").isEmpty)
        #expect(errors(node("8080 9000-9010") + "listen [::]:9005 tcp_raw via raw").count == 1)
        for bad in ["", "none 25", "25 25", "20-30 25", "0", "30-20", "smtp"] {
            #expect(errors(node(bad)).count == 1, "\(bad)")
        }
    }

    @Test("backend options are about one address, once, and in range") func backendOptions() {
        let route = { (backend: String) in
            "route {\n    id a\n    owner a/b/c\n    listen 5432\n    backend \(backend)\n}\n"
        }
        for good in [
            "[fd00::1]:1 weight 0", "[fd00::1]:1 weight 256 max 1", "[fd00::1]:1 max 9", "[fd00::1]:1 [fd00::2]:1",
            "[fd00::1]:1 backup", "[fd00::1]:1 priority 0 weight 2", "[fd00::1]:1 max 4 priority 15",
        ] {
            #expect(errors(route(good)).isEmpty, "\(good)")
        }
        for bad in [
            "[fd00::1]:1 [fd00::2]:1 weight 2", "weight 2", "[fd00::1]:1 weight", "[fd00::1]:1 weight 257",
            "[fd00::1]:1 max 0", "[fd00::1]:1 weight 1 weight 2", "[fd00::1]:1 weight 1 wight 2",
            "[fd00::1]:1 priority 16", "[fd00::1]:1 priority", "[fd00::1]:1 priority backup",
            "[fd00::1]:1 backup backup",
            "[fd00::1]:1 backup priority 2", "[fd00::1]:1 [fd00::2]:1 backup", "backup",
        ] {
            #expect(errors(route(bad)).count == 1, "\(bad)")
        }
        #expect(errors(route("[fd00::1]:1").replacing("listen", with: "balance maglev\n    listen")).count == 1)
    }

    @Test("a route whose backends all have weight 0 gets a warning: nobody gets any connection") func weightless() {
        let warnings = { (backends: String) in
            self.compiled("route {\n    id a\n    owner a/b/c\n    listen 5432\n\(backends)}\n").diagnostics
                .filter { $0.severity == .warning }.map(\.message)
        }
        let none = "every backend of the route has `weight 0`: it gets no connections"
        let zeros = "    backend [fd00::1]:1 weight 0\n    backend [fd00::2]:1 weight 0 backup\n"
        #expect(warnings(zeros).contains(none))
        #expect(!warnings(zeros + "    backend [fd00::3]:1\n").contains(none))
    }

    @Test("a route's `health` names a block, which is then used, or is off") func routeHealth() throws {
        let text = { (health: String) in
            "health strict { eject after 3 for 1s }\nroute {\n    id a\n    owner a/b/c\n    listen 5432\n"
                + "    backend [fd00::1]:1\n    health \(health)\n}\n"
        }
        let own = try #require(compiled(text("strict")).routes.first?.health?.value)
        #expect(own.name == "strict" && own.ejection.after == 3 && !own.usesAll)
        #expect(compiled(text("off")).routes.first?.health?.value == RouteHealth.off)
        #expect(errors(text("strikt")) == ["no health is named `strikt`"])
        #expect(errors(text("strict off")).count == 1 && errors(text("")).count == 1)
    }

    @Test("what a `backend` line and `health` say may stand in a `backends` block, and holds for its routes")
    func blockOfBackends() throws {
        let text = { (block: String, route: String) in
            "health strict { eject after 3 for 1s }\nbackends web {\n    \(block)\n}\nroute {\n    id a\n    owner a/b/c\n"
                + "    listen 5432\n    backends web\n    \(route)\n}\n"
        }
        let lines = "backend [fd00::1]:1 priority 2\n    backend [fd00::2]:1 weight 0 backup"
        let own = compiled(text("\(lines)\n    health strict", ""))
        let route = try #require(own.routes.first)
        #expect(route.backends.map(\.value.priority) == [2, 15] && route.backends.map(\.value.weight) == [1, 0])
        #expect(route.health?.value.name == "strict" && own.groups.first?.health?.value.name == "strict")
        #expect(compiled(text(lines, "health off")).routes.first?.health?.value == RouteHealth.off)
        #expect(errors(text("\(lines)\n    health off", "health strict")).count == 1)
        #expect(errors(text("\(lines)\n    health strikt", "")) == ["no health is named `strikt`"])
        let none = "every backend of the block has `weight 0`: it gets no connections"
        let warnings = { compiled($0).diagnostics.filter { $0.severity == .warning }.map(\.message) }
        #expect(warnings(text("backend [fd00::1]:1 weight 0", "")).filter { $0.contains("weight 0") } == [none])
    }

    @Test("R8: their neighbours are open", arguments: [22, 24, 26, 136, 140]) func open(_ port: Int) {
        #expect(errors("listen [::]:\(port) tcp_raw via raw").isEmpty)
    }

    @Test("R9: the families are listeners of their own; the same endpoint twice is an error") func families() {
        let listen = "listen [::]:443 tls_passthrough via tls\nlisten 0.0.0.0:443 tls_passthrough via tls\n"
        #expect(errors(listen).isEmpty)
        #expect(errors(listen + "listen [2001:db8::1]:443 tls_passthrough via tls").isEmpty)
        #expect(errors(listen + "listen 0.0.0.0:443 tcp_raw via raw").count == 1)
        #expect(errors(listen + "listen [::0]:443 tls_passthrough via tls").count == 1)
    }

    @Test("R10: a backend is an address and a port, a name or a path; IPv4 is for sites without an overlay")
    func overlay() {
        let route = { (text: String) in
            "listen [::]:1 tcp_raw via raw\nroute {\n id r\n owner a/b/c\n listen 1\n backend \(text)\n}"
        }
        for right in ["[fd00::1]:80", "10.0.0.1:80", "example.com:80", "srv _a._tcp.b", "unix:/a"] {
            #expect(errors(route(right)).isEmpty, "\(right)")
        }
        for wrong in ["[::]:80", "0.0.0.0:80", "[fd00::1]:0", "[fd00::1]", "example.com", "unix:a"] {
            #expect(errors(route(wrong)).count == 1, "\(wrong)")
        }
    }

    @Test("R28: only a stage that refuses has shadow") func shadow() {
        let chain = { (text: String) in "pipeline p {\n backend\n \(text)\n}\nlisten [::]:1 tcp_raw via p" }
        #expect(errors(chain("address deny bogons, shadow")).isEmpty)
        #expect(errors(chain("account shadow")).count == 1)
    }

    @Test("route blocks keep the place of every field") func spans() throws {
        let compilation = compiled(
            "listen [::]:1 tcp_raw via raw\nroute a.example {\n id r\n owner o/a/e\n listen 443\n backend [fd00::1]:80\n}"
        )
        let route = try #require(compilation.routes.first)
        let text = { (span: SourceSpan) in
            String(decoding: compilation.source.bytes[span.start..<span.end], as: UTF8.self)
        }
        #expect(text(route.span) == "route a.example")
        #expect(route.hostnames.map { text($0.span) } == ["a.example"])
        #expect(text(route.id.span) == "r")
        #expect(text(route.owner.span) == "o/a/e")
        #expect(route.ports.map { text($0.span) } == ["443"])
        #expect(route.backends.map { text($0.span) } == ["[fd00::1]:80"])
        #expect(route.hint == .tlsPassthrough)
    }

    @Test("one address with a `max` here and another, or none, there is a warning at the second place")
    func otherLimits() {
        func warnings(_ first: String, _ second: String, _ block: String = "[fd00::1]:9") -> [String] {
            let route = { (port: Int, line: String) in
                "route {\n id rt\(port)\n owner a/b/c\n listen \(port)\n \(line)\n}\n"
            }
            let compilation = compiled(
                "listen [::]:1-3 tcp_raw via raw\nbackends web {\n backend \(block)\n}\n"
                    + route(1, "backend \(first)") + route(2, "backend \(second)") + route(3, "backends web"))
            #expect(!compilation.hasErrors, "\(compilation.diagnostics)")
            return compilation.diagnostics.filter { $0.severity == .warning && $0.message.contains("max") }.map(
                \.message)
        }
        #expect(warnings("[fd00::1]:1 max 5", "[fd00::1]:1 max 5") == [])
        #expect(warnings("[fd00::1]:1 max 5", "[fd00::1]:2 max 6") == [])
        let rest = ": all its connections count for each line that has one"
        #expect(
            warnings("[fd00::1]:1 max 5", "[fd00::1]:1 max 6") == [
                "`[fd00::1]:1` has `max 6` here and `max 5` elsewhere\(rest)"
            ])
        #expect(
            warnings("db.test:1 max 5", "db.test:1") == ["`db.test:1` has no `max` here and `max 5` elsewhere\(rest)"])
        // Once for an address, whichever blocks have it.
        #expect(warnings("unix:/x max 5", "unix:/x max 6", "unix:/x max 7").count == 1)
    }
}
