import Pipeline
import PipelineRouting

/// R18: whether the backends of a route take our PROXY header.
package enum ProxyVerdict: String, Sendable, Equatable {
    /// The route sends none.
    case off
    /// No connection and no probe has shown yet: silence shows nothing.
    case unknown
    case accepted
    /// One of its backends, at least, does not.
    case rejected
    /// R16: the route and its backends can't agree on it; every connection is refused.
    case mismatch

    package init(_ route: Route) {
        guard !route.flags.contains(.proxyMismatch) else {
            self = .mismatch
            return
        }
        guard route.flags.contains(.proxyV2) else {
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
