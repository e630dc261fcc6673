import Pipeline
import PipelineWire

/// `proxy_v1`: sends backends the client's address in a PROXY v1 line, on routes that ask for it (R16).
public enum ProxyV1Filter: Filter {
    public struct Settings: Sendable {}

    enum Refusal: UInt8, CaseIterable {
        case headerTooLarge
    }

    public static let descriptor = FilterDescriptor(
        keyword: "proxy_v1",
        summary: "sends a PROXY v1 header to the backend, on routes that ask for it",
        needs: [.backend],
        reads: [.client],
        clauses: [],
        reasons: [ReasonSpec("header_too_large", .node, "The header does not fit behind what other stages send.")],
        endings: [.proxyTextRejected: "proxy_rejected"])

    public static func settings(_ directive: Directive) throws(SettingsError) -> Settings { Settings() }

    public static func facts(_ settings: Settings) -> StageFacts {
        StageFacts(needs: descriptor.needs, reads: descriptor.reads, capabilities: .injectsTextHeader)
    }

    public static func evaluate(
        _ settings: Settings, _ state: inout Void, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        guard view.facts.owesProxyText else { return .next }
        let isWritten = effects.prependProxyHeader { memory in
            ProxyV1Writer.write(proxy: view.facts.client, to: destination(view), in: memory)
        }
        return isWritten ? .next : .refuse(Refusal.headerTooLarge.rawValue)
    }

    /// Source and destination come from the same header, if one was accepted, and so have one family.
    private static func destination(_ view: ConnectionView) -> DestinationAddress {
        view.facts.believedDestination ?? view.facts.destination
    }

    public static func explain(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        if case .refuse = verdict { return "the PROXY v1 header does not fit into \(Prelude.capacity) bytes" }
        guard view.facts.hasProxyHeader, view.facts.sendsProxyText else {
            return "no PROXY v1 header: the route does not ask for one"
        }
        return "PROXY v1 header: client \(view.facts.client.endpoint), destination \(destination(view).endpoint)"
    }
}
