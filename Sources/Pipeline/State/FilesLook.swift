import Glibc
import Pipeline

/// A file that is not what its store has made of it.
struct DisturbedFile: Sendable {
    let name: String
    let what: String
    let isSnapshot: Bool
    let isThere: Bool
    /// Somebody has written to it then, and its bytes may be whole all the same; nil: more is wrong.
    var modified: Int64?
}

/// How a store's directory and files must look. Three calls, some microseconds in all, on any thread.
struct FilesLook: Sendable {
    struct File: Sendable {
        let name: String
        let identity: DiskStatus.Identity
        let size: Int
        let isSnapshot: Bool
        /// When the store wrote to it last; nil: it is being written to.
        var modified: Int64?
    }

    let place: StatePlace
    let folder: DiskStatus.Identity
    let files: [File]

    func disturbed() throws(StateFault) -> [DisturbedFile] {
        var status = DiskStatus()
        let failed = place.disk.status(place.directory, &status)
        guard failed >= 0, status.identity == folder else {
            guard failed >= 0 || failed == -ENOENT || failed == -ENOTDIR else {
                throw StateFault.of(place.directory, "looking at it", failed)
            }
            throw .displaced(path: place.directory)
        }
        var found: [DisturbedFile] = []
        for file in files { if let one = try look(at: file) { found.append(one) } }
        return found
    }

    private func look(at file: File) throws(StateFault) -> DisturbedFile? {
        var status = DiskStatus()
        let failed = place.disk.status(place.path(file.name), &status)
        guard failed >= 0 else {
            guard failed == -ENOENT else { throw StateFault.of(place.path(file.name), "looking at it", failed) }
            return DisturbedFile(
                name: file.name, what: "it was taken away", isSnapshot: file.isSnapshot, isThere: false)
        }
        let found = { DisturbedFile(name: file.name, what: $0, isSnapshot: file.isSnapshot, isThere: true) }
        if status.identity != file.identity { return found("another file is in its place") }
        if status.size != file.size { return found("it has \(status.size) bytes, not \(file.size)") }
        if status.links != 1 { return found("it has \(status.links) names (hard links)") }
        guard let modified = file.modified, status.modified != modified else { return nil }
        var touched = found("its bytes were changed")
        touched.modified = status.modified
        return touched
    }
}

extension StateStore {
    /// - Parameter more: bytes behind the log's end that are expected as well.
    func filesLook(behind more: Int = 0) -> FilesLook {
        var files = [
            FilesLook.File(
                name: "snapshot.\(base.header.number)", identity: base.identity, size: base.byteCount,
                isSnapshot: true, modified: baseModified)
        ]
        if log.isTrusted {
            files.append(
                FilesLook.File(
                    name: "log.\(log.number)", identity: log.identity, size: log.end + more, isSnapshot: false,
                    modified: more == 0 ? log.modified : nil))
        }
        return FilesLook(place: place, folder: folder, files: files)
    }

    func disturbed() throws(StateFault) -> [DisturbedFile] { disturbed(of: try filesLook().disturbed()) }

    /// What counts of what a look has found: not a file that was written to and is whole, but a snapshot that was cut and
    /// put right again.
    func disturbed(of found: [DisturbedFile]) -> [DisturbedFile] {
        var counting: [DisturbedFile] = []
        for file in found {
            guard let modified = file.modified, file.isSnapshot ? isBaseWhole : isLogWhole else {
                counting.append(file)
                continue
            }
            if file.isSnapshot { baseModified = modified } else { log.modified = modified }
        }
        if base.hasLost, !counting.contains(where: \.isSnapshot) {
            counting.append(
                DisturbedFile(
                    name: "snapshot.\(base.header.number)", what: "a part of it can't be read any more",
                    isSnapshot: true, isThere: true))
        }
        return counting
    }

    /// As long as it is not, memory has all that it had.
    private var isLogWhole: Bool {
        guard let image = try? LogImage("log.\(log.number)", place), image.header.number == log.number else {
            return false
        }
        var reader = LogReader(image.bytes, salt: log.salt)
        var next = image.header.first
        while reader.next(next) != nil { next += 1 }
        return reader.offset == log.end
    }

    var isBaseWhole: Bool { !base.hasLost && (try? base.check(place)) != nil && !base.hasLost }
}
