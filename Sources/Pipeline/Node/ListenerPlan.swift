import CLinux
import Pipeline
import PipelineLanguage
import PipelineRouting
import PipelineRuntime

/// One planned listening socket, and its origin.
package struct PlannedListener: Hashable, Sendable {
    package enum Origin: Hashable, Sendable {
        /// A `listen` line: without it the node doesn't start, and a reload is refused.
        case listen
        /// A port of an `expose` range that a route uses.
        case expose
        /// R9: an env's dedicated address.
        case dedicated(env: EnvName)
    }
    package let spec: ListenerSpec
    package let origin: Origin
    /// What it is to a program that takes a share first.
    package var canary = CanaryEntrance.none

    package init(_ spec: ListenerSpec, _ origin: Origin) {
        self.spec = spec
        self.origin = origin
    }

    package var endpoint: Endpoint { spec.endpoint }
    package var hint: ProtocolHint { spec.hint }
    var isRequired: Bool { origin == .listen }
    var key: ListenerKey { ListenerKey(spec) }
}

/// What makes listeners one: a change of any of these needs other sockets.
struct ListenerKey: Hashable {
    let endpoint: Endpoint
    let interface: String?
    let isMultipath: Bool

    init(_ spec: ListenerSpec) {
        (endpoint, interface, isMultipath) = (spec.endpoint, spec.options.interface, spec.options.multipath)
    }
}

/// The routes' use of a program's `expose` ranges.
package struct RequestedPorts: Sendable {
    /// By hint, ascending.
    package var byHint: [ProtocolHint: [UInt16]]
    /// Ports on dedicated IPv4 addresses (R9), each once.
    package var dedicated: [DedicatedListener]

    package init(byHint: [ProtocolHint: [UInt16]] = [:], dedicated: [DedicatedListener] = []) {
        self.byHint = byHint
        self.dedicated = dedicated
    }

    package init(_ routing: RoutingState) {
        self.init(
            byHint: Dictionary(
                uniqueKeysWithValues: ProtocolHint.allCases.map { ($0, routing.snapshot.ports($0)) }),
            dedicated: routing.dedicatedListeners)
    }
}

/// The planned listening sockets: `listen` lines, and ports of `expose` ranges that routes use.
package enum ListenerPlan {
    /// - Returns: the program's listeners in their order, then the exposed ones by range and port, then the dedicated
    ///   ones. One endpoint once: what a `listen` line names is not opened again for a range.
    package static func listeners(_ program: Program, _ ports: RequestedPorts) -> [PlannedListener] {
        let isDenied = { (port: UInt16) in program.node.deniedPorts.contains { $0.contains(port) } }
        var plan: [PlannedListener] = []
        for listener in program.listeners {
            for port in listener.ports where !isDenied(port) || listener.ports.count == 1 {
                plan.append(PlannedListener(listener.bound(at: Endpoint(listener.endpoint.address, port)), .listen))
            }
        }
        var taken = Dictionary(grouping: plan.map(\.spec), by: \.endpoint).mapValues { $0.map(\.options) }
        let add = { (address: IPAddress, port: UInt16, expose: ExposeSpec, origin: PlannedListener.Origin) in
            let endpoint = Endpoint(address, port)
            guard !isDenied(port), taken[endpoint]?.contains(where: expose.options.overlaps) != true else { return }
            taken[endpoint, default: []].append(expose.options)
            plan.append(
                PlannedListener(
                    ListenerSpec(
                        endpoint: endpoint, hint: expose.hint, chain: expose.chain, line: expose.line,
                        options: expose.options), origin))
        }
        for expose in program.exposes where !expose.isDedicated {
            for port in ports.byHint[expose.hint] ?? [] where expose.ports.contains(port) {
                add(expose.address, port, expose, .expose)
            }
        }
        for expose in program.exposes where expose.isDedicated {
            for wanted in ports.dedicated where wanted.hint == expose.hint && expose.ports.contains(wanted.port) {
                add(wanted.address, wanted.port, expose, .dedicated(env: wanted.env))
            }
        }
        return plan
    }

    /// A program's listeners, as the routing rules need them.
    package static func facts(_ program: Program) -> [ListenerFacts] {
        let fact = { (address: IPAddress, ports: ClosedRange<UInt16>, hint: ProtocolHint, chain: Int) in
            let pipeline = program.chains[chain]
            return ListenerFacts(
                address: address, ports: ports, hint: hint,
                injectsProxy: pipeline.capabilities.contains(.injectsHeader),
                injectsText: pipeline.capabilities.contains(.injectsTextHeader), pipeline: pipeline.name)
        }
        return program.listeners.filter { !$0.mode.intercepts }.map {
            fact($0.endpoint.address, $0.ports, $0.hint, $0.chain)
        }
            + program.exposes.map { fact($0.address, $0.ports, $0.hint, $0.chain) }
    }

    /// The most listeners that this program's routes can ask for; dedicated ranges are counted as one address.
    static func most(_ program: Program) -> Int {
        program.exposes.reduce(program.listeners.reduce(0) { $0 + $1.ports.count }) { $0 + $1.ports.count }
    }

    /// Configures `routing` for `program`: denied ports (R8), and whether routes without a balance get a table for
    /// consistent hashing (R11). Takes effect with the next apply.
    package static func prepare(_ routing: RoutingState, for program: Program) {
        routing.listeners = facts(program)
        routing.nodeName = program.node.name
        routing.clock = { NodeTime(monotonic: Instant(nanoseconds: cl_now()), wall: cl_wall_clock()) }
        routing.cooldown = program.node.cooldown
        routing.policy = PortPolicy(denied: program.node.deniedPorts)
        prepare(routing, healthsOf: program)
        routing.hashesByDefault = program.capabilities.contains(.hashesClients)
    }

    static func prepare(_ routing: RoutingState, healthsOf program: Program) {
        routing.healths = program.blocks.all(.health).reduce(into: [:]) { healths, block in
            healths[block.name] = (block as? any RouteHealthBlock)?.routeHealth
        }
    }

    /// The listener that accepts connections to `destination`: on that address, or on every address of its family.
    package static func listener(for destination: Endpoint, in plan: [ListenerSpec]) -> Int? {
        return plan.firstIndex { $0.endpoint == destination }
            ?? plan.firstIndex { $0.endpoint == Endpoint(destination.address.unspecifiedOfFamily, destination.port) }
            // Interception rules redirect connections to any destination here.
            ?? plan.firstIndex { $0.mode.intercepts && $0.endpoint.address.isIPv4 == destination.address.isIPv4 }
    }
}
