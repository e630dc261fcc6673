import FilterBackendSelect
import Pipeline
import PipelineRouting

/// The listeners of a program, with what their pipelines say of backends: by the first in the config of those that lead to a
/// route.
struct Entrances {
    private struct Entrance {
        let ports: ClosedRange<UInt16>
        let isRaw: Bool
        let chain: Int
        /// Of its pipeline's block, if it probes.
        let settings: HealthSettings?
        /// Where its connections to backends come from, unless a route says; nil: the kernel chooses.
        let source: SourceSpec?

        func leads(to use: RouteUse) -> Bool { isRaw == use.flags.contains(.raw) && ports.contains(use.port) }
    }

    /// How backends are probed for routes of one use.
    struct Probing {
        let settings: HealthSettings
        /// Of several blocks the one with the least holds: a route's own (-1), then by pipeline.
        let rank: Int
        let source: SourceSpec?

        func isLess(than other: Probing) -> Bool {
            (rank, settings.name, source?.configText ?? "")
                < (other.rank, other.settings.name, other.source?.configText ?? "")
        }
    }

    private let program: Program
    private let list: [Entrance]

    init(_ program: Program) {
        self.program = program
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
        let listeners = program.listeners.compactMap { entrance($0.ports, $0.hint, $0.chain) }
        let exposes = program.exposes.compactMap { entrance($0.ports, $0.hint, $0.chain) }
        list = (listeners + exposes).sorted { $0.chain < $1.chain }
    }

    /// Nil: backends of the group are not probed for such routes.
    func probing(_ group: BackendGroup, _ use: RouteUse) -> Probing? {
        // They get no connections, and what they expect is unknown.
        guard !use.flags.contains(.proxyMismatch) else { return nil }
        let source = source(group, use)
        guard let health = group.health else {
            return list.first { $0.settings != nil && $0.leads(to: use) }.flatMap { entrance in
                entrance.settings.map { Probing(settings: $0, rank: entrance.chain, source: source) }
            }
        }
        guard list.contains(where: { $0.leads(to: use) }), let name = health.pointee.name,
            let settings = program.blocks.find(.health, name) as? HealthSettings, settings.probe != .off
        else { return nil }
        return Probing(settings: settings, rank: -1, source: source)
    }

    /// Where connections of such routes come from; nil: the kernel chooses.
    func source(_ group: BackendGroup, _ use: RouteUse) -> SourceSpec? {
        if let own = group.policy?.pointee.source { return own.pointee.spec }
        guard !program.sources.isEmpty else { return nil }
        return list.first { $0.leads(to: use) }?.source
    }
}
