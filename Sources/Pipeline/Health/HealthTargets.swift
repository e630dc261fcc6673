import FilterBackendSelect
import Pipeline
import PipelineRouting

/// The backends to probe, and how. Immutable.
///
/// Ownership: it keeps the program and the route table alive that its pointers lead into.
package struct ProbeTargets: @unchecked Sendable {
    package static let none = ProbeTargets(list: [], program: nil, table: nil)

    package let list: [ProbeTarget]
    private let program: Program?
    private let table: RouteTableSnapshot?

    private init(list: [ProbeTarget], program: Program?, table: RouteTableSnapshot?) {
        self.list = list
        self.program = program
        self.table = table
    }

    /// Targets whose cells the caller keeps: for tests.
    init(testing list: [ProbeTarget]) { self.init(list: list, program: nil, table: nil) }

    /// Every backend that a route of `table` leads to through a pipeline of `program` whose stages name a `health`
    /// block that probes, or that names one itself: one target for an address and port, and a second one if some routes put
    /// a PROXY header in front and others don't. Of several blocks, a route's own holds, by name if there are several;
    /// then the one of the pipeline that comes first in the config.
    ///
    /// R12: what desired state doesn't call ready is in no route's set, so nothing here can put it in.
    package init(_ program: Program, _ table: RouteTableSnapshot) {
        let isWanted = ProbeTargets.areWanted(by: program)
        self.init(
            list: isWanted ? ProbeTargets.targets(ProbeTargets.uses(program, table)) : [], program: program,
            table: table)
    }

    /// Whether this program has targets.
    static func areWanted(by program: Program) -> Bool {
        program.blocks.all(of: HealthSettings.self).contains { $0.probe != .off }
    }

    // MARK: From listeners to blocks

    /// The listeners, with their pipelines' block, if it probes.
    fileprivate struct Entrance {
        let ports: ClosedRange<UInt16>
        let isRaw: Bool
        let chain: Int
        let settings: HealthSettings?
        /// Where its connections to backends come from, unless a route says; nil: the kernel chooses.
        let source: SourceSpec?

        func leads(to route: Route) -> Bool { isRaw == route.flags.contains(.raw) && ports.contains(route.port) }
    }

    /// Says where connections of a route come from, of all pipelines that lead to it by the first; nil: the kernel chooses.
    static func sources(in program: Program) -> (Route) -> SourceSpec? {
        guard !program.sources.isEmpty else { return { _ in nil } }
        let entrances = entrances(of: program)
        return { source(of: $0, entrances) }
    }

    private static func source(of route: Route, _ entrances: [Entrance]) -> SourceSpec? {
        if let own = route.group.pointee.policy?.pointee.source { return own.pointee.spec }
        return entrances.first { $0.leads(to: route) }?.source
    }

    private static func entrances(of program: Program) -> [Entrance] {
        let byChain = program.chains.buffer.map { chain in
            chain.stages.buffer.lazy.flatMap(\.blocks).compactMap { $0 as? HealthSettings }.first
        }
        let entrance = { (ports: ClosedRange<UInt16>, hint: ProtocolHint, chain: Int) -> Entrance? in
            guard byChain.indices.contains(chain) else { return nil }
            let settings = byChain[chain].flatMap { $0.probe == .off ? nil : $0 }
            return Entrance(
                ports: ports, isRaw: hint == .tcpRaw, chain: chain, settings: settings,
                source: program.chains[chain].stages.buffer.lazy.compactMap(\.facts.source).first)
        }
        let listeners = program.listeners.compactMap {
            entrance($0.ports, $0.hint, $0.chain)
        }
        let exposes = program.exposes.compactMap { entrance($0.ports, $0.hint, $0.chain) }
        return (listeners + exposes).sorted { $0.chain < $1.chain }
    }

    // MARK: From routes to backends

    /// Routes share groups of backends, so each group is visited once, not once per route.
    private struct GroupUse: Hashable {
        let group: UnsafePointer<BackendGroup>
        let usesProxy: Bool
        let isText: Bool
    }

    fileprivate struct Use {
        var settings: HealthSettings
        /// Of several blocks the one with the least holds: a route's own (-1), then by pipeline.
        var rank: Int
        var source: SourceSpec?
        var routes = RouteSample()
    }

    private static func uses(_ program: Program, _ table: RouteTableSnapshot) -> [GroupUse: Use] {
        let entrances = entrances(of: program)
        var uses: [GroupUse: Use] = [:]
        table.visitAll { place, _ in
            let route = place.pointee
            // Its backends get no connections, and what they expect is unknown.
            guard !route.flags.contains(.proxyMismatch), !table.handle.isSuspended(place) else { return }
            guard let use = use(of: route, entrances, program) else { return }
            let key = GroupUse(
                group: route.group, usesProxy: route.flags.contains(.proxyHeader),
                isText: route.flags.contains(.proxyText))
            uses[key, default: use].add(use, route)
        }
        return uses
    }

    /// Nil: its backends are not probed for it.
    private static func use(of route: Route, _ entrances: [Entrance], _ program: Program) -> Use? {
        let leadsHere = { (entrance: Entrance) in entrance.leads(to: route) }
        let source = source(of: route, entrances)
        guard let health = route.group.pointee.health else {
            return entrances.first { $0.settings != nil && leadsHere($0) }.flatMap { entrance in
                entrance.settings.map { Use(settings: $0, rank: entrance.chain, source: source) }
            }
        }
        guard entrances.contains(where: leadsHere), let name = health.pointee.name,
            let settings = program.blocks.find(.health, name) as? HealthSettings, settings.probe != .off
        else { return nil }
        return Use(settings: settings, rank: -1, source: source)
    }

    /// Backends that are of some set's first priority: their connections are not a backup's alone.
    private static func primaries(_ uses: [GroupUse: Use]) -> Set<UnsafePointer<BackendCell>> {
        var cells: Set<UnsafePointer<BackendCell>> = []
        guard uses.values.contains(where: { $0.settings.onUp == .endBackup }) else { return cells }
        for key in uses.keys {
            guard let first = key.group.pointee.tiers.buffer.first else { continue }
            for backend in first.backends.buffer { cells.insert(backend.cell) }
        }
        return cells
    }

    private static func backups(
        behind backend: Backend, _ group: UnsafePointer<BackendGroup>
    ) -> [UnsafePointer<BackendCell>] {
        group.pointee.backends.buffer.filter { $0.priority > backend.priority }.map(\.cell)
    }

    private static func targets(_ uses: [GroupUse: Use]) -> [ProbeTarget] {
        var targets: [ProbeTarget.Key: (target: ProbeTarget, chain: Int)] = [:]
        let primaries = primaries(uses)
        for (key, use) in uses {
            for backend in key.group.pointee.backends.buffer {
                var target = ProbeTarget(backend, usesProxy: key.usesProxy, use.settings, use.routes)
                target.proxyIsText = key.isText
                target.source = use.source
                if use.settings.onUp == .endBackup {
                    target.backups = backups(behind: backend, key.group).filter { !primaries.contains($0) }
                }
                guard var known = targets[target.key] else {
                    targets[target.key] = (target, use.rank)
                    continue
                }
                var routes = known.target.routes
                routes.add(use.routes)
                let isOther =
                    (use.rank, target.settings.name, target.sourceText)
                    < (known.chain, known.target.settings.name, known.target.sourceText)
                if isOther { known = (target, use.rank) }
                known.target.routes = routes
                known.target.backups += target.backups.filter { !known.target.backups.contains($0) }
                targets[target.key] = known
            }
        }
        return targets.values.map(\.target).sorted { $0.key < $1.key }
    }
}

extension ProbeTargets.Use {
    fileprivate mutating func add(_ other: ProbeTargets.Use, _ route: Route) {
        if other.rank < rank { (settings, rank, source) = (other.settings, other.rank, other.source) }
        routes.add(route)
    }
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
    fileprivate var sourceText: String { source?.configText ?? "" }

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
