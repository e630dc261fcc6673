import Pipeline

/// What others do to a store's files while it has them open: seen before a change is said to be durable, since a change in
/// a file that nobody finds again is lost.
extension StateStore {
    /// Makes the files whole again, if somebody has disturbed them.
    func mendFiles() throws(StateFault) { try mend(try disturbed()) }

    /// The same of what a look has found, whatever became of it since.
    func mend(_ found: [DisturbedFile]) throws(StateFault) {
        guard !found.isEmpty else { return }
        endCompaction()
        for file in found where file.isThere {
            if let aside = try? place.freeName(file.name) {
                _ = disk.rename(place.path(file.name), to: place.path(aside))
            }
        }
        let why = found.map { "\(place.path($0.name)): \($0.what)" }.joined(separator: "; ")
        if base.header.records == 0 || isBaseWhole {
            try rewrite()
            note(
                StateNotice(
                    "state_damaged",
                    "\(why); the state is written anew as snapshot.\(base.header.number), nothing is lost; "
                        + "nobody but the node may touch its files"))
        } else {
            try openAgain(why)
        }
    }

    /// All there is, in memory and mapped, as a new snapshot and its log. Older files that lead to the same may lead on:
    /// if the new snapshot goes bad as well, they are used.
    private func rewrite() throws(StateFault) {
        let number = nextNumber
        nextNumber += 1
        var changed: [Record] = []
        for kind in UInt8.min...UInt8.max { changed += changes(of: kind) }
        let (base, before) = (base, base.header.number)
        do throws(StateFault) {
            let (snapshot, log) = try place.makeSnapshot(
                number, secret: secret, sequence: sequence, synced: sequence, isAlone: false
            ) { writer throws(StateFault) in
                let builder = writer.builder
                try MergedRecords.forEach(base, 0..<base.records, changed) { record throws(StateFault) in
                    try builder.put(record)
                }
            }
            begin(snapshot, log)
            place.removeOlder(than: before)
            wantsCopy = true
        } catch {
            if case .uncertain = error { closed = error }
            throw error
        }
    }

    /// What is mapped is not whole: an older snapshot and the logs since may lead to the same.
    private func openAgain(_ why: String) throws(StateFault) {
        do throws(StateFault) {
            var recovery = try StateRecovery(place)
            // No seed: without a whole snapshot this is a fault, and nothing is changed.
            let opened = try recovery.run { [] }
            guard opened.sequence >= sequence else {
                disk.close(opened.log.file)
                throw .spoiled(
                    path: directory, what: why, leaves: "what was in force as of the change \(opened.sequence)")
            }
            adopt(opened)
            for notice in recovery.notices { note(notice) }
            note(
                StateNotice("state_damaged", "\(why); an older snapshot and the logs lead to the same: nothing is lost")
            )
        } catch {
            if case .spoiled = error { closed = error }
            closed =
                closed
                ?? .spoiled(
                    path: directory, what: "\(why); going back to an older one: \(error.cause)", leaves: "nothing")
            throw closed ?? error
        }
        // Else the next fault would find nothing older.
        do throws(StateFault) {
            try rewrite()
            wantsCopy = false
        } catch { wantsCopy = true }
    }
}

extension StateStore {
    /// Its snapshot is not whole any more, and nothing on disk leads to the same: what was read from it since may be
    /// wrong. Only a whole replacement is taken.
    public var spoiled: StateFault? {
        if case .spoiled? = closed { return closed }
        return base.hasLost && base.header.records > 0
            ? .spoiled(
                path: place.path("snapshot.\(base.header.number)"), what: "a part of it can't be read any more",
                leaves: "what the files in it lead to")
            : nil
    }

    /// Its files are the ones that it has written, or are again by now; else why nothing may be changed.
    public func check() throws(StateFault) {
        try refuseChange()
        // Nothing is written where others may write.
        if isExposed, exposure != nil { return }
        try mendFiles()
    }
}

extension LogHeader {
    /// It goes on from the empty state of a new store: from any of its copies.
    var isFirst: Bool { first == 1 && alone != 0 }
}

extension SnapshotFile {
    /// The empty state of a new store.
    var isFirst: Bool { header.sequence == 0 && header.records == 0 }
}

extension StatePlace {
    /// A second copy of a new store's first snapshot, so that a fault in one does not take away what the log has. Done
    /// without, if it can't be.
    func copyEmpty(_ snapshot: SnapshotFile) {
        let number = snapshot.header.number - 1
        guard snapshot.isFirst, number > 0 else { return }
        let identity = SnapshotBuilder.Identity(number: number, secret: snapshot.header.secret, sequence: 0)
        guard let builder = try? SnapshotBuilder(directory: directory, identity, disk) else { return }
        do throws(StateFault) {
            try builder.finish()
            _ = try install(builder)
        } catch { builder.abandon() }
    }
}
