import CLinux
import Glibc
import Pipeline

/// The log that is appended to.
struct AppendLog {
    let number: UInt64
    let path: String
    let file: Int32
    /// Which file it is.
    let identity: DiskStatus.Identity
    let salt: UInt32
    /// When this store has written to it last, as its file says.
    var modified: Int64
    /// Where the next entry goes.
    var end: Int
    /// False: what is in it from the last durable entry on may be anything; nothing is appended any more.
    var isTrusted = true
}

extension StateStore {
    /// One entry of the log: whole or not at all after a crash.
    /// - Parameter durably: it is on disk on return; else with the next that is, and a crash of the machine loses it
    ///   until then, a crash of the process does not.
    public func append(_ batch: StateBatch, durably: Bool) throws(StateFault) {
        try refuseChange()
        if durably { try refuseExposed() }
        if let problem = batch.problem { throw problem }
        if reserve.isHeld == false { refillReserve() }
        guard !batch.isEmpty else {
            if durably { try flush() }
            return
        }
        var entry = batch.bytes
        let next = sequence + 1
        LogEntry.seal(
            &entry, count: entry.count, records: batch.count, sequence: next, synced: synced, salt: log.salt)
        let mustSync = durably || unsynced.count + entry.count > settings.mostUnsynced
        let isDurable =
            mustSync ? try writeDurably(&entry, try disturbed()) : try write(&entry, mustSync: false)
        sequence = next
        if isDurable { noteDurable(next) }
        entry.withUnsafeBytes { bytes in
            if let entry = LogEntry(header: bytes, salt: log.salt) { apply(entry) }
        }
    }

    /// It was durable in a file that is the store's: before it is said to be, the files are looked at.
    /// - Parameter found: by the look before.
    func writeDurably(_ entries: inout [UInt8], _ found: [DisturbedFile]) throws(StateFault) -> Bool {
        var found = found
        for _ in 0..<StateStore.mostMendings {
            try mend(found)
            LogEntry.reseal(&entries, first: sequence + 1, synced: synced, salt: log.salt)
            let isDurable = try write(&entries, mustSync: true)
            do throws(StateFault) { found = try disturbed() } catch {
                takeBack(entries.count)
                throw error
            }
            if found.isEmpty { return isDurable }
            takeBack(entries.count)
        }
        throw .failed(path: log.path, doing: "keeping it, while others change it", error: EIO)
    }

    private static let mostMendings = 3

    /// What was refused must not be found at the next opening.
    private func takeBack(_ count: Int) {
        log.end -= count
        cutLog()
    }

    /// What stands behind its end goes.
    func cutLog() {
        if disk.resize(log.file, to: log.end) < 0 { log.isTrusted = false }
        noteLogWritten()
    }

    private func noteLogWritten() {
        var status = DiskStatus()
        if disk.status(of: log.file, &status) >= 0 { log.modified = status.modified }
    }

    /// Why nothing may be changed now; whoever goes on changes something.
    func refuseChange() throws(StateFault) {
        if let closed { throw closed }
        if inFlight != nil { throw .busy(path: directory) }
    }

    func noteDurable(_ sequence: UInt64) {
        synced = sequence
        head?.write(sequence)
    }

    /// On return `entry` is in the log, and sealed for it.
    /// - Returns: whether it is durable, and all before it.
    private func write(_ entry: inout [UInt8], mustSync: Bool) throws(StateFault) -> Bool {
        var failed: Int32 = -EIO
        if log.isTrusted {
            failed = write(entry)
            if failed >= 0 {
                noteLogWritten()
                guard mustSync else {
                    unsynced.append(contentsOf: entry)
                    log.end += entry.count
                    return false
                }
                failed = disk.sync(log.file)
                if failed >= 0 {
                    log.end += entry.count
                    unsynced = []
                    return true
                }
                // What the kernel had of the file is clean now for it, written or not: a second sync would say nothing.
                log.isTrusted = false
            } else if failed == -ENOSPC || failed == -EDQUOT {
                // What is there of the entry would be taken for one that a crash tore.
                cutLog()
                throw StateFault.of(log.path, "appending to it", failed)
            } else {
                log.isTrusted = false
            }
        }
        try moveOn(with: &entry, after: failed)
        return true
    }

    private func write(_ entry: [UInt8]) -> Int32 {
        let end = log.end
        let file = log.file
        var failed = entry.withUnsafeBytes { disk.write(file, $0, at: end) }
        if failed == -ENOSPC || failed == -EDQUOT, useReserve() {
            failed = entry.withUnsafeBytes { disk.write(file, $0, at: end) }
        }
        return failed
    }

    /// Makes what was appended durable.
    public func flush() throws(StateFault) {
        try refuseChange()
        guard synced < sequence || !log.isTrusted else { return }
        var failed: Int32 = -EIO
        if log.isTrusted {
            failed = disk.sync(log.file)
            log.isTrusted = failed >= 0
        }
        if failed < 0 {
            var none: [UInt8] = []
            try moveOn(with: &none, after: failed)
        }
        unsynced = []
        noteDurable(sequence)
        try mendFiles()
    }

    /// Goes on in a new log, which begins with what is not known to be durable in the old one.
    private func moveOn(with entry: inout [UInt8], after failed: Int32) throws(StateFault) {
        let old = log
        // Who has put them there says what became of them.
        let hadMemory = changesInMemory > 0
        try beginLog(entry: &entry)
        guard !hadMemory else { return }
        note(
            StateNotice(
                "state_log_replaced",
                "\(old.path): \(StateFault.of(old.path, "writing it", failed).cause); "
                    + "log.\(log.number) goes on in its place, nothing is lost; check the disk"))
    }

    /// Makes the next log the one that is appended to: with all that is not known to be durable, durable on return. The
    /// caller says so by `synced`.
    func beginLog(entry: inout [UInt8]) throws(StateFault) {
        var bytes = unsynced
        bytes.append(contentsOf: entry)
        let header = newHeader(alone: 0, first: synced + 1)
        let made: AppendLog
        do throws(StateFault) {
            made = try makeLog(header, &bytes, untrusted: true)
        } catch {
            guard case .full = error, useReserve() else { throw error }
            made = try makeLog(newHeader(alone: 0, first: synced + 1), &bytes, untrusted: true)
        }
        entry.withUnsafeMutableBytes { to in
            bytes.withUnsafeBytes { to.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0.suffix(to.count))) }
        }
        olderLogBytes += log.end - StateFormat.logHeader
        disk.close(log.file)
        log = made
        unsynced = []
    }

    func newHeader(alone: UInt64, first: UInt64) -> LogHeader {
        let number = nextNumber
        nextNumber += 1
        return LogHeader(
            number: number, written: cl_wall_clock(), store: LogHeader.store(secret: secret), alone: alone, first: first
        )
    }

    /// A log in its place, with these entries sealed for it; all durable.
    /// - Parameter untrusted: if it is not known whether it is in its place, the one before is appended to no more.
    func makeLog(_ header: LogHeader, _ entries: inout [UInt8], untrusted: Bool) throws(StateFault) -> AppendLog {
        do throws(StateFault) {
            return try StatePlace(directory: directory, disk: disk, settings: settings)
                .makeLog(header, &entries, synced: synced)
        } catch {
            let path = "\(directory)/log.\(header.number)"
            var status = DiskStatus()
            if disk.status(path, &status) != -ENOENT, disk.remove(path) < 0 || disk.syncDirectory(directory) < 0,
                untrusted
            {
                log.isTrusted = false
            }
            throw error
        }
    }

    private func useReserve() -> Bool {
        guard reserve.release() else { return false }
        note(
            StateNotice(
                "state_reserve_used",
                "\(directory): the disk is full; what was kept for that (\(settings.reserveBytes >> 10) KiB) is used now; make room"
            ))
        return true
    }

    /// Takes the reserve again, if there is room by now.
    public func refillReserve() {
        guard !reserve.isHeld else { return }
        reserve.take()
        if reserve.isHeld {
            note(StateNotice("state_reserve_back", "\(directory): there is room again, and the reserve is kept again"))
        }
    }

    /// The disk is full: what was kept for that is used, or there was no room for it.
    public var isOnReserve: Bool { !reserve.isHeld }
}

extension StatePlace {
    func makeLog(_ header: LogHeader, _ entries: inout [UInt8], synced: UInt64) throws(StateFault) -> AppendLog {
        let path = path("log.\(header.number)")
        let head = header.encoded()
        let salt = head.withUnsafeBytes { LogReader($0).salt }
        LogEntry.reseal(&entries, first: header.first, synced: synced, salt: salt)
        let bytes = head + entries
        // Under its name only once it is whole: a log that is there has a header.
        let file = disk.open(path + ".new", .empty)
        guard file >= 0 else { throw StateFault.of(path, "making it", file) }
        var failed = bytes.withUnsafeBytes { disk.write(file, $0, at: 0) }
        if failed >= 0 { failed = disk.sync(file) }
        if failed >= 0 { failed = disk.rename(path + ".new", to: path) }
        if failed >= 0 { failed = disk.syncDirectory(directory) }
        var status = DiskStatus()
        if failed >= 0 { failed = disk.status(of: file, &status) }
        guard failed >= 0 else {
            disk.close(file)
            _ = disk.remove(path + ".new")
            throw StateFault.of(path, "making it", failed)
        }
        return AppendLog(
            number: header.number, path: path, file: file, identity: status.identity, salt: salt,
            modified: status.modified, end: bytes.count)
    }
}

extension StateFault {
    /// The error alone, for notices.
    var cause: String {
        switch self {
        case .full(_, let error): "no room (\(error == EDQUOT ? "EDQUOT" : "ENOSPC"))"
        case .readOnly: "the file system is read-only"
        case .failed(_, let doing, let error): "\(doing): \(String(cString: cl_error_name(error)))"
        default: message
        }
    }
}
