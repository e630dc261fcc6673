import FilterBackendSelect
import Pipeline
import PipelineWire
import Testing

@testable import PipelineHealth

/// What a backend's answer means, in whole and in pieces, with a PROXY header in front and without.
@Suite("health: one probe")
struct HealthConversationTests {
    private func at(_ milliseconds: UInt64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }

    private enum End { case open, fin, reset }

    /// A probe begun at 0 and connected at 10 ms, with a timeout of 1 s, that gets this answer a byte at a time.
    private func outcome(
        _ probe: HealthSettings.Probe, proxy: Bool, _ answer: some Collection<UInt8>, _ end: End = .open, step: Int = 1
    ) -> ProbeConversation.Outcome? {
        var talk = ProbeConversation(probe, usesProxy: proxy, timeout: .seconds(1), begun: at(0))
        if let outcome = talk.connected(at(10)) { return outcome }
        var rest = Array(answer)[...]
        while !rest.isEmpty {
            if let outcome = talk.received(rest.prefix(step)) { return outcome }
            rest = rest.dropFirst(step)
        }
        switch end {
        case .fin: return talk.ended(reset: false)
        case .reset: return talk.ended(reset: true)
        case .open:
            for now in stride(from: 20 as UInt64, through: 2000, by: 10) {
                if let outcome = talk.timePassed(at(now)) { return outcome }
            }
            return nil
        }
    }

    private func both(
        _ probe: HealthSettings.Probe, proxy: Bool, _ answer: some Collection<UInt8>, _ end: End = .open
    ) -> ProbeConversation.Outcome? {
        let (slow, fast) = (
            outcome(probe, proxy: proxy, answer, end), outcome(probe, proxy: proxy, answer, end, step: 5000)
        )
        #expect(slow == fast)
        return slow
    }

    private static let serverHello: [UInt8] = [0x16, 3, 3, 0, 90, 2, 0, 0, 86, 3, 3]
    private static let alert: [UInt8] = [0x15, 3, 3, 0, 2, 2, 40]

    @Test("tcp: a connect is enough, and nothing is said")
    func tcp() {
        let talk = ProbeConversation(.tcp, usesProxy: false, timeout: .seconds(1), begun: at(0))
        #expect(talk.opening == [])
        #expect(outcome(.tcp, proxy: false, []) == .init(.good))
    }

    @Test("what never connects has timed out, whatever would be probed behind", arguments: [false, true])
    func neverConnected(proxy: Bool) {
        for probe in [HealthSettings.Probe.tcp, .expect([1]), .tls(serverName: nil)] {
            var talk = ProbeConversation(probe, usesProxy: proxy, timeout: .seconds(1), begun: at(0))
            let early = talk.timePassed(at(999))
            let due = talk.timePassed(at(1000))
            #expect(early == nil && due == .init(.timeout))
        }
    }

    @Test("expect: the answer begins with the bytes, or it doesn't")
    func expect() {
        let probe = HealthSettings.Probe.expect(Array("220".utf8))
        #expect(both(probe, proxy: false, Array("220 mail\r\n".utf8)) == .init(.good))
        #expect(both(probe, proxy: false, Array("554 no\r\n".utf8)) == .init(.unexpected))
        #expect(both(probe, proxy: false, Array("22".utf8)) == .init(.timeout))
        #expect(both(probe, proxy: false, Array("22".utf8), .fin) == .init(.closed))
        #expect(both(probe, proxy: false, [], .reset) == .init(.reset))
    }

    @Test("tls: a ServerHello is good; an alert, other bytes, silence and an end are not")
    func tls() {
        let probe = HealthSettings.Probe.tls(serverName: "app.example.com")
        #expect(both(probe, proxy: false, Self.serverHello) == .init(.good))
        #expect(both(probe, proxy: false, Self.alert) == .init(.alert))
        #expect(outcome(probe, proxy: false, Array("HTTP/1.1 400".utf8)) == .init(.unexpected))
        #expect(both(probe, proxy: false, []) == .init(.timeout))
        #expect(both(probe, proxy: false, [], .fin) == .init(.closed))
        for length in 0..<6 {
            #expect(both(probe, proxy: false, Self.serverHello.prefix(length)) == .init(.timeout), "\(length)")
        }
        for position in [0, 1, 5] {
            var bytes = Self.serverHello
            bytes[position] ^= 0x40
            #expect(both(probe, proxy: false, bytes) == .init(.unexpected), "\(position)")
        }
    }

    @Test("R18: on v2 routes a LOCAL header of 16 bytes comes first")
    func header() {
        let signature: [UInt8] = [0x0D, 0x0A, 0x0D, 0x0A, 0, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]
        let local = signature + [0x20, 0, 0, 0]
        let make = { (probe: HealthSettings.Probe) in
            ProbeConversation(probe, usesProxy: true, timeout: .seconds(1), begun: at(0)).opening
        }
        #expect(make(.tcp) == local)
        #expect(make(.expect([1])) == local)
        let hello = make(.tls(serverName: "a.example"))
        #expect(Array(hello.prefix(16)) == local && hello.count > 60 && hello[16] == 0x16)
    }

    @Test("tls: a server that warns before its ServerHello is good; a warning alone is not")
    func warned() {
        let warning: [UInt8] = [0x15, 3, 3, 0, 2, 1, 112]
        for proxy in [false, true] {
            let probe = HealthSettings.Probe.tls(serverName: "app.example.com")
            let taken: ProxyAnswer? = proxy ? .accepted : nil
            #expect(both(probe, proxy: proxy, warning + Self.serverHello) == .init(.good, taken))
            #expect(both(probe, proxy: proxy, warning + warning + Self.serverHello) == .init(.good, taken))
            #expect(both(probe, proxy: proxy, warning + Self.alert)?.result == .alert)
            #expect(both(probe, proxy: proxy, warning) == .init(.timeout, taken))
            #expect(both(probe, proxy: proxy, warning, .fin) == .init(.closed, taken))
        }
    }

    @Test("tls: the hello is one that parses, names the server, and offers TLS 1.2 and 1.3 with a share")
    func hello() throws {
        for name in ["app.example.com", nil] as [String?] {
            let bytes = ProbeConversation(
                .tls(serverName: name), usesProxy: false, timeout: .seconds(1), begun: at(0)
            ).opening
            guard case .ok(let hello) = bytes.withUnsafeBufferPointer({ ClientHello.parse($0, limit: 16384) }) else {
                Issue.record("no whole hello: \(bytes)")
                continue
            }
            #expect(hello.totalBytes == bytes.count)
            let named = hello.serverName.map {
                String(decoding: bytes[$0.offset..<$0.offset + $0.length], as: UTF8.self)
            }
            #expect(named == name)
            #expect(bytes.count < 512, "it fits a segment, and a SYN cookie's")
        }
    }

    @Test("R18: a backend that takes the header: a ServerHello, a greeting in lines")
    func accepted() {
        #expect(both(.tcp, proxy: true, Array("220 mail ESMTP\r\n".utf8)) == .init(.good, .accepted))
        #expect(both(.tcp, proxy: true, Array("220-mail\r\n220-says\r\n220 hello\r\n".utf8)) == .init(.good, .accepted))
        #expect(both(.tcp, proxy: true, Array("SSH-2.0-OpenSSH_9.9\r\n".utf8)) == .init(.good, .accepted))
        #expect(both(.expect(Array("220".utf8)), proxy: true, Array("220 m\r\n".utf8)) == .init(.good, .accepted))
        #expect(outcome(.tls(serverName: nil), proxy: true, Self.serverHello) == .init(.good, .accepted))
        // An alert about the hello behind the header comes from who has read both.
        let strict: [UInt8] = [0x15, 3, 3, 0, 2, 2, 112]
        #expect(both(.tls(serverName: "x.example"), proxy: true, strict) == .init(.alert, .accepted))
    }

    @Test("R18: silence, a greeting that is no line, and an alert for any reason prove nothing of the header")
    func unproved() {
        #expect(both(.tcp, proxy: true, []) == .init(.good))
        #expect(both(.expect(Array("J".utf8)), proxy: true, [0x4A, 0, 0, 0, 0x0A, 0x35]) == .init(.good))
        #expect(both(.tcp, proxy: true, Array("SSH-2.0-x".utf8)) == .init(.good))
        #expect(both(.tcp, proxy: true, Array("HTTP/1.1 408 Request Timeout\r\n".utf8)) == .init(.good))
        #expect(both(.tls(serverName: nil), proxy: true, Self.alert) == .init(.alert))
        // A length that no plain alert has.
        #expect(both(.tls(serverName: nil), proxy: true, [0x15, 3, 3, 0, 26, 2, 10]) == .init(.alert))
        // Too busy is no misunderstanding, and no proof; nor is a greeting of one that hangs up.
        for answer in ["421 too busy\r\n", "554-mail\r\n554 no\r\n"] {
            #expect(both(.tcp, proxy: true, Array(answer.utf8)) == .init(.good), "\(answer)")
        }
        #expect(both(.tcp, proxy: true, Array("220 mail\r\n".utf8), .fin) == .init(.good))
    }

    @Test("R18: a backend that doesn't: hangs up, sends an alert, a 400, complaints")
    func rejected() {
        #expect(both(.tcp, proxy: true, [], .fin) == .init(.good, .rejected))
        #expect(both(.tcp, proxy: true, [], .reset) == .init(.good, .rejected))
        #expect(outcome(.tcp, proxy: true, Self.alert) == .init(.good, .rejected))
        #expect(outcome(.tcp, proxy: true, Array("HTTP/1.1 400 Bad Request\r\n".utf8)) == .init(.good, .rejected))
        for answer in [
            "220 mail ESMTP\r\n500 what?\r\n500 what?\r\n221 bye\r\n", "+OK ready\r\n-ERR what?\r\n",
            "-ERR unknown command\r\n", "* OK ready\r\n* BAD what?\r\n", "ERROR\r\n",
            "SSH-2.0-OpenSSH_9.9\r\nInvalid SSH identification string.\r\n", "220 mail\r\n221 bye\r\n",
        ] {
            #expect(outcome(.tcp, proxy: true, Array(answer.utf8)) == .init(.good, .rejected), "\(answer)")
            #expect(both(.tcp, proxy: true, Array(answer.utf8), .fin)?.proxy == .rejected, "\(answer)")
        }
    }

    @Test("R18: the operator's own probe decides whether a backend that rejects headers is down as well")
    func rejectedAndJudged() {
        let greeting = Array("220 mail\r\n500 what?\r\n".utf8)
        #expect(outcome(.expect(Array("220".utf8)), proxy: true, greeting) == .init(.good, .rejected))
        #expect(outcome(.expect(Array("+OK".utf8)), proxy: true, greeting) == .init(.unexpected, .rejected))
        let unexpected: [UInt8] = [0x15, 3, 3, 0, 2, 2, 10]
        #expect(both(.tls(serverName: nil), proxy: true, unexpected) == .init(.alert, .rejected))
        #expect(outcome(.tls(serverName: nil), proxy: true, [], .fin) == .init(.closed, .rejected))
        let bad = Array("HTTP/1.1 400 Bad Request\r\n".utf8)
        #expect(both(.tls(serverName: nil), proxy: true, bad) == .init(.unexpected, .rejected))
    }

    @Test("R18: without a header nothing is said about headers")
    func noHeader() {
        for answer in ["HTTP/1.1 400 Bad", "500 what?\r\n", ""] {
            #expect(both(.expect(Array("x".utf8)), proxy: false, Array(answer.utf8), .fin)?.proxy == nil)
        }
    }

    @Test("an answer without end is cut, and judged by its beginning")
    func endless() {
        let flood = [UInt8](repeating: 0x41, count: 100_000)
        #expect(outcome(.tcp, proxy: true, flood, step: 4096) == .init(.good))
        #expect(outcome(.expect([0x41]), proxy: true, flood, step: 4096) == .init(.good))
    }

    @Test("the settle time ends before the timeout, and never outlasts it")
    func deadlines() {
        var talk = ProbeConversation(.tcp, usesProxy: true, timeout: .seconds(2), begun: at(0))
        #expect(talk.deadline == at(2000))
        let connected = talk.connected(at(100))
        #expect(connected == nil && talk.deadline == at(600))
        var short = ProbeConversation(.tcp, usesProxy: true, timeout: .milliseconds(300), begun: at(0))
        let first = short.connected(at(100))
        #expect(first == nil && short.deadline == at(300))
        let early = short.timePassed(at(299))
        let due = short.timePassed(at(300))
        #expect(early == nil && due == .init(.good))
    }
}
