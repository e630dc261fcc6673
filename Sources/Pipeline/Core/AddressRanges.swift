/// A set of addresses as the data path asks for it. Same ownership as ``FrozenArray``.
package struct AddressRanges: Sendable {
    package let table: PrefixTable?

    package var isEmpty: Bool { table == nil }

    /// IPv4 prefixes lie in the IPv4-mapped space, so `::/0` holds every address of both families. Of more prefixes than
    /// a ``PrefixTable`` can hold nothing is held.
    package init(_ prefixes: some Collection<Prefix>) {
        table = prefixes.isEmpty ? nil : PrefixTable([(Array(prefixes), 0)])
    }

    @inlinable package func contains(_ address: IPAddress) -> Bool {
        guard let table else { return false }
        return table.value(of: address) != PrefixTable.none
    }

    package func deallocate() { table?.deallocate() }
}
