import CLinux
import Glibc
import Pipeline

extension StateStore {
    /// Opens the store in a directory, which is made if there is none: 0700, its files 0600, and one process at a time.
    /// - Parameters:
    ///   - seed: gives 16 secret bytes, for a store that is new.
    ///   - label: says which changes are lost, if some are.
    ///   - waiting: asked again and again while another process has it, if known which: whether to wait on. Without it
    ///     that is a fault.
    public static func open(
        _ directory: String, label: EntryLabel? = nil, seed: () -> [UInt8],
        waiting: ((_ process: Int32?) -> Bool)? = nil
    ) throws(StateFault) -> (store: StateStore, notices: [StateNotice]) {
        var settings = StateSettings()
        settings.label = label
        return try open(
            StatePlace(directory: directory, disk: LinuxDisk(), settings: settings), seed: seed, waiting)
    }

    /// - Parameter last: the last entry that counts: what came after it is set aside. Nil: all counts.
    package static func open(
        _ place: StatePlace, endingAt last: UInt64? = nil, seed: () -> [UInt8],
        _ waiting: ((_ process: Int32?) -> Bool)? = nil
    ) throws(StateFault) -> (store: StateStore, notices: [StateNotice]) {
        let exposure = try place.checkDirectory()
        var found: [StateNotice] = []
        let lock = try StoreLock.take(place, exposure, &found, waiting)
        do throws(StateFault) {
            try place.clear(StateReserve.name, exposure, &found)
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
            return (store, found + notices + [exposure.notice(place.directory)].compactMap { $0 })
        } catch {
            lock.end(place.disk)
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
}
