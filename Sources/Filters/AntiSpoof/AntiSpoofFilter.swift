import Pipeline
import PipelineSets
import PipelineWire

/// `anti_spoof source assigned`: refuses source addresses that are assigned to no instance of this node (R19).
///
/// `anti_spoof accept from @load_balancers, refuse others`: trusts PROXY headers of listed senders, and refuses any
/// other connection that begins like one, so that no client can forge its address (R17).
public enum AntiSpoofFilter: Filter {
    public struct Settings: Sendable {
        /// Senders that may or must send a header, by the socket's address, never by one from a header.
        let accepted: AddressRanges
        let required: AddressRanges
        /// How long a sender's header may take, from accept.
        let timeout: TimeSpan
        /// The most bytes of a v2 header, TLVs included.
        let max: Int
        /// R19: the source address identifies the sender; no bytes are read.
        let requiresAssigned: Bool

        var believesAnyone: Bool { !accepted.isEmpty || !required.isEmpty }

        func duty(of peer: PeerAddress) -> Duty {
            let address = peer.endpoint.address
            if required.contains(address) { return .must }
            return accepted.contains(address) ? .may : .mustNot
        }
    }

    /// A peer's permission to send a PROXY header.
    enum Duty {
        case mustNot, may, must
    }

    enum Refusal: UInt8, CaseIterable {
        case spoofed, headerMissing, headerMalformed, headerTimeout, headerClosed
        case spoofedSource, suspended
    }

    public static let defaultTimeout = TimeSpan.seconds(3)
    public static let defaultMax: UInt64 = 2048
    /// The longest v2 header: 16 bytes, two unix addresses and room for TLVs; far above a v1 line.
    private static let maxRange: ClosedRange<UInt64> = 536...16384

    public static let descriptor = FilterDescriptor(
        keyword: "anti_spoof",
        summary: "trusts the PROXY headers of listed senders, and refuses connections that forge a header or a source "
            + "address",
        gives: [.client, .identity],
        clauses: [
            ClauseSpec(
                "senders",
                [.choice(name: "duty", ["accept", "require"]), .word("from"), .set(name: "set")], repeats: true,
                summary: "who may (`accept`) or must (`require`) send a PROXY header, v1 or v2; their headers are "
                    + "trusted"),
            ClauseSpec(
                "refuse", [.word("refuse"), .word("others")],
                summary: "refuse a PROXY header from everyone else"),
            ClauseSpec(
                "source", [.word("source"), .word("assigned")],
                summary: "refuse a source address that is assigned to no instance of this node"),
            ClauseSpec(
                "timeout",
                [.word("timeout"), .duration(name: "time", TimeSpan.milliseconds(100)...TimeSpan.seconds(60))],
                summary: "how long a sender's header may take from accept; default 3s"),
            ClauseSpec(
                "max", [.word("max"), .size(name: "bytes", maxRange)],
                summary: "how large a v2 header may be, TLVs included; default 2KiB"),
        ],
        reasons: [
            ReasonSpec(
                "spoofed", .client,
                "The client's first bytes are a PROXY header's signature, or at the deadline the beginning of one."
            ),
            ReasonSpec("header_missing", .client, "A sender that must send a PROXY header began with something else."),
            ReasonSpec(
                "header_malformed", .client, "A sender's PROXY header is invalid, or larger than `max`."),
            ReasonSpec("header_timeout", .client, "A sender's PROXY header was not complete in time."),
            ReasonSpec("header_closed", .client, "A sender closed before its PROXY header was complete."),
            ReasonSpec(
                "spoofed_source", .client, "The source address is assigned to no instance of this node."),
            ReasonSpec("suspended", .node, "The env of the sending instance, or its org, is suspended."),
        ],
        foreignWords: .foreignWords([
            "accept-proxy|expect-proxy|tcp-request connection expect-proxy|set_real_ip_from|fc_rcvd_proxy": ForeignWord(
                "anti_spoof require from SET, refuse others",
                advice: "add the stage `anti_spoof require from SET, refuse others`"),
            "proxy_protocol": ForeignWord(
                advice: "to read headers add the stage `anti_spoof require from SET, refuse others`"),
            "proxy_protocol_timeout": ForeignWord("anti_spoof require from SET, timeout 3s"),
            "timeout client-hs": ForeignWord(
                advice: "for a deadline of headers write `anti_spoof require from SET, timeout 3s`"),
        ]),
        isNonBlocking: true)

    public static func settings(_ directive: Directive) throws(SettingsError) -> Settings {
        let requiresAssigned = directive.first("source") != nil
        try checkCombination(directive, requiresAssigned: requiresAssigned)
        var prefixes: (accepted: [Prefix], required: [Prefix]) = ([], [])
        var hasSenders = false
        for clause in directive.clauses where clause.name == "senders" {
            guard clause.values.count == 2, case .word(let duty) = clause.values[0],
                case .set(let set) = clause.values[1]
            else { continue }
            hasSenders = true
            if duty == "require" { prefixes.required += set.prefixes } else { prefixes.accepted += set.prefixes }
        }
        for clause in ["timeout", "max"] where !hasSenders && directive.first(clause) != nil {
            throw SettingsError(
                "`\(clause)` applies to headers of listed senders, but none is listed",
                remedy: "write `accept from SET` or `require from SET`, or remove `\(clause)`", clause: clause)
        }
        return Settings(
            accepted: AddressRanges(prefixes.accepted), required: AddressRanges(prefixes.required),
            timeout: directive.duration("timeout") ?? defaultTimeout,
            max: Int(clamping: directive.size("max") ?? defaultMax), requiresAssigned: requiresAssigned)
    }

    /// Ingress or egress: a stage checks headers, or source addresses.
    private static func checkCombination(_ directive: Directive, requiresAssigned: Bool) throws(SettingsError) {
        if requiresAssigned, let other = directive.clauses.first(where: { $0.name != "source" }) {
            throw SettingsError(
                "`source assigned` checks the source address, and reads no PROXY header",
                remedy: "write `anti_spoof source assigned` alone", clause: other.name)
        }
        if !requiresAssigned, directive.first("refuse") == nil {
            throw SettingsError(
                "`anti_spoof` does not say what it refuses",
                remedy: "write `refuse others` (PROXY headers of others), or `source assigned` (sources of others)")
        }
    }

    public static func dispose(_ settings: Settings) {
        settings.accepted.deallocate()
        settings.required.deallocate()
    }

    /// The client differs from the peer only with trusted senders.
    public static func facts(_ settings: Settings) -> StageFacts {
        if settings.requiresAssigned { return StageFacts(gives: [.identity]) }
        return StageFacts(gives: settings.believesAnyone ? [.client] : [])
    }

    /// Without trusted senders, twelve bytes decide, and there is no deadline: the stage holds back the client's bytes,
    /// not the connection.
    public static func peek(_ settings: Settings) -> PeekNeed? {
        if settings.requiresAssigned { return nil }
        return settings.believesAnyone
            ? PeekNeed(bytes: settings.max, timeout: settings.timeout, consumes: true)
            : PeekNeed(bytes: 12, timeout: nil)
    }

    public static func evaluate(
        _ settings: Settings, _ state: inout Void, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        if settings.requiresAssigned { return assigned(view, effects) }
        let duty = settings.duty(of: view.facts.peer)
        guard duty != .mustNot else { return stranger(settings, view) }
        if view.isInspecting { return late(view) }
        switch ProxyHeader.parse(view.bytes, limit: settings.max) {
        case .ok(let header):
            believe(header, effects)
            return .next
        case .malformed: return refuse(.headerMalformed)
        case .notProxy: return duty == .must ? refuse(.headerMissing) : .next
        case .incomplete(let needs): return incomplete(duty, needs, view)
        }
    }

    /// R19: by the socket's address. The completed handshake proves that replies reach the sender.
    private static func assigned(_ view: ConnectionView, _ effects: Effects) -> Verdict {
        guard let identity = view.instances.identity(of: view.facts.peer.endpoint.address) else {
            return refuse(.spoofedSource)
        }
        effects.setIdentity(identity)
        return identity.pointee.isSuspended ? refuse(.suspended) : .next
    }

    /// `LOCAL`, unspec and unix headers convey no address: then the peer stays the client.
    private static func believe(_ header: ProxyHeader, _ effects: Effects) {
        if let source = header.source {
            effects.setClient(ClientAddress(source), destination: header.destination.map(DestinationAddress.init))
        }
        effects.consume(header.length)
        if !header.tlvBytes.isEmpty {
            effects.setTLVs(offset: header.tlvBytes.lowerBound, length: header.tlvBytes.count)
        }
    }

    /// The header is incomplete. At the deadline, a sender that may omit it passes if nothing came, and its first bytes
    /// are still inspected (``late(_:)``); a stream that ends without a signature passes too. A partial signature is
    /// refused: its rest could still come, and would be read as the client's own bytes.
    private static func incomplete(_ duty: Duty, _ needs: Int, _ view: ConnectionView) -> Verdict {
        switch view.input {
        case .open: return .needBytes(needs)
        case .timedOut: return duty == .may && view.bytes.isEmpty ? .inspect(needs) : refuse(.headerTimeout)
        case .ended:
            let hasSignature = ProxySignature.check(view.bytes) == .block
            return duty == .may && !hasSignature ? .next : refuse(.headerClosed)
        case .full: return refuse(.headerMalformed)
        }
    }

    /// A sender that was silent until the deadline and passed without a header. If it sends a header now, with the
    /// client's first bytes, it is refused: the client's address is settled, and a header is not payload.
    private static func late(_ view: ConnectionView) -> Verdict {
        switch ProxySignature.check(view.bytes) {
        case .block: return refuse(.headerTimeout)
        case .pass: return .next
        case .wait(let needs): return view.input == .open ? .inspect(needs) : .next
        }
    }

    /// A sender without permission: checked at every byte that could complete a signature.
    private static func stranger(_ settings: Settings, _ view: ConnectionView) -> Verdict {
        let (stream, before) = stream(settings, view)
        switch ProxySignature.check(stream) {
        case .block: return refuse(.spoofed)
        case .pass: return .next
        case .wait(let needs): return undecided(stream.isEmpty, before + needs, view.input)
        }
    }

    /// R17: every first byte is inspected, however late. Silence keeps the inspection open.
    private static func undecided(_ isSilent: Bool, _ wanted: Int, _ input: InputState) -> Verdict {
        switch input {
        case .open: return .inspect(wanted)
        // A partial signature at the deadline is refused.
        case .timedOut: return isSilent ? .inspect(wanted) : refuse(.spoofed)
        // A stream that ended without a complete signature passes.
        case .ended: return .next
        // Bytes that can't be inspected may not pass.
        case .full: return refuse(.spoofed)
        }
    }

    /// The bytes to check: all, or those after a header that a stage above consumed.
    static func stream(
        _ settings: Settings, _ view: ConnectionView
    ) -> (bytes: UnsafeBufferPointer<UInt8>, before: Int) {
        let before = settings.believesAnyone ? 0 : min(view.facts.consumed, view.bytes.count)
        return (UnsafeBufferPointer(rebasing: view.bytes[before...]), before)
    }

    private static func refuse(_ refusal: Refusal) -> Verdict { .refuse(refusal.rawValue) }
}
