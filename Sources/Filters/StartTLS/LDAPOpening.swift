import Pipeline
import PipelineWire

/// LDAP: the extended operation StartTLS (RFC 4511 §4.14). What begins like TLS at once is for the stages below.
extension StartTLSFilter {
    static func answerLDAP(_ settings: Settings, _ view: ConnectionView, _ effects: Effects) -> Verdict {
        let stream = stream(view)
        guard !view.facts.isUpgraded, stream.first != 22 else { return pass(effects) }
        switch stream.isEmpty ? .incomplete(needs: 1) : LDAPMessage.look(at: stream) {
        case .incomplete(let needs):
            switch view.input {
            case .open: return .needBytes(view.facts.consumed + needs)
            case .ended, .timedOut: return pass(effects)
            case .full: return refuse(.malformed)
            }
        case .malformed: return refuse(.malformed)
        case .other:
            LDAPMessage.withNotice { effects.say($0) }
            return refuse(.noTLS)
        case .startTLS(let id, let length):
            guard length == stream.count else { return refuse(.pipelined) }
            LDAPMessage.withSuccess(id) { effects.say($0) }
            effects.upgradeBackend(within: settings.backendTimeout)
            return take(length, view, effects)
        }
    }

    /// What has come of the backend's answer.
    struct LDAPAsking: BitwiseCopyable {
        var bytes = InlineArray<320, UInt8>(repeating: 0)
        var count = 0
    }

    static func askLDAP(_ answer: UnsafeBufferPointer<UInt8>, _ effects: Effects) -> UpgradeStep {
        let asking = effects.kept { LDAPAsking() }
        guard !answer.isEmpty else {
            LDAPMessage.withRequest { effects.say($0) }
            return .more
        }
        for byte in answer {
            guard asking.pointee.count < LDAPAnswer.limit else { return refuseBackend(.backendMalformed) }
            asking.pointee.bytes[asking.pointee.count] = byte
            asking.pointee.count += 1
        }
        let verdict = withUnsafeBytes(of: &asking.pointee.bytes) { bytes in
            LDAPAnswer.look(
                at: UnsafeBufferPointer(rebasing: bytes.assumingMemoryBound(to: UInt8.self)[..<asking.pointee.count]))
        }
        return switch verdict {
        case .incomplete: .more
        case .willing: .done
        case .unwilling: refuseBackend(.backendRefused)
        case .malformed: refuseBackend(.backendMalformed)
        }
    }
}
