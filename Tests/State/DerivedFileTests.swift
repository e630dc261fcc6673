import Glibc
import Pipeline
import Testing

@testable import PipelineState

/// A file that is made from records is whole, or it is done without; the records are none the worse for it.
@Suite("a store and what is made from it")
struct DerivedFileTests {
    private static let key = [UInt8](repeating: 4, count: 16)
    private static let nonce = [UInt8](repeating: 9, count: 16)
    /// More than a block, and no multiple of 8.
    private static let content = (0..<70_003).map { UInt8(truncatingIfNeeded: $0 * 7) }

    private static var task: DerivedTask {
        DerivedTask(version: 3, key: key, nonce: nonce) { put throws(StateFault) in
            var rest = content[...]
            while !rest.isEmpty {
                let piece = Array(rest.prefix(30_001))
                rest = rest.dropFirst(piece.count)
                let result = piece.withUnsafeBytes { bytes -> Result<Void, StateFault> in
                    do throws(StateFault) { return .success(try put(bytes)) } catch { return .failure(error) }
                }
                try result.get()
            }
            return [1, 2, 3]
        }
    }

    private func open(_ store: StateStore) -> (file: DerivedFile?, notices: [StateNotice]) {
        store.openDerived(version: 3, key: DerivedFileTests.key, nonce: DerivedFileTests.nonce)
    }

    private func isWhole(_ file: DerivedFile) -> Bool {
        file.info == [1, 2, 3] && file.content.elementsEqual(DerivedFileTests.content)
    }

    /// By itself, or with a compaction.
    private func write(_ store: StateStore, _ withCompaction: Bool) throws {
        if withCompaction {
            try store.beginCompaction(deriving: DerivedFileTests.task)
            _ = store.adoptCompaction()
        } else {
            try store.beginDeriving(DerivedFileTests.task)
            store.adoptDerived()
        }
    }

    @Test("what was written is found again, once the state has gone through its moment", arguments: [false, true])
    func whole(withCompaction: Bool) throws {
        let disk = MemoryDisk()
        do {
            let store = try StateStore.open(disk).store
            try store.append([(StateKey(1, "a"), [1])])
            #expect(!store.hasDerived)
            try write(store, withCompaction)
            #expect(store.hasDerived && !store.isDeriving)
            try store.append([(StateKey(1, "b"), [2])])
        }
        let store = try StateStore.open(disk).store
        #expect(isWhole(try #require(open(store).file)) && store.hasDerived)
        var changed: [[UInt8]] = []
        store.forEachChanged(1) { changed.append(Array($0)) }
        #expect(changed == (withCompaction ? [Array("b".utf8)] : [Array("a".utf8), Array("b".utf8)]))
        // What is newer than it replaces all.
        try store.replaceAll([StateKey(1, "x"): [4]])
        #expect(!store.hasDerived)
        let (none, notices) = open(store)
        #expect(none == nil && notices.map(\.event) == ["state_table_unused"])
    }

    @Test("a crash at each call leaves a whole one or none, and the records", arguments: [false, true])
    func crashes(withCompaction: Bool) throws {
        var (call, isOver) = (0, false)
        while !isOver {
            let disk = MemoryDisk(seed: UInt64(call))
            let store = try StateStore.open(disk).store
            try store.append([(StateKey(1, "a"), [1])])
            disk.dieAt = disk.calls + call
            try? write(store, withCompaction)
            isOver = !disk.isDead
            let left = call % 2 == 0 ? disk.afterCrash() : disk.afterKill()
            let again = try StateStore.open(left).store
            #expect(again.read() == ([StateKey(1, "a"): [1]], nil), "call \(call)")
            let (file, _) = open(again)
            #expect(file.map(isWhole) ?? true, "call \(call)")
            var names: [String] = []
            _ = left.names(in: "store", &names)
            #expect(!names.contains { $0.hasSuffix(".new") }, "call \(call): \(names)")
            call += 1
        }
        #expect(call > 7)
    }

    @Test("each call that fails: it is done without, and said", arguments: [ENOSPC, EIO])
    func failures(error: Int32) throws {
        var (call, isOver) = (0, false)
        while !isOver {
            let disk = MemoryDisk()
            let store = try StateStore.open(disk).store
            try store.append([(StateKey(1, "a"), [1])])
            let failing = disk.calls + call
            disk.failing = { $0 == failing ? error : nil }
            let isWritten = (try? write(store, false)) != nil && store.hasDerived
            isOver = disk.calls <= failing
            disk.failing = { _ in nil }
            #expect(isWritten == isOver || !isWritten || open(store).file != nil, "call \(call)")
            if !isWritten { #expect(!store.hasDerived) }
            try store.append([(StateKey(1, "b"), [2])])
            #expect(store.read() == ([StateKey(1, "a"): [1], StateKey(1, "b"): [2]], nil), "call \(call)")
            try write(store, false)
            #expect(isWhole(try #require(open(store).file)), "call \(call)")
            call += 1
        }
        #expect(call > 4)
    }

    @Test("none is written while a group is on its way, nor with another one")
    func busy() throws {
        let disk = MemoryDisk()
        let store = try StateStore.open(disk).store
        let group = try store.makeGroup()
        try group.stage(StateBatch([(StateKey(1, "a"), [2])]))
        try store.handOver(group)
        #expect(throws: StateFault.busy(path: "store")) { try store.beginDeriving(DerivedFileTests.task) }
        try store.endGroup()
        group.takeEffect(0)
        try store.beginDeriving(DerivedFileTests.task)
        #expect(store.isDeriving && store.isDerivingOver && !store.wantsCompaction)
        try store.beginCompaction()
        #expect(!store.isCompacting)
        store.adoptDerived()
        #expect(store.hasDerived)
    }
}
