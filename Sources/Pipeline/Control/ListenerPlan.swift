import Pipeline
import PipelineRouting

/// Which sockets a node listens on: its `listen` lines, and the ports of `expose` ranges that raw routes claim.
package enum ListenerPlan {
    /// - Parameter rawPorts: the ports of the raw routes that are applied.
    /// - Returns: the program's listeners in their order, then the exposed ones by range and port. One endpoint once:
    ///   what a `listen` line names is not opened again for a range.
    package static func listeners(_ program: Program, rawPorts: [UInt16]) -> [ListenerSpec] {
        var plan = program.listeners
        var taken = Set(plan.map(\.endpoint))
        let ports = Set(rawPorts).sorted()
        for expose in program.exposes {
            for port in ports where expose.ports.contains(port) {
                let endpoint = Endpoint(expose.address, port)
                guard taken.insert(endpoint).inserted else { continue }
                plan.append(
                    ListenerSpec(endpoint: endpoint, hint: expose.hint, chain: expose.chain, line: expose.line))
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
                injectsProxy: pipeline.stages.buffer.contains { $0.filter.descriptor.keyword == "proxy_v2" },
                pipeline: pipeline.name)
        }
        return program.listeners.map {
            fact($0.endpoint.address, $0.endpoint.port...$0.endpoint.port, $0.hint, $0.chain)
        }
            + program.exposes.map { fact($0.address, $0.ports, $0.hint, $0.chain) }
    }

    /// Has `routing` judge and prepare routes as `program` needs it: which ports are denied (R8), and whether routes that
    /// name no balance get a table for consistent hashing (R11). Takes effect with the next apply.
    package static func prepare(_ routing: RoutingState, for program: Program) {
        routing.listeners = facts(program)
        routing.policy = PortPolicy(denied: program.node.deniedPorts)
        routing.hashesByDefault = program.chains.buffer.contains { chain in
            chain.stages.buffer.contains {
                $0.filter.descriptor.keyword == "backend"
                    && $0.source.contains(Balance.consistentHash.name)
            }
        }
    }

    /// The listener that the kernel would give a connection to `destination`: one on that very address, or one on
    /// every address of its family.
    package static func listener(for destination: Endpoint, in plan: [ListenerSpec]) -> Int? {
        let wildcard = destination.address.isIPv4 ? IPAddress.unspecifiedV4 : .unspecified
        return plan.firstIndex { $0.endpoint == destination }
            ?? plan.firstIndex { $0.endpoint == Endpoint(wildcard, destination.port) }
    }
}
