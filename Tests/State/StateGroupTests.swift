import CLinux
import Foundation
import Glibc
import Pipeline
import TestSupport
import Testing

@testable import PipelineState

/// Batches that become durable together (ADR 0112).
@Suite("groups of a store")
struct StateGroupTests {
    private static let large = [UInt8](repeating: 7, count: 66_000)

    /// Groups, with each other thing that a store does before and behind one.
    private static func script(_ store: CheckedStore) throws {
        try store.group([[(StateKey(1, "a"), [1])], [(StateKey(1, "a"), [2]), (StateKey(2, "b"), large)]])
        try store.append([(StateKey(1, "c"), [3])], durably: false)
        try store.group([[(StateKey(1, "a"), nil)], [(StateKey(1, "d"), [4])], [(StateKey(1, "d"), [5])]])
        try store.compact()
        try store.group([[(StateKey(1, "e"), [6])], [(StateKey(1, "c"), nil)]])
        _ = store.adopt()
        try store.group([[(StateKey(1, "f"), [7])]])
        try store.replaceAll([StateKey(1, "x"): [8]])
        try store.append([(StateKey(1, "g"), [9])], durably: false)
        try store.group([[(StateKey(1, "x"), nil)], [(StateKey(1, "y"), [10])]])
    }

    private static let calls: Int = {
        let disk = MemoryDisk()
        guard let store = try? CheckedStore(disk), (try? script(store)) != nil else { return 0 }
        return disk.calls
    }()

    @Test(
        "R23: the machine dies at any call: of a group the first batches are there, and all once that was said",
        .timeLimit(.minutes(5)))
    func machine() {
        #expect(Self.calls > 30)
        for call in 0...Self.calls {
            for seed in 0..<6 as Range<UInt64> {
                let disk = MemoryDisk(seed: seed)
                disk.dieAt = call
                var possible: [Contents] = [[:]]
                if let store = try? CheckedStore(disk) {
                    try? Self.script(store)
                    possible = store.possible
                    store.close()
                }
                StateCrashTests.check(disk.afterCrash(), possible, "call \(call), seed \(seed)")
            }
        }
    }

    @Test(
        "R23: any call fails: the whole group is in force, or nothing of it, then and at the next opening",
        .timeLimit(.minutes(5)), arguments: [EIO, ENOSPC])
    func failures(_ error: Int32) throws {
        for call in 0...Self.calls {
            for length in [1, 3, 6] {
                let disk = MemoryDisk(seed: UInt64(call))
                disk.failing = { $0 >= call && $0 < call + length ? error : nil }
                guard let store = try? StateStore.open(disk).store else { continue }
                var now: Contents = [:]
                for number in 0..<6 as Range<UInt8> {
                    let batches: [Changes] = [
                        [(StateKey(1, "a"), [number])], [(StateKey(1, "b\(number)"), [1]), (StateKey(1, "a"), nil)],
                        [(StateKey(2, "c"), [number])],
                    ]
                    if (try? store.group(batches)) != nil { now = batches.reduce(now) { applying($1, to: $0) } }
                    #expect(store.read() == (now, nil), "call \(call), length \(length)")
                    #expect(!store.hasGroup)
                }
                disk.failing = { _ in nil }
                // What was refused last may be there if taking it back failed as well; nothing of it was said.
                try? store.append([(StateKey(3, "last"), [1])])
                let last = store.read().contents
                let (again, _) = try StateStore.open(disk.afterKill())
                #expect(again.read() == (last, nil), "call \(call), length \(length)")
            }
        }
    }

    @Test("what is staged is seen by the group alone, and counted, in order, and found; forgotten, it never was")
    func staged() throws {
        let disk = MemoryDisk()
        let store = try StateStore.open(disk).store
        try store.append([(StateKey(1, "a"), [1]), (StateKey(1, "b"), [2])])
        try store.beginCompaction()
        _ = store.adoptCompaction()
        try store.append([(StateKey(1, "c"), [3])])
        let before = store.read().contents
        let group = try store.makeGroup()
        try group.stage(StateBatch([(StateKey(1, "a"), nil), (StateKey(1, "d"), [4])]))
        try group.stage(StateBatch([(StateKey(1, "d"), [5]), (StateKey(1, "b"), [6])]))
        try group.stage(StateBatch([]))
        var seen: [String] = []
        group.forEach(1) { id, value in seen.append("\(String(decoding: id, as: UTF8.self))=\(Array(value))") }
        #expect(seen == ["b=[6]", "c=[3]", "d=[5]"] && group.count(1) == 3 && group.count == 2)
        for (name, value) in [("a", nil), ("b", [6]), ("d", [5])] as [(String, [UInt8]?)] {
            #expect(Array(name.utf8).withUnsafeBufferPointer { group.value(1, $0).map { Array($0) } } == value)
        }
        #expect(store.read() == (before, nil) && group.sequence == store.sequence + 2)
        // Another one in its place.
        try store.group([[(StateKey(1, "e"), [7])]])
        #expect(store.read() == (applying([(StateKey(1, "e"), [7])], to: before), nil))
        #expect(try StateStore.open(disk.afterCrash()).store.read() == store.read())
    }

    @Test("while a group is on its way nothing else is changed, and what there was is read")
    func busy() throws {
        let disk = MemoryDisk()
        let store = try StateStore.open(disk).store
        try store.append([(StateKey(1, "a"), [1])])
        let group = try store.makeGroup()
        try group.stage(StateBatch([(StateKey(1, "a"), [2])]))
        try store.handOver(group)
        #expect(store.hasGroup && store.isGroupOver)
        let fault = StateFault.busy(path: "store")
        #expect(throws: fault) { try store.append([(StateKey(1, "b"), [1])], durably: false) }
        #expect(throws: fault) { try store.flush() }
        #expect(throws: fault) { try store.replaceAll([:]) }
        #expect(throws: fault) { try store.beginCompaction() }
        #expect(throws: fault) { try store.makeGroup() }
        #expect(throws: fault) { try store.check() }
        #expect(!store.wantsCompaction && store.adoptCompaction() == nil)
        #expect(store.read() == ([StateKey(1, "a"): [1]], nil))
        try store.endGroup()
        group.takeEffect(0)
        try store.append([(StateKey(1, "b"), [1])], durably: false)
        #expect(store.read() == ([StateKey(1, "a"): [2], StateKey(1, "b"): [1]], nil))
    }

    @Test("a thread waits for the disk, and says when it is done; whoever handed over does not")
    func thread() throws {
        let disk = MemoryDisk()
        var settings = StateSettings()
        settings.reserveBytes = 0
        let store = try StateStore.open(
            StatePlace(directory: "store", disk: disk, settings: settings), seed: { testSecret }
        ).store
        let (reached, gate) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
        for failure in [nil, EIO] as [Int32?] {
            let group = try store.makeGroup()
            try group.stage(StateBatch([(StateKey(1, "a"), [failure == nil ? 1 : 2])]))
            let sync = disk.calls + 1
            disk.failing = { call in
                guard call == sync else { return nil }
                reached.signal()
                gate.wait()
                return failure
            }
            try store.handOver(group)
            reached.wait()
            #expect(!store.isGroupOver && store.hasGroup)
            var items = [cl_poll_item(fd: try store.groupNotice.unwrap(), wants: UInt8(CL_READABLE), got: 0)]
            #expect(cl_poll(&items, 1, 0) == 0)
            gate.signal()
            #expect(cl_poll(&items, 1, 60_000_000_000) == 1)
            #expect(store.isGroupOver)
            // A log that can't be synced is left for another one.
            try store.endGroup()
            group.takeEffect(0)
            #expect(store.value(StateKey(1, "a")) == [failure == nil ? 1 : 2])
        }
        #expect(store.takeNotices().map(\.event) == ["state_log_replaced"])
        #expect(store.groupFigures.groups == 2)
    }
}
