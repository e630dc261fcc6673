import Pipeline

/// Entries of a mapped table, which most never have one of their own made.
extension RouteStore {
    /// One of a mapped table is made when it is asked for.
    @inline(__always) func entry(_ index: UInt32) -> UnsafeMutablePointer<RouteEntry> {
        if index <= mappedLast, !isMade(index) { makeMapped(index) }
        return entries.entry(index)
    }

    /// False: nobody has asked for it, and it is as the mapped table has it.
    @inline(__always) func isMade(_ index: UInt32) -> Bool { entries.entry(index).pointee.isMade }

    @inline(never) private func makeMapped(_ index: UInt32) {
        allocated()
        var entry = RouteEntry(ownsID: false)
        entry.current = mapped?.route(index)
        entry.references = 1
        entry.isInRange = true
        entries.entry(index).initialize(to: entry)
    }

    /// Where the newest table has the entry; nil: nowhere. Makes none.
    @inline(__always) func current(_ index: UInt32) -> UnsafePointer<TableRoute>? {
        index <= mappedLast && !isMade(index) ? mapped?.route(index) : entries.entry(index).pointee.current
    }

    /// Only the control side knows of it now.
    func endLife(_ index: UInt32) { if isMade(index) { entries.entry(index).pointee.isLive = false } }

    /// Takes the numbers of a mapped table, before any other.
    /// - Returns: false: there is no memory for them, and nothing was changed.
    func adopt(_ table: MappedTable) -> Bool {
        guard used == 1, mapped == nil else { return false }
        for number in 1...table.count {
            guard number <= mostNumbers, entries.grow(to: number) else {
                entries.shrink(to: 1, from: number)
                return false
            }
        }
        table.visitIDs { entries.name($0).initialize(to: $1) }
        (mapped, mappedLast, used) = (table, table.count, table.count + 1)
        mappedReferences = Array(repeating: 0, count: table.shardCount)
        return true
    }

    // MARK: Shards

    func retain(_ shard: RouteShard.Pointer) {
        if let place = mapped?.place(of: shard) {
            mappedReferences[place] += 1
        } else {
            shard.pointee.references += 1
        }
    }

    func release(_ shard: RouteShard.Pointer) {
        if let mapped, let place = mapped.place(of: shard) {
            mappedReferences[place] -= 1
            guard mappedReferences[place] == 0 else { return }
            // What nobody has asked for is nowhere else.
            for number in mapped.numbers(ofShard: place) where isMade(number) { release(entry: number) }
            return
        }
        shard.pointee.references -= 1
        guard shard.pointee.references == 0 else { return }
        shard.visit { route in
            entry(route.pointee.entry).pointee.references -= 1
            freeIfUnused(route.pointee.entry)
        }
        UnsafeMutableRawPointer(shard).deallocate()
        freed()
    }

    /// Builds a shard; every route in it holds its entry. Its owner and its backends are the ``GroupSlots``' matter.
    func makeShard(_ items: [ShardItem]) -> RouteShard.Pointer {
        allocated()
        return RouteShard.make(items) { item, route in
            let entry = entry(item.entry)
            entry.pointee.references += 1
            entry.pointee.current = route
        }
    }
}
