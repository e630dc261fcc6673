import Pipeline

/// What has changed in tables since it was last taken, for those who follow them: in proportion to the changes, not to what
/// there is.
public struct TableNews: Sendable {
    /// Groups that came, went, or have other backends, other routes or another owner. Each once.
    public var groups: [UInt32]
    /// R19: the node's instances are others, or have other owners or addresses.
    public var hasOtherInstances: Bool
}

/// A group of the newest table, and the routes that lead to it. Valid until the next change.
public struct ServedGroup {
    /// Never that of an earlier group of the same number.
    public let identity: UInt64
    public let group: UnsafePointer<BackendGroup>
    public let owner: EnvName
    /// R30: its routes get no connection.
    public let isSuspended: Bool
    public let uses: [RoutesOfUse]
    fileprivate let entries: GroupEntries
    fileprivate let store: RouteStore

    /// Its routes' ids, each once, out of the first few of those that a use takes in.
    /// - Parameter limit: of ids.
    public func someRoutes(_ limit: Int, where isMeant: (RouteUse) -> Bool = { _ in true }) -> [FrozenText] {
        var found: [FrozenText] = []
        for routes in uses where isMeant(routes.use) {
            for cell in routes.several.prefix(limit - found.count) {
                guard let cell = UnsafePointer<RouteCell>(bitPattern: cell) else { continue }
                if !found.contains(where: { $0.buffer.baseAddress == cell.pointee.id.buffer.baseAddress }) {
                    found.append(cell.pointee.id)
                }
            }
        }
        var looks = 0
        entries.visit { entry in
            guard found.count < limit, looks < ServedGroup.looksLimit else { return false }
            if let current = store.current(entry), !current.pointee.isShared, isMeant(current.pointee.use) {
                found.append(store.entries.name(entry).pointee.text)
            }
            looks += 1
            return true
        }
        return found
    }
    private static let looksLimit = 64

    /// The id of a route of a config file that leads here; nil: routes of desired state do.
    public var configRoute: FrozenText? {
        guard entries.head != RouteEntry.none else { return nil }
        let cell = store.cell(entries.head)
        return cell.pointee.isShared ? cell.pointee.id : nil
    }
}

extension RoutingState {
    /// What has changed since the last call. For one follower, which tells others.
    public func takeNews() -> TableNews {
        defer { hasOtherInstances = false }
        return TableNews(groups: groups.takeNews(), hasOtherInstances: hasOtherInstances)
    }

    /// Numbers of all groups.
    public func visitGroups(_ body: (UInt32) -> Void) { groups.visit { number, _ in body(number) } }

    /// Nil: the number has no group now.
    public func servedGroup(_ number: UInt32) -> ServedGroup? {
        guard let box = groups.box(number) else { return nil }
        let group = groups[number]
        return ServedGroup(
            identity: groups.identity(number), group: box.asGroup,
            owner: envs[group.key.env]?.identity ?? EnvName(org: "", app: "", env: ""),
            isSuspended: suspension.envs.contains(group.key.env), uses: groups.uses(number),
            entries: groups.entries(number, store), store: store)
    }

    /// Each name and port of a group's routes. Valid until the next change.
    public func visitRoutes(of number: UInt32, _ body: (FoundRoute) -> Void) {
        guard groups.box(number) != nil else { return }
        let table = snapshot.table.pointee
        groups.entries(number, store).visit { entry in
            if let current = store.current(entry) { body(table.found(current)) }
            return true
        }
    }
}
