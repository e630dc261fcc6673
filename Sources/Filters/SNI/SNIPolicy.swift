import Pipeline
import PipelineSets
import PipelineWire

/// The policy on names and protocols: the `allow`, `deny` and `require alpn` clauses of one stage.
struct SNIPolicy: Sendable {
    /// Trivial; freed by ``SNIPolicy/deallocate()``.
    struct Rule: Sendable {
        let denies: Bool
        let matcher: Matcher
        /// As written, for `explain`.
        let text: FrozenText
    }

    enum Matcher: Sendable {
        case name(FrozenText)
        /// The name itself and everything under it.
        case suffix(FrozenText)
        /// The program keeps the block alive.
        case names(NameTable)
        case pattern(NamePattern)
    }

    enum Decision: Equatable {
        case pass
        /// Denied by the rule of this index; nil: no `allow` rule matched.
        case denied(Int?)
        case alpnRequired
        /// The pattern of the rule of this index hit a limit.
        case limit(Int)
    }

    /// In the order of the config.
    let rules: FrozenArray<Rule>
    /// One of them must be offered; empty: ALPN is not checked.
    let protocols: FrozenArray<FrozenText>
    let hasAllow: Bool
    let hasPatterns: Bool

    /// - Parameter name: empty: the client named none, or it isn't known. Then no rule matches.
    func decide(
        _ name: ServerName, _ hello: ClientHello?, in stream: UnsafeBufferPointer<UInt8>, _ scratch: PatternScratch
    ) -> Decision {
        let decision = name.isEmpty ? nil : name.withBytes { decide($0, scratch) }
        switch decision {
        case .pass?: break
        case let other?: return other
        case nil: if hasAllow { return .denied(nil) }
        }
        guard !protocols.isEmpty else { return .pass }
        guard let hello else { return .alpnRequired }
        for index in 0..<protocols.count where hello.offers(protocols[index].buffer, in: stream) { return .pass }
        return .alpnRequired
    }

    /// Nil: no rule matches.
    private func decide(_ name: UnsafeBufferPointer<UInt8>, _ scratch: PatternScratch) -> Decision? {
        for index in 0..<rules.count {
            let rule = rules.pointer(index)
            switch rule.pointee.matcher.matches(name, scratch) {
            case .no: continue
            case .yes: return rule.pointee.denies ? .denied(index) : .pass
            // For allow and deny rules alike: an undecided name does not pass.
            case .limit: return .limit(index)
            }
        }
        return nil
    }

    func deallocate() {
        for rule in rules.buffer { rule.deallocate() }
        for text in protocols.buffer { text.deallocate() }
        rules.deallocate()
        protocols.deallocate()
    }
}

extension SNIPolicy.Rule {
    func deallocate() {
        text.deallocate()
        switch matcher {
        case .name(let name), .suffix(let name): name.deallocate()
        case .pattern(let pattern): pattern.deallocate()
        case .names: break
        }
    }
}

extension SNIPolicy.Matcher {
    func matches(_ name: UnsafeBufferPointer<UInt8>, _ scratch: PatternScratch) -> NamePattern.Answer {
        switch self {
        case .name(let wanted):
            SNIPolicy.ends(name, with: wanted.buffer) && name.count == wanted.bytes.count ? .yes : .no
        case .suffix(let wanted): SNIPolicy.isUnder(name, wanted.buffer) ? .yes : .no
        case .names(let table): table.match(name) != nil ? .yes : .no
        case .pattern(let pattern): pattern.matches(name, scratch)
        }
    }
}

extension SNIPolicy {
    fileprivate static func ends(_ name: UnsafeBufferPointer<UInt8>, with end: UnsafeBufferPointer<UInt8>) -> Bool {
        guard name.count >= end.count else { return false }
        let start = name.count - end.count
        for index in 0..<end.count where name[start + index] != end[index] { return false }
        return true
    }

    fileprivate static func isUnder(_ name: UnsafeBufferPointer<UInt8>, _ top: UnsafeBufferPointer<UInt8>) -> Bool {
        guard ends(name, with: top) else { return false }
        return name.count == top.count || name[name.count - top.count - 1] == UInt8(ascii: ".")
    }
}
