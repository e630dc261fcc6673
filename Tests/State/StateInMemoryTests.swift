import Glibc
import Pipeline
import Testing

@testable import PipelineState

/// What no disk takes, and is in force all the same.
@Suite("entries that memory alone has")
struct StateInMemoryTests {
    private func keep(_ store: StateStore, _ batches: [Changes]) throws {
        let group = try store.makeGroupInMemory().unwrap("a group")
        for batch in batches { try group.stage(StateBatch(batch)) }
        try store.keepInMemory(group)
        for index in 0..<group.count { group.takeEffect(index) }
    }

    @Test(
        "R23: they are there until the process ends, and durable with whatever is written next, in order",
        arguments: [ENOSPC, EIO, EROFS])
    func kept(_ error: Int32) throws {
        for next in 0..<5 {
            let disk = MemoryDisk()
            let store = try StateStore.open(disk).store
            try store.append([(StateKey(1, "a"), [1]), (StateKey(1, "b"), [1])])
            try store.append([(StateKey(1, "c"), [1])], durably: false)
            disk.failing = { _ in error }
            #expect(throws: StateFault.self) { try store.group([[(StateKey(1, "d"), [1])]]) }
            try keep(store, [[(StateKey(1, "a"), [2])], [(StateKey(1, "b"), nil)]])
            #expect(store.keepInMemory(StateBatch([(StateKey(1, "a"), [3])])))
            var now: Contents = [StateKey(1, "a"): [3], StateKey(1, "c"): [1]]
            #expect(store.read() == (now, nil) && store.changesInMemory == 3)
            #expect(throws: StateFault.self) { try store.writeFromMemory() }
            #expect(throws: StateFault.self) { try store.group([[(StateKey(1, "d"), [1])]]) }
            #expect(throws: StateFault.self) { try store.append([(StateKey(1, "d"), [1])], durably: false) }
            #expect(store.read() == (now, nil) && store.changesInMemory == 3)
            let before = try StateStore.open(disk.afterKill()).store.read().contents
            #expect(before[StateKey(1, "a")] == [1] && before[StateKey(1, "b")] == [1])
            disk.failing = { _ in nil }
            switch next {
            case 0: #expect(try store.writeFromMemory())
            case 1: try store.group([[(StateKey(1, "d"), [2])], [(StateKey(1, "a"), [4])]])
            case 2: try store.append([(StateKey(1, "d"), [2]), (StateKey(1, "a"), [4])])
            case 3: try store.beginCompaction()
            default: try store.replaceAll([StateKey(1, "x"): [9]])
            }
            if next == 1 || next == 2 { now = applying([(StateKey(1, "d"), [2]), (StateKey(1, "a"), [4])], to: now) }
            if next == 4 { now = [StateKey(1, "x"): [9]] }
            #expect(store.read() == (now, nil) && store.changesInMemory == 0, "\(next)")
            #expect(try !store.writeFromMemory())
            let (again, notices) = try StateStore.open(disk.afterCrash())
            #expect(again.read() == (now, nil) && notices.allSatisfy { !$0.isLoss }, "\(next): \(notices)")
            // And it goes on from there.
            try store.group([[(StateKey(2, "last"), [1])]])
            #expect(try StateStore.open(disk.afterCrash()).store.value(StateKey(2, "last")) == [1])
        }
    }

    @Test(
        "R23: the machine dies at any call of what makes them durable: all that was durable is there, and they or not")
    func crashes() throws {
        func script(_ disk: MemoryDisk) throws {
            let store = try StateStore.open(disk).store
            try store.append([(StateKey(1, "a"), [1])])
            let first = disk.calls
            disk.failing = { call in call >= first ? ENOSPC : nil }
            _ = try? store.group([[(StateKey(1, "d"), [1])]])
            disk.failing = { _ in nil }
            try keep(store, [[(StateKey(1, "a"), [2])], [(StateKey(1, "b"), [2])]])
            try store.group([[(StateKey(1, "c"), [3])]])
        }
        let disk = MemoryDisk()
        try script(disk)
        let calls = disk.calls
        let steps: [Contents] = [
            // The refused one may be there where taking it back failed as well, until another log begins.
            [:], [StateKey(1, "a"): [1]], [StateKey(1, "a"): [1], StateKey(1, "d"): [1]], [StateKey(1, "a"): [2]],
            [StateKey(1, "a"): [2], StateKey(1, "b"): [2]],
            [StateKey(1, "a"): [2], StateKey(1, "b"): [2], StateKey(1, "c"): [3]],
        ]
        for call in 0...calls {
            for seed in 0..<8 as Range<UInt64> {
                let disk = MemoryDisk(seed: seed)
                disk.dieAt = call
                try? script(disk)
                StateCrashTests.check(disk.afterCrash(), steps, "call \(call), seed \(seed)")
            }
        }
    }

    @Test("R27: there are bounds to what memory alone has")
    func bounded() throws {
        let disk = MemoryDisk()
        var settings = StateSettings()
        (settings.reserveBytes, settings.mostInMemory, settings.hasThread) = (0, 4096, false)
        let store = try StateStore.open(
            StatePlace(directory: "store", disk: disk, settings: settings), seed: { testSecret }
        ).store
        disk.failing = { _ in ENOSPC }
        try keep(store, [[(StateKey(1, "a"), [UInt8](repeating: 1, count: 2000))]])
        #expect(throws: StateFault.self) { try keep(store, [[(StateKey(1, "b"), [UInt8](repeating: 1, count: 3000))]]) }
        #expect(!store.keepInMemory(StateBatch([(StateKey(1, "b"), [UInt8](repeating: 1, count: 3000))])))
        #expect(store.count(1) == 1 && store.changesInMemory == 1)
    }
}
