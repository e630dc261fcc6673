import Synchronization

/// Where connections to backends come from, for the data path: a ``SourceSpec`` in raw memory.
///
/// Threading: immutable but for whose turn it is; all workers. Ownership: whoever has made it (``make(_:)``), a stage's
/// settings or a node's ``RoutePolicy``; a connection that refers to it pins the program, and policies live as long as the
/// node.
public struct SourceAddresses: ~Copyable, @unchecked Sendable {
    /// For the control side.
    public let spec: SourceSpec
    private let v4: FrozenArray<IPAddress>
    private let v6: FrozenArray<IPAddress>
    /// Of the first address, IPv4 ones first; 0: there was none left.
    private let firstNumber: UInt32
    private let turn4 = Atomic<UInt32>(0)
    private let turn6 = Atomic<UInt32>(0)

    /// One more than were ever given away.
    private static let numbers = Atomic<UInt32>(1)

    private init(_ spec: SourceSpec) {
        self.spec = spec
        v4 = FrozenArray(spec.addresses(isIPv4: true))
        v6 = FrozenArray(spec.addresses(isIPv4: false))
        firstNumber = SourceAddresses.take(UInt32(v4.count + v6.count))
        isClient = spec == .client
        isKernel = spec == .kernel
    }

    /// Numbers are given once in a process: beyond them all addresses have 0.
    private static func take(_ count: UInt32) -> UInt32 {
        let (first, next) = numbers.wrappingAdd(count, ordering: .relaxed)
        guard next >= first else {
            numbers.store(.max, ordering: .relaxed)
            return 0
        }
        return first
    }

    /// The client's own address.
    public let isClient: Bool
    /// The kernel chooses.
    public let isKernel: Bool

    public static func make(_ spec: SourceSpec) -> UnsafePointer<SourceAddresses> {
        let memory = UnsafeMutablePointer<SourceAddresses>.allocate(capacity: 1)
        memory.initialize(to: SourceAddresses(spec))
        return UnsafePointer(memory)
    }

    /// What ``make(_:)`` has made.
    public static func free(_ addresses: UnsafePointer<SourceAddresses>) {
        addresses.pointee.v4.deallocate()
        addresses.pointee.v6.deallocate()
        UnsafeMutablePointer(mutating: addresses).deinitialize(count: 1).deallocate()
    }

    // MARK: For workers

    /// How many there are for a backend of that family.
    public func count(isIPv4: Bool) -> Int { isIPv4 ? v4.count : v6.count }

    /// Where the next connection to a backend of that family tries first: below ``count(isIPv4:)``, which is not 0.
    public func nextTurn(isIPv4: Bool) -> Int {
        let turn =
            isIPv4
            ? turn4.wrappingAdd(1, ordering: .relaxed).oldValue : turn6.wrappingAdd(1, ordering: .relaxed).oldValue
        return Int(turn) % max(1, count(isIPv4: isIPv4))
    }

    /// - Parameter place: below ``count(isIPv4:)``.
    /// - Returns: the address, and its number, which no other one has in this process; 0: it has none.
    public func address(_ place: Int, isIPv4: Bool) -> (address: IPAddress, number: UInt32) {
        let number = firstNumber == 0 ? 0 : firstNumber + UInt32(place + (isIPv4 ? 0 : v4.count))
        return (isIPv4 ? v4[place] : v6[place], number)
    }

    /// Whether a client can be connected to a backend.
    public func reaches(_ backend: Endpoint, from client: IPAddress) -> Bool {
        if isKernel || backend.isUnixSocket { return true }
        let isIPv4 = backend.address.isIPv4
        return isClient ? client.isIPv4 == isIPv4 : count(isIPv4: isIPv4) > 0
    }
}
