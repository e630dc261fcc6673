import Pipeline
import PipelineWire

/// `anti_spoof refuse others`: closes a connection whose stream begins like a PROXY header, so that no client can
/// tell a backend that it is someone else (R17).
package enum AntiSpoofFilter: Filter {
    /// Nobody may send a header yet, so there is nothing to set.
    package struct Settings: Sendable {}

    enum Refusal: UInt8, CaseIterable {
        case spoofed
    }

    package static let descriptor = FilterDescriptor(
        keyword: "anti_spoof",
        summary: "closes connections that forge a PROXY header",
        clauses: [
            ClauseSpec(
                "refuse", [.word("refuse"), .word("others")], required: true,
                summary: "refuse a PROXY header from everyone who isn't accepted, which is everyone")
        ],
        reasons: [
            ReasonSpec("spoofed", .client, "The client's first bytes are the signature of a PROXY v1 or v2 header.")
        ],
        canGate: true)

    package static func settings(_ directive: Directive) throws(SettingsError) -> Settings { Settings() }

    /// Twelve bytes tell. No deadline of its own: it only holds back the client's bytes, not the connection.
    package static func peek(_ settings: Settings) -> PeekNeed? { PeekNeed(bytes: 12, timeout: nil) }

    package static func evaluate(
        _ settings: Settings, _ state: inout Void, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        switch ProxySignature.check(view.bytes) {
        case .block: .refuse(Refusal.spoofed.rawValue)
        case .pass: .next
        // No more bytes will be looked at, and these alone are no signature.
        case .wait(let needs): view.input == .open ? .gate(needs) : .next
        }
    }

    package static func explain(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        switch (verdict, ProxySignature.check(view.bytes)) {
        case (.refuse, _): "the first bytes are a PROXY header's signature, which clients may not send"
        case (.needBytes, _), (.gate, _): "the \(view.bytes.count) bytes so far could still become a PROXY header"
        case (.next, .wait): "no more bytes come, and the \(view.bytes.count) so far are no PROXY header"
        case (.next, _): "the first bytes are no PROXY header"
        }
    }
}
