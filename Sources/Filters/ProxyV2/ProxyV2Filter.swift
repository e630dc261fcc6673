import Pipeline
import PipelineWire

/// `proxy_v2 tlv authority`: tells backends who the client is, by a PROXY v2 header in front of its bytes, for the
/// routes that ask for it (R16).
package enum ProxyV2Filter: Filter {
    package struct Settings: Sendable {
        /// Add the server name, if the client sent one.
        let authority: Bool
    }

    enum Refusal: UInt8, CaseIterable {
        case headerTooLarge
    }

    package static let descriptor = FilterDescriptor(
        keyword: "proxy_v2",
        summary: "puts a PROXY v2 header in front, on routes that ask for it",
        needs: [.backend],
        clauses: [
            ClauseSpec(
                "tlv", [.word("tlv"), .choice(name: "tlv", ["authority"])], repeats: true,
                summary: "add to the header: `authority`, the server name that the client asked for")
        ],
        reasons: [
            ReasonSpec("header_too_large", .node, "The header with its TLVs is larger than what may go in front.")
        ])

    package static func settings(_ directive: Directive) throws(SettingsError) -> Settings {
        let tlvs = directive.clauses.filter { $0.name == "tlv" }.compactMap { clause -> String? in
            guard case .word(let word)? = clause.values.first else { return nil }
            return word
        }
        guard Set(tlvs).count == tlvs.count else {
            throw SettingsError("the same TLV twice", remedy: "name each TLV once", clause: "tlv")
        }
        return Settings(authority: tlvs.contains("authority"))
    }

    package static func evaluate(
        _ settings: Settings, _ state: inout Void, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        guard view.facts.owesProxyHeader else { return .next }
        let isWritten = withUnsafeTemporaryAllocation(of: UInt8.self, capacity: Prelude.capacity) { memory in
            var writer = ProxyV2Writer(proxy: view.facts.client, to: view.facts.destination, in: memory)
            if settings.authority, !view.facts.serverName.isEmpty {
                writer.append(authority: view.facts.serverName)
            }
            return writer.finish().map { effects.prepend(proxyHeader: $0) } ?? false
        }
        return isWritten ? .next : .refuse(Refusal.headerTooLarge.rawValue)
    }

    package static func explain(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        let client = view.facts.client.endpoint
        switch verdict {
        case .refuse: return "the PROXY v2 header does not fit into the \(Prelude.capacity) bytes for it"
        case .needBytes, .gate, .next: break
        }
        guard view.facts.hasProxyHeader else {
            return "no PROXY header: the route does not ask for one"
        }
        let name =
            settings.authority && !view.facts.serverName.isEmpty ? ", authority \(view.facts.serverName.string)" : ""
        return "PROXY v2 header: client \(client), destination \(view.facts.destination.endpoint)\(name)"
    }
}
