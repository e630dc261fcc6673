/// The side of a connection that caused its end.
public enum Side: String, Sendable, CaseIterable {
    case client, upstream, node

    /// The opposite side of a relay.
    public var other: Side { self == .client ? .upstream : .client }
}

/// Why a connection ended, as one number (R28). The log line, the counter and the admin view all name it through
/// ``ReasonTable``; the data path only carries the number.
@frozen public struct ReasonCode: Hashable, Sendable {
    public let rawValue: UInt16
    @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// Codes below this are the runtime's own (``RuntimeReason``); the filters' follow it, in catalog order.
    public static let firstFilter: UInt16 = 64
}

/// A reason of one filter: the name after the dot, and the side that caused it.
public struct ReasonSpec: Sendable {
    public let name: String
    public let side: Side
    /// One sentence for the filter's docs page and for `explain`.
    public let summary: String
    public init(_ name: String, _ side: Side, _ summary: String) {
        self.name = name
        self.side = side
        self.summary = summary
    }
}

/// The runtime's own end reasons.
public enum RuntimeReason: UInt16, CaseIterable, Sendable {
    case closedByClient = 0
    case closedByUpstream
    case resetByClient
    case resetByUpstream
    case clientTimedOut
    case upstreamTimedOut
    case halfCloseTimeoutClient
    case halfCloseTimeoutUpstream
    case connectRefused
    case connectTimeout
    case connectUnreachable
    case connectFailed
    case tooManyConnections
    case noSniffBuffer
    case noDescriptor
    case noPort
    case drainDeadline
    case killed
    case clientLeftEarly
    case internalError
    case noBackend
    case owedProxyHeader
    case proxyRejected
    case instanceDrained
    case routeRemoved
    case backendsFull
    case interceptLoop
    case notIntercepted
    case routeChanged
    case unrouted
    case memoryShort
    case abandoned
    case kernelMemory
    case connectForbidden
    case backendLoop
    case specialDestination
    case idleTimeout
    case backendDown
    case primaryBack
    case proxyTextRejected
    case queueAbandoned
    case noSource
    case crowdedOut
    case suspended
    case upgradeTimeout
    case upgradeClosed
    case answerUntaken

    public var code: ReasonCode { ReasonCode(rawValue: rawValue) }

    /// `stage.cause` and the side, where no filter of the catalog says how it is called (``FilterDescriptor/endings``).
    public var text: (name: String, side: Side) {
        switch self {
        case .closedByClient: ("relay.closed", .client)
        case .closedByUpstream: ("relay.closed", .upstream)
        case .resetByClient: ("relay.reset", .client)
        case .resetByUpstream: ("relay.reset", .upstream)
        case .clientTimedOut: ("relay.dead", .client)
        case .upstreamTimedOut: ("relay.dead", .upstream)
        case .halfCloseTimeoutClient: ("relay.half_close_timeout", .client)
        case .halfCloseTimeoutUpstream: ("relay.half_close_timeout", .upstream)
        case .connectRefused: ("connect.refused", .upstream)
        case .connectTimeout: ("connect.timeout", .upstream)
        case .connectUnreachable: ("connect.unreachable", .upstream)
        case .connectFailed: ("connect.failed", .upstream)
        case .tooManyConnections: ("limits.connections", .node)
        case .noSniffBuffer: ("limits.sniff_buffers", .node)
        case .noDescriptor: ("limits.descriptors", .node)
        case .noPort: ("limits.source_ports", .node)
        case .drainDeadline: ("drain.deadline", .node)
        case .killed: ("admin.killed", .node)
        case .clientLeftEarly: ("accept.closed", .client)
        case .internalError: ("runtime.error", .node)
        case .noBackend: ("runtime.no_backend", .node)
        case .owedProxyHeader: ("runtime.no_proxy_header", .node)
        case .proxyRejected: ("connect.proxy_rejected", .upstream)
        case .instanceDrained: ("drain.instance", .node)
        case .routeRemoved: ("drain.route", .node)
        case .backendsFull: ("connect.full", .upstream)
        case .interceptLoop: ("intercept.loop", .client)
        case .notIntercepted: ("intercept.not_intercepted", .client)
        case .routeChanged: ("connect.route_changed", .node)
        case .unrouted: ("limits.unrouted", .node)
        case .memoryShort: ("limits.memory", .node)
        case .abandoned: ("connect.abandoned", .client)
        case .kernelMemory: ("limits.kernel_memory", .node)
        case .connectForbidden: ("connect.forbidden", .node)
        case .backendLoop: ("connect.loop", .node)
        case .specialDestination: ("intercept.special_destination", .client)
        case .idleTimeout: ("relay.idle_timeout", .client)
        case .backendDown: ("drain.backend_down", .upstream)
        case .primaryBack: ("drain.primary_back", .node)
        case .proxyTextRejected: ("connect.proxy_text_rejected", .upstream)
        case .queueAbandoned: ("connect.queue_abandoned", .client)
        case .noSource: ("connect.no_source", .node)
        case .crowdedOut: ("limits.queued", .node)
        case .suspended: ("drain.suspended", .node)
        case .upgradeTimeout: ("connect.upgrade_timeout", .upstream)
        case .upgradeClosed: ("connect.upgrade_closed", .upstream)
        case .answerUntaken: ("accept.answer_untaken", .client)
        }
    }
}

/// Names for reason codes, for those who read them: logs, metrics, `explain`.
public struct ReasonTable: Sendable {
    /// Indexed by code; nil where no reason has that code.
    public let names: [(name: String, side: Side)?]
    /// By filter of the catalog, in its order: the code of its first reason.
    public let bases: [UInt16]

    /// One more than the largest code.
    public var count: Int { names.count }

    /// `catalog` in its fixed order, which is what gives filters their codes.
    public init(catalog: [any Filter.Type]) {
        var names = [(name: String, side: Side)?](repeating: nil, count: Int(ReasonCode.firstFilter))
        for reason in RuntimeReason.allCases { names[Int(reason.rawValue)] = reason.text }
        var bases: [UInt16] = []
        for descriptor in catalog.map({ $0.descriptor }) {
            bases.append(UInt16(clamping: names.count))
            names += descriptor.reasons.map { ("\(descriptor.keyword).\($0.name)", $0.side) }
            for (reason, name) in descriptor.endings {
                names[Int(reason.rawValue)] = ("\(descriptor.keyword).\(name)", reason.text.side)
            }
        }
        self.names = names
        self.bases = bases
    }

    /// `sni.timeout client`.
    public func text(_ code: ReasonCode) -> String {
        guard let entry = entry(code) else { return "unknown.\(code.rawValue) node" }
        return "\(entry.name) \(entry.side.rawValue)"
    }

    public func entry(_ code: ReasonCode) -> (name: String, side: Side)? {
        Int(code.rawValue) < names.count ? names[Int(code.rawValue)] : nil
    }
}
