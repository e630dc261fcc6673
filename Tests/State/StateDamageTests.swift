import Pipeline
import Testing

@testable import PipelineState

/// Files that are cut, changed, gone, or newer.
@Suite("a store and damage")
struct StateDamageTests {
    /// A store with a snapshot, the one before, and a log of each; and all that it ever held.
    private static func sample() throws -> (files: [String: [UInt8]], history: [Contents]) {
        let disk = MemoryDisk()
        var history: [Contents] = [[:]]
        let store = try CheckedStore(disk)
        func append(_ id: String, _ value: UInt8, durably: Bool = true) throws {
            try store.append([(StateKey(1, id), [value, value])], durably: durably)
            history.append(store.now)
        }
        try append("a", 1)
        try append("b", 2)
        try store.compact()
        _ = store.adopt()
        try append("a", 3)
        try append("c", 4)
        try store.compact()
        _ = store.adopt()
        try append("a", 5)
        try append("d", 6)
        try append("b", 7)
        return (disk.contents, history)
    }

    /// Nothing but what it once held, with a word about it if that is not the last; or refused by name.
    private func check(_ files: [String: [UInt8]], _ history: [Contents], _ what: String) {
        let disk = MemoryDisk(files)
        let first: Contents
        do throws(any Error) {
            let (store, notices) = try StateStore.open(disk)
            let (contents, flaw) = store.read()
            first = contents
            if let flaw { Issue.record("\(what): \(flaw)") }
            if !history.contains(contents) { Issue.record("\(what): it never held \(brief(contents))") }
            if contents != history.last, notices.isEmpty {
                Issue.record("\(what): an older state without a word")
            }
            if contents == history.last, notices.contains(where: \.isLoss) { Issue.record("\(what): nothing is lost") }
        } catch {
            guard case StateFault.newer = error else {
                Issue.record("\(what): \(error)")
                return
            }
            return
        }
        // What was mended stays so.
        do throws(any Error) {
            let (store, notices) = try StateStore.open(disk)
            if !notices.isEmpty || store.read().contents != first { Issue.record("\(what): not mended: \(notices)") }
        } catch { Issue.record("\(what): not mended: \(error)") }
    }

    @Test(
        "R23: every byte of every file is changed: the last whole state, said by name, never a wrong value",
        .timeLimit(.minutes(5)))
    func flips() throws {
        let (files, history) = try Self.sample()
        #expect(files.keys.sorted() == ["durable", "lock", "log.3", "log.4", "snapshot.3", "snapshot.4"])
        for (name, bytes) in files {
            for index in bytes.indices {
                var changed = files
                changed[name]?[index] ^= 1 << UInt8(index % 8)
                check(changed, history, "\(name), byte \(index)")
            }
        }
    }

    @Test("R23: every file is cut at every byte", .timeLimit(.minutes(5)))
    func cuts() throws {
        let (files, history) = try Self.sample()
        let entry = StateFormat.entryHeader + 24
        #expect(files["log.4"]?.count == StateFormat.logHeader + 3 * entry)
        for (name, bytes) in files {
            for index in bytes.indices where index % 7 == 0 || name.hasPrefix("log") || index > bytes.count - 300 {
                var changed = files
                changed[name] = Array(bytes[..<index])
                check(changed, history, "\(name), first \(index) bytes")
            }
        }
    }

    @Test("R23: files that are gone, or in another's place: an older state is told, a mixed one never served")
    func gone() throws {
        let (files, history) = try Self.sample()
        for name in files.keys {
            var changed = files
            changed[name] = nil
            check(changed, history, "without \(name)")
            for other in files.keys where other != name {
                changed = files
                changed[name] = files[other]
                check(changed, history, "\(other) as \(name)")
            }
        }
    }

    @Test(
        "R23: a damaged snapshot is set aside by name, and the one before with all that came since is used: nothing is lost"
    )
    func older() throws {
        var (files, history) = try Self.sample()
        files["snapshot.4"]?[4100] ^= 1
        let disk = MemoryDisk(files)
        let (store, notices) = try StateStore.open(disk)
        #expect(store.read().contents == history.last)
        #expect(notices.map(\.event) == ["state_older_used", "state_damaged"] && !notices.contains { $0.isLoss })
        let aside = try #require(disk.files.keys.first { $0.hasPrefix("snapshot.4.damaged-2") })
        #expect(notices[1].text.contains("its block at byte 4096") && notices[1].text.contains(aside), "\(notices)")
    }

    @Test("R23: a bad entry before good ones is damage, not a torn tail: what is before it is used, the rest set aside")
    func middle() throws {
        var (files, history) = try Self.sample()
        let first = StateFormat.logHeader + StateFormat.entryHeader
        files["log.4"]?[first] ^= 1
        let disk = MemoryDisk(files)
        let (store, notices) = try StateStore.open(disk)
        #expect(store.read().contents == history[history.count - 4])
        #expect(notices.map(\.event) == ["state_damaged", "state_damaged"] && notices[0].isLoss, "\(notices)")
        #expect(notices.last?.text.contains("the changes 5 to 7") ?? false, "\(notices)")
        #expect(notices[0].text.contains("log.4: damaged at byte 64"), "\(notices)")
        #expect(!(notices.last?.text.contains("revision") ?? true))
        #expect(disk.files.keys.contains { $0.hasPrefix("log.4.damaged-2") })

        (files, history) = try Self.sample()
        let count = files["log.4"]?.count ?? 0
        files["log.4"]?[count - 1] ^= 1
        // It had been durable: that is damage too. Where nobody has noted it, it looks like what a crash tore.
        let (last, lost) = try StateStore.open(MemoryDisk(files))
        #expect(last.read().contents == history[history.count - 2])
        #expect(
            lost.map(\.isLoss) == [true, true] && lost.last?.text.contains("the changes 7 to 7") ?? false, "\(lost)")
        files["durable"] = nil
        let torn = MemoryDisk(files)
        let (cut, told) = try StateStore.open(torn)
        #expect(cut.read().contents == history[history.count - 2])
        #expect(told.map(\.event) == ["state_tail_cut"] && !told[0].isLoss, "\(told)")
        #expect(torn.files.keys.contains { $0.hasPrefix("log.4.damaged-2") })
    }

    @Test("R23: what came after a replacement is never put over the state before it")
    func replaced() throws {
        let disk = MemoryDisk()
        var files: [String: [UInt8]] = [:]
        do {
            let store = try CheckedStore(disk)
            try store.append([(StateKey(1, "a"), [1])], durably: true)
            try store.replaceAll([StateKey(1, "b"): [2]])
            files = disk.contents
            // Its log goes on by sequence; its snapshot is not there yet.
            try store.compact()
            try store.append([(StateKey(1, "c"), [3])], durably: true)
        }
        files["log.4"] = disk.contents["log.4"]
        #expect(try StateStore.open(MemoryDisk(files)).store.count(1) == 2)
        files["snapshot.3"]?[4100] ^= 1
        let (store, notices) = try StateStore.open(MemoryDisk(files))
        #expect(store.read().contents == [StateKey(1, "a"): [1]])
        #expect(notices.contains { $0.isLoss && $0.text.contains("snapshot.3") }, "\(notices)")
        #expect(notices.contains { $0.isLoss && $0.text.contains("log.4") }, "\(notices)")
    }

    @Test("R23: a newer version is refused by name, and nothing is touched")
    func newer() throws {
        for name in ["snapshot.4", "log.4", "snapshot.3", "log.3"] {
            var (files, _) = try Self.sample()
            let end = name.hasPrefix("log") ? StateFormat.logHeader : StateFormat.snapshotHeader
            var bytes = try #require(files[name])
            bytes[8] = 2
            let sum = Array(bytes[..<(end - 4)]).withUnsafeBytes { checksum($0) }
            withUnsafeBytes(of: sum.littleEndian) { bytes.replaceSubrange((end - 4)..<end, with: $0) }
            files[name] = bytes
            // Something else is damaged as well.
            files["snapshot.4"]?[4100] ^= 1
            let disk = MemoryDisk(files)
            #expect(throws: StateFault.newer(path: "store/\(name)", version: 2)) { try StateStore.open(disk) }
            #expect(disk.contents.filter { $0.key != "lock" } == files.filter { $0.key != "lock" })
        }
    }

    @Test("R23: a directory of another user is refused; a file of one is set aside, if an older state is whole")
    func foreign() throws {
        let (files, history) = try Self.sample()
        let other = MemoryDisk(files)
        other.strangers = ["store"]
        #expect(throws: StateFault.foreign(path: "store", what: "it belongs to another user")) {
            try StateStore.open(other)
        }
        for (name, losesNothing) in [
            ("lock", true), ("durable", true), ("snapshot.4", true), ("snapshot.3", true), ("log.3", true),
            ("log.4", false),
        ] {
            let disk = MemoryDisk(files)
            disk.strangers = [name]
            let (store, notices) = try StateStore.open(disk)
            let (contents, flaw) = store.read()
            #expect(flaw == nil && contents == (losesNothing ? history.last : history[history.count - 4]), "\(name)")
            #expect(notices.contains { $0.text.contains("\(name): it belongs to another user") }, "\(notices)")
            #expect(notices.contains { $0.isLoss } != losesNothing, "\(name): \(notices)")
            #expect(disk.files.keys.contains { $0.hasPrefix("\(name).damaged-2") }, "\(name)")
        }
    }

    @Test("R23: files of others alone: refused by name, and nothing is touched")
    func foreignAlone() throws {
        let (files, _) = try Self.sample()
        for names in [["snapshot.3", "snapshot.4"], ["snapshot.3", "snapshot.4", "log.3", "log.4"]] {
            let disk = MemoryDisk(files)
            disk.strangers = Set(names)
            #expect(throws: StateFault.foreign(path: "store/snapshot.3", what: "it belongs to another user")) {
                try StateStore.open(disk)
            }
            #expect(Set(disk.contents.keys) == Set(files.keys))
        }
    }

    @Test("a store without a whole snapshot begins anew, and says that it has lost all")
    func lost() throws {
        var (files, _) = try Self.sample()
        files["snapshot.4"]?[4100] ^= 1
        files["snapshot.3"]?[4100] ^= 1
        let disk = MemoryDisk(files)
        let (store, notices) = try StateStore.open(disk)
        #expect(notices.last?.event == "state_lost" && notices.last?.isLoss == true)
        #expect(store.read().contents.isEmpty)
        #expect(disk.files.keys.filter { $0.contains(".damaged-") }.count == 4)
    }
}
