import CLinux
import Glibc
import Pipeline

extension StateStore {
    /// Opens the store in a directory, which is made if there is none: 0700, its files 0600, and one process at a time.
    /// - Parameters:
    ///   - seed: gives 16 secret bytes, for a store that is new.
    ///   - endingAt: the last entry that counts: what came after it is set aside. Nil: all counts.
    ///   - waiting: asked again and again while another process has it, if known which: whether to wait on. Without it
    ///     that is a fault.
    public static func open(
        _ directory: String, endingAt last: UInt64? = nil, seed: () -> [UInt8],
        waiting: ((_ process: Int32?) -> Bool)? = nil
    ) throws(StateFault) -> (store: StateStore, notices: [StateNotice]) {
        try open(
            StatePlace(directory: directory, disk: LinuxDisk(), settings: StateSettings()), endingAt: last, seed: seed,
            waiting)
    }

    package static func open(
        _ place: StatePlace, endingAt last: UInt64? = nil, seed: () -> [UInt8],
        _ waiting: ((_ process: Int32?) -> Bool)? = nil
    ) throws(StateFault) -> (store: StateStore, notices: [StateNotice]) {
        let exposure = try place.checkDirectory()
        let (lock, waited) = try place.takeLock(waiting)
        do throws(StateFault) {
            var reserve = StateReserve(directory: place.directory, bytes: place.settings.reserveBytes, place.disk)
            let (opened, notices) = try place.recover(seed, endingAt: last, &reserve)
            reserve.take()
            let head = StateHead(place, secret: opened.base.header.secret)
            var status = DiskStatus()
            let failed = place.disk.status(place.directory, &status)
            guard failed >= 0 else { throw StateFault.of(place.directory, "looking at it", failed) }
            let store = StateStore(
                opened, lock: lock, reserve: reserve, head: head, folder: status.identity, place)
            if exposure.fault(place.directory) != nil { store.isExposed = true }
            return (store, waited + notices + [exposure.notice(place.directory)].compactMap { $0 })
        } catch {
            place.disk.close(lock)
            throw error
        }
    }
}

extension StatePlace {
    /// On a disk that is full the reserve is given for it: what is found and mended is the same the second time.
    fileprivate func recover(
        _ seed: () -> [UInt8], endingAt last: UInt64?, _ reserve: inout StateReserve
    ) throws(StateFault) -> (OpenedState, [StateNotice]) {
        do throws(StateFault) {
            var recovery = try StateRecovery(self, endingAt: last)
            return (try recovery.run(seed: seed), recovery.notices)
        } catch {
            guard case .full = error, reserve.release() else { throw error }
            var recovery = try StateRecovery(self, endingAt: last)
            return (try recovery.run(seed: seed), recovery.notices)
        }
    }

    private static let askAgain: Int64 = 50_000_000

    func takeLock(_ waiting: ((_ process: Int32?) -> Bool)?) throws(StateFault) -> (Int32, [StateNotice]) {
        let path = path("lock")
        let file = disk.open(path, .make)
        guard file >= 0 else { throw StateFault.of(path, "opening it", file) }
        var notices: [StateNotice] = []
        while true {
            let failed = disk.lock(file)
            if failed >= 0 { break }
            let holder = process(in: file)
            guard failed == -EWOULDBLOCK, let waiting, waiting(holder) else {
                disk.close(file)
                throw failed == -EWOULDBLOCK
                    ? .locked(path: directory, by: holder) : StateFault.of(path, "locking it", failed)
            }
            if notices.isEmpty {
                let who = holder.map { "process \($0)" } ?? "another process"
                notices.append(StateNotice("state_waited", "\(directory): waited for \(who), which had it open"))
            }
            cl_sleep(StatePlace.askAgain)
        }
        do throws(StateFault) { try checkFile("lock") } catch {
            disk.close(file)
            throw error
        }
        // For whoever finds it locked; a full disk takes nothing from us.
        let text = Array("\(cl_process_id())\n".utf8)
        _ = disk.resize(file, to: 0)
        _ = text.withUnsafeBytes { disk.write(file, $0, at: 0) }
        return (file, notices)
    }

    private func process(in file: Int32) -> Int32? {
        var text = [UInt8](repeating: 0, count: 16)
        let count = text.withUnsafeMutableBytes { disk.read(file, $0, at: 0) }
        guard count > 0 else { return nil }
        return Int32(String(decoding: text.prefix(count).prefix { $0 != 10 }, as: UTF8.self))
    }
}
