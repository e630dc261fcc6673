import CLinux
import Glibc
import Pipeline
import Synchronization

/// Writes a derived file: by itself, or before a compaction.
///
/// Threading: made and taken by the store's thread; `run` on its own.
final class Derivation: @unchecked Sendable {
    let number: UInt64
    /// Of the last change that is in it.
    let sequence: UInt64
    private let place: StatePlace
    private let secret: [UInt8]
    private let task: DerivedTask
    /// The room that there must be: a full disk is the log's.
    private let need: Int
    private let isCancelled = Atomic<Bool>(false)
    private let isOver = Atomic<Bool>(false)
    /// Written before `isOver`.
    private var isWritten = false
    private var fault: StateFault?
    var handle: UInt64?

    init(_ number: UInt64, _ place: StatePlace, secret: [UInt8], sequence: UInt64, need: Int, _ task: DerivedTask) {
        (self.number, self.place, self.secret, self.sequence) = (number, place, secret, sequence)
        (self.need, self.task) = (need, task)
    }

    func cancel() { isCancelled.store(true, ordering: .releasing) }

    /// Nil: it is not over.
    func outcome() -> (isWritten: Bool, fault: StateFault?)? {
        isOver.load(ordering: .acquiring) ? (isWritten, fault) : nil
    }

    func run() {
        do throws(StateFault) { isWritten = try write() } catch { fault = error }
        isOver.store(true, ordering: .releasing)
    }

    private func write() throws(StateFault) -> Bool {
        let path = place.path("table.\(number)")
        guard place.disk.freeBytes(place.directory) > need else { throw .full(path: path, error: ENOSPC) }
        let file = try BlockWriter("\(path).new", place.disk)
        do throws(StateFault) {
            let info = try task.write { bytes throws(StateFault) in
                if isCancelled.load(ordering: .acquiring) { throw .unfit(what: "cancelled") }
                try file.add(bytes)
            }
            guard let info else {
                file.abandon()
                return false
            }
            let contentBytes = file.end - StateFormat.snapshotHeader
            file.pad()
            try file.finish { sums in
                DerivedHeader(
                    number: number, sequence: sequence, task, secret: secret, contentBytes: contentBytes, sums: sums,
                    info: info
                ).encoded()
            }
            var failed = place.disk.rename(file.path, to: path)
            if failed >= 0 { failed = place.disk.syncDirectory(place.directory) }
            guard failed >= 0 else { throw StateFault.of(path, "putting it in its place", failed) }
            place.removeDerived(below: number, version: task.version)
            return true
        } catch {
            file.abandon()
            throw error
        }
    }
}

extension StatePlace {
    /// Those that a newer version wrote stay.
    fileprivate func removeDerived(below number: UInt64, version: UInt32) {
        guard let files = try? StateFiles(self) else { return }
        for older in files.derived where older < number && !isNewer("table.\(older)", than: version) {
            _ = disk.remove(path("table.\(older)"))
        }
    }

    private func isNewer(_ name: String, than version: UInt32) -> Bool {
        let file = disk.open(path(name), .read)
        guard file >= 0 else { return false }
        defer { disk.close(file) }
        var header = [UInt8](repeating: 0, count: StateFormat.snapshotHeader)
        guard header.withUnsafeMutableBytes({ disk.read(file, $0, at: 0) }) == header.count else { return false }
        return header.withUnsafeBytes { bytes in
            StateFormat.newerVersion(bytes) != nil
                || (try? StateFormat.check(bytes, .derived)) != nil && DerivedHeader.version(of: bytes) > version
        }
    }
}

extension StateStore {
    // MARK: Reading one

    /// The derived file that leads to what the store has, together with what has changed since its snapshot; nil: there is
    /// none that does.
    /// - Parameters: as of a ``DerivedTask``, but for `nonce`: as the records have it.
    /// - Returns: `notices` of those that are not used.
    public func openDerived(
        version: UInt32, key: [UInt8], nonce: [UInt8]?
    ) -> (file: DerivedFile?, notices: [StateNotice]) {
        var notices: [StateNotice] = []
        guard let files = try? StateFiles(place) else { return (nil, notices) }
        for number in files.derived.reversed() {
            let name = "table.\(number)"
            if let file = openDerived(number, &notices) {
                guard let why = unfitness(file, version: version, key: key, nonce: nonce) else {
                    derivedSequence = file.sequence
                    return (file, notices)
                }
                notices.append(StateNotice("state_table_unused", "\(place.path(name)): \(why); all is read instead"))
            }
        }
        return (nil, notices)
    }

    private func openDerived(_ number: UInt64, _ notices: inout [StateNotice]) -> DerivedFile? {
        let name = "table.\(number)"
        let exposure = place.exposure
        do throws(StateFault) {
            if let why = try place.judge(name, exposure, &notices) {
                setDerivedAside(name, why, &notices)
                return nil
            }
        } catch {
            notices.append(StateNotice("state_table_unused", "\(error.cause); all is read instead"))
            return nil
        }
        do throws(FileFlaw) {
            return try DerivedFile.open(place.path(name), number: number, secret: secret, disk)
        } catch {
            switch error {
            case .damaged(let why): setDerivedAside(name, why, &notices)
            case .newer(let version):
                notices.append(
                    StateNotice(
                        "state_table_unused",
                        "\(place.path(name)): its format \(version) is newer than this program reads; "
                            + "all is read instead"))
            case .failed(let fault):
                notices.append(
                    StateNotice("state_table_unused", "\(place.path(name)): \(fault.cause); all is read instead"))
            }
            return nil
        }
    }

    private func setDerivedAside(_ name: String, _ why: String, _ notices: inout [StateNotice]) {
        guard let aside = try? place.freeName(name), disk.rename(place.path(name), to: place.path(aside)) >= 0 else {
            notices.append(StateNotice("state_table_unused", "\(place.path(name)): \(why); all is read instead"))
            return
        }
        notices.append(
            StateNotice(
                "state_table_damaged",
                "\(place.path(name)): \(why); it is set aside as \(aside), all is read instead, and nothing is lost"))
    }

    /// Why it does not lead to what there is; nil: it does.
    private func unfitness(_ file: DerivedFile, version: UInt32, key: [UInt8], nonce: [UInt8]?) -> String? {
        let header = file.header
        if header.store != LogHeader.store(secret: secret) { return "it is of another store" }
        if header.version != version { return "its content is of format \(header.version), not \(version)" }
        if header.sequence < base.header.sequence || header.sequence > sequence {
            return "it is of change \(header.sequence), and the state is that of \(base.header.sequence) to \(sequence)"
        }
        guard let nonce, header.nonce == nonce else { return "it is of another course of the state" }
        return header.key == key ? nil : "it was made by other rules: the config has changed"
    }

    /// Its bytes are not what they were, or can't be read any more.
    public func isSpoiled(_ file: DerivedFile) -> Bool { file.isSpoiled(secret: secret) }

    /// The newest derived file leads to what there is.
    public var hasDerived: Bool { derivedSequence.map { $0 >= base.header.sequence } ?? false }

    /// What it has is not to be used: another one is wanted.
    public func forgetDerived() { derivedSequence = nil }

    /// Each record of a kind that has changed since the snapshot, once: those that are gone, too.
    public func forEachChanged(_ kind: UInt8, _ body: (_ id: UnsafeBufferPointer<UInt8>) -> Void) {
        for record in changes(of: kind) { body(record.id) }
    }

    // MARK: Writing one

    /// One is being written, by itself.
    public var isDeriving: Bool { derivation != nil }
    /// ``adoptDerived()`` has something to take.
    public var isDerivingOver: Bool { derivation?.outcome() != nil }

    /// Begins to write one of what there is now, on a thread; changes go on. Does nothing while one runs, or a compaction.
    public func beginDeriving(
        _ task: DerivedTask, whenOver: @escaping @Sendable () -> Void = {}
    ) throws(StateFault) {
        try refuseChange()
        guard derivation == nil, compaction == nil else { return }
        // A crash must not take back what it has.
        try flush()
        let need = base.byteCount + live.byteCount + settings.reserveBytes
        let job = Derivation(nextNumber, place, secret: secret, sequence: sequence, need: need, task)
        nextNumber += 1
        derivation = job
        do throws(StateFault) {
            job.handle = try runBeside("table", "to write a table", job.run, whenOver)
        } catch {
            derivation = nil
            throw error
        }
    }

    /// Takes one that is over.
    public func adoptDerived() {
        guard let job = derivation, job.outcome() != nil else { return }
        if let handle = job.handle { _ = cl_thread_join(handle) }
        derivation = nil
        take(job)
    }

    /// What became of it.
    func take(_ job: Derivation) {
        guard let (isWritten, fault) = job.outcome() else { return }
        if isWritten { derivedSequence = job.sequence }
        if let fault {
            note(StateNotice("state_table_failed", "\(directory): the next start reads all: \(fault.message)"))
        }
    }

    func endDeriving() {
        guard let job = derivation else { return }
        job.cancel()
        if let handle = job.handle { _ = cl_thread_join(handle) }
        derivation = nil
    }
}
