import CLinux
import FilterCatalog
import Pipeline
import PipelineHost
import PipelineLanguage
import PipelineLastGood
import PipelineRouting

/// How many live connections things have, as a running node counts them.
package struct LiveConnections: Sendable, Equatable {
    /// By id.
    package var routes: [String: UInt64] = [:]
    /// By address and port.
    package var backends: [String: UInt64] = [:]

    package init() {}

    func of(routes ids: some Sequence<String>) -> UInt64 { ids.reduce(0) { $0 &+ (routes[$1] ?? 0) } }
}

/// What there is before a change: in memory alone, made and changed by the code that a node runs.
package final class PlanBase {
    let filters: [any Filter.Type]
    let compilation: Compilation
    let program: Program
    let routing: RoutingState
    let blocks: StateDocument?
    let reading: StateOrder.Reading?
    let guarded: ConfigGuard.Reading
    /// Nil: the config has no `state`.
    let desired: DesiredState?
    /// What is wrong with objects already.
    let found: Set<String>
    /// What a reader of the plan must know of it.
    package private(set) var notes: [String]
    /// Nil: no node was asked.
    package var live: LiveConnections?

    private init(
        _ loaded: LoadedNode, _ compilation: Compilation, _ filters: [any Filter.Type], _ notes: [String]
    ) {
        self.filters = filters
        self.compilation = compilation
        self.notes = notes
        program = loaded.program
        routing = loaded.routing
        blocks = loaded.blocks
        reading = loaded.reading
        guarded = loaded.guarded
        desired = loaded.desired?.take()
        found = Set(loaded.found.list.map(NodePlan.text)).union(desired?.problems.list ?? [])
        endCooldowns()
    }

    /// Who has an address once its cooldown is over is what a plan is about (R31).
    private func endCooldowns() {
        routing.cooldown = .off
        guard routing.nextCooldown != nil else { return }
        let now = Instant(nanoseconds: cl_now())
        _ = desired.map { $0.kept.applyWaiting(to: routing, at: now) } ?? routing.applyWaiting(at: now)
    }

    /// The base that a config and what its node keeps make; nil: the config has errors.
    /// - Parameter kept: of a running node; nil: what the config's `state` directory has.
    package static func load(
        _ text: [UInt8], file: String, filters: [any Filter.Type] = catalog, kept: LastGood? = nil,
        readState: ConfigLoader.ReadState = ConfigLoader.readStateFile
    ) -> (base: PlanBase?, config: LoadedConfig) {
        var read = ConfigLoader.read(text, file: file, filters: filters, readState: readState, keepsState: true)
        var notes: [String] = []
        let loaded: LoadedConfig
        if let program = read.compilation.program, program.node.stateDirectory != nil, !read.compilation.hasErrors {
            loaded = load(&read, program, kept, &notes)
        } else {
            loaded = ConfigLoader.loadFresh(&read)
            if loaded.node != nil { notes.append("the config has no `state`: a restart would forget who had a name") }
        }
        let base = loaded.node.map { PlanBase($0, loaded.compilation, filters, notes) }
        return (base, loaded)
    }

    private static func load(
        _ read: inout ReadConfig, _ program: Program, _ kept: LastGood?, _ notes: inout [String]
    ) -> LoadedConfig {
        var fault: String?
        let source = read.source.name
        func make(_ kept: LastGood, _ notes: inout [String]) -> LoadedConfig? {
            if let last = kept.last, !kept.isEmpty {
                let revision = last.revision.map { "revision \($0)" } ?? "a state without a revision"
                notes.append("the base is what was applied last: \(revision) from \(last.source)")
            }
            return ConfigLoader.load(&read, program, { _ in kept }, &fault, takesSource: false)
        }
        var loaded: LoadedConfig?
        if let kept {
            loaded = make(kept, &notes)
        } else {
            switch LastGoodSight(program.node.stateDirectory) {
            case .kept(let kept, let damage):
                notes += damage
                loaded = make(kept, &notes)
            case .nothing(let damage):
                notes += damage
                notes.append("there is no last good state: the base is what a first start makes of \(source)")
            case .unreadable(let why):
                notes.append(
                    "the last good state can't be read, so the base is what a first start makes of \(source): \(why)")
            }
            if loaded == nil, let none = try? LastGood.none() { loaded = make(none, &notes) }
        }
        if let loaded { return loaded }
        read.readState(read.seed, ConfigLoader.readStateFile)
        return ConfigLoader.loadFresh(&read)
    }

    /// Of what is applied; nil: none.
    var revision: UInt64? { desired.map { $0.last?.revision } ?? reading?.revision }

    package func note(_ text: String) { notes.append(text) }

    /// Of the program, for a running node to compare with its own.
    package var fingerprint: String { PlanBase.fingerprint(program) }
    package static func fingerprint(_ program: Program) -> String {
        let text = Array(describe(program).utf8)
        let hash = text.withUnsafeBufferPointer { SipHash.hash($0, seed: HashSeed(0, 0)) }
        return String(hash, radix: 16)
    }
}
