import Pipeline

/// What no disk takes (it is full, fails, or is read-only) and must be in force all the same: entries that memory alone
/// has. They go to the disk with what is written next, or once it takes them; a restart before that knows nothing of them.
extension StateStore {
    /// A group over what there is, for ``keepInMemory(_:)``, whatever its files look like; nil: nothing may be changed.
    public func makeGroupInMemory() -> StateGroup? {
        spoiled == nil && inFlight == nil ? StateGroup(self) : nil
    }

    /// On return its batches may take effect, and none of them is durable.
    public func keepInMemory(_ group: StateGroup) throws(StateFault) {
        guard group.count > 0 else { return }
        try refuseMemory(group.byteCount)
        group.seal()
        hold(group.bytes, upTo: group.sequence)
    }

    /// The same for one that is in force then. Does nothing where that can't be.
    /// - Returns: whether it is.
    public func keepInMemory(_ batch: StateBatch) -> Bool {
        guard let group = makeGroupInMemory(), (try? group.stage(batch)) != nil, (try? keepInMemory(group)) != nil
        else { return false }
        for index in 0..<group.count { group.takeEffect(index) }
        return true
    }

    private func refuseMemory(_ count: Int) throws(StateFault) {
        if let spoiled { throw spoiled }
        if inFlight != nil { throw .busy(path: directory) }
        guard unsynced.count + count <= settings.mostInMemory else {
            throw .tooLarge(
                path: directory,
                what: "\(unsynced.count >> 10) KiB are in force that no disk has, and no more may be")
        }
    }

    /// The log that there is can't be gone on with: another one begins with them.
    private func hold(_ entries: [UInt8], upTo last: UInt64) {
        if changesInMemory == 0 { firstInMemory = sequence + 1 }
        unsynced.append(contentsOf: entries)
        sequence = last
        log.isTrusted = false
    }

    /// How many changes are in force that no disk has.
    public var changesInMemory: Int { firstInMemory > synced ? Int(clamping: sequence - firstInMemory + 1) : 0 }

    /// Makes them durable.
    /// - Returns: whether there were some.
    public func writeFromMemory() throws(StateFault) -> Bool {
        guard changesInMemory > 0 else { return false }
        try flush()
        return true
    }
}
