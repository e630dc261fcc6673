import CLinux
import Foundation
import Glibc
import Pipeline
import PipelineWire
import TestSupport
import Testing

@testable import PipelineState

/// On Linux's own file systems.
@Suite("a store on a real disk")
struct StateDiskTests {
    static var isRoot: Bool { geteuid() == 0 }

    private func open(_ path: String) throws -> (store: StateStore, notices: [StateNotice]) {
        try StateStore.open(path, seed: { testSecret })
    }

    @Test("R23: the directory is 0700, its files 0600; it is found again, and so is the secret")
    func modes() throws {
        let folder = try StoreFolder()
        do {
            let (store, notices) = try open(folder.store)
            #expect(notices.map(\.event) == ["state_created"])
            try store.append([(StateKey(1, "a"), [1])])
            try store.replaceAll([StateKey(1, "b"): [2]])
            try store.append([(StateKey(1, "a"), [3])], durably: false)
        }
        var status = stat()
        #expect(stat(folder.store, &status) == 0 && status.st_mode & 0o7777 == 0o700)
        for name in try FileManager.default.contentsOfDirectory(atPath: folder.store) {
            #expect(stat(folder.store + "/" + name, &status) == 0 && status.st_mode & 0o7777 == 0o600, "\(name)")
        }
        let (store, notices) = try StateStore.open(folder.store, seed: { [] })
        #expect(notices == [] && store.secret == testSecret)
        #expect(store.read().contents == [StateKey(1, "a"): [3], StateKey(1, "b"): [2]])
        #expect(!store.isOnReserve)
    }

    @Test("a directory that others may look into is used; one that they may write to is read, and nothing new is kept")
    func exposed() throws {
        let folder = try StoreFolder()
        try open(folder.store).store.append([(StateKey(1, "a"), [1])])
        chmod(folder.store, 0o755)
        do {
            let (store, notices) = try open(folder.store)
            #expect(notices.map(\.event) == ["state_seen"] && store.exposure == nil)
            try store.append([(StateKey(1, "a"), [2])])
        }
        for mode in [0o770, 0o702, 0o1777] as [mode_t] {
            chmod(folder.store, mode)
            let (store, notices) = try open(folder.store)
            #expect(notices.map(\.event) == ["state_exposed"])
            #expect(store.read().contents == [StateKey(1, "a"): [2]])
            let fault = StateFault.exposed(path: folder.store, mode: UInt32(mode))
            #expect(throws: fault) { try store.append([(StateKey(1, "a"), [3])]) }
            #expect(throws: fault) { try store.replaceAll([StateKey(1, "b"): [2]]) }
            #expect(store.exposure == fault)
            // It is put right under the running node.
            chmod(folder.store, 0o700)
            #expect(store.exposure == nil)
            try store.append([(StateKey(1, "a"), [2])])
        }
        #expect(try open(folder.store).store.read().contents == [StateKey(1, "a"): [2]])
    }

    @Test("R23: a second process is told who has the store, or waits until it is free")
    func lock() throws {
        let folder = try StoreFolder()
        // flock(2) is of the open file, so a second opening of one process is refused like another's.
        var first: StateStore? = try open(folder.store).store
        #expect(throws: StateFault.locked(path: folder.store, by: getpid())) { try open(folder.store) }
        var asked = 0
        let (store, notices) = try StateStore.open(
            folder.store, seed: { testSecret },
            waiting: { process in
                #expect(process == getpid())
                asked += 1
                if asked == 2 { first = nil }
                return asked < 100
            })
        #expect(asked == 2 && first == nil && notices.map(\.event) == ["state_waited"])
        try store.append([(StateKey(1, "a"), [1])])
    }

    @Test(
        "R23: a disk that is full: the reserve takes a bounded amount more, then changes are refused and change nothing",
        .enabled(if: isRoot))
    func full() throws {
        let folder = try StoreFolder(megabytes: 16)
        let store = try open(folder.store).store
        try store.append([(StateKey(1, "before"), [1])])
        let others = Glibc.open(folder.path + "/others", O_WRONLY | O_CREAT | O_APPEND, 0o600)
        let block = [UInt8](repeating: 1, count: 4096)
        while write(others, block, block.count) > 0 {}
        close(others)
        #expect(!store.isOnReserve)
        var appended = 0
        var fault: StateFault?
        while fault == nil, appended < 100 {
            do throws(StateFault) {
                var batch = StateBatch()
                [UInt8](repeating: 2, count: 100_000).withUnsafeBytes {
                    batch.put(1, Array("key-\(appended)".utf8), $0)
                }
                try store.append(batch, durably: true)
                appended += 1
            } catch { fault = error }
        }
        guard case .full = fault else { throw Failure("\(String(describing: fault))") }
        #expect(store.isOnReserve && appended > 30 && appended < 50, "\(appended)")
        #expect(store.takeNotices().map(\.event) == ["state_reserve_used"])
        #expect(throws: StateFault.self) {
            try store.replaceAll([StateKey(1, "x"): [UInt8](repeating: 1, count: 1 << 20)])
        }
        #expect(throws: StateFault.self) { try store.beginCompaction() }
        #expect(store.count(1) == appended + 1)
        unlink(folder.path + "/others")
        try store.append([(StateKey(1, "after"), [1])])
        #expect(!store.isOnReserve && store.takeNotices().map(\.event) == ["state_reserve_back"])
    }

    @Test("R23: a store on a full disk is opened, and says that it has no reserve", .enabled(if: isRoot))
    func fullAtOpening() throws {
        let folder = try StoreFolder(megabytes: 8)
        do {
            let store = try open(folder.store).store
            try store.append([(StateKey(1, "a"), [1])])
        }
        unlink(folder.store + "/reserve")
        // Killed in the middle of an entry.
        let log = Glibc.open(folder.store + "/log.2", O_WRONLY | O_APPEND)
        let block = [UInt8](repeating: 1, count: 4096)
        write(log, block, 100)
        close(log)
        let others = Glibc.open(folder.path + "/others", O_WRONLY | O_CREAT | O_APPEND, 0o600)
        while write(others, block, block.count) > 0 {}
        close(others)
        let (store, notices) = try open(folder.store)
        #expect(notices.map(\.event) == ["state_tail_cut"], "\(notices)")
        #expect(store.read().contents == [StateKey(1, "a"): [1]] && store.isOnReserve)
    }

    @Test("R23: a file system that is read-only is a fault by name", .enabled(if: isRoot))
    func readOnly() throws {
        let folder = try StoreFolder(megabytes: 16)
        _ = try open(folder.store)
        #expect(mount("tmpfs", folder.path, "tmpfs", UInt(MS_REMOUNT | MS_RDONLY), nil) == 0)
        do throws(any Error) {
            _ = try open(folder.store)
            Issue.record("it is opened")
        } catch {
            guard case StateFault.readOnly(let path) = error else { throw error }
            #expect(path == folder.store + "/lock")
        }
    }

    @Test("a compaction on its thread: changes go on, and both are there afterwards", .timeLimit(.minutes(5)))
    func thread() throws {
        let folder = try StoreFolder()
        var model: Contents = [:]
        do {
            let store = try open(folder.store).store
            for number in 0..<2000 {
                let change: Changes = [(StateKey(1, "key-\(number)"), [UInt8](repeating: 1, count: 200))]
                try store.append(change, durably: false)
                apply(change, to: &model)
            }
            let over = Promise<Bool>()
            try store.beginCompaction { over.fulfil(.success(true)) }
            for number in 1000..<3000 {
                let change: Changes = [(StateKey(1, "key-\(number)"), number % 3 == 0 ? nil : [2])]
                try store.append(change, durably: false)
                apply(change, to: &model)
            }
            #expect(try over.value())
            #expect(store.adoptCompaction()?.event == "state_compacted")
            #expect(store.read() == (model, nil))
            #expect(store.figures.snapshotNumber == 3)
        }
        let (store, notices) = try open(folder.store)
        #expect(notices == [] && store.read().contents == model)
    }

    @Test("CRC-32C by instruction and by table: the vectors of RFC 3720, and as PROXY headers have it")
    func checksums() {
        let vectors: [([UInt8], UInt32)] = [
            ([UInt8](repeating: 0, count: 32), 0x8A91_36AA), ([UInt8](repeating: 0xFF, count: 32), 0x62A8_AB43),
            (Array(0..<32), 0x46DD_794E), ((0..<32).reversed(), 0x113F_DB5C), (Array("123456789".utf8), 0xE306_9283),
            ([], 0),
        ]
        for (bytes, sum) in vectors {
            #expect(cl_crc32c(0, bytes, bytes.count) == sum)
            #expect(cl_crc32c_by_table(0, bytes, bytes.count) == sum)
        }
        var random = SplitMix64(seed: 1)
        let bytes = (0..<1000).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        for count in 0..<bytes.count {
            var other = CRC32C()
            bytes[..<count].withUnsafeBufferPointer { other.update($0) }
            #expect(cl_crc32c(0, bytes, count) == other.value)
            let half = cl_crc32c(0, bytes, count / 2)
            let whole = bytes.withUnsafeBytes {
                cl_crc32c(half, $0.baseAddress?.advanced(by: count / 2), count - count / 2)
            }
            #expect(whole == other.value)
        }
        for piece in [8, 64, 200] {
            for count in stride(from: 0, through: 1000, by: 37) {
                var sums = [UInt32](repeating: 1, count: 130)
                cl_crc32c_pieces(bytes, count, piece, &sums)
                for index in 0..<((count + piece - 1) / piece) {
                    let part = Array(bytes[(index * piece)..<min(count, (index + 1) * piece)])
                    #expect(sums[index] == cl_crc32c_by_table(0, part, part.count))
                }
            }
        }
    }
}
