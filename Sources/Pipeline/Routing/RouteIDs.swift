import Pipeline

/// Entries by the ids of their routes: those of a mapped table by its own index, others by one in memory.
struct RouteIDs {
    private var made = HashIndex()
    private(set) var mapped: MappedTable?
    /// Of the mapped table those that are known no more. A number that another route has since stays among them.
    private var gone: Set<UInt32> = []

    /// None was there yet.
    var isUnused: Bool { made.count == 0 && mapped == nil }

    /// - Parameter hash: in the domain 3.
    @inline(__always) func find(_ hash: UInt64, where matches: (UInt32) -> Bool) -> UInt32? {
        if let found = made.find(hash, where: matches) { return found }
        return mapped?.find(hash) { !gone.contains($0) && matches($0) }
    }

    mutating func reserve(_ more: Int) { made.reserve(more) }
    mutating func insert(_ hash: UInt64, _ number: UInt32) { made.insert(hash, number) }

    mutating func remove(_ hash: UInt64, _ number: UInt32) {
        made.remove(hash, number)
        if let mapped, number <= mapped.count { gone.insert(number) }
    }

    mutating func adopt(_ table: MappedTable) { mapped = table }
}
