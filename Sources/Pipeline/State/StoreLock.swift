import CLinux
import Glibc
import Pipeline

/// One process at a time has a store: it holds the directory itself, which nobody can take away from under it, and a file
/// in it, which says who it is and is all that earlier versions look at.
struct StoreLock {
    static let name = "lock"
    private static let askAgain: Int64 = 50_000_000

    private let folder: Int32
    private let file: Int32

    /// - Parameter waiting: see ``StateStore/open(_:label:seed:waiting:)``.
    static func take(
        _ place: StatePlace, _ exposure: StateExposure, _ notices: inout [StateNotice],
        _ waiting: ((_ process: Int32?) -> Bool)?
    ) throws(StateFault) -> StoreLock {
        let disk = place.disk
        let folder = disk.openDirectory(place.directory)
        guard folder >= 0 else { throw StateFault.of(place.directory, "opening it", folder) }
        do throws(StateFault) {
            // Some network file systems lock no directories: there the file has to do.
            try wait(for: folder, place, isNeeded: false, &notices, waiting)
            let path = place.path(name)
            try place.clear(name, exposure, &notices)
            let file = disk.open(path, .make)
            guard file >= 0 else { throw StateFault.of(path, "opening it", file) }
            do throws(StateFault) { try wait(for: file, place, isNeeded: true, &notices, waiting) } catch {
                disk.close(file)
                throw error
            }
            // For whoever finds it locked; a full disk takes nothing from us.
            let text = Array("\(cl_process_id())\n".utf8)
            _ = disk.resize(file, to: 0)
            _ = text.withUnsafeBytes { disk.write(file, $0, at: 0) }
            return StoreLock(folder: folder, file: file)
        } catch {
            disk.close(folder)
            throw error
        }
    }

    func end(_ disk: any Disk) {
        disk.close(file)
        disk.close(folder)
    }

    private static func wait(
        for descriptor: Int32, _ place: StatePlace, isNeeded: Bool, _ notices: inout [StateNotice],
        _ waiting: ((_ process: Int32?) -> Bool)?
    ) throws(StateFault) {
        while true {
            let failed = place.disk.lock(descriptor)
            if failed >= 0 || (!isNeeded && failed != -EWOULDBLOCK) { return }
            guard failed == -EWOULDBLOCK else { throw StateFault.of(place.path(name), "locking it", failed) }
            let holder = holder(place)
            guard let waiting, waiting(holder) else { throw .locked(path: place.directory, by: holder) }
            if !notices.contains(where: { $0.event == waited }) {
                let who = holder.map { "process \($0)" } ?? "another process"
                notices.append(StateNotice(waited, "\(place.directory): waited for \(who), which had it open"))
            }
            cl_sleep(askAgain)
        }
    }

    private static let waited = "state_waited"

    /// Who has it, as the file says.
    private static func holder(_ place: StatePlace) -> Int32? {
        let file = place.disk.open(place.path(name), .read)
        guard file >= 0 else { return nil }
        defer { place.disk.close(file) }
        var text = [UInt8](repeating: 0, count: 16)
        let count = text.withUnsafeMutableBytes { place.disk.read(file, $0, at: 0) }
        guard count > 0 else { return nil }
        return Int32(String(decoding: text.prefix(count).prefix { $0 != 10 }, as: UTF8.self))
    }
}
