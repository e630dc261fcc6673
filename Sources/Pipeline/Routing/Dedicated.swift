import Pipeline

/// An env's dedicated address with a port of its routes (R9).
public struct DedicatedListener: Hashable, Sendable {
    public let address: IPAddress
    public let port: UInt16
    public let hint: ProtocolHint
    public let env: EnvName
}

/// Dedicated addresses and their routes (R9). Flat memory, immutable; part of a ``RouteTable``.
struct DedicatedTable {
    /// A dedicated address with a port; port 0 stands for the address itself.
    struct Slot {
        let key: UInt64
        /// Nil: it was an env's lately, and is nobody's yet (R31).
        let owner: UnsafePointer<RouteOwner>?
        /// Nil: none, or several.
        let sole: UnsafePointer<TableRoute>?

        init(_ endpoint: Endpoint, owner: UnsafePointer<RouteOwner>?, sole: UnsafePointer<TableRoute>?) {
            key = DedicatedTable.key(endpoint.address, endpoint.port)
            self.owner = owner
            self.sole = sole
        }
    }

    /// Where a connection to such a destination stands.
    struct Place {
        /// Nil: nobody is served there.
        let owner: UnsafePointer<RouteOwner>?
        let port: UInt16
        let sole: UnsafePointer<TableRoute>?

        /// All routes of an env in one table share its owner.
        @inline(__always) func serves(_ route: UnsafePointer<TableRoute>, _ groups: SlotLookup) -> Bool {
            route.pointee.options.contains(.ipv4Required) && groups[route.pointee.group].owner == owner
        }
    }

    /// By key.
    private let slots: FrozenArray<Slot>

    init(_ slots: [Slot]) { self.slots = FrozenArray(slots.sorted { $0.key < $1.key }) }

    func deallocate() { slots.deallocate() }
    @inline(__always) var isEmpty: Bool { slots.isEmpty }

    private static func key(_ address: IPAddress, _ port: UInt16) -> UInt64 {
        UInt64(address.v4Bits) << 16 | UInt64(port)
    }

    /// Nil: the address is not dedicated.
    func find(_ destination: Endpoint) -> Place? {
        guard destination.address.isIPv4, let whole = slot(DedicatedTable.key(destination.address, 0)) else {
            return nil
        }
        let here = slot(DedicatedTable.key(destination.address, destination.port))
        return Place(owner: whole.pointee.owner, port: destination.port, sole: here?.pointee.sole)
    }

    private func slot(_ key: UInt64) -> UnsafePointer<Slot>? {
        var (low, high) = (0, slots.count)
        while low < high {
            let middle = (low + high) / 2
            if slots.pointer(middle).pointee.key < key { low = middle + 1 } else { high = middle }
        }
        guard low < slots.count, slots.pointer(low).pointee.key == key else { return nil }
        return slots.pointer(low)
    }
}

extension RoutingState.EnvRecord {
    var owner: UnsafePointer<RouteOwner> { UnsafeRawPointer(box).assumingMemoryBound(to: RouteOwner.self) }
}
