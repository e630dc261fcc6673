import Pipeline
import PipelineLanguage
import PipelineRouting

/// One socket that a node should listen on, and what asks for it.
package struct PlannedListener: Hashable, Sendable {
    package enum Origin: Hashable, Sendable {
        /// A `listen` line: without it the node doesn't start, and a reload is refused.
        case listen
        /// A port of an `expose` range that a route asks for.
        case expose
        /// R9: an env's own address.
        case dedicated(env: EnvName)
    }
    package let spec: ListenerSpec
    package let origin: Origin

    package init(_ spec: ListenerSpec, _ origin: Origin) {
        self.spec = spec
        self.origin = origin
    }

    package var endpoint: Endpoint { spec.endpoint }
    package var hint: ProtocolHint { spec.hint }
    var isRequired: Bool { origin == .listen }
}

/// What routes ask of the `expose` ranges of a program.
package struct RequestedPorts: Sendable {
    /// By hint, ascending.
    package var byHint: [ProtocolHint: [UInt16]]
    /// Ports on an env's own IPv4 address (R9), each once.
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

/// Which sockets a node listens on: its `listen` lines, and what routes ask for within `expose` ranges.
package enum ListenerPlan {
    /// - Returns: the program's listeners in their order, then the exposed ones by range and port, then the dedicated
    ///   ones. One endpoint once: what a `listen` line names is not opened again for a range.
    package static func listeners(_ program: Program, _ ports: RequestedPorts) -> [PlannedListener] {
        var plan = program.listeners.map { PlannedListener($0, .listen) }
        var taken = Set(plan.map(\.endpoint))
        let add = { (address: IPAddress, port: UInt16, expose: ExposeSpec, origin: PlannedListener.Origin) in
            let endpoint = Endpoint(address, port)
            guard !program.node.deniedPorts.contains(where: { $0.contains(port) }), taken.insert(endpoint).inserted
            else { return }
            plan.append(
                PlannedListener(
                    ListenerSpec(endpoint: endpoint, hint: expose.hint, chain: expose.chain, line: expose.line),
                    origin))
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

    /// What routes need to know of where a program listens.
    package static func facts(_ program: Program) -> [ListenerFacts] {
        let fact = { (address: IPAddress, ports: ClosedRange<UInt16>, hint: ProtocolHint, chain: Int) in
            let pipeline = program.chains[chain]
            return ListenerFacts(
                address: address, ports: ports, hint: hint,
                injectsProxy: pipeline.capabilities.contains(.injectsHeader),
                pipeline: pipeline.name)
        }
        return program.listeners.filter { !$0.mode.intercepts }.map {
            fact($0.endpoint.address, $0.endpoint.port...$0.endpoint.port, $0.hint, $0.chain)
        }
            + program.exposes.map { fact($0.address, $0.ports, $0.hint, $0.chain) }
    }

    /// The most listeners that this program's routes can ask for; dedicated ranges are counted as one address.
    static func most(_ program: Program) -> Int {
        program.exposes.reduce(program.listeners.count) { $0 + $1.ports.count }
    }

    /// Has `routing` judge and prepare routes as `program` needs it: which ports are denied (R8), and whether routes that
    /// name no balance get a table for consistent hashing (R11). Takes effect with the next apply.
    package static func prepare(_ routing: RoutingState, for program: Program) {
        routing.listeners = facts(program)
        routing.nodeName = program.node.name
        routing.policy = PortPolicy(denied: program.node.deniedPorts)
        routing.hashesByDefault = program.capabilities.contains(.hashesClients)
    }

    /// The listener that the kernel would give a connection to `destination`: one on that very address, or one on
    /// every address of its family.
    package static func listener(for destination: Endpoint, in plan: [ListenerSpec]) -> Int? {
        return plan.firstIndex { $0.endpoint == destination }
            ?? plan.firstIndex { $0.endpoint == Endpoint(destination.address.unspecifiedOfFamily, destination.port) }
            // Rules bring it connections to anywhere.
            ?? plan.firstIndex { $0.mode.intercepts && $0.endpoint.address.isIPv4 == destination.address.isIPv4 }
    }
}
