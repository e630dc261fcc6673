import FilterBackendSelect
import Pipeline
import PipelineRouting

/// Which backends are to be probed, and how: every one that a route leads to through a pipeline of the program whose stages name
/// a `health` block that probes, or that names one itself. One target for an address and port, and a second one if some routes
/// put a PROXY header in front and others don't. Of several blocks, a route's own holds, by name if there are several; then the
/// one of the pipeline that comes first in the config.
///
/// It follows the table by what changes in it: a change costs the backends of the groups that have changed, not a look at each
/// route.
///
/// R12: what desired state doesn't call ready is in no route's set, so nothing here can put it in.
///
/// Threading: the control thread.
package struct ProbeBook {
    private typealias Key = ProbeTarget.Key

    /// How backends of a group are probed for those of its routes that have the same PROXY setting.
    private struct Use {
        let usesProxy: Bool
        let isText: Bool
        let probing: Entrances.Probing
        let routes: RouteSample
    }

    /// What a group adds to a target.
    private struct Share {
        let number: UInt32
        let use: Use
        let backend: Backend
        /// Backends of later priorities, whose connections end when this one comes back.
        let backups: [UnsafePointer<BackendCell>]
    }

    private struct Group {
        let keys: [Key]
        /// The backends of its first priority.
        let firsts: [UnsafePointer<BackendCell>]
    }

    private var program: Program?
    private var entrances: Entrances?
    private var groups: [UInt32: Group] = [:]
    private var shares: [Key: [Share]] = [:]
    /// Backends that are of some set's first priority: their connections are not a backup's alone. Counted by sets; only
    /// where some block ends backups' connections.
    private var primaries: [UnsafePointer<BackendCell>: Int] = [:]
    private var endsBackups = false
    /// Targets with backups.
    private var withBackups: Set<Key> = []
    /// Keeps what is pointed to here.
    private var table: RouteTableSnapshot?

    package init() {}

    /// What is another target now, since the last call.
    package mutating func follow(_ program: Program, _ routing: RoutingState, _ news: TableNews) -> ProbeChange {
        defer { table = routing.snapshot }
        guard self.program === program else {
            begin(program, routing)
            let all = shares.keys.sorted().compactMap { target($0) }
            return ProbeChange(.all(all), program, routing.snapshot)
        }
        var touched: Set<Key> = []
        guard entrances != nil else { return ProbeChange(.some(put: [], removed: []), program, routing.snapshot) }
        var shifted: Set<UnsafePointer<BackendCell>> = []
        for number in news.groups { take(number, routing, &touched, &shifted) }
        // Whose connections are a backup's alone is another matter now.
        if !shifted.isEmpty { touched.formUnion(withBackups) }
        let keys = touched.sorted()
        return ProbeChange(
            .some(put: keys.compactMap { target($0) }, removed: keys.filter { shares[$0] == nil }), program,
            routing.snapshot)
    }

    private mutating func begin(_ program: Program, _ routing: RoutingState) {
        self = ProbeBook()
        self.program = program
        guard ProbeTargets.areWanted(by: program) else { return }
        entrances = Entrances(program)
        endsBackups = program.blocks.all(of: HealthSettings.self).contains { $0.onUp == .endBackup }
        var (touched, shifted): (Set<Key>, Set<UnsafePointer<BackendCell>>) = ([], [])
        routing.visitGroups { take($0, routing, &touched, &shifted) }
    }

    // MARK: Groups

    private mutating func take(
        _ number: UInt32, _ routing: RoutingState, _ touched: inout Set<Key>,
        _ shifted: inout Set<UnsafePointer<BackendCell>>
    ) {
        forget(number, &touched, &shifted)
        guard let group = routing.servedGroup(number), !group.isSuspended else { return }
        let uses = uses(group)
        guard !uses.isEmpty else { return }
        var keys: [Key] = []
        for backend in group.group.pointee.backends.buffer {
            for use in uses {
                let key = Key(endpoint: backend.address.endpoint, usesProxy: use.usesProxy)
                let ends = use.probing.settings.onUp == .endBackup
                let backups = ends ? ProbeBook.backups(behind: backend, group.group.pointee) : []
                shares[key, default: []].append(Share(number: number, use: use, backend: backend, backups: backups))
                if !backups.isEmpty { withBackups.insert(key) }
                keys.append(key)
            }
        }
        touched.formUnion(keys)
        let firsts = endsBackups ? (group.group.pointee.tiers.buffer.first?.backends.buffer.map(\.cell) ?? []) : []
        for cell in firsts {
            primaries[cell, default: 0] += 1
            if primaries[cell] == 1 { shifted.insert(cell) }
        }
        groups[number] = Group(keys: keys, firsts: firsts)
    }

    private mutating func forget(
        _ number: UInt32, _ touched: inout Set<Key>, _ shifted: inout Set<UnsafePointer<BackendCell>>
    ) {
        guard let group = groups.removeValue(forKey: number) else { return }
        touched.formUnion(group.keys)
        for key in group.keys {
            shares[key]?.removeAll { $0.number == number }
            if shares[key]?.isEmpty ?? false { shares[key] = nil }
            if endsBackups, !(shares[key]?.contains { !$0.backups.isEmpty } ?? false) { withBackups.remove(key) }
        }
        for cell in group.firsts {
            let left = (primaries[cell] ?? 1) - 1
            primaries[cell] = left > 0 ? left : nil
            if left == 0 { shifted.insert(cell) }
        }
    }

    /// One for each PROXY setting of its routes that are probed.
    private func uses(_ group: ServedGroup) -> [Use] {
        guard let entrances else { return [] }
        var found: [Use] = []
        for routes in group.uses {
            guard let probing = entrances.probing(group.group.pointee, routes.use) else { continue }
            let setting = routes.use.flags.intersection([.proxyHeader, .proxyText])
            let use = Use(
                usesProxy: setting.contains(.proxyHeader), isText: setting.contains(.proxyText), probing: probing,
                routes: RouteSample(group) {
                    $0.flags.intersection([.proxyHeader, .proxyText, .proxyMismatch]) == setting
                        && entrances.probing(group.group.pointee, $0) != nil
                })
            if let index = found.firstIndex(where: { $0.usesProxy == use.usesProxy && $0.isText == use.isText }) {
                if use.probing.isLess(than: found[index].probing) { found[index] = use }
            } else {
                found.append(use)
            }
        }
        return found
    }

    private static func backups(behind backend: Backend, _ group: BackendGroup) -> [UnsafePointer<BackendCell>] {
        group.backends.buffer.filter { $0.priority > backend.priority }.map(\.cell)
    }

    // MARK: Targets

    /// Nil: it is none.
    private func target(_ key: ProbeTarget.Key) -> ProbeTarget? {
        guard let all = shares[key], var first = all.first else { return nil }
        var routes = RouteSample()
        var backups: [UnsafePointer<BackendCell>] = []
        for share in all {
            if share.use.probing.isLess(than: first.use.probing) { first = share }
            routes.add(share.use.routes)
            for cell in share.backups where primaries[cell] == nil && !backups.contains(cell) { backups.append(cell) }
        }
        var target = ProbeTarget(first.backend, usesProxy: key.usesProxy, first.use.probing.settings, routes)
        target.proxyIsText = first.use.isText
        target.source = first.use.probing.source
        target.backups = backups
        return target
    }
}
