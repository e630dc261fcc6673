/// Which end of a connection a cause belongs to.
public enum Side: String, Sendable, CaseIterable {
    case client, upstream, node

    /// Of a relay's two sides the one that this is not.
    public var other: Side { self == .client ? .upstream : .client }
}

/// Why a connection ended, as one number (R28). The log line, the counter and the admin view all name it through
/// ``ReasonTable``; the data path only carries the number.
@frozen public struct ReasonCode: Hashable, Sendable {
    public let rawValue: UInt16
    @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// Codes below this are the runtime's own (``RuntimeReason``); each filter of the catalog gets
    /// ``perFilter`` codes after it, in catalog order.
    public static let firstFilter: UInt16 = 64
    /// How many reasons one filter may have.
    public static let perFilter: UInt16 = 32
    /// How many filters a catalog may have.
    public static let filterLimit = 14
    /// One more than the largest code.
    public static let limit = Int(firstFilter) + Int(perFilter) * filterLimit

    /// The code of a filter's own reason.
    @inlinable public static func filter(base: UInt16, _ reason: UInt8) -> ReasonCode {
        ReasonCode(rawValue: base &+ UInt16(min(reason, UInt8(perFilter - 1))))
    }
}

/// A reason of one filter: the name after the dot, and whose doing it is.
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

/// The ends that the runtime itself gives a connection.
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

    public var code: ReasonCode { ReasonCode(rawValue: rawValue) }

    /// `stage.cause` and the side.
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
        case .connectRefused: ("backend.refused", .upstream)
        case .connectTimeout: ("backend.timeout", .upstream)
        case .connectUnreachable: ("backend.unreachable", .upstream)
        case .connectFailed: ("backend.connect_failed", .upstream)
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
        case .proxyRejected: ("proxy_v2.proxy_rejected", .upstream)
        case .instanceDrained: ("drain.instance", .node)
        case .routeRemoved: ("drain.route", .node)
        case .backendsFull: ("backend.full", .upstream)
        case .interceptLoop: ("intercept.loop", .client)
        case .notIntercepted: ("intercept.not_intercepted", .client)
        case .routeChanged: ("backend.route_changed", .node)
        case .unrouted: ("limits.unrouted", .node)
        case .memoryShort: ("limits.memory", .node)
        case .abandoned: ("backend.abandoned", .client)
        case .kernelMemory: ("limits.kernel_memory", .node)
        case .connectForbidden: ("backend.forbidden", .node)
        case .backendLoop: ("backend.loop", .node)
        case .specialDestination: ("intercept.special_destination", .client)
        }
    }
}

/// Names for reason codes, for those who read them: logs, metrics, `explain`.
public struct ReasonTable: Sendable {
    /// Indexed by code; nil where no reason has that code.
    public let names: [(name: String, side: Side)?]

    /// `catalog` in its fixed order, which is what gives filters their codes.
    public init(catalog: [any Filter.Type]) {
        var names = [(name: String, side: Side)?](repeating: nil, count: ReasonCode.limit)
        for reason in RuntimeReason.allCases { names[Int(reason.rawValue)] = reason.text }
        for (index, filter) in catalog.prefix(ReasonCode.filterLimit).enumerated() {
            let base = Int(ReasonTable.base(ofFilter: index))
            for (offset, spec) in filter.descriptor.reasons.prefix(Int(ReasonCode.perFilter)).enumerated() {
                names[base + offset] = ("\(filter.descriptor.keyword).\(spec.name)", spec.side)
            }
        }
        self.names = names
    }

    public static func base(ofFilter index: Int) -> UInt16 {
        ReasonCode.firstFilter + ReasonCode.perFilter * UInt16(index)
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
