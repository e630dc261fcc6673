import Pipeline

/// What of a route matters to those who look after its backends: where its clients come in, and its PROXY setting.
public struct RouteUse: Hashable, Sendable {
    public let port: UInt16
    /// Of ``Route/Flags`` those that ``mattering`` has.
    public let flags: Route.Flags

    private static let mattering: Route.Flags = [.raw, .proxyHeader, .proxyText, .proxyMismatch]

    init(port: UInt16, _ options: RouteOptions) { self.init(port: port, options.flags) }

    init(port: UInt16, _ flags: Route.Flags) {
        self.port = port
        self.flags = flags.intersection(RouteUse.mattering)
    }
}

/// How many routes of a group have one use. The names and ports of one route of a config file are several entries, and one
/// route.
public struct RoutesOfUse: Sendable {
    public let use: RouteUse
    /// Routes with one name.
    public fileprivate(set) var single: UInt32 = 0
    /// Those that may have several, by the address of their cell: how many entries each has here.
    fileprivate var entries: [UInt: UInt32] = [:]

    public var several: some Collection<UInt> { entries.keys }
    fileprivate var isEmpty: Bool { single == 0 && entries.isEmpty }

    fileprivate init(_ use: RouteUse, single: UInt32 = 0) { (self.use, self.single) = (use, single) }

    fileprivate mutating func add(_ shared: UnsafePointer<RouteCell>?) {
        if let shared { entries[UInt(bitPattern: shared), default: 0] += 1 } else { single += 1 }
    }

    fileprivate mutating func remove(_ shared: UnsafePointer<RouteCell>?) {
        guard let shared else {
            single -= 1
            return
        }
        let key = UInt(bitPattern: shared)
        let left = (entries[key] ?? 1) - 1
        entries[key] = left > 0 ? left : nil
    }
}

/// The routes of a group, counted by use: mostly all have one.
struct GroupUses {
    private var first: RoutesOfUse?
    private var more: [RoutesOfUse] = []

    var list: [RoutesOfUse] { (first.map { [$0] } ?? []) + more }

    init() {}

    /// Of routes with one name each.
    init(_ uses: [(use: RouteUse, count: UInt32)]) {
        let list = uses.map { RoutesOfUse($0.use, single: $0.count) }
        (first, more) = (list.first, Array(list.dropFirst()))
    }

    /// - Parameter cell: nil: the route's own.
    mutating func add(_ use: RouteUse, _ cell: UnsafePointer<RouteCell>?) {
        if first == nil { first = RoutesOfUse(use) }
        guard first?.use != use else {
            first?.add(cell)
            return
        }
        let index = more.firstIndex { $0.use == use } ?? more.count
        if index == more.count { more.append(RoutesOfUse(use)) }
        more[index].add(cell)
    }

    mutating func remove(_ use: RouteUse, _ cell: UnsafePointer<RouteCell>?) {
        if first?.use == use {
            first?.remove(cell)
            if first?.isEmpty ?? false { first = more.popLast() }
        } else if let index = more.firstIndex(where: { $0.use == use }) {
            more[index].remove(cell)
            if more[index].isEmpty { more.remove(at: index) }
        }
    }
}
