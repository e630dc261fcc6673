import Pipeline
import Testing

@testable import PipelineState

@Suite("a store and what it is asked")
struct StateStoreTests {
    private func changes(_ seed: inout SplitMix64, keys: Int = 40) -> Changes {
        (0..<(1 + seed.below(4))).map { _ in
            let key = StateKey(UInt8(1 + seed.below(3)), "key-\(seed.below(keys))")
            guard seed.below(4) > 0 else { return (key, nil) }
            let length = seed.below(20) == 0 ? 70_000 + seed.below(100_000) : seed.below(60)
            return (key, [UInt8](repeating: UInt8(truncatingIfNeeded: seed.next()), count: length))
        }
    }

    @Test(
        "R23: a store holds what a dictionary would, whatever is compacted, replaced, closed and opened",
        arguments: 0..<20)
    func model(seed: Int) throws {
        var random = SplitMix64(seed: UInt64(seed))
        let disk = MemoryDisk(seed: UInt64(seed))
        var model: Contents = [:]
        var store: StateStore? = try StateStore.open(disk).store
        for _ in 0..<60 {
            switch random.below(10) {
            case 0: try store?.beginCompaction()
            case 1: if let notice = store?.adoptCompaction() { #expect(notice.event == "state_compacted") }
            case 2 where random.below(4) == 0:
                let whole = changes(&random).reduce(into: Contents()) { $0[$1.key] = $1.value ?? [] }
                try store?.replaceAll(whole)
                model = whole
            case 3:
                store = nil
                let (opened, notices) = try StateStore.open(disk)
                #expect(notices == [])
                #expect(opened.secret == testSecret)
                store = opened
            default:
                let changes = changes(&random)
                try store?.append(changes, durably: random.below(2) == 0)
                model = applying(changes, to: model)
            }
            let (contents, flaw) = try #require(store?.read())
            #expect(flaw == nil)
            #expect(contents == model, "\(brief(contents)) | \(brief(model))")
        }
    }

    @Test("what does not fit is refused, and nothing of its batch is made")
    func unfit() throws {
        let (store, notices) = try StateStore.open(MemoryDisk())
        #expect(notices.map(\.event) == ["state_created"])
        let value: [UInt8] = [1]
        for (kind, id) in [(0, 4), (1, 0), (1, 1025)] as [(UInt8, Int)] {
            var batch = StateBatch([(StateKey(1, "good"), value)])
            value.withUnsafeBytes { batch.put(kind, [UInt8](repeating: 65, count: id), $0) }
            #expect(throws: StateFault.self) { try store.append(batch, durably: true) }
            #expect(throws: StateFault.self) {
                try store.replaceAll { writer throws(StateFault) in
                    try writer.put(
                        kind, [UInt8](repeating: 65, count: id), UnsafeRawBufferPointer(start: nil, count: 0))
                }
            }
        }
        #expect(store.read().contents.isEmpty)
        let longest = StateKey(kind: 255, id: [UInt8](repeating: 255, count: 1024))
        try store.append([(longest, [])])
        #expect(store.value(longest) == [])
    }

    @Test("a compaction is wanted once the log has outgrown its share, and not again when it has failed at once")
    func wanted() throws {
        let disk = MemoryDisk()
        let store = try StateStore.open(disk, leastLog: 6000).store
        var appended = 0
        while !store.wantsCompaction, appended < 1000 {
            try store.append([(StateKey(1, "a"), [UInt8](repeating: 1, count: 100))])
            appended += 1
        }
        #expect(store.figures.logBytes > 6000 && appended < 100)
        disk.free = 0
        #expect(throws: StateFault.self) { try store.beginCompaction() }
        #expect(!store.wantsCompaction)
        disk.free = .max
        try store.beginCompaction()
        #expect(store.adoptCompaction()?.event == "state_compacted")
        #expect(store.figures.logBytes == 0 && store.figures.records == 1 && !store.wantsCompaction)
    }
}
