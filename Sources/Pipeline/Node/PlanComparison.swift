import Pipeline
import PipelineLanguage
import PipelineRouting

/// Two moments of a node, as changes for people.
struct PlanComparison {
    let (before, after): (PlanSight, PlanSight)
    let live: LiveConnections?
    private let problems: RouteProblems

    init(_ before: PlanSight, _ after: PlanSight, live: LiveConnections?, problems: RouteProblems) {
        (self.before, self.after) = (before, after)
        self.live = live
        self.problems = problems
    }

    // MARK: Routes

    func routing(_ drains: [RouteDrain]) -> [PlannedChange] {
        let changes = CensusChanges(before.census, after.census)
        return changes.owners.compactMap(owner) + changes.owners.compactMap(wildcard)
            + changes.owners.compactMap(reserved) + changes.routes.map(route)
            + changes.backends.map(backends) + drains.compactMap(drain) + suspensions
    }

    private func owner(_ change: OwnerChange) -> PlannedChange? {
        guard change.isOwnership else { return nil }
        var planned = PlannedChange(.ownership, change.kind == .lost ? .removed : .changed, "\(change.thing)")
        (planned.from, planned.to) = (change.from, change.to)
        if let by = change.by {
            planned.details.append(change.to == after.census.owners[change.thing] ? "before by \(by)" : "by \(by)")
        }
        planned.what = change.thing.kind
        if case .name = change.thing, change.kind == .moved, !change.isServed {
            let place = change.by == nil ? "for it" : "for it at its ports"
            planned.details.append("\(change.to ?? "") has no route \(place), so it is served for nobody")
        }
        if change.kind == .lost {
            planned.details.append(why(change) ?? "served for nobody, though \(change.from ?? "") asks for it")
        }
        planned.connections = live?.of(routes: change.routes)
        return planned
    }

    /// An entry of `hostnames` that no route uses.
    private func reserved(_ change: OwnerChange) -> PlannedChange? {
        guard !change.isOwnership, !change.isUsed, case .name(let name) = change.thing else { return nil }
        var planned = PlannedChange(.hostname, change.kind == .gained ? .added : .removed, name)
        (planned.from, planned.to) = (change.from, change.to)
        planned.details = ["an entry of hostnames that no route uses"]
        return planned
    }

    private func why(_ change: OwnerChange) -> String? {
        problems.list.first { problem in
            problem.severity == .rejected
                && (problem.id.map { change.routes.contains($0) || $0 == "\(change.thing)" } ?? false)
        }?.problem
    }

    /// A wildcard that begins to take names takes those that nobody has yet as well.
    private func wildcard(_ change: OwnerChange) -> PlannedChange? {
        guard case .name(let name) = change.thing, change.isUsed, name.hasPrefix("*.") || name.hasPrefix(".") else {
            return nil
        }
        guard let to = change.to, change.by == nil else {
            guard change.kind == .released else { return nil }
            var planned = PlannedChange(.wildcard, .removed, name)
            planned.from = change.from
            return planned
        }
        var planned = PlannedChange(.wildcard, change.from == nil ? .added : .changed, name)
        (planned.from, planned.to) = (change.from, to)
        planned.details = ["takes every name under it that has no route of its own"]
        return planned
    }

    private func route(_ change: RouteChange) -> PlannedChange {
        let action: PlannedChange.Action = change.before.isEmpty ? .added : change.after.isEmpty ? .removed : .changed
        var planned = PlannedChange(.route, action, change.id)
        switch action {
        case .added:
            planned.to = PlanComparison.places(change.after)
            planned.details = [change.after.first?.owner ?? ""] + change.after.prefix(1).flatMap(PlanComparison.words)
            let backends = change.after.first.map { after.census.backends(of: $0) } ?? []
            planned.details.append(
                backends.isEmpty ? "no backend" : "\(backends.count) \(backends.count == 1 ? "backend" : "backends")")
        case .removed:
            planned.from = PlanComparison.places(change.before)
            planned.details = [change.before.first?.owner ?? ""]
            switch change.before.first?.onDelete ?? .keep {
            case .keep: planned.details.append("its connections go on")
            case .drain: planned.details.append("its connections have 30 s")
            case .kill: planned.details.append("its connections end at once")
            }
        case .changed:
            planned.details = differences(change)
        }
        if action != .added { planned.connections = live?.of(routes: [change.id]) }
        return planned
    }

    private static func places(_ entries: [RouteCensus.Entry]) -> String {
        let shown = entries.prefix(4).map(\.place).joined(separator: " ")
        return entries.count > 4 ? "\(shown) and \(entries.count - 4) more" : shown
    }

    private static func words(_ entry: RouteCensus.Entry) -> [String] {
        (entry.sentHeader == .off ? [] : ["proxy_protocol \(entry.sentHeader.rawValue)"]) + entry.settings
            + (entry.isMismatched ? [refused] : [])
    }
    private static let refused = "every new connection is refused (backend.proxy_mismatch)"

    private func differences(_ change: RouteChange) -> [String] {
        let (old, new) = (Set(change.before.map(\.place)), Set(change.after.map(\.place)))
        var texts: [String] = []
        if old != new {
            let (gone, come) = (old.subtracting(new).sorted(), new.subtracting(old).sorted())
            if gone.count == 1, come.count == 1 {
                texts.append("\(gone[0]) -> \(come[0])")
            } else {
                texts += PlanComparison.listed(gone, "-") + PlanComparison.listed(come, "+")
            }
        }
        // Entries of one id differ by place alone, but for a config file's, which may differ in what the line says.
        guard let one = change.before.first, let other = change.after.first else { return texts }
        if one.owner != other.owner { texts.append("\(one.owner) -> \(other.owner)") }
        if one.isRaw != other.isRaw {
            texts.append(other.isRaw ? "tls_passthrough -> tcp_raw" : "tcp_raw -> tls_passthrough")
        }
        if one.sentHeader != other.sentHeader {
            texts.append(
                "proxy_protocol \(one.sentHeader.rawValue) -> \(other.sentHeader.rawValue) for new connections: backends must "
                    + "switch at the same moment")
        }
        if one.isMismatched != other.isMismatched {
            texts.append(
                other.isMismatched
                    ? PlanComparison.refused : "connections are no longer refused (backend.proxy_mismatch)")
        }
        if one.onDelete != other.onDelete { texts.append("on_delete \(one.onDelete.name) -> \(other.onDelete.name)") }
        texts += PlanComparison.listed(one.settings.filter { !other.settings.contains($0) }, "-")
        texts += PlanComparison.listed(other.settings.filter { !one.settings.contains($0) }, "+")
        let (was, now) = (before.census.backends(of: one), after.census.backends(of: other))
        if was != now { texts += PlanComparison.listsOf(was, now) }
        return texts.isEmpty ? ["its other names or ports have other settings"] : texts
    }

    /// `- a`, `+ b`: up to eight, the rest counted.
    private static func listed(_ items: [String], _ sign: String) -> [String] {
        items.prefix(8).map { "\(sign) \($0)" } + (items.count > 8 ? ["\(sign) \(items.count - 8) more"] : [])
    }

    private static func listsOf(_ was: [String], _ now: [String]) -> [String] {
        let (old, new) = (Set(was), Set(now))
        let count = "\(was.count) -> \(now.count) backends" + (now.isEmpty ? ": new connections are refused" : "")
        return listed(was.filter { !new.contains($0) }, "-") + listed(now.filter { !old.contains($0) }, "+") + [count]
    }

    private func backends(_ change: BackendsChange) -> PlannedChange {
        var planned = PlannedChange(.backends, .changed, change.owner)
        let shown = change.routes.prefix(3).joined(separator: " ")
        let rest = change.routes.count > 3 ? " and \(change.routes.count - 3) more" : ""
        planned.details = PlanComparison.listsOf(change.before, change.after) + ["of \(shown)\(rest)"]
        if let live {
            // Those at backends that go.
            let gone = Set(change.before).subtracting(change.after)
            planned.connections = gone.reduce(0) { $0 &+ (live.backends[PlanComparison.address($1)] ?? 0) }
        }
        return planned
    }

    /// The address in `i_1 [fd00::10]:8443 weight 2`.
    private static func address(_ backend: String) -> String {
        let words = backend.split(separator: " ")
        return String(words.first { $0.contains(":") } ?? "")
    }

    private func drain(_ drain: RouteDrain) -> PlannedChange? {
        guard case .backend = drain.target else { return nil }
        var planned = PlannedChange(.drain, .changed, drain.name)
        let seconds = drain.grace.milliseconds / 1000
        planned.details = [seconds == 0 ? "its connections end at once" : "its connections have \(seconds) s"]
        planned.connections = live.map { $0.backends[drain.name] ?? 0 }
        return planned
    }

    // MARK: Listeners

    var listeners: [PlannedChange] {
        let (old, new) = (byKey(before), byKey(after))
        var changes: [PlannedChange] = []
        for key in Set(old.keys).union(new.keys) {
            switch (old[key], new[key]) {
            case (let one?, nil):
                var change = PlannedChange(.listener, .removed, PlanComparison.name(key))
                change.from = text(one, before.program)
                change.details = ["established connections go on"]
                changes.append(change)
            case (nil, let other?):
                var change = PlannedChange(.listener, .added, PlanComparison.name(key))
                change.to = text(other, after.program)
                changes.append(change)
            case (let one?, let other?):
                let (was, now) = (text(one, before.program), text(other, after.program))
                guard was != now else { continue }
                var change = PlannedChange(.listener, .changed, PlanComparison.name(key))
                (change.from, change.to) = (was, now)
                changes.append(change)
            case (nil, nil): break
            }
        }
        return changes.sorted { $0.subject < $1.subject }
    }

    private func byKey(_ sight: PlanSight) -> [ListenerKey: PlannedListener] {
        Dictionary(sight.listeners.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })
    }

    private static func name(_ key: ListenerKey) -> String {
        "\(key.endpoint)" + (key.interface.map { " interface \($0)" } ?? "") + (key.isMultipath ? " multipath" : "")
    }

    private func text(_ listener: PlannedListener, _ program: Program) -> String {
        let chain = listener.spec.chain
        var text = "\(listener.spec.kindName) via \(chain < program.chains.count ? program.chains[chain].name : "?")"
        if let backlog = listener.spec.options.backlog { text += " backlog \(backlog)" }
        if listener.spec.options.fastOpen > 0 { text += " fastopen \(listener.spec.options.fastOpen)" }
        if case .dedicated(let env) = listener.origin { text += " for \(env.path)" }
        return text
    }

    // MARK: Pipelines and settings

    var program: [PlannedChange] {
        before.program === after.program ? [] : pipelines + ProgramDifference(before.program, after.program).changes
    }

    private var pipelines: [PlannedChange] {
        let (old, new) = (stages(before.program), stages(after.program))
        return Set(old.keys).union(new.keys).sorted().compactMap { name in
            guard let was = old[name] else {
                var change = PlannedChange(.pipeline, .added, name)
                change.details = new[name] ?? []
                return change
            }
            guard let now = new[name] else { return PlannedChange(.pipeline, .removed, name) }
            guard was != now else { return nil }
            var change = PlannedChange(.pipeline, .changed, name)
            change.details = PlanComparison.steps(was, now)
            return change
        }
    }

    private func stages(_ program: Program) -> [String: [String]] {
        Dictionary(
            program.chains.buffer.map { chain in
                (chain.name, chain.stages.buffer.map(\.source))
            }, uniquingKeysWith: { first, _ in first })
    }

    /// `2: - sni timeout 3s`, in the order of places.
    static func steps(_ was: [String], _ now: [String]) -> [String] {
        now.difference(from: was).map { step -> (place: Int, isNew: Bool, text: String) in
            switch step {
            case .remove(let offset, let text, _): (offset, false, "\(offset + 1): - \(text)")
            case .insert(let offset, let text, _): (offset, true, "\(offset + 1): + \(text)")
            }
        }.sorted { ($0.place, $0.isNew ? 1 : 0) < ($1.place, $1.isNew ? 1 : 0) }.map(\.text)
    }
}

/// Blocks of two programs.
struct ProgramDifference {
    private(set) var changes: [PlannedChange] = []

    init(_ before: Program, _ after: Program) {
        node(before.node, after.node)
        for descriptor in after.catalog.blocks {
            let (old, new) = (blocks(descriptor, before), blocks(descriptor, after))
            for name in Set(old.keys).union(new.keys).sorted() {
                let subject = name.isEmpty ? descriptor.keyword : "\(descriptor.keyword) \(name)"
                compare(subject, old[name], new[name])
            }
        }
    }

    private func blocks(_ descriptor: BlockDescriptor, _ program: Program) -> [String: [String]] {
        Dictionary(
            program.blocks.all(descriptor.kind).map { ($0.name, descriptor.lines(of: $0)) },
            uniquingKeysWith: { first, _ in first })
    }

    private mutating func compare(_ subject: String, _ old: [String]?, _ new: [String]?) {
        guard old != new else { return }
        var change = PlannedChange(.setting, old == nil ? .added : new == nil ? .removed : .changed, subject)
        change.details = old == nil || new == nil ? [] : Self.lines(old ?? [], new ?? [])
        changes.append(change)
    }

    private mutating func node(_ old: NodeSettings, _ new: NodeSettings) {
        let restart = unchangeable(from: old, to: new)
        // `workers 2 -> 4` says it of `workers 2` and `workers 4`.
        let was = nodeLines(old).filter { line in !restart.contains { $0.hasPrefix(line + " -> ") } }
        let now = nodeLines(new).filter { line in
            !restart.contains { setting in
                guard let value = setting.split(separator: " ").last else { return false }
                return line.hasSuffix(" \(value)") && setting.hasPrefix(line.dropLast(value.count))
            }
        }
        let live = Self.lines(was, now)
        if old.name != new.name {
            var change = PlannedChange(.setting, .changed, "node")
            (change.from, change.to) = (old.name, new.name)
            changes.append(change)
        }
        if !live.isEmpty {
            var change = PlannedChange(.setting, .changed, "node \(new.name)")
            change.details = live
            changes.append(change)
        }
        for setting in restart {
            var change = PlannedChange(.setting, .changed, "node \(new.name)")
            change.details = [setting, "needs a restart: a reload keeps what runs"]
            changes.append(change)
        }
    }

    private static let shown = 20

    private static func lines(_ old: [String], _ new: [String]) -> [String] {
        let (was, now) = (Set(old), Set(new))
        let all =
            old.filter { !now.contains($0) }.map { "- \($0)" } + new.filter { !was.contains($0) }.map { "+ \($0)" }
        return Array(all.prefix(shown)) + (all.count > shown ? ["and \(all.count - shown) more"] : [])
    }
}
