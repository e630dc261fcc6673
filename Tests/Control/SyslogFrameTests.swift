import Foundation
import Pipeline
import PipelineText
import Testing

@testable import PipelineNode

@Suite("Lines as syslog messages")
struct SyslogFrameTests {
    private static let time: UInt64 = 1_795_421_045_678_999_999
    private let udp = SyslogSettings(.udp(Endpoint(IPAddress(v4: 0xC000_0201), 514)))
    private let local = SyslogSettings(.unix("/dev/log"))

    private func message(_ settings: SyslogSettings, _ line: [UInt8], host: String = "edge 1.example") -> String {
        var frame = SyslogFrame(settings, host: host, process: 42)
        return String(decoding: frame.message(line, Self.time), as: UTF8.self)
    }
    private func event(_ name: String) -> [UInt8] { ControlLog.line(name, "it \"is\"", time: Self.time) }

    @Test("RFC 5424: priority, version, the line's own time, host, tag, process, event, and the line as it is")
    func modern() {
        #expect(
            message(udp, event("reloaded")) == """
                <29>1 2026-11-23T08:04:05.678Z edge1.example pipelined 42 reloaded - \
                {"time":"2026-11-23T08:04:05.678Z","event":"reloaded","message":"it \\"is\\""}
                """)
    }

    @Test("RFC 3164, as the C library's `syslog` sends it to a local daemon; over the network with the host")
    func older() {
        var settings = local
        settings.tag = "edge"
        let text = message(settings, event("reloaded"))
        #expect(text.wholeMatch(of: /<29>Nov 23 \d\d:\d\d:05 edge\[42\]: \{.*\}/) != nil, "\(text)")
        var remote = udp
        remote.format = .rfc3164
        let sent = message(remote, event("reloaded"))
        #expect(sent.wholeMatch(of: /<29>Nov 23 \d\d:\d\d:05 edge1\.example pipelined\[42\]: \{.*\}/) != nil, "\(sent)")
    }

    @Test(
        "the priority is the facility's and the event's",
        arguments: [
            ("connection", 6), ("refusals", 6), ("ready", 5), ("reloaded", 5), ("log_failed", 4), ("backend_down", 4),
            ("lines_dropped", 4), ("warning", 4), ("backend_up", 5),
        ])
    func priorities(event name: String, severity: Int) {
        for (facility, number) in [("daemon", 3), ("local7", 23), ("kern", 0)] {
            var settings = udp
            settings.facility = SyslogSettings.facilities.firstIndex(of: facility) ?? -1
            #expect(settings.facility == number)
            #expect(message(settings, event(name)).hasPrefix("<\(number * 8 + severity)>1 "))
        }
    }

    @Test("a line that is no JSON of ours, an empty one, one without an end: still one message each")
    func others() {
        for text in [
            "", "\n", "error: no\n", "{\"time\":\"2026\n", "{\"time\":\"2026-11-23T08:04:05.678Z\",\"event\":\"\"}",
        ] {
            let said = message(udp, Array(text.utf8))
            #expect(
                said == "<29>1 2026-11-23T08:04:05.678Z edge1.example pipelined 42 - - " + text.filter { $0 != "\n" })
        }
        #expect(message(udp, event("ready"), host: " \n").contains(" - pipelined 42 "))
    }

    @Test("an event's name that is long, or has blanks, breaks no header")
    func names() {
        let long = String(repeating: "x", count: 40)
        #expect(message(udp, event(long)).contains(" 42 \(long.prefix(32)) - {"))
        #expect(message(udp, event("a b")).contains(" 42 - - {"))
    }
}
