/// Who an instance is (R19), as desired state says.
///
/// Threading: immutable but for ``users``. Ownership: the routing side, which keeps it for as long as a directory names it or
/// ``users`` counts a connection.
public struct InstanceIdentity: ~Copyable {
    /// Identifies this (instance, env, app, org) for the life of the process, in every snapshot.
    public let number: UInt32
    public let id: FrozenText
    public let env: FrozenText
    public let app: FrozenText
    public let org: FrozenText
    public let tenant: TenantNumbers
    /// R30: its env, or that's org, is suspended: it gets no connection out.
    public let isSuspended: Bool
    /// Connections that pin it.
    public let users = ReservationCount()

    public init(
        number: UInt32, id: FrozenText, env: FrozenText, app: FrozenText, org: FrozenText,
        tenant: TenantNumbers = .unknown, isSuspended: Bool = false
    ) {
        self.tenant = tenant
        self.isSuspended = isSuspended
        self.number = number
        self.id = id
        self.env = env
        self.app = app
        self.org = org
    }

    /// The number of an unknown instance.
    public static let unknown = UInt32.max

    /// Frees the texts.
    public func deallocate() {
        for text in [id, env, app, org] { text.deallocate() }
    }
}

/// The instances of this node by address (R19). Flat memory, trivially copyable.
///
/// Threading: made by the control side, any number of readers. Ownership: the creator calls ``deallocate()`` after the
/// last reader; the identities are the caller's own. ``empty`` owns nothing.
public struct InstanceDirectory: @unchecked Sendable {
    private struct Slot {
        let address: IPAddress
        /// Nil: the slot is free.
        let identity: UnsafePointer<InstanceIdentity>?
    }

    private struct Header {
        /// Open addressing, a power of two, at most half full.
        let slots: FrozenArray<Slot>
        let identities: FrozenArray<UnsafePointer<InstanceIdentity>>
    }

    private let header: UnsafeMutablePointer<Header>?

    private init(header: UnsafeMutablePointer<Header>?) { self.header = header }

    /// Nobody is known.
    public static let empty = InstanceDirectory(header: nil)

    /// - Parameter addresses: each address once; `identity` is an index into `identities`.
    public init(_ identities: [UnsafePointer<InstanceIdentity>], addresses: [(address: IPAddress, identity: Int)]) {
        let frozen = FrozenArray(identities)
        var size = 2
        while size < addresses.count * 2 { size *= 2 }
        var slots = [Slot](repeating: Slot(address: .unspecified, identity: nil), count: size)
        for (address, identity) in addresses where frozen.storage.indices.contains(identity) {
            var position = InstanceDirectory.home(address) & (size - 1)
            while slots[position].identity != nil { position = (position + 1) & (size - 1) }
            slots[position] = Slot(address: address, identity: frozen[identity])
        }
        let header = UnsafeMutablePointer<Header>.allocate(capacity: 1)
        header.initialize(to: Header(slots: FrozenArray(slots), identities: frozen))
        self.header = header
    }

    /// Only the operator's own addresses are in the table, so no client can fill it unevenly.
    private static func home(_ address: IPAddress) -> Int { Int(truncatingIfNeeded: Hashing.address(address)) }

    /// The instance with `address`; valid as long as the directory, or as it is pinned. Nil: no instance here has it.
    public func identity(of address: IPAddress) -> UnsafePointer<InstanceIdentity>? {
        guard let header else { return nil }
        let slots = header.pointee.slots
        let mask = slots.count &- 1
        var position = InstanceDirectory.home(address) & mask
        while let found = slots.pointer(position).pointee.identity {
            if slots.pointer(position).pointee.address == address { return found }
            position = (position &+ 1) & mask
        }
        return nil
    }

    /// Its number, see ``InstanceIdentity/number``.
    public func find(_ address: IPAddress) -> UInt32? { identity(of: address)?.pointee.number }

    /// All that are known, in no particular order: for the control side.
    public var identities: UnsafeBufferPointer<UnsafePointer<InstanceIdentity>> {
        header?.pointee.identities.buffer ?? UnsafeBufferPointer(start: nil, count: 0)
    }

    /// Every instance address: for the control side.
    public var addresses: [(address: IPAddress, number: UInt32)] {
        header?.pointee.slots.buffer.compactMap { slot in slot.identity.map { (slot.address, $0.pointee.number) } }
            ?? []
    }

    /// Frees the tables, not the identities.
    public func deallocate() {
        guard let header else { return }
        header.pointee.slots.deallocate()
        header.pointee.identities.deallocate()
        header.deinitialize(count: 1)
        header.deallocate()
    }
}
