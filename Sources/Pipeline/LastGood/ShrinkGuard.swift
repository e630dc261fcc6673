import PipelineRouting

/// R29: an update that takes away most of what there is, is more likely a mistake than meant.
struct ShrinkGuard {
    /// Below so many of a kind nothing is guarded.
    static let least = 20

    /// What an update does to the objects of one kind.
    struct Count {
        var before = 0
        var removed = 0
        var added = 0
    }

    var counts: [StateKind: Count] = [:]

    /// Nil: it may go on.
    func refusal(_ what: String) -> UpdateRefusal? {
        for kind in [StateKind.route, .instance, .env, .hostname] {
            guard let count = counts[kind], count.removed > 0 else { continue }
            let isEmptied = count.before > 0 && count.removed == count.before && count.added == 0
            let isMost = count.before >= ShrinkGuard.least && count.removed * 2 > count.before
            guard isEmptied || isMost else { continue }
            return UpdateRefusal(
                "\(what) removes \(count.removed) of \(count.before) \(kind.list)",
                remedy: "if that is meant, confirm it (`--confirm`)", isHeld: true, stopsStream: true)
        }
        return nil
    }
}
