import Pipeline

/// The entries of a group's routes: those of a mapped table, which stand there by groups, then a list through the others.
/// Valid until the next change.
struct GroupEntries {
    let number: UInt32
    let range: Range<UInt32>
    let head: UInt32
    let store: RouteStore

    /// Each, until `body` says false.
    func visit(_ body: (UInt32) -> Bool) {
        for place in range {
            guard let entry = store.mapped?.member(place), isInRange(entry) else { continue }
            guard body(entry) else { return }
        }
        var entry = head
        while entry != RouteEntry.none {
            guard body(entry) else { return }
            entry = store.entry(entry).pointee.nextInGroup
        }
    }

    /// It has not left the group, and is as the table says.
    private func isInRange(_ entry: UInt32) -> Bool {
        guard store.current(entry).map({ $0.pointee.group == number }) ?? false else { return false }
        return !store.isMade(entry) || store.entry(entry).pointee.isInRange
    }
}
