import FilterBackendSelect
import Pipeline
import PipelineRouting

/// The backends to probe, and how. Immutable.
///
/// Ownership: it keeps the program and the route table alive that its pointers lead into.
package struct ProbeTargets: @unchecked Sendable {
    package static let none = ProbeTargets(testing: [])

    package let list: [ProbeTarget]
    private let program: Program?
    private let table: RouteTableSnapshot?

    fileprivate init(_ list: [ProbeTarget], _ program: Program?, _ table: RouteTableSnapshot?) {
        self.list = list
        self.program = program
        self.table = table
    }

    /// Targets whose cells the caller keeps: for tests.
    init(testing list: [ProbeTarget]) { self.init(list, nil, nil) }

    /// Whether this program has targets.
    static func areWanted(by program: Program) -> Bool {
        program.blocks.all(of: HealthSettings.self).contains { $0.probe != .off }
    }
}

/// What has changed of the targets.
package struct ProbeChange: @unchecked Sendable {
    package enum Kind: Sendable {
        /// These are all.
        case all([ProbeTarget])
        /// The others stay.
        case some(put: [ProbeTarget], removed: [ProbeTarget.Key])
    }

    package let kind: Kind
    private let program: Program?
    private let table: RouteTableSnapshot?

    /// - Parameter program: and the table; nil: the caller keeps what the targets point to, for tests.
    init(_ kind: Kind, _ program: Program? = nil, _ table: RouteTableSnapshot? = nil) {
        (self.kind, self.program, self.table) = (kind, program, table)
    }

    var isEmpty: Bool {
        guard case .some(let put, let removed) = kind else { return false }
        return put.isEmpty && removed.isEmpty
    }

    /// It keeps alive what the targets point to, those too that stay.
    func targets(_ list: [ProbeTarget]) -> ProbeTargets { ProbeTargets(list, program, table) }
}

/// One backend to be probed in one way.
package struct ProbeTarget: @unchecked Sendable {
    package struct Key: Hashable, Comparable, Sendable {
        package let endpoint: Endpoint
        /// R18: routes to it put a PROXY header in front, so a probe sends a LOCAL one.
        package let usesProxy: Bool

        package init(endpoint: Endpoint, usesProxy: Bool) {
            self.endpoint = endpoint
            self.usesProxy = usesProxy
        }
        package static func < (a: Key, b: Key) -> Bool {
            if a.endpoint.address != b.endpoint.address { return a.endpoint.address < b.endpoint.address }
            if a.endpoint.port != b.endpoint.port { return a.endpoint.port < b.endpoint.port }
            return !a.usesProxy && b.usesProxy
        }
    }

    package let key: Key
    package let cell: UnsafePointer<BackendCell>
    package let settings: HealthSettings
    package let instance: String
    /// For logs.
    package var routes: RouteSample
    /// Backends of later priorities, whose connections end when this one comes back; empty: none do.
    package var backups: [UnsafePointer<BackendCell>] = []
    /// The header is of version 1.
    package var proxyIsText = false
    /// Where its connections come from: a probe comes from the first of these addresses that it can. Nil, and for clients'
    /// own: the kernel chooses.
    package var source: SourceSpec?
    var sourceText: String { source?.configText ?? "" }

    init(_ backend: Backend, usesProxy: Bool, _ settings: HealthSettings, _ routes: RouteSample) {
        self.init(
            key: Key(endpoint: backend.address.endpoint, usesProxy: usesProxy), cell: backend.cell,
            settings: settings, instance: backend.instance.string, routes: routes)
    }

    package init(
        key: Key, cell: UnsafePointer<BackendCell>, settings: HealthSettings, instance: String,
        routes: RouteSample = RouteSample()
    ) {
        self.key = key
        self.cell = cell
        self.settings = settings
        self.instance = instance
        self.routes = routes
    }
}
