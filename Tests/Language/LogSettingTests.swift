import FilterCatalog
import Pipeline
import PipelineLanguage
import Testing

/// The lines of `node` about its logs.
@Suite struct LogSettingTests {
    private func compiled(_ lines: String) -> Compilation {
        let text = "node n {\n \(lines)\n}\npipeline p {\n backend round_robin\n}\nlisten [::]:1 tcp_raw via p\n"
        return compile(Array(text.utf8), file: "x", catalog: catalog)
    }
    private func settings(_ lines: String) throws -> LogSettings { try #require(compiled(lines).program).node.log }

    @Test("unless said: the standard streams, every connection") func usual() throws {
        #expect(try settings("") == LogSettings())
        #expect(try settings("connection_log stdout\nevent_log stderr") == LogSettings())
        #expect(try !settings("").hasFile)
    }

    @Test("files, syslog by a socket and over the network") func destinations() throws {
        #expect(try settings("connection_log file /var/log/x").connections == .file("/var/log/x"))
        #expect(try settings("event_log file /var/log/x").hasFile)
        var local = SyslogSettings(.unix("/dev/log"))
        #expect(local.format == .rfc3164 && local.facilityName == "daemon" && local.tag == "pipelined")
        #expect(try settings("event_log syslog unix:/dev/log").events == .syslog(local))
        (local.format, local.facility, local.tag) = (.rfc5424, 19, "edge_1")
        let line = "connection_log syslog unix:/dev/log tag edge_1 facility local3 format rfc5424"
        #expect(try settings(line).connections == .syslog(local))
        let remote = SyslogSettings(.udp(Endpoint(IPAddress(v4: 0xC000_0201), 514)))
        #expect(remote.format == .rfc5424)
        #expect(try settings("event_log syslog 192.0.2.1:514").events == .syslog(remote))
    }

    @Test("sampling, and reasons") func choice() throws {
        var sample = LogSample()
        sample.every = 1000
        #expect(try settings("log sample 1/1k").sample == sample)
        sample.population = .all
        #expect(try settings("log sample 1/1000 of all").sample == sample)
        let reasons = try settings("log only sni.* relay.closed\nlog except sni.timeout")
        #expect(reasons.only == ["sni.*", "relay.closed"] && reasons.except == ["sni.timeout"])
        let node = try #require(compiled("log connections refusals 7/s\nlog sample 1/2").program).node
        #expect(node.loggedRefusals == 7 && node.log.sample.every == 2)
    }

    @Test(
        "one error each, and it says what to write",
        arguments: [
            ("log", "`connections`, `off`, `sample`, `only` or `except`"), ("log conections", "did you mean"),
            ("log sampel 1/2", "did you mean `sample`"), ("log sample", "a share like `1/100`"),
            ("log sample 1/0", "1 to 1M"), ("log sample 100", "one connection of a hundred"),
            ("log sample 1/2M", "out of range"), ("log sample 1/10 of errors", "`closed`, `relayed` or `all`"),
            ("log sample 1/10 for all", "`of`"), ("log sample 1/2\nlog sample 1/3", "twice"),
            ("log only", "`limits.*`"), ("log only limts.*", "did you mean `limits.*`"),
            ("log except sni.timeoutt", "did you mean `sni.timeout`"), ("log only sni", "no connection ends as `sni`"),
            ("log except relay.closed client", "no connection ends as `client`"),
            ("log only sni.*, relay.*", "takes no `,`"),
            ("log only sni.timeout sni.timeout", "twice"),
            ("connection_log", "`stdout`, `file` or `syslog`"), ("connection_log stderr", "`stdout`"),
            ("connection_log file", "the path of a file"), ("connection_log file log.json", "absolute"),
            ("connection_log file /var/log/", "absolute"), ("event_log /var/log/x", "`stderr`, `file` or `syslog`"),
            ("event_log syslog", "`unix:/dev/log`"), ("event_log syslog /dev/log", "write `unix:/dev/log`"),
            ("event_log syslog unix:log", "absolute path"),
            ("event_log syslog unix:/\(String(repeating: "x", count: 107))", "107 bytes"),
            ("event_log syslog localhost:514", "names are not looked up"),
            ("event_log syslog 192.0.2.1", "write `192.0.2.1:PORT`"), ("event_log syslog [::]:514", "host's address"),
            ("event_log syslog [::1]:514 facility local8", "did you mean `local0`"),
            ("event_log syslog [::1]:514 format json", "`rfc5424` or `rfc3164`"),
            ("event_log syslog [::1]:514 tag \"a b\"", "can't be a tag"),
            ("event_log syslog [::1]:514 tag \(String(repeating: "x", count: 33))", "at most 32"),
            ("event_log syslog [::1]:514 tag a tag b", "twice"), ("event_log syslog [::1]:514 level", "`facility`"),
            ("event_log syslog [::1]:514 facility", "a facility like `daemon`"),
            ("access_log /a", "write `connection_log`"), ("error_log /a", "write `event_log`"),
        ])
    func wrong(line: String, says: String) {
        let compilation = compiled(line)
        #expect(compilation.program == nil)
        let text = render(compilation.diagnostics, source: compilation.source)
        #expect(compilation.diagnostics.count { $0.severity == .error } == 1 && text.contains(says), "\(text)")
    }

    @Test(
        "with `log off` the others say that they do nothing",
        arguments: ["connection_log file /a", "log sample 1/2", "log except sni.*"])
    func off(line: String) {
        let compilation = compiled("log off\n\(line)")
        #expect(compilation.diagnostics.map(\.message).contains { $0.contains("has no effect: with `log off`") })
        #expect(compilation.program != nil)
        #expect(!compiled("log off\nevent_log file /a").diagnostics.contains { $0.message.contains("has no effect") })
    }
}
