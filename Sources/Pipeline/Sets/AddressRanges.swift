import Pipeline

/// A set of addresses as the data path asks for it. Same ownership as ``FrozenArray``.
public struct AddressRanges: Sendable {
    public let table: PrefixTable?

    public var isEmpty: Bool { table == nil }

    /// IPv4 prefixes lie in the IPv4-mapped space, so `::/0` holds every address of both families. Of more prefixes than
    /// a ``PrefixTable`` can hold nothing is held.
    public init(_ prefixes: some Collection<Prefix>) {
        table = prefixes.isEmpty ? nil : PrefixTable([(Array(prefixes), 0)])
    }

    @inlinable public func contains(_ address: IPAddress) -> Bool {
        guard let table else { return false }
        return table.value(of: address) != PrefixTable.none
    }

    public func deallocate() { table?.deallocate() }
}
