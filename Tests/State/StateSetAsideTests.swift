import Pipeline
import Testing

@testable import PipelineState

/// Opening a store as it was before what must not count.
@Suite("R29: what came last is set aside") struct StateSetAsideTests {
    /// Files with a snapshot and the one before, logs of both, and what the store held at each sequence.
    private static func sample(replaces: Bool) throws -> (files: [String: [UInt8]], held: [UInt64: Contents]) {
        let disk = MemoryDisk()
        var held: [UInt64: Contents] = [0: [:]]
        let (store, _) = try StateStore.open(disk)
        var now: Contents = [:]
        func append(_ name: String, _ value: UInt8) throws {
            let change: Changes = [(StateKey(1, name), [value])]
            try store.append(change)
            now = applying(change, to: now)
            held[store.figures.sequence] = now
        }
        try append("a", 1)
        try append("b", 2)
        if replaces {
            now = [StateKey(2, "x"): [9]]
            try store.replaceAll(now)
            held[store.figures.sequence] = now
        } else {
            try store.beginCompaction()
            _ = store.adoptCompaction()
        }
        try append("a", 3)
        try append("c", 4)
        return (disk.contents, held)
    }

    private static func open(_ disk: MemoryDisk, endingAt last: UInt64?) throws -> (StateStore, [StateNotice]) {
        var settings = StateSettings()
        settings.reserveBytes = 0
        settings.hasThread = false
        return try StateStore.open(
            StatePlace(directory: "store", disk: disk, settings: settings), endingAt: last, seed: { testSecret })
    }

    @Test(
        "it holds what it held then, says so by name, goes on from there, and loses no byte", arguments: [true, false])
    func back(_ replaces: Bool) throws {
        let (files, held) = try Self.sample(replaces: replaces)
        let newest = try #require(held.keys.max())
        for last in 0...newest {
            let disk = MemoryDisk(files)
            var next = held[last] ?? [:]
            do {
                let (store, notices) = try Self.open(disk, endingAt: last)
                let (contents, flaw) = store.read()
                #expect(flaw == nil && contents == held[last], "\(last): \(brief(contents)), \(flaw ?? "")")
                #expect((last == newest) == notices.isEmpty, "\(last): \(notices)")
                #expect(notices.allSatisfy { $0.event == "state_set_aside" }, "\(last): \(notices)")
                let change: Changes = [(StateKey(3, "on"), [7])]
                try store.append(change)
                next = applying(change, to: next)
            }
            #expect((last == newest) != disk.contents.keys.contains { $0.contains(".set-aside-") }, "\(last)")
            let (again, notices) = try Self.open(disk, endingAt: nil)
            #expect(again.read().contents == next && notices.isEmpty, "\(last): \(notices)")
        }
    }

    @Test("a crash at any step of it: the next try makes the same of it", arguments: [true, false])
    func crashes(_ replaces: Bool) throws {
        let (files, held) = try Self.sample(replaces: replaces)
        let newest = try #require(held.keys.max())
        for last in 0..<newest {
            var call = 0
            while true {
                let disk = MemoryDisk(files)
                disk.dieAt = call
                let store = try? Self.open(disk, endingAt: last)
                withExtendedLifetime(store) {}
                guard disk.isDead else { break }
                for left in [disk.afterKill(), disk.afterCrash()] {
                    let (again, _) = try Self.open(left, endingAt: last)
                    #expect(again.read().contents == held[last], "\(last), call \(call)")
                }
                call += 1
            }
            #expect(call > 0)
        }
    }
}
