import Foundation
import Glibc
import PipelineState
import Testing

@Suite("R23: the lock of a store")
struct LockTests {
    @Test("ends with the store, also while a child that has not called exec yet has the file open")
    func inherited() throws {
        let path = FileManager.default.temporaryDirectory.appending(path: "lock-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        let disk = LinuxDisk()
        let file = disk.open(path, .make)
        try #require(file >= 0)
        #expect(disk.lock(file) == 0)
        // What a fork makes of it: another descriptor of the same open file.
        let inherited = dup(file)
        try #require(inherited >= 0)
        defer { Glibc.close(inherited) }
        let other = disk.open(path, .make)
        try #require(other >= 0)
        defer { disk.close(other) }
        #expect(disk.lock(other) == -EWOULDBLOCK)
        disk.close(file)
        #expect(disk.lock(other) == 0)
    }

    @Test("is held also without its file: a second process waits, and says so")
    func fileGone() throws {
        let path = FileManager.default.temporaryDirectory.appending(path: "lock-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        var first: StateStore? = try StateStore.open(path, seed: { testSecret }).store
        for remains in [false, true] {
            unlink(path + "/lock")
            if remains { _ = FileManager.default.createFile(atPath: path + "/lock", contents: nil) }
            #expect(throws: StateFault.locked(path: path, by: nil)) { try StateStore.open(path, seed: { testSecret }) }
        }
        var asked = 0
        let (_, notices) = try StateStore.open(
            path, seed: { testSecret },
            waiting: { process in
                asked += 1
                if asked == 2 { first = nil }
                return process == nil && asked < 100
            })
        #expect(first == nil && asked == 2 && notices.contains { $0.event == "state_waited" })
    }
}
