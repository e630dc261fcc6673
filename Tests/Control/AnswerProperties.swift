import FilterBackendSelect
import Pipeline
import PipelineHealth
import PipelineRuntime

/// What must hold of a probe's conversation, whatever the backend answers: it comes to the same end however the answer is cut
/// into segments. For the tests beside it and for Fuzz/run. `ReplyProperties` has the reply to a PROXY header.
///
/// An input is a byte and an answer. The byte says: which probe, whether a header went in front, and how the answer ends
/// (0: it stays open).
enum AnswerProperties {
    private static let probes: [HealthSettings.Probe] = [
        .tcp, .expect(Array("220".utf8)), .tls(serverName: "app.example.com"), .tls(serverName: nil),
        .http(HTTPProbe()), .postgresql(user: "a"), .mysql(user: nil), .mysql(user: "a"),
        .redis, .smtp(name: "a"),
        .exchange([
            ProbeExchange(send: Array("A\r\n".utf8), expect: Array("250".utf8)),
            ProbeExchange(send: [0], expect: [0xFF]),
        ]),
        .http(HTTPProbe(path: "/a", host: "b", expect: 204...204)), .agent,
    ]
    private static let start = Instant(nanoseconds: 1_000_000_000)

    /// Nil, or what is wrong.
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        guard let how = bytes.first else { return nil }
        let answer = Array(bytes.dropFirst())
        return conversation(how, answer)
    }

    private static func conversation(_ how: UInt8, _ answer: [UInt8]) -> String? {
        let probe = probes[(Int(how & 3) + 4 * Int(how >> 6)) % probes.count]
        let usesProxy = how & 4 != 0
        let end = Int(how >> 3 & 7) % 3
        let whole = outcome(probe, usesProxy, answer, step: max(1, answer.count), end: end)
        for step in [1, 7] {
            let cut = outcome(probe, usesProxy, answer, step: step, end: end)
            if cut != whole { return "\(probe), header \(usesProxy): \(whole), in pieces of \(step): \(cut)" }
        }
        let seen = [1, 7].map { said(probe, answer, step: $0) }
        guard seen[0] == seen[1] else { return "\(probe): what it says depends on how the answer is cut" }
        guard usesProxy || whole.proxy == nil else { return "a verdict on a header that was not sent: \(whole)" }
        if answer.isEmpty, end == 0, whole.proxy != nil { return "silence has proved something: \(whole)" }
        return nil
    }

    /// All that it sends.
    private static func said(_ probe: HealthSettings.Probe, _ answer: [UInt8], step: Int) -> [UInt8] {
        var talk = ProbeConversation(probe, usesProxy: false, timeout: .seconds(2), begun: start)
        var said = talk.opening
        guard talk.connected(start) == nil else { return said }
        var rest = answer[...]
        while !rest.isEmpty {
            let outcome = talk.received(rest.prefix(step))
            said += talk.takeOutgoing()
            if outcome != nil { return said }
            rest = rest.dropFirst(step)
        }
        return said
    }

    private static func outcome(
        _ probe: HealthSettings.Probe, _ usesProxy: Bool, _ answer: [UInt8], step: Int, end: Int
    ) -> ProbeConversation.Outcome {
        var talk = ProbeConversation(probe, usesProxy: usesProxy, timeout: .seconds(2), begun: start)
        if let outcome = talk.connected(start + .milliseconds(1)) { return outcome }
        var rest = answer[...]
        while !rest.isEmpty {
            if let outcome = talk.received(rest.prefix(step)) { return outcome }
            rest = rest.dropFirst(step)
        }
        if end > 0 { return talk.ended(reset: end == 2) }
        while true {
            if let outcome = talk.timePassed(talk.deadline) { return outcome }
        }
    }
}
