import Pipeline

/// Which envs and orgs are suspended (R30): the routes of a suspended one stay, and own their names, but get no connection.
struct Suspension {
    /// What `orgs` says of one.
    struct Org: Equatable {
        var isSuspended: Bool
        /// Its only object can't be used, and none before could: it counts as suspended until it is known.
        var isUnclear = false
    }

    /// By id; what it says is the last good version.
    var orgs: [String: Org] = [:]
    /// Envs that are suspended, by themselves or with their org, or withdrawn.
    fileprivate(set) var envs: Set<UInt32> = []
    /// Of those, the ones that are withdrawn alone: their old connections go on.
    fileprivate var withdrawn: Set<UInt32> = []
    fileprivate(set) var suspendedOrgs: Set<String> = []
    /// For tables; nil: there are none.
    fileprivate(set) var list: SuspendedEnvs?
    /// The next table has others.
    var hasChanged = false

    mutating func set(_ envs: Set<UInt32>) {
        guard envs != self.envs else { return }
        self.envs = envs
        list = envs.isEmpty ? nil : SuspendedEnvs(envs)
        hasChanged = true
    }
}

/// The numbers of suspended envs, sorted, shared by the snapshots between two changes of them.
final class SuspendedEnvs {
    let numbers: FrozenArray<UInt32>
    init(_ envs: Set<UInt32>) { numbers = FrozenArray(envs.sorted()) }
    deinit { numbers.deallocate() }
}

extension FrozenArray<UInt32> {
    /// Of numbers in order.
    func hasSorted(_ number: UInt32) -> Bool {
        var (low, high) = (0, count)
        while low < high {
            let middle = (low + high) / 2
            if self[middle] < number { low = middle + 1 } else { high = middle }
        }
        return low < count && self[low] == number
    }
}

extension RoutingState {
    /// Suspended envs and orgs, for people: an env's path; an org alone by its id. Envs of a suspended org are not listed.
    public var suspended: (orgs: [String], envs: [String]) {
        let own = suspension.envs.compactMap { env -> String? in
            guard let record = envs[env], !suspension.suspendedOrgs.contains(record.org) else { return nil }
            return record.isSuspended ? record.path : "\(record.path) (withdrawn)"
        }
        return (suspension.suspendedOrgs.sorted(), own.sorted())
    }

    /// Groups of these envs are news to who follows tables: they are probed again, or no more.
    fileprivate func noteGroups(of envs: Set<UInt32>) {
        guard !envs.isEmpty else { return }
        var numbers: [UInt32] = []
        groups.visit { number, group in if envs.contains(group.key.env) { numbers.append(number) } }
        for number in numbers { groups.note(number) }
    }

    /// The numbers by which connections of this env and org are ended, whatever the env is called later.
    func tenant(_ env: UInt32, org: String) -> TenantNumbers {
        TenantNumbers(env: env, org: symbols.intern(org) ?? RouteEntry.none)
    }
}

extension ApplyRun {
    /// R30: takes what the document says of orgs.
    func applyOrgs() {
        guard let part = part(of: .state), scope?.orgs.isEmpty != true else { return }
        let before = state.suspension.orgs
        var orgs = scope == nil ? [:] : before
        for id in scope?.orgs ?? [] { orgs[id] = nil }
        var versions: [String: [OrgObject]] = [:]
        for object in part.document.orgs { versions[part.document.string(object.org), default: []].append(object) }
        unreadOrgs = (part.document.quarantined[.org] ?? []).subtracting(versions.keys)
        for (id, all) in versions.sorted(by: { $0.key < $1.key }) {
            let isSame = all.allSatisfy { $0.suspended == all[0].suspended }
            for object in isSame ? all.dropFirst() : all[...] {
                problemTwice(
                    .org, id, "org_id", object.place.origin(part.source), isSame: isSame, kept: before[id] != nil)
            }
            if isSame {
                orgs[id] = Suspension.Org(isSuspended: all[0].suspended)
            } else {
                unreadOrgs.insert(id)
            }
        }
        for id in unreadOrgs.sorted() {
            // R24: what can't be used changes nothing; what never could counts as suspended.
            let known = before[id] ?? Suspension.Org(isSuspended: true, isUnclear: true)
            orgs[id] = known
            guard known.isUnclear else { continue }
            problem(
                .warning, .org, id, "suspended", nil, "is not known, so the org counts as suspended",
                remedy: "correct its object")
        }
        state.suspension.orgs = orgs
    }

    /// R30: whose new connections are refused from the next table on, and whose old ones are to be ended.
    func settleSuspension() {
        if let scope, scope.envs.isEmpty, scope.orgs.isEmpty { return }
        let (envsBefore, orgsBefore) = (state.suspension.envs, state.suspension.suspendedOrgs)
        let endedBefore = envsBefore.subtracting(state.suspension.withdrawn)
        if scope?.orgs.isEmpty != true {
            state.suspension.suspendedOrgs = Set(state.suspension.orgs.filter(\.value.isSuspended).keys)
        }
        let orgs = state.suspension.suspendedOrgs
        if let scope, orgs == orgsBefore {
            let suspended = scope.envs.filter(isClosed)
            state.suspension.set(envsBefore.subtracting(scope.envs).union(suspended))
        } else {
            state.suspension.set(Set(state.envs.keys.filter(isClosed)))
        }
        let envs = state.suspension.envs
        state.suspension.withdrawn = envs.filter { !isSuspended($0) }
        let ended = envs.subtracting(state.suspension.withdrawn)
        guard envs != envsBefore || ended != endedBefore || orgs != orgsBefore else { return }
        state.noteGroups(of: envs.symmetricDifference(envsBefore))
        state.drains.cancel(
            tenants: endedBefore.subtracting(ended).map { .env($0) } + orgsBefore.subtracting(orgs).map(target), store)
        for env in ended.subtracting(endedBefore).sorted() {
            state.drains.add(.env(env), name: state.owner(env), apply: state.applies)
        }
        // Of those whose env is gone by now.
        for org in orgs.subtracting(orgsBefore).sorted() {
            state.drains.add(target(org), name: org, apply: state.applies)
        }
    }

    /// It gets no new connection.
    private func isClosed(_ env: UInt32) -> Bool {
        guard let record = state.envs[env], record.sources != 0 else { return false }
        return record.isWithdrawn || isSuspended(env)
    }

    private func isSuspended(_ env: UInt32) -> Bool {
        guard let record = state.envs[env], record.sources != 0 else { return false }
        return record.isSuspended || state.suspension.suspendedOrgs.contains(record.org)
    }

    private func target(_ org: String) -> RouteDrain.Target { .org(state.symbols.intern(org) ?? RouteEntry.none) }
}
