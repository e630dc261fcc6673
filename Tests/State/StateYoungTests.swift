import Pipeline
import Testing

@testable import PipelineState

/// A store that has its first snapshot and a log: nothing older stands beside it.
@Suite("a young store and damage")
struct StateYoungTests {
    private static func sample() throws -> (files: [String: [UInt8]], history: [Contents]) {
        let disk = MemoryDisk()
        var history: [Contents] = [[:]]
        let store = try CheckedStore(disk)
        for (id, value) in [("a", 1), ("b", 2), ("a", 3)] as [(String, UInt8)] {
            try store.append([(StateKey(1, id), [value, value])], durably: true)
            history.append(store.now)
        }
        return (disk.contents, history)
    }

    /// What is lost, as a sentence with numbers.
    private func open(_ files: [String: [UInt8]]) throws -> (contents: Contents, losses: [String], disk: MemoryDisk) {
        let disk = MemoryDisk(files)
        let (store, notices) = try StateStore.open(disk)
        return (store.read().contents, notices.filter(\.isLoss).map(\.text), disk)
    }

    @Test("R23: any byte of any file is changed: nothing is lost, or which changes are", .timeLimit(.minutes(5)))
    func flips() throws {
        let (files, history) = try Self.sample()
        #expect(files.keys.sorted() == ["durable", "lock", "log.2", "snapshot.1", "snapshot.2"])
        for (name, bytes) in files {
            for index in bytes.indices {
                var changed = files
                changed[name]?[index] ^= 1 << UInt8(index % 8)
                check(changed, history, "\(name), byte \(index)", mustKeep: name != "log.2" || index < 64)
            }
        }
    }

    @Test("R23: any file is cut at any byte, or gone: nothing is lost, or which changes are", .timeLimit(.minutes(5)))
    func cuts() throws {
        let (files, history) = try Self.sample()
        for (name, bytes) in files {
            for index in bytes.indices {
                var changed = files
                changed[name] = Array(bytes[..<index])
                check(changed, history, "\(name), first \(index) bytes", mustKeep: name != "log.2")
            }
            var changed = files
            changed[name] = nil
            check(changed, history, "without \(name)", mustKeep: name != "log.2")
        }
    }

    private func check(_ files: [String: [UInt8]], _ history: [Contents], _ what: String, mustKeep: Bool) {
        do {
            let (contents, losses, disk) = try open(files)
            guard let index = history.firstIndex(of: contents) else {
                Issue.record("\(what): it never held \(brief(contents))")
                return
            }
            let isWhole = index == history.count - 1
            if mustKeep, !isWhole { Issue.record("\(what): only \(index) changes are left") }
            if isWhole, !losses.isEmpty { Issue.record("\(what): nothing is lost: \(losses)") }
            if !isWhole, !losses.contains(where: { $0.contains("the changes \(index + 1) to \(history.count - 1)") }) {
                Issue.record("\(what): it doesn't say what is lost: \(losses)")
            }
            let (again, notices) = try StateStore.open(disk)
            if !notices.isEmpty || again.read().contents != contents { Issue.record("\(what): not mended: \(notices)") }
            try again.append([(StateKey(9, "after"), [1])])
        } catch { Issue.record("\(what): \(error)") }
    }
}
