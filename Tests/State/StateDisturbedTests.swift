import Foundation
import Glibc
import TestSupport
import Testing

@testable import PipelineState

/// What others do to a store's files while a node has them open.
@Suite("a store whose files are disturbed")
struct StateDisturbedTests {
    enum Act: String, CaseIterable {
        case logGone, logCut, logCutWithinAnEntry, logGrown, logReplaced, logLinked, logChanged
        case snapshotGone, snapshotCut, snapshotEmptied, snapshotChanged, snapshotReplaced, bothGone

        func run(_ store: String) throws {
            let log = store + "/log.3"
            let snapshot = store + "/snapshot.3"
            switch self {
            case .logGone: unlink(log)
            case .logCut: truncate(log, 64)
            case .logCutWithinAnEntry: truncate(log, 80)
            case .logGrown: try append([UInt8](repeating: 1, count: 100), to: log)
            case .logReplaced: try replace(log)
            case .logLinked: link(log, store + "/../backup")
            case .logChanged: Self.change(log, at: 100)
            case .snapshotGone: unlink(snapshot)
            case .snapshotCut: truncate(snapshot, 4096)
            case .snapshotEmptied: truncate(snapshot, 0)
            case .snapshotChanged: Self.change(snapshot, at: 4200)
            case .snapshotReplaced: try replace(snapshot)
            case .bothGone:
                unlink(log)
                unlink(snapshot)
            }
        }

        /// As an editor that keeps the size, no sooner than the file system's clock has moved on.
        static func change(_ path: String, at offset: Int) {
            let file = open(path, O_WRONLY)
            defer { close(file) }
            var (before, now) = (stat(), stat())
            fstat(file, &before)
            repeat {
                pwrite(file, [UInt8(255)], 1, off_t(offset))
                fstat(file, &now)
            } while now.st_mtim.tv_nsec == before.st_mtim.tv_nsec && now.st_mtim.tv_sec == before.st_mtim.tv_sec
        }

        private func append(_ bytes: [UInt8], to path: String) throws {
            let file = open(path, O_WRONLY | O_APPEND)
            defer { close(file) }
            guard write(file, bytes, bytes.count) == bytes.count else { throw Failure(call: "append to \(path)") }
        }

        private func replace(_ path: String) throws {
            try Data("something else".utf8).write(to: URL(fileURLWithPath: path + ".other"))
            rename(path + ".other", path)
        }
    }

    private static let large = [UInt8](repeating: 7, count: 20_000)

    /// A store with a snapshot that has records, a log, and the ones before.
    private func fill(_ path: String) throws -> (store: StateStore, model: Contents) {
        let store = try StateStore.open(path, seed: { testSecret }).store
        var model: Contents = [:]
        for number in 0..<50 {
            let change: Changes = [(StateKey(1, "key-\(number)"), Self.large)]
            try store.append(change, durably: false)
            model = applying(change, to: model)
        }
        let over = Promise<Bool>()
        try store.beginCompaction { over.fulfil(.success(true)) }
        #expect(try over.value())
        #expect(store.adoptCompaction()?.event == "state_compacted")
        let change: Changes = [(StateKey(1, "key-7"), nil), (StateKey(2, "later"), [1, 2, 3])]
        try store.append(change)
        return (store, applying(change, to: model))
    }

    @Test(
        "R23: a file that is taken away, cut or changed while a node runs: no change that was answered is lost",
        arguments: Act.allCases, [false, true])
    func acts(_ act: Act, isRead: Bool) throws {
        try losesNothing(act) { folder, store, change, number in
            if number == 0 {
                try act.run(folder.store)
                if isRead { _ = store.value(StateKey(1, "key-20")) }
            }
            try store.append(change)
        }
    }

    @Test(
        "R23: the same while a group is written: what it has is not said to be durable before it is where it is found",
        arguments: Act.allCases)
    func actsOnGroups(_ act: Act) throws {
        try losesNothing(act) { folder, store, change, number in
            let group = try store.makeGroup()
            try group.stage(StateBatch(change))
            if number == 0 { try act.run(folder.store) }
            try store.handOver(group)
            try store.endGroup()
            group.takeEffect(0)
        }
    }

    /// - Parameter make: makes one of three changes; before the first is durable, it disturbs the files.
    private func losesNothing(
        _ act: Act, _ make: (StoreFolder, StateStore, Changes, _ number: Int) throws -> Void
    ) throws {
        let folder = try StoreFolder()
        var model: Contents
        do {
            let (store, filled) = try fill(folder.store)
            model = filled
            for number in 0..<3 {
                let change: Changes = [(StateKey(1, "after-\(number)"), [UInt8(number)])]
                try make(folder, store, change, number)
                model = applying(change, to: model)
            }
            #expect(store.read() == (model, nil))
            let told = store.takeNotices()
            #expect(told.contains { $0.event == "state_damaged" && !$0.isLoss }, "\(told)")
        }
        let (store, notices) = try StateStore.open(folder.store, seed: { [] })
        #expect(store.read() == (model, nil), "\(act): \(notices)")
        #expect(!notices.contains { $0.isLoss }, "\(notices)")
    }

    @Test("R23: a snapshot and the log before it are cut while a node runs: changes are refused, and it lives")
    func spoiled() throws {
        let folder = try StoreFolder()
        let (store, _) = try fill(folder.store)
        for name in ["snapshot.3", "snapshot.2", "snapshot.1"] { truncate(folder.store + "/" + name, 0) }
        for number in 0..<50 { _ = store.value(StateKey(1, "key-\(number)")) }
        #expect(store.spoiled != nil)
        for _ in 0..<2 {
            do throws(any Error) {
                try store.append([(StateKey(1, "after"), [1])])
                Issue.record("it is taken")
            } catch {
                guard case StateFault.spoiled(_, let what, let leaves) = error else { throw error }
                #expect(what.contains("snapshot.3") && what.contains("; going back to an older one: "), "\(what)")
                #expect(leaves == "nothing")
            }
        }
        #expect(store.spoiled != nil)
        // All that is wanted, said anew, is all that it takes.
        let model: Contents = [StateKey(1, "anew"): [1], StateKey(2, "too"): [2]]
        try store.replaceAll(model)
        try store.append([(StateKey(1, "later"), [3])])
        #expect(store.spoiled == nil && store.wantsCompaction)
        let whole = applying([(StateKey(1, "later"), [3])], to: model)
        #expect(store.read() == (whole, nil))
    }

    @Test("R23: a snapshot that is cut again and again: each time it is written anew, and nothing is lost")
    func again() throws {
        let folder = try StoreFolder()
        var model: Contents
        do {
            let (store, filled) = try fill(folder.store)
            model = filled
            for number in 0..<4 {
                truncate(folder.store + "/snapshot.\(store.figures.snapshotNumber)", off_t(number) * 4096)
                _ = store.value(StateKey(1, "key-20"))
                let change: Changes = [(StateKey(1, "after-\(number)"), [UInt8(number)])]
                try store.append(change)
                model = applying(change, to: model)
                #expect(store.read() == (model, nil), "\(number)")
                let told = store.takeNotices()
                #expect(told.contains { $0.event == "state_damaged" } && !told.contains { $0.isLoss }, "\(told)")
            }
        }
        let (store, notices) = try StateStore.open(folder.store, seed: { [] })
        #expect(store.read() == (model, nil) && !notices.contains { $0.isLoss }, "\(notices)")
    }

    @Test("R23: what was disturbed is found without a change, and a second copy is wanted of what was written anew")
    func looked() throws {
        let folder = try StoreFolder()
        let (store, model) = try fill(folder.store)
        try store.check()
        #expect(store.takeNotices() == [] && !store.wantsCompaction)
        Act.change(folder.store + "/log.3", at: 100)
        try store.check()
        #expect(store.takeNotices().map(\.event) == ["state_damaged"] && store.wantsCompaction)
        #expect(store.read() == (model, nil))
        // A look that finds a new time and the same bytes is none.
        utimes(folder.store + "/log.\(store.figures.snapshotNumber)", nil)
        try store.check()
        #expect(store.takeNotices() == [])
    }

    @Test("R23: a look that found something is believed, though the next one finds nothing")
    func seenOnce() throws {
        let disk = MemoryDisk()
        let store = try StateStore.open(disk).store
        try store.append([(StateKey(1, "a"), [1])])
        #expect(store.takeNotices() == [])
        var looks = 0
        disk.deceiving = { name, status in
            guard name.hasPrefix("log.") else { return }
            looks += 1
            // Behind the write.
            if looks == 2 { status.links = 2 }
        }
        try store.append([(StateKey(1, "b"), [2])])
        let told = store.takeNotices()
        #expect(told.map(\.event) == ["state_damaged"] && told.allSatisfy { $0.text.contains("2 names") }, "\(told)")
        #expect(store.read() == ([StateKey(1, "a"): [1], StateKey(1, "b"): [2]], nil))
    }

    @Test("R23: a directory that is moved away: changes are refused by name until it is back, and none of them is kept")
    func moved() throws {
        let folder = try StoreFolder()
        do {
            let (store, _) = try fill(folder.store)
            for isReplaced in [false, true] {
                rename(folder.store, folder.path + "/moved")
                if isReplaced { mkdir(folder.store, 0o700) }
                #expect(throws: StateFault.displaced(path: folder.store)) {
                    try store.append([(StateKey(1, "refused"), [1])])
                }
                #expect(throws: StateFault.displaced(path: folder.store)) {
                    try store.replaceAll([StateKey(1, "x"): []])
                }
                if isReplaced { rmdir(folder.store) }
                rename(folder.path + "/moved", folder.store)
                try store.append([(StateKey(1, "taken"), [1])])
            }
        }
        let (store, notices) = try StateStore.open(folder.store, seed: { [] })
        #expect(notices == [] && store.value(StateKey(1, "refused")) == nil && store.value(StateKey(1, "taken")) == [1])
    }
}
