import Pipeline
import PipelineRouting

/// R18: whether the backends of a route accept our PROXY header.
package enum ProxyVerdict: String, Sendable, Equatable {
    /// The route sends none.
    case off
    /// No evidence from connections or probes yet; silence proves nothing.
    case unknown
    case accepted
    /// At least one of its backends rejects it.
    case rejected
    /// R16: the PROXY settings contradict each other; every connection is refused.
    case mismatch

    package init(_ route: FoundRoute) {
        guard !route.pointee.flags.contains(.proxyMismatch) else {
            self = .mismatch
            return
        }
        guard route.pointee.flags.contains(.proxyHeader) else {
            self = .off
            return
        }
        self.init(route.group.pointee)
    }

    package init(_ group: BackendGroup) {
        self = .unknown
        for backend in group.backends.buffer {
            let verdict = ProxyVerdict(backend.cell)
            if verdict == .rejected {
                self = .rejected
                return
            }
            if verdict == .accepted { self = .accepted }
        }
    }

    /// Of one backend.
    package init(_ cell: UnsafePointer<BackendCell>) {
        switch BackendCell.HeaderVerdict(rawValue: cell.pointee.proxy.load(ordering: .relaxed)) {
        case .accepted?: self = .accepted
        case .rejected?: self = .rejected
        case .unknown?, nil: self = .unknown
        }
    }
}
