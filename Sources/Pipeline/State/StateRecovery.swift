import CLinux
import Glibc
import Pipeline

/// What a directory turned out to hold.
struct OpenedState {
    let base: SnapshotFile
    let overlay: Overlay
    let log: AppendLog
    let sequence: UInt64
    let nextNumber: UInt64
    let olderLogBytes: Int
}

/// Finds the last whole state in a directory. It first reads, and refuses what it must; then it mends.
struct StateRecovery {
    let place: StatePlace
    private var files: StateFiles
    private(set) var notices: [StateNotice] = []
    /// Files to be set aside: name, and why.
    private var damaged: [(name: String, why: String)] = []
    /// The last entry that counts; nil: all do.
    private let last: UInt64?
    /// Of ``damaged``: files that are whole, and wanted no more.
    private var unwanted: Set<String> = []
    private static let unwanted = "it goes on from what is set aside"
    /// Of ``damaged``: the first file that is not the node's own, or may have been written by others.
    private var strange: StateFault?
    /// The number of the snapshot that is used.
    private var baseNumber: UInt64 = 0
    /// Files of no use to anybody: what was being written.
    private var useless: [String] = []
    /// Where a log is to end, and what its end was.
    private var cut: (number: UInt64, offset: Int, end: LogEnd)?
    private var accepted: [(header: LogHeader, bytes: Int)] = []
    private var sequence: UInt64 = 0
    /// What was durable when the store was last open, as far as that is known.
    private var durable: UInt64 = 0
    /// Logs whose header is to be put right.
    private var headers: [LogHeader] = []
    private var lost: LostEntries

    init(_ place: StatePlace, endingAt last: UInt64? = nil) throws(StateFault) {
        self.place = place
        self.last = last
        lost = LostEntries(place.settings.label)
        files = try StateFiles(place)
        damaged = try files.judge(place, &notices)
        strange = damaged.first.map { .foreign(path: place.path($0.name), what: $0.why) }
        useless = files.unfinished
        try files.refuseNewer(place)
    }

    /// - Parameter seed: 16 secret bytes for a store that is new.
    mutating func run(seed: () -> [UInt8]) throws(StateFault) -> OpenedState {
        guard let base = try findBase() else { return try begin(seed()) }
        baseNumber = base.header.number
        let overlay = Overlay(HashSeed(secret: base.header.secret))
        durable = StateHead.read(place, secret: base.header.secret)
        try replay(over: base, into: overlay)
        // Nothing is left but the empty state of a new store: whose it is can't be known.
        if let strange, sequence == 0 { throw strange }
        let own = "log.\(base.header.number)"
        if accepted.isEmpty, !files.logs.contains(base.header.number), !damaged.contains(where: { $0.name == own }) {
            notices.append(
                StateNotice("state_damaged", "\(place.path(own)) is missing: what it said is lost", isLoss: true))
        }
        try mend()
        sayLost()
        if files.snapshots == [base.header.number] { place.copyEmpty(base) }
        let last = accepted.last
        var older = 0
        for log in accepted.dropLast() { older += max(0, log.bytes - StateFormat.logHeader) }
        let log: AppendLog
        if let last {
            log = try openLog(last.header, end: last.bytes)
        } else {
            // In the place of the one that is gone or was set aside.
            var none: [UInt8] = []
            let header = LogHeader(
                number: base.header.number, written: cl_wall_clock(),
                store: LogHeader.store(secret: base.header.secret), alone: base.header.number, first: sequence + 1)
            log = try place.makeLog(header, &none, synced: sequence)
        }
        return OpenedState(
            base: base, overlay: overlay, log: log, sequence: sequence, nextNumber: files.last + 1, olderLogBytes: older
        )
    }

    private func openLog(_ header: LogHeader, end: Int) throws(StateFault) -> AppendLog {
        let path = place.path("log.\(header.number)")
        let file = place.disk.open(path, .write)
        guard file >= 0 else { throw StateFault.of(path, "opening it", file) }
        let salt = header.encoded().withUnsafeBytes { LogReader($0).salt }
        var status = DiskStatus()
        let failed = place.disk.status(of: file, &status)
        guard failed >= 0 else {
            place.disk.close(file)
            throw StateFault.of(path, "looking at it", failed)
        }
        return AppendLog(
            number: header.number, path: path, file: file, identity: status.identity, salt: salt,
            modified: status.modified, end: end)
    }

    // MARK: The snapshot

    private mutating func findBase() throws(StateFault) -> SnapshotFile? {
        for number in files.snapshots.reversed() {
            let path = place.path("snapshot.\(number)")
            do throws(FileFlaw) {
                let found = try SnapshotFile.open(path, number: number, place.disk)
                if let last, found.header.sequence > last {
                    setAside("snapshot.\(number)", "it has what is set aside")
                    continue
                }
                let newer = damaged.first { StateFiles.snapshot($0.name) ?? 0 > number && !unwanted.contains($0.name) }
                if let first = newer {
                    notices.append(
                        StateNotice(
                            "state_older_used",
                            "\(place.path(first.name)) is damaged; the state of snapshot.\(number) and the logs since is used"
                        ))
                }
                return found
            } catch {
                switch error {
                case .damaged(let why): damaged.append(("snapshot.\(number)", why))
                case .newer(let version): throw .newer(path: path, version: version)
                case .failed(let fault): throw fault
                }
            }
        }
        return nil
    }

    private mutating func setAside(_ name: String, _ why: String) {
        damaged.append((name, why))
        unwanted.insert(name)
    }

    /// Of a directory without any whole state.
    private mutating func begin(_ secret: [UInt8]) throws(StateFault) -> OpenedState {
        if let strange { throw strange }
        guard secret.count == 16 else { throw .unfit(what: "a seed of \(secret.count) bytes, not 16") }
        for number in files.logs {
            // What the first open had made when it was cut off.
            if try isEmptyAlone(number) {
                useless.append("log.\(number)")
            } else if last != nil {
                setAside("log.\(number)", StateRecovery.unwanted)
            } else {
                damaged.append(("log.\(number)", "there is no whole snapshot that it goes on from"))
            }
        }
        let isNew = damaged.isEmpty
        try mend()
        let number = files.last + 2
        let (base, log) = try place.makeSnapshot(number, secret: secret, sequence: 0, synced: 0) { _ in }
        place.copyEmpty(base)
        notices.append(
            isNew
                ? StateNotice("state_created", "\(place.directory): a new store, which is empty")
                : StateNotice(
                    "state_lost",
                    "\(place.directory): no snapshot in it is \(last == nil ? "whole" : "older than what is set aside"); "
                        + "a new store is begun, which is empty",
                    isLoss: true))
        return OpenedState(
            base: base, overlay: Overlay(HashSeed(secret: secret)), log: log, sequence: 0, nextNumber: number + 1,
            olderLogBytes: 0)
    }

    private func isEmptyAlone(_ number: UInt64) throws(StateFault) -> Bool {
        do throws(FileFlaw) {
            let log = try LogImage("log.\(number)", place)
            return log.header.alone != 0 && log.bytes.count == StateFormat.logHeader
        } catch {
            if case .failed(let fault) = error { throw fault }
            return false
        }
    }

    // MARK: The logs

    private mutating func replay(over base: SnapshotFile, into overlay: Overlay) throws(StateFault) {
        sequence = base.header.sequence
        let logs = try readLogs(base)
        var isBroken = false
        for (index, log) in logs.enumerated() {
            let name = "log.\(log.header.number)"
            if let last, sequence >= last, log.header.first > last {
                setAside(name, StateRecovery.unwanted)
                continue
            }
            if isBroken || log.header.first > sequence + 1 {
                isBroken = true
                damaged.append((name, "it does not go on from what is whole before it"))
                lost.add(log, from: StateFormat.logHeader, behind: sequence)
                continue
            }
            // What a later log begins with is void in this one.
            let end = last.map { $0 < .max ? $0 + 1 : $0 } ?? .max
            let limit = min(logs[(index + 1)...].map(\.header.first).min() ?? .max, end)
            var reader = LogReader(log.bytes, salt: log.salt)
            while sequence + 1 < limit, let entry = reader.next(sequence + 1) {
                entry.visit { overlay.set($0, hash: $0.hash(overlay.seed)) }
                sequence += 1
            }
            accepted.append((log.header, reader.offset))
            if let last, sequence == last {
                let isOver = reader.end(sequence + 1) == .clean
                if log.bytes.count > reader.offset {
                    cut = (log.header.number, reader.offset, isOver ? .clean : .setAside)
                }
                continue
            }
            if index + 1 == logs.count {
                var end = reader.end(sequence + 1)
                if end == .torn, durable > sequence { end = .damaged }
                if end == .damaged { lost.add(log, from: reader.offset, behind: sequence) }
                if end != .clean || log.bytes.count > reader.offset { cut = (log.header.number, reader.offset, end) }
            } else if sequence + 1 < limit {
                // It had been durable before the next one began.
                if log.bytes.count > reader.offset { cut = (log.header.number, reader.offset, .damaged) }
                lost.add(log, from: reader.offset, behind: sequence, below: limit)
                isBroken = true
            }
        }
    }

    /// Those that may go on from the snapshot, in order.
    private mutating func readLogs(_ base: SnapshotFile) throws(StateFault) -> [LogImage] {
        var logs: [LogImage] = []
        let store = LogHeader.store(secret: base.header.secret)
        let number = base.header.number
        for next in files.logs where next >= number {
            let name = "log.\(next)"
            do throws(FileFlaw) {
                let log = try LogImage(name, place, number: next, store: store)
                if log.isMended { headers.append(log.header) }
                guard log.header.store == store else { throw .damaged("it is of another store") }
                guard log.header.number == next else { throw .damaged("it is log.\(log.header.number) by its header") }
                guard log.header.alone == 0 || log.header.alone == number || log.header.isFirst && base.isFirst else {
                    // A replacement that was cut off before its snapshot was in place; or that snapshot is damaged.
                    if log.bytes.count == StateFormat.logHeader {
                        useless.append(name)
                    } else if unwanted.contains("snapshot.\(log.header.alone)") {
                        setAside(name, StateRecovery.unwanted)
                    } else {
                        damaged.append((name, "it goes on from snapshot.\(log.header.alone), which is not whole"))
                    }
                    continue
                }
                guard log.header.first > base.header.sequence else { throw .damaged("it begins before its snapshot") }
                logs.append(log)
            } catch {
                switch error {
                case .damaged(let why): damaged.append((name, why))
                case .newer(let version): throw .newer(path: place.path(name), version: version)
                case .failed(let fault): throw fault
                }
            }
        }
        return logs
    }

    // MARK: Mending

    /// Later logs go first: what is left of a mending that is cut off is mended again.
    private mutating func mend() throws(StateFault) {
        let disk = place.disk
        for (name, why) in damaged.reversed() {
            let isUnwanted = unwanted.contains(name)
            let aside = try place.freeName(name, isUnwanted ? "set-aside" : "damaged")
            let failed = disk.rename(place.path(name), to: place.path(aside))
            guard failed >= 0 else { throw StateFault.of(place.path(name), "setting it aside", failed) }
            notices.append(
                StateNotice(
                    isUnwanted ? "state_set_aside" : "state_damaged",
                    "\(place.path(name)): \(why); it is set aside as \(aside)", isLoss: !isCovered(name)))
        }
        if !damaged.isEmpty { try syncDirectory() }
        for header in headers where accepted.contains(where: { $0.header.number == header.number }) {
            try putRight(header)
        }
        if let cut { try mend(cut) }
        // They cost room only.
        for name in useless { _ = disk.remove(place.path(name)) }
    }

    /// Whether all that a damaged file had was found elsewhere: what is older than the snapshot that is used, or one that
    /// merged what older files have.
    private func isCovered(_ name: String) -> Bool {
        if let number = UInt64(name.drop { $0 != "." }.dropFirst()), number < baseNumber { return true }
        return accepted.contains {
            ($0.header.alone == 0 || $0.header.isFirst) && name == "snapshot.\($0.header.number)"
        }
    }

    /// The header of a log with one byte that was wrong.
    private mutating func putRight(_ header: LogHeader) throws(StateFault) {
        let path = place.path("log.\(header.number)")
        let file = place.disk.open(path, .write)
        guard file >= 0 else { throw StateFault.of(path, "opening it", file) }
        defer { place.disk.close(file) }
        var failed = header.encoded().withUnsafeBytes { place.disk.write(file, $0, at: 0) }
        if failed >= 0 { failed = place.disk.sync(file) }
        guard failed >= 0 else { throw StateFault.of(path, "putting its header right", failed) }
        notices.append(
            StateNotice("state_damaged", "\(path): a byte of its header was wrong, and is put right; nothing is lost"))
    }

    /// What was durable when the store was last open, and is not there any more.
    private mutating func sayLost() {
        // Who looks at an earlier state knows that there is a later one.
        let end = max(durable, lost.last)
        guard last == nil, end > sequence else { return }
        notices.append(
            StateNotice(
                "state_damaged",
                "\(place.directory): the changes \(sequence + 1) to \(end), which had been durable, are lost\(lost.text)",
                isLoss: true))
    }

    private mutating func mend(_ cut: (number: UInt64, offset: Int, end: LogEnd)) throws(StateFault) {
        let name = "log.\(cut.number)"
        let path = place.path(name)
        if cut.end != .clean {
            let aside = try keep(name, from: cut.offset, end: cut.end)
            let rest = aside.map { "what follows is kept as \($0)" } ?? "what follows could not be kept"
            notices.append(
                cut.end == .setAside
                    ? StateNotice("state_set_aside", "\(path): cut at byte \(cut.offset); \(rest)")
                    : cut.end == .torn
                        ? StateNotice(
                            "state_tail_cut",
                            "\(path): cut at byte \(cut.offset), in what was being written when it ended; \(rest)")
                        : StateNotice(
                            "state_damaged",
                            "\(path): damaged at byte \(cut.offset), in what had been durable: the state before it is used; \(rest)",
                            isLoss: true))
        }
        let file = place.disk.open(path, .write)
        guard file >= 0 else { throw StateFault.of(path, "opening it", file) }
        defer { place.disk.close(file) }
        var failed = place.disk.resize(file, to: cut.offset)
        // Else what comes next could be followed by what was cut.
        if failed >= 0 { failed = place.disk.sync(file) }
        guard failed >= 0 else { throw StateFault.of(path, "cutting it", failed) }
    }

    /// Copies the end of a log.
    /// - Returns: nil: no room, for one that is torn.
    private func keep(_ name: String, from offset: Int, end: LogEnd) throws(StateFault) -> String? {
        let log: LogImage
        do throws(FileFlaw) { log = try LogImage(name, place) } catch {
            if case .failed(let fault) = error { throw fault }
            return nil
        }
        let disk = place.disk
        let aside = try place.freeName(name, end == .setAside ? "set-aside" : "damaged")
        let path = place.path(aside)
        let file = disk.open(path, .empty)
        var failed = file
        if file >= 0 {
            failed = disk.write(file, UnsafeRawBufferPointer(rebasing: log.bytes[offset...]), at: 0)
            if failed >= 0 { failed = disk.sync(file) }
            disk.close(file)
        }
        if failed >= 0 {
            try syncDirectory()
            return aside
        }
        _ = disk.remove(path)
        // A full disk must not keep a node from starting after it was killed; what was durable is worth more.
        if end == .torn, failed == -ENOSPC || failed == -EDQUOT { return nil }
        throw StateFault.of(path, "keeping the end of \(name)", failed)
    }

    private func syncDirectory() throws(StateFault) {
        let failed = place.disk.syncDirectory(place.directory)
        guard failed >= 0 else { throw StateFault.of(place.directory, "syncing it", failed) }
    }
}
