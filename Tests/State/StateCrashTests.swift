import Glibc
import Pipeline
import Testing

@testable import PipelineState

/// The machine or the process dies at every call that changes the disk.
@Suite("a store and crashes")
struct StateCrashTests {
    private static let small = [UInt8]("small".utf8)
    /// More than one block.
    private static let large = [UInt8](repeating: 7, count: 66_000)

    /// All that a store does, in an order in which each has something before and behind it.
    private static func script(_ store: CheckedStore) throws {
        try store.append([(StateKey(1, "a"), small), (StateKey(2, "b"), large)], durably: true)
        try store.append([(StateKey(1, "c"), small)], durably: false)
        try store.append([(StateKey(1, "a"), nil)], durably: false)
        try store.append([(StateKey(1, "d"), [1])], durably: true)
        try store.compact()
        try store.append([(StateKey(1, "e"), [2])], durably: true)
        try store.append([(StateKey(1, "f"), [3])], durably: false)
        _ = store.adopt()
        try store.append([(StateKey(1, "c"), nil)], durably: true)
        try store.replaceAll([StateKey(1, "x"): [4], StateKey(3, "y"): small])
        try store.append([(StateKey(1, "z"), [5])], durably: false)
        try store.flush()
        try store.append([(StateKey(1, "z"), [6])], durably: false)
        try store.compact()
        _ = store.adopt()
        try store.compact()
        try store.append([(StateKey(1, "x"), nil), (StateKey(1, "w"), [7])], durably: true)
    }

    /// Opens what is left, which must hold one of these; then it must take changes, and hold them at the next opening.
    static func check(_ disk: MemoryDisk, _ possible: [Contents], _ what: String) {
        do {
            var (contents, flaw): (Contents, String?) = ([:], nil)
            do {
                let (store, notices) = try StateStore.open(disk)
                (contents, flaw) = store.read()
                let bad = notices.filter { $0.isLoss || $0.event == "state_damaged" || $0.event == "state_older_used" }
                if !bad.isEmpty { Issue.record("\(what): a crash taken for damage: \(bad)") }
                try store.append([(StateKey(9, "after"), [1])])
            }
            if let flaw { Issue.record("\(what): \(flaw)") }
            if !possible.contains(contents) {
                Issue.record("\(what): \(brief(contents)), not one of \(possible.map(brief))")
            }
            let (again, notices) = try StateStore.open(disk)
            if !notices.isEmpty { Issue.record("\(what): at the second opening: \(notices)") }
            if again.read().contents != applying([(StateKey(9, "after"), [1])], to: contents) {
                Issue.record("\(what): the second opening holds something else")
            }
        } catch {
            Issue.record("\(what): not opened: \(error)")
        }
    }

    private static let calls: Int = {
        let disk = MemoryDisk()
        guard let store = try? CheckedStore(disk), (try? script(store)) != nil else { return 0 }
        return disk.calls
    }()

    /// A run until it dies at this call.
    private static func run(_ call: Int, seed: UInt64) -> (MemoryDisk, [Contents]) {
        let disk = MemoryDisk(seed: seed)
        disk.dieAt = call
        guard let store = try? CheckedStore(disk) else { return (disk, [[:]]) }
        try? script(store)
        defer { store.close() }
        return (disk, store.possible)
    }

    @Test(
        "R23: the machine dies at any call, and whatever was not synced is lost or not: before or after, and after if it was said",
        .timeLimit(.minutes(5)))
    func machine() {
        #expect(Self.calls > 60)
        for call in 0...Self.calls {
            for seed in 0..<6 as Range<UInt64> {
                let (disk, possible) = Self.run(call, seed: seed)
                Self.check(disk.afterCrash(), possible, "call \(call), seed \(seed)")
            }
        }
    }

    @Test("R23: the process dies at any call: nothing that was appended is lost, durably or not")
    func process() throws {
        for call in 0...Self.calls {
            for seed in 0..<2 as Range<UInt64> {
                let disk = MemoryDisk(seed: seed)
                disk.dieAt = call
                var possible: [Contents] = [[:]]
                if let store = try? CheckedStore(disk) {
                    try? Self.script(store)
                    possible = [store.now] + (store.possible.last.map { [$0] } ?? [])
                    store.close()
                }
                Self.check(disk.afterKill(), possible, "call \(call), seed \(seed)")
            }
        }
    }

    @Test("R23: it dies again at any call of the opening after a crash", .timeLimit(.minutes(5)))
    func again() {
        for call in stride(from: 3, through: Self.calls, by: 5) {
            let (disk, possible) = Self.run(call, seed: UInt64(call))
            let left = disk.afterCrash().contents
            for second in 0..<40 {
                let disk = MemoryDisk(left)
                disk.dieAt = second
                if (try? StateStore.open(disk)) != nil, !disk.isDead { break }
                Self.check(disk.afterCrash(), possible, "call \(call), then \(second) of the opening")
            }
        }
    }

    @Test(
        "R23: any call fails, and the next ones work: nothing changes, or what was asked for is done; then the machine dies",
        .timeLimit(.minutes(5)), arguments: [EIO, ENOSPC])
    func failures(_ error: Int32) throws {
        for call in 0...Self.calls {
            for seed in 0..<26 as Range<UInt64> {
                let disk = MemoryDisk(seed: seed)
                // One call, or some behind it as well.
                let last = call + Int(seed % 3) * 2
                disk.failing = { $0 >= call && $0 <= last ? error : nil }
                guard let store = try? CheckedStore(disk) else {
                    disk.failing = { _ in nil }
                    Self.check(disk.afterCrash(), [[:]], "call \(call), seed \(seed)")
                    continue
                }
                let steps: [(CheckedStore) throws -> Void] = [
                    { try $0.append([(StateKey(1, "a"), Self.small), (StateKey(2, "b"), Self.large)], durably: true) },
                    { try $0.append([(StateKey(1, "c"), Self.small)], durably: false) },
                    { try $0.append([(StateKey(1, "a"), nil)], durably: false) },
                    { try $0.compact() },
                    { try $0.append([(StateKey(1, "d"), [1])], durably: true) },
                    { _ = $0.adopt() },
                    { try $0.append([(StateKey(1, "e"), [2])], durably: false) },
                    { try $0.compact() },
                    { _ = $0.adopt() },
                    { try $0.replaceAll([StateKey(1, "x"): [4], StateKey(3, "y"): Self.small]) },
                    { try $0.append([(StateKey(1, "f"), [3])], durably: false) },
                    { try $0.flush() },
                    { try $0.append([(StateKey(1, "g"), [3])], durably: true) },
                ]
                for (index, step) in steps.enumerated() {
                    try? step(store)
                    if let flaw = store.flaw { Issue.record("call \(call), seed \(seed), step \(index): \(flaw)") }
                    // The machine dies behind each of them.
                    if index == Int(seed) / 2 { break }
                }
                let possible = store.possible
                store.close()
                disk.failing = { _ in nil }
                Self.check(disk.afterCrash(), possible, "call \(call), seed \(seed), \(error)")
            }
        }
    }
}
