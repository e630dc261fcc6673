import Pipeline

/// How an object of desired state is applied. Whatever is not simply as desired must outlive a restart with the objects:
/// a node goes on where it ended (R5, R23, R24).
public struct AppliedObject: Sendable, Equatable {
    public enum Version: Sendable, Equatable {
        case desired
        /// The last one that could be read and was used, or would have been but for others.
        case earlier
        case nothing
        /// This text: of a name, that of the entries that hold.
        case text([UInt8])
    }

    public struct Flags: OptionSet, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        /// An instance that is ready and no backend.
        public static let idle = Flags(rawValue: 1)
        /// And its env keeps its address all the same; of an env: it has its dedicated address because it had it.
        public static let holder = Flags(rawValue: 2)
        /// R16: a route whose every connection is refused, because of a version that is not applied.
        public static let mismatched = Flags(rawValue: 4)
    }

    public var version = Version.desired
    public var flags: Flags = []
    /// Of a name that is not as it is desired: the text of its entries that don't hold.
    public var beside: [UInt8] = []

    public init(_ version: Version = .desired, _ flags: Flags = [], beside: [UInt8] = []) {
        self.version = version
        self.flags = flags
        self.beside = beside
    }

    /// It is as it is desired, or gone.
    public var isPlain: Bool { self == AppliedObject() }

    /// What is served by in place of what is desired; nil: that itself; empty: nothing. An instance that is ready and no
    /// backend is in nobody's way.
    var inForce: [UInt8]? {
        if flags.contains(.idle) { return [] }
        switch version {
        case .desired: return nil
        case .earlier, .nothing: return []
        case .text(let text): return text
        }
    }

    /// What there is in place of what is desired, with what doesn't hold; empty: nothing.
    public var text: [UInt8] {
        guard case .text(let text) = version else { return beside }
        return beside.isEmpty ? text : text + [UInt8(ascii: ",")] + beside
    }
}

extension ApplyRun {
    /// How the objects that were decided about are applied; of a run over everything those alone that are not as desired.
    func noteApplied() {
        guard let part = part(of: .state) else { return }
        report.isWhole = scope == nil
        noteRoutes(part)
        noteInstances(part)
        noteEnvs(part)
        noteOrgs()
        noteHostnames(part)
    }

    private func note(_ kind: StateKind, _ id: String, _ applied: AppliedObject) {
        if scope == nil, applied.isPlain { return }
        report.applied[kind, default: [:]][id] = applied
    }

    private func noteRoutes(_ part: Part) {
        for id in scope?.routes ?? [] { note(.route, id, AppliedObject()) }
        // Those with another object that can be read come after.
        for id in part.document.quarantined[.route] ?? [] { note(.route, id, state.kept(route: id)) }
        for version in versions where parts[Int(version.part)].source == .state && !version.isSpare {
            let id = part.document.string(object(version).id)
            note(.route, id, isServed(version) && !version.isTwin ? AppliedObject() : state.kept(route: id))
        }
    }

    private func noteInstances(_ part: Part) {
        for id in scope?.instances ?? [] { note(.instance, id, AppliedObject()) }
        var unread = part.document.quarantined[.instance] ?? []
        if !unread.isEmpty { unread.subtract(part.document.instances.map { part.document.string($0.id) }) }
        unread.formUnion(state.instances.twins.keys)
        for id in unread where scope?.instances.contains(id) ?? true {
            note(
                .instance, id,
                state.instances.records[id].map { AppliedObject(.earlier, $0.flags) } ?? AppliedObject(.nothing))
        }
        // Over all instances there is mostly nothing to say.
        guard scope != nil || state.instances.records.values.contains(where: { !$0.flags.isEmpty }) else { return }
        for object in part.document.instances where object.status == .ready {
            let id = part.document.string(object.id)
            guard !unread.contains(id), let record = state.instances.records[id], !record.flags.isEmpty else {
                continue
            }
            note(.instance, id, AppliedObject(.desired, record.flags))
        }
    }

    private func noteEnvs(_ part: Part) {
        var unread = Set((part.document.quarantined[.env] ?? []).compactMap { state.symbols.intern($0) })
        if !unread.isEmpty { unread.subtract(part.document.envs.map { part.env($0.env) }) }
        unread.formUnion(twinEnvs)
        let decided = (scope?.envs ?? []).union(scope?.assignsAddresses ?? false ? state.ipv4Wishes : [])
        for env in decided { note(.env, state.symbols.string(env), AppliedObject()) }
        for env in unread where scope.map({ $0.envs.contains(env) || $0.assignsAddresses }) ?? true {
            let id = state.symbols.string(env)
            // Without a last good version it is unclear, then as now.
            guard let known = state.envs[env], known.sources & part.bit != 0 else { continue }
            note(.env, id, AppliedObject(.text(known.text(id)), holds(known)))
        }
        for object in part.document.envs {
            let env = part.env(object.env)
            guard !unread.contains(env), let record = state.envs[env] else { continue }
            let id = state.symbols.string(env)
            if record.ipv4 != object.ipv4 {
                note(.env, id, AppliedObject(.text(record.text(id)), holds(record)))
            } else if !holds(record).isEmpty {
                note(.env, id, AppliedObject(.desired, .holder))
            }
        }
    }

    /// It has its address only because it had it: a start must know that.
    private func holds(_ env: RoutingState.EnvRecord) -> AppliedObject.Flags {
        env.ipv4.map { state.disputedIPv4.contains($0) } ?? false ? .holder : []
    }

    private func noteOrgs() {
        for id in scope?.orgs ?? [] { note(.org, id, AppliedObject()) }
        for id in unreadOrgs {
            // Without a last good version it is unclear, then as now.
            guard let org = state.suspension.orgs[id], !org.isUnclear else { continue }
            note(.org, id, AppliedObject(.text(ObjectText.org(id, isSuspended: org.isSuspended))))
        }
    }

    private func noteHostnames(_ part: Part) {
        for name in scope?.hostnames ?? [] where name.kind != .client { note(.hostname, name.whole, AppliedObject()) }
        var others: [NameKey: [HostnameEntries.Entry]] = [:]
        for text in part.document.quarantined[.hostname] ?? [] { others[NameKey(text)] = [] }
        for entry in entries.list where entry.state != .granted { others[name(of: entry)] = [] }
        guard !others.isEmpty else { return }
        for entry in entries.list { others[name(of: entry)]?.append(entry) }
        for (name, entries) in others {
            let holding = text(name, entries.filter { $0.state == .granted })
            let beside = text(name, entries.filter { $0.state != .granted })
            note(.hostname, name.whole, AppliedObject(holding.isEmpty ? .nothing : .text(holding), beside: beside))
        }
    }

    private func text(_ name: NameKey, _ entries: [HostnameEntries.Entry]) -> [UInt8] {
        Array(entries.map { text(name, $0) }.joined(separator: [UInt8(ascii: ",")]))
    }

    private func name(of entry: HostnameEntries.Entry) -> NameKey {
        NameKey(book.names[Int(entry.name)].bytes, book.names[Int(entry.name)].kind)
    }

    private func text(_ name: NameKey, _ entry: HostnameEntries.Entry) -> [UInt8] {
        let isOfDocument = state.symbols.bytes(entry.env).allSatisfy { $0 != 0 }
        let env = isOfDocument ? state.symbols.string(entry.env) : state.owner(entry.env)
        let claimed = entry.rank.number.map { ",\"claimed\":\($0)" } ?? ""
        return Array("{\"hostname\":\"\(name.whole)\",\"env_id\":\(StateExport.quoted(env))\(claimed)}".utf8)
    }
}

extension RoutingState {
    /// A route whose version that is served, if any, is not the one desired.
    fileprivate func kept(route id: String) -> AppliedObject {
        guard let entry = entry(of: id), let current = store.entry(entry).pointee.current,
            store.entry(entry).pointee.source == .state
        else { return AppliedObject(.nothing) }
        return AppliedObject(.earlier, current.pointee.options.contains(.proxyMismatch) ? .mismatched : [])
    }
}

extension InstanceTable.Record {
    fileprivate var flags: AppliedObject.Flags {
        guard status == .ready, !isServing else { return [] }
        return isHolder ? [.idle, .holder] : .idle
    }
}

extension RoutingState.EnvRecord {
    fileprivate func text(_ id: String) -> [UInt8] {
        ObjectText.env(id, app: app, org: org, ipv4, isSuspended: isSuspended, isWithdrawn: isWithdrawn)
    }
}

/// Objects as text, with what decides about others.
enum ObjectText {
    static func env(
        _ id: String, app: String, org: String, _ ipv4: IPAddress?, isSuspended: Bool, isWithdrawn: Bool
    ) -> [UInt8] {
        let address = ipv4.map { "\"\($0)\"" } ?? "null"
        let suspended = (isSuspended ? ",\"suspended\":true" : "") + (isWithdrawn ? ",\"withdrawn\":true" : "")
        let (id, app, org) = (StateExport.quoted(id), StateExport.quoted(app), StateExport.quoted(org))
        return Array(
            "{\"env_id\":\(id),\"app_id\":\(app),\"org_id\":\(org),\"ipv4_address\":\(address)\(suspended)}".utf8)
    }

    static func org(_ id: String, isSuspended: Bool) -> [UInt8] {
        Array("{\"org_id\":\(StateExport.quoted(id)),\"suspended\":\(isSuspended)}".utf8)
    }
}
