import CLinux
import Pipeline

/// What makes a group durable: one write, one sync, and a look at the files.
///
/// Threading: made by the store's thread, run by another, and read by the first once it is over.
final class LogWrite: @unchecked Sendable {
    enum Outcome {
        /// In files that may not be the store's any more: those that are not what they were.
        case durable([DisturbedFile])
        /// Somebody has changed files since the last look: nothing was written.
        case disturbed([DisturbedFile])
        case unseen(StateFault)
        case unwritten(Int32)
        /// Written or not, nobody can tell.
        case unsynced(Int32)
    }

    private let file: Int32
    private let end: Int
    private let bytes: [UInt8]
    /// How the files look before it, and behind it.
    private let before: FilesLook
    private let look: FilesLook
    private let head: StateHead?
    private let sequence: UInt64
    private(set) var outcome = Outcome.unwritten(0)
    /// The head says that it is durable.
    private(set) var isNoted = false
    /// When it was written, as the file says; nil: that is not known.
    private(set) var modified: Int64?
    /// Of the write, the sync and the looks, in nanoseconds.
    private(set) var duration: UInt64 = 0

    /// - Parameter sequence: of the last entry.
    init(
        _ bytes: [UInt8], sequence: UInt64, to log: AppendLog, before: FilesLook, behind look: FilesLook,
        _ head: StateHead?
    ) {
        (file, end) = (log.file, log.end)
        self.before = before
        self.bytes = bytes
        self.sequence = sequence
        self.look = look
        self.head = head
    }

    func run() {
        let began = cl_now()
        defer { duration = cl_now() - began }
        do throws(StateFault) {
            // Bytes that are written behind a cut would hide it.
            let disturbed = try before.disturbed()
            outcome = disturbed.isEmpty ? write() : .disturbed(disturbed)
            guard case .durable = outcome else { return }
            let found = try look.disturbed()
            outcome = .durable(found)
            guard found.isEmpty else { return }
            head?.write(sequence)
            isNoted = true
        } catch { outcome = .unseen(error) }
    }

    private func write() -> Outcome {
        let disk = look.place.disk
        var failed = bytes.withUnsafeBytes { disk.write(file, $0, at: end) }
        if failed < 0 { return .unwritten(failed) }
        var status = DiskStatus()
        if disk.status(of: file, &status) >= 0 { modified = status.modified }
        failed = disk.sync(file)
        return failed < 0 ? .unsynced(failed) : .durable([])
    }
}
