import Pipeline

/// A route as a test writes it.
package struct FakeRoute {
    package var id: String
    package var org = "org_1"
    package var app = "app_1"
    package var env: String
    /// Empty: a raw route, found by port alone.
    package var hosts: [String]
    package var port: UInt16 = 443
    package var backends: [String]
    package var flags: Route.Flags = []
    /// The ALPN protocol that it asks for; nil: none.
    package var alpn: String?
    /// What first bytes it takes that are no TLS; nil: it is found by name or port.
    package var client: ClientProtocol?
    package var balance: Balance?
    package var maxConnections: UInt32 = 0
    package var isSuspended = false
    /// Its `backends` block; empty: none.
    package var group = ""
    package var groupMaxConnections: UInt32 = 0
    /// One for each backend; empty: all 1.
    package var weights: [UInt16] = []
    /// The most connections to each backend; 0: no limit.
    package var backendLimit: UInt32 = 0
    /// One for each backend, ascending; empty: all 0.
    package var priorities: [UInt8] = []
    /// What it says of waits; nil: nothing. To outlive the routes.
    package var policy: UnsafePointer<RoutePolicy>?
    /// Makes the tables of one priority.
    package var tables: (FrozenArray<Backend>) -> BalanceTables = { _ in BalanceTables() }

    package init(
        _ id: String, env: String = "env_1", hosts: [String] = [], port: UInt16 = 443,
        backends: [String] = ["[fd00::10]:8443"],
        flags: Route.Flags = []
    ) {
        self.id = id
        self.env = env
        self.hosts = hosts
        self.port = port
        self.backends = backends
        self.flags = flags
    }
}

/// A route table of a few routes: exact names, and the only route of a port. Frees what it handed out when it goes,
/// so it must outlive every fact that points into it.
package final class FakeRoutes {
    private struct Entry {
        let hosts: [String]
        let alpn: String?
        let client: ClientProtocol?
        let route: Route
        let id: CountedText
        let owner: UnsafeMutablePointer<RouteOwner>
        let group: UnsafeMutablePointer<BackendGroup>
        let turns: UnsafeMutablePointer<GroupCell>
        let cells: UnsafeMutablePointer<BackendCell>
        let cell: UnsafeMutablePointer<RouteCell>

        var found: FoundRoute { FoundRoute(route, group) }
    }

    private var entries: [Entry] = []

    package init() {}

    /// Adds a route; the answer is where it is.
    @discardableResult package func add(_ fake: FakeRoute) -> FoundRoute {
        let owner = UnsafeMutablePointer<RouteOwner>.allocate(capacity: 1)
        owner.initialize(
            to: RouteOwner(
                org: FrozenText(fake.org), app: FrozenText(fake.app), env: FrozenText(fake.env),
                tenant: fake.isSuspended ? Lookup.suspended : .unknown))
        let cells = UnsafeMutablePointer<BackendCell>.allocate(capacity: max(1, fake.backends.count))
        for index in fake.backends.indices {
            (cells + index).initialize(to: BackendCell(FilterHarness.endpoint(fake.backends[index])))
        }
        let turns = UnsafeMutablePointer<GroupCell>.allocate(capacity: 1)
        turns.initialize(to: GroupCell(name: FrozenText(fake.group)))
        let group = UnsafeMutablePointer<BackendGroup>.allocate(capacity: 1)
        let backends = fake.backends.enumerated().map { index, text in
            Backend(
                address: BackendAddress(FilterHarness.endpoint(text)), instance: FrozenText("i-\(index)"),
                cell: UnsafePointer(cells + index),
                weight: index < fake.weights.count ? fake.weights[index] : 1, maxConnections: fake.backendLimit,
                priority: index < fake.priorities.count ? fake.priorities[index] : 0)
        }
        group.initialize(
            to: BackendGroup(
                backends: FrozenArray(backends), cell: turns, maxConnections: fake.groupMaxConnections,
                policy: fake.policy, tables: fake.tables))
        let id = CountedText(fake.id)
        let cell = UnsafeMutablePointer<RouteCell>.allocate(capacity: 1)
        cell.initialize(to: RouteCell(id: id))
        let route = Route(
            owner: owner, slot: UInt32(entries.count), cell: cell, port: fake.port, flags: fake.flags,
            balance: fake.balance, maxConnections: fake.maxConnections)
        entries.append(
            Entry(
                hosts: fake.hosts, alpn: fake.alpn, client: fake.client, route: route, id: id, owner: owner,
                group: group,
                turns: turns, cells: cells, cell: cell))
        return FoundRoute(route, group)
    }

    /// Valid while this object lives.
    package var handle: RouteTableHandle {
        RouteTableHandle(Lookup.self, table: UnsafeRawPointer(Unmanaged.passUnretained(self).toOpaque()))
    }

    private enum Lookup: RouteLookup {
        static let suspended = TenantNumbers(env: 1, org: 1)
        static func isSuspended(_ tenant: TenantNumbers, in table: UnsafeRawPointer) -> Bool { tenant == suspended }

        static func named(
            _ name: UnsafeBufferPointer<UInt8>, at destination: DestinationAddress, in table: UnsafeRawPointer
        ) -> FoundRoute? {
            named(name, offering: .none, at: destination, in: table)
        }

        static func named(
            _ name: UnsafeBufferPointer<UInt8>, offering protocols: ALPNList, at destination: DestinationAddress,
            in table: UnsafeRawPointer
        ) -> FoundRoute? {
            let wanted = String(decoding: name, as: UTF8.self)
            let all = routes(table, at: destination).filter { $0.hosts.contains(wanted) }
            let chosen = protocols.first { alpn in all.first { $0.alpn == String(decoding: alpn, as: UTF8.self) } }
            return (chosen ?? all.first { $0.alpn == nil }).map(\.found)
        }

        static func speaking(
            _ client: ClientProtocol, at destination: DestinationAddress, in table: UnsafeRawPointer
        ) -> FoundRoute? {
            routes(table, at: destination).first { $0.client == client }.map(\.found)
        }

        static func sole(at destination: DestinationAddress, in table: UnsafeRawPointer) -> FoundRoute? {
            let possible = routes(table, at: destination)
            guard possible.count == 1, possible[0].alpn == nil, possible[0].client == nil else { return nil }
            return possible[0].found
        }

        private static func routes(_ table: UnsafeRawPointer, at destination: DestinationAddress) -> [Entry] {
            Unmanaged<FakeRoutes>.fromOpaque(table).takeUnretainedValue().entries
                .filter { $0.route.port == destination.endpoint.port }
        }
    }

    deinit {
        for entry in entries {
            entry.id.deallocate()
            entry.owner.pointee.deallocateTexts()
            let count = entry.group.pointee.backends.count
            for backend in entry.group.pointee.backends.buffer { backend.instance.deallocate() }
            entry.group.pointee.deallocate()
            entry.cells.deinitialize(count: count).deallocate()
            entry.owner.deinitialize(count: 1).deallocate()
            entry.group.deinitialize(count: 1).deallocate()
            entry.turns.pointee.name.deallocate()
            entry.turns.deinitialize(count: 1).deallocate()
            entry.cell.deinitialize(count: 1).deallocate()
        }
    }
}
