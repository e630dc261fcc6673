import FilterBackendSelect
import Pipeline
import Testing

@testable import PipelineHealth

/// What ready-made probes say, and what they make of each answer: whole, in pieces, cut short and changed.
@Suite("health: what a probe says and hears")
struct ProbeScriptTests {
    /// How it ends, and all that was said; nil: it waits for more.
    private func run(
        _ probe: HealthSettings.Probe, _ answer: some Collection<UInt8>
    ) -> (result: ProbeResult?, said: [[UInt8]]) {
        var script = ProbeScript(probe, place: "[fd00::1]:80")
        var said: [[UInt8]] = []
        for byte in answer {
            switch script.read(byte) {
            case .more: break
            case .say(let bytes): said.append(bytes)
            case .end(let result): return (result, said)
            }
        }
        return (nil, said)
    }

    private func result(_ probe: HealthSettings.Probe, _ answer: String) -> ProbeResult? {
        run(probe, Array(answer.utf8)).result
    }

    private func opening(_ probe: HealthSettings.Probe) -> String {
        String(decoding: ProbeScript(probe, place: "[fd00::1]:80").opening, as: UTF8.self)
    }

    // MARK: HTTP

    @Test("http: the request names the path, and the host or the backend's place")
    func request() {
        let rest = "\r\nUser-Agent: pipelined-probe\r\nConnection: close\r\n\r\n"
        #expect(opening(.http(HTTPProbe())) == "GET / HTTP/1.1\r\nHost: [fd00::1]:80" + rest)
        #expect(
            opening(.http(HTTPProbe(path: "/a?b", host: "c.example:81")))
                == "GET /a?b HTTP/1.1\r\nHost: c.example:81" + rest)
    }

    @Test("http: the status decides, once it is whole")
    func status() {
        let probe = HealthSettings.Probe.http(HTTPProbe())
        for good in ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 399 \r\n", "HTTP/1.1 204\r\n", "HTTP/1.1 301\n"] {
            #expect(result(probe, good) == .good, "\(good)")
        }
        for bad in ["HTTP/1.1 404 Not", "HTTP/1.0 503 x", "HTTP/1.1 199 ", "HTTP/1.1 400\r\n"] {
            #expect(result(probe, bad) == .status, "\(bad)")
        }
        for other in ["HTTP/2.0 200 ", "HTTP/1.1 2000", "HTTP/1.1 20x ", "HTTP/1.x", "http/1.1", "SSH-2.0", "\r\nHTTP"]
        {
            #expect(result(probe, other) == .unexpected, "\(other)")
        }
        for length in 0...12 { #expect(result(probe, String("HTTP/1.1 200 ".prefix(length))) == nil, "\(length)") }
        #expect(result(.http(HTTPProbe(expect: 503...503)), "HTTP/1.1 503 ") == .good)
    }

    // MARK: Exchanges

    @Test("send and expect: each answer begins with its text, and the rest of its line belongs to it")
    func exchange() {
        let turns = [("", "220"), ("A\r\n", "250 "), ("B\r\n", "+")]
        let probe = HealthSettings.Probe.exchange(
            turns.map { ProbeExchange(send: Array($0.0.utf8), expect: Array($0.1.utf8)) })
        let all = run(probe, Array("220 hello\r\n250 yes\r\n+".utf8))
        #expect(all.result == .good && all.said == [Array("A\r\n".utf8), Array("B\r\n".utf8)])
        #expect(opening(probe).isEmpty)
        #expect(result(probe, "220 hello\r\n250-") == .unexpected)
        #expect(result(probe, "221") == .unexpected)
        #expect(run(probe, Array("220 hello".utf8)).said.isEmpty, "the line is not whole")
    }

    // MARK: Databases

    @Test("postgresql: the startup message of protocol 3.0, with the user alone")
    func startup() {
        let bytes = ProbeScript(.postgresql(user: "postgres"), place: "").opening
        #expect(bytes == [0, 0, 0, 23, 0, 3, 0, 0] + Array("user\0postgres\0\0".utf8))
    }

    private static func postgres(_ type: String, _ fields: String, length: Int? = nil) -> [UInt8] {
        let length = length ?? fields.utf8.count + 4
        return Array(type.utf8) + [0, 0, UInt8(length >> 8), UInt8(length & 0xFF)] + Array(fields.utf8)
    }

    @Test("postgresql: a request to authenticate and most errors are a living server; class 57P is not ready")
    func postgresql() {
        let probe = HealthSettings.Probe.postgresql(user: "a")
        let error = { (code: String) in Self.postgres("E", "SFATAL\0VFATAL\0C\(code)\0Mno\0\0") }
        #expect(run(probe, [0x52, 0, 0, 0, 8]).result == .good)
        #expect(run(probe, [0x52, 0, 0, 0, 0x17] + Array("\0\0\0\u{0A}SCRAM-SHA-256\0\0".utf8)).result == .good)
        for code in ["28000", "28P01", "3D000", "53300", "08P01"] {
            #expect(run(probe, error(code)).result == .good, "\(code)")
        }
        for code in ["57P01", "57P02", "57P03"] { #expect(run(probe, error(code)).result == .notReady, "\(code)") }
        // As HAProxy's regression test: no code.
        #expect(run(probe, Self.postgres("E", "SFATAL\0")).result == .unexpected)
        #expect(run(probe, Self.postgres("E", "C57\0\0")).result == .unexpected)
        #expect(run(probe, Array("Ecould not fork new process\n\0".utf8)).result == .unexpected)
        #expect(run(probe, Array("RTSP/1.0".utf8)).result == .unexpected)
        #expect(run(probe, [0x52, 0, 0, 0, 7]).result == .unexpected)
        #expect(run(probe, [0x45, 0, 0, 0xFF, 0xFF]).result == .unexpected)
        for length in 0..<error("57P03").count { #expect(run(probe, error("57P03").prefix(length)).result == nil) }
    }

    /// MariaDB 10.11's, shortened.
    private static let greeting: [UInt8] = [14, 0, 0, 0, 10] + Array("10.11.19-Mar\0".utf8)

    @Test("mysql: a greeting, and with a user a login and its answer")
    func mysql() {
        let silent = HealthSettings.Probe.mysql(user: nil)
        #expect(run(silent, Self.greeting).result == .good && run(silent, Self.greeting).said.isEmpty)
        let refusal: [UInt8] = [17, 0, 0, 0, 255, 0x10, 0x04] + Array("Too many conne".utf8)
        #expect(run(silent, refusal).result == .notReady)
        for bad: [UInt8] in [[14, 0, 0, 1, 10], [0, 0, 0, 0, 10], [14, 0, 1, 0, 10], [14, 0, 0, 0, 11]] {
            #expect(run(silent, bad).result == .unexpected, "\(bad)")
        }
        let login = HealthSettings.Probe.mysql(user: "probe")
        let begun = run(login, Self.greeting)
        #expect(begun.result == nil && begun.said.count == 1)
        let said = begun.said[0]
        #expect(Int(said[0]) == said.count - 4 - 5 && said[3] == 1, "a packet of that length, and COM_QUIT")
        #expect(Array(said.suffix(5)) == [1, 0, 0, 0, 1] && said[36...].starts(with: Array("probe\0\0mysql_n".utf8)))
        for good in [0, 1, 254] as [UInt8] {
            #expect(run(login, Self.greeting + [7, 0, 0, 2, good]).result == .good)
        }
        #expect(run(login, Self.greeting + [7, 0, 0, 2, 255]).result == .notReady)
        #expect(run(login, Self.greeting + [7, 0, 0, 0, 0]).result == .unexpected)
        for length in 0..<Self.greeting.count { #expect(run(login, Self.greeting.prefix(length)).said.isEmpty) }
    }

    @Test("redis: PONG, or a wish for a password; other errors at the end of their line")
    func redis() {
        #expect(opening(.redis) == "*1\r\n$4\r\nPING\r\n")
        #expect(result(.redis, "+PONG") == .good && result(.redis, "-NOAUTH Auth") == .good)
        for error in ["-LOADING Redis is loading\r\n", "-MASTERDOWN x\r\n", "-ERR max number of clients reached\r\n"] {
            #expect(result(.redis, error) == .notReady)
            #expect(result(.redis, String(error.dropLast(2))) == nil)
        }
        #expect(result(.redis, "+OK") == .unexpected && result(.redis, "HTTP") == .unexpected)
    }

    @Test("smtp: greetings and answers of several lines, each to its end")
    func smtp() {
        let probe = HealthSettings.Probe.smtp(name: "mx")
        let ehlo = Array("EHLO mx\r\n".utf8)
        #expect(run(probe, Array("220-a\r\n220 b\r\n".utf8)).said == [ehlo])
        #expect(run(probe, Array("220-a\r\n220 b".utf8)).said.isEmpty)
        let whole = run(probe, Array("220 a\r\n250-a\r\n250 b\r\n2".utf8))
        #expect(whole.result == .good && whole.said == [ehlo, Array("QUIT\r\n".utf8)])
        #expect(result(probe, "554 no\r\n") == .notReady && result(probe, "220 a\r\n421 no\r\n") == .notReady)
        #expect(result(probe, "SSH-2.0") == .unexpected && result(probe, "220 a\r\n2500\r\n") == nil)
        #expect(result(probe, "220-a\r\n550 b\r\n") == .unexpected)
    }

    @Test("smtp: whoever hangs up at QUIT has answered; before that it has not")
    func hangsUp() {
        for (answer, result) in [("220 a\r\n250 b\r\n", ProbeResult.good), ("220 a\r\n", .closed)] {
            var talk = ProbeConversation(
                .smtp(name: "a"), usesProxy: false, timeout: .seconds(1), begun: Instant(nanoseconds: 0))
            _ = talk.connected(Instant(nanoseconds: 1))
            #expect(talk.received(Array(answer.utf8)) == nil)
            #expect(talk.ended(reset: false) == .init(result))
        }
    }

    // MARK: Agents

    @Test("agent: a line of words, in any case and order")
    func agent() {
        let cases: [(String, ProbeResult, UInt8?)] = [
            ("up", .good, 100), ("ready", .good, 100), ("UP 50%", .good, 50), ("75%,up", .good, 75), ("30%", .good, 30),
            ("down", .notReady, nil), ("failed #disk", .notReady, nil), ("stopped", .notReady, nil),
            ("up down", .notReady, nil), ("down up", .notReady, nil), ("drain", .good, 0), ("maint", .good, 0),
            ("up drain 80%", .good, 0), ("200%", .good, 100), ("0%", .good, 0), ("maxconn:30", .good, nil),
            ("ready\tup maxconn:5", .good, 100), ("up # down", .good, 100),
        ]
        for (line, result, percent) in cases {
            let said = AgentAnswer(Array(line.utf8))
            #expect(said?.result == result && said?.percent == percent, "\(line)")
        }
        for bad in ["", " ", "# up", "hello", "50", "-5%", "%", "70000%", "maxconn:", "maxconn:x", "up\u{E9}"] {
            #expect(AgentAnswer(Array(bad.utf8)) == nil, "\(bad)")
        }
        #expect(result(.agent, "up 50%\n") == .good && result(.agent, "down\r\n") == .notReady)
        #expect(result(.agent, "HTTP/1.1 400\r\n") == .unexpected && result(.agent, "up 50%") == nil)
    }

    // MARK: Bounds

    private static let all: [(HealthSettings.Probe, [UInt8])] = [
        (.http(HTTPProbe()), Array("HTTP/1.1 200 OK".utf8)),
        (.exchange([.init(send: [1], expect: [2]), .init(send: [3], expect: [4])]), [2, 10, 4]),
        (.postgresql(user: "a"), postgres("E", "SFATAL\0C57P03\0Mno\0\0")),
        (.mysql(user: "a"), greeting + [7, 0, 0, 2, 0]), (.redis, Array("-LOADING\r\n".utf8)),
        (.agent, Array("up 50%\n".utf8)),
        (.smtp(name: "a"), Array("220-a\r\n220 b\r\n250 c\r\n2".utf8)),
    ]

    @Test("R27: every answer with a byte changed or cut ends, or waits; and no probe reads more than its bound")
    func mutations() {
        var random = SplitMix64(seed: 3)
        for (probe, answer) in Self.all {
            for place in answer.indices {
                for _ in 0..<8 {
                    var changed = answer
                    changed[place] = UInt8(truncatingIfNeeded: random.next())
                    _ = run(probe, changed)
                }
            }
            var talk = ProbeConversation(probe, usesProxy: false, timeout: .seconds(1), begun: Instant(nanoseconds: 0))
            _ = talk.connected(Instant(nanoseconds: 1))
            // Lines that go on for ever, where lines are read.
            let endless = Array(repeating: Array("220-a\r\n".utf8), count: 1000).joined()
            let outcome = talk.received(Array(endless))
            #expect(outcome == .init(.unexpected), "\(probe)")
        }
    }

    @Test("what was heard is the beginning of the last answer, bounded")
    func heard() {
        var talk = ProbeConversation(.redis, usesProxy: false, timeout: .seconds(1), begun: Instant(nanoseconds: 0))
        _ = talk.connected(Instant(nanoseconds: 1))
        _ = talk.received(Array(("-ERR " + String(repeating: "x", count: 500)).utf8))
        #expect(talk.heard.count == 80 && talk.heard.starts(with: Array("-ERR xx".utf8)))
    }
}
