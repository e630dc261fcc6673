import Pipeline
import PipelineWire

/// `proxy_v2 tlv authority`: sends backends the client's address in a PROXY v2 header, on routes that ask for it (R16).
public enum ProxyV2Filter: Filter {
    public struct Settings: Sendable {
        var tlvs: ProxyV2TLVs = []
        /// The private TLV types of the ids; nil: not sent.
        var routeType: UInt8?
        var envType: UInt8?
        var orgType: UInt8?
        /// This process's half of unique ids.
        var uniquePrefix: UInt64 = 0
    }

    enum Refusal: UInt8, CaseIterable {
        case headerTooLarge, tlvsTooLarge
    }

    public static let descriptor = FilterDescriptor(
        keyword: "proxy_v2",
        summary: "sends a PROXY v2 header to the backend, on routes that ask for it",
        needs: [.backend],
        reads: [.client],
        clauses: [
            ClauseSpec(
                "tlv", [.word("tlv"), .choice(name: "tlv", ["authority", "alpn", "unique_id", "crc32c"])],
                repeats: true,
                summary: "add to the header: the server name, the only ALPN protocol, the connection's id, a checksum"),
            ClauseSpec(
                "ids",
                [
                    .word("tlv"), .choice(name: "id", ["route", "env", "org"]),
                    .optionalByte(name: "type", ProxyTLV.Kind.customRange),
                ], repeats: true,
                summary: "add the id of the route, env or org, as a TLV of this private type"),
            ClauseSpec(
                "pass_through", [.word("pass_through")],
                summary: "add the TLVs of the header that `anti_spoof` accepted"),
        ],
        reasons: [
            ReasonSpec("header_too_large", .node, "The header with its TLVs is larger than the space for it."),
            ReasonSpec(
                "tlvs_too_large", .client, "The sender's TLVs do not fit beside this node's own."),
        ],
        endings: [.proxyRejected: "proxy_rejected"],
        foreignWords: .foreignWords([
            "proxy-v2-options|set-proxy-v2-tlv-fmt": ForeignWord("proxy_v2 tlv authority"),
            "unique-id-format": ForeignWord("proxy_v2 tlv unique_id"),
            "fc_pp_authority|fc_pp_unique_id|fc_pp_tlv": ForeignWord("proxy_v2 pass_through"),
        ]))

    /// `tlv passed` needs a stage that provides TLVs.
    public static func facts(_ settings: Settings) -> StageFacts {
        let client: Set<Fact> = [.client]
        return settings.tlvs.contains(.passThrough)
            ? StageFacts(needs: descriptor.needs.union(client), capabilities: .injectsHeader)
            : StageFacts(needs: descriptor.needs, reads: client, capabilities: .injectsHeader)
    }

    public static func evaluate(
        _ settings: Settings, _ state: inout Void, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        guard view.facts.owesProxyHeader, !view.facts.owesProxyText else { return .next }
        var refusal = Refusal.headerTooLarge
        let isWritten = effects.prependProxyHeader { memory in
            var writer = ProxyV2Writer(proxy: view.facts.client, to: destination(view), in: memory)
            var written = TLVTypes()
            settings.appendOwn(to: &writer, view, &written)
            guard writer.fits else { return nil }
            if settings.tlvs.contains(.passThrough) {
                settings.appendForeign(to: &writer, view, except: written)
                if !writer.fits { refusal = .tlvsTooLarge }
            }
            return writer.finish()?.count
        }
        return isWritten ? .next : .refuse(refusal.rawValue)
    }

    /// Source and destination come from the same header, if one was accepted, and so have one family.
    private static func destination(_ view: ConnectionView) -> DestinationAddress {
        view.facts.believedDestination ?? view.facts.destination
    }

    public static func explain(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        if case .refuse(let code) = verdict {
            return code == Refusal.tlvsTooLarge.rawValue
                ? "the \(view.facts.tlvLength) bytes of the sender's TLVs do not fit into the PROXY v2 header of at "
                    + "most \(Prelude.capacity) bytes"
                : "the PROXY v2 header does not fit into \(Prelude.capacity) bytes"
        }
        guard view.facts.hasProxyHeader, !view.facts.sendsProxyText else {
            return view.facts.sendsProxyText
                ? "no PROXY v2 header: the route asks for v1" : "no PROXY header: the route does not ask for one"
        }
        let tlvs = settings.explainTLVs(view)
        return "PROXY v2 header: client \(view.facts.client.endpoint), destination \(destination(view).endpoint)"
            + (tlvs.isEmpty ? "" : ", " + tlvs.joined(separator: ", "))
    }
}
