import Foundation
import Glibc
import TestSupport
import Testing

@testable import PipelineState

/// Files in a store's directory with another mode, or of another kind.
@Suite("R23: whose the files of a store are")
struct FileStandingTests {
    static let names = ["snapshot.3", "log.3", "snapshot.2", "log.2", "durable", "lock", "reserve"]

    private func open(_ folder: StoreFolder) throws -> (store: StateStore, notices: [StateNotice]) {
        try StateStore.open(folder.store, seed: { testSecret })
    }

    /// A snapshot and the one before, with their logs; and what it holds, with and without the last log.
    private func fill(_ folder: StoreFolder) throws -> (whole: Contents, older: Contents) {
        let store = try open(folder).store
        try store.append([(StateKey(1, "a"), [1]), (StateKey(1, "b"), [2])])
        let over = Promise<Bool>()
        try store.beginCompaction { over.fulfil(.success(true)) }
        #expect(try over.value())
        #expect(store.adoptCompaction()?.event == "state_compacted")
        let older = store.read().contents
        try store.append([(StateKey(1, "a"), [3])])
        return (store.read().contents, older)
    }

    @Test(
        "a file of ours in a closed directory, of any mode: it is used, its mode put right and said", arguments: names,
        [0o644, 0o660, 0o666, 0o400, 0o000] as [mode_t])
    func modes(_ name: String, _ mode: mode_t) throws {
        let folder = try StoreFolder()
        let whole = try fill(folder).whole
        chmod(folder.store + "/" + name, mode)
        let (store, notices) = try open(folder)
        #expect(notices.map(\.event) == ["state_mode"] && notices[0].text.contains("/\(name): "), "\(notices)")
        #expect(store.read() == (whole, nil) && folder.mode(name) == 0o600)
        try store.append([(StateKey(1, "c"), [4])])
        #expect(store.takeNotices() == [])
    }

    @Test(
        "something else in a file's place: it is set aside by name, and an older whole state goes on",
        arguments: names, ["link", "fifo", "directory"])
    func kinds(_ name: String, _ kind: String) throws {
        let folder = try StoreFolder()
        let (whole, older) = try fill(folder)
        let path = folder.store + "/" + name
        rename(path, folder.path + "/elsewhere")
        switch kind {
        case "link": symlink(folder.path + "/elsewhere", path)
        case "fifo": mkfifo(path, 0o600)
        default: mkdir(path, 0o700)
        }
        do {
            let (store, notices) = try open(folder)
            #expect(store.read() == (name == "log.3" ? older : whole, nil), "\(notices)")
            #expect(notices.contains { $0.text.contains("\(name): it is no regular file") }, "\(notices)")
            #expect(notices.contains { $0.isLoss } == (name == "log.3"), "\(notices)")
            #expect(folder.aside(name) != nil)
            try store.append([(StateKey(1, "c"), [4])])
            #expect(store.takeNotices() == [])
        }
        #expect(try open(folder).notices == [])
    }

    @Test("a file with a second name (a backup by hard links) is used, and written anew before it is written to")
    func links() throws {
        let folder = try StoreFolder()
        let whole = try fill(folder).whole
        link(folder.store + "/log.3", folder.path + "/backup")
        let before = FileManager.default.contents(atPath: folder.path + "/backup")
        let change: Changes = [(StateKey(1, "c"), [4])]
        do {
            let (store, notices) = try open(folder)
            #expect(notices == [] && store.read() == (whole, nil))
            try store.append(change)
            #expect(store.takeNotices().map(\.event) == ["state_damaged"])
        }
        #expect(FileManager.default.contents(atPath: folder.path + "/backup") == before)
        #expect(try open(folder).store.read() == (applying(change, to: whole), nil))
    }

    @Test(
        "a file that others could have written is set aside where they could reach it, and refused where they may write"
    )
    func writable() throws {
        let folder = try StoreFolder()
        let whole = try fill(folder).whole
        chmod(folder.store + "/snapshot.3", 0o666)
        chmod(folder.store, 0o777)
        let path = folder.store + "/snapshot.3"
        let why = "others may have written to it: its mode is 0666"
        #expect(throws: StateFault.foreign(path: path, what: why)) { try open(folder) }
        #expect(folder.mode("snapshot.3") == 0o666)
        chmod(folder.store, 0o711)
        let (store, notices) = try open(folder)
        #expect(store.read() == (whole, nil) && !notices.contains { $0.isLoss }, "\(notices)")
        #expect(notices.contains { $0.text.contains(why) } && folder.aside("snapshot.3") != nil)
    }

    @Test("nothing older but a new store's empty state: refused, and nothing is touched", arguments: ["log.2", "all"])
    func alone(_ what: String) throws {
        let folder = try StoreFolder()
        try open(folder).store.append([(StateKey(1, "a"), [1])])
        for name in what == "all" ? ["snapshot.1", "snapshot.2", "log.2"] : [what] {
            rename(folder.store + "/" + name, folder.path + "/" + name)
            symlink(folder.path + "/" + name, folder.store + "/" + name)
        }
        do throws(any Error) {
            _ = try open(folder)
            Issue.record("it is taken")
        } catch {
            guard case StateFault.foreign(let path, "it is no regular file") = error else { throw error }
            #expect(path == folder.store + (what == "all" ? "/snapshot.1" : "/log.2"))
        }
        #expect(folder.aside(what) == nil)
    }

    @Test("R23: which changes are lost behind one that is damaged is said by what people call them")
    func labels() throws {
        let label = EntryLabel(StateKey(9, "revision"), noun: "revision")
        func revision(_ number: Int) -> Changes { [(StateKey(9, "revision"), Array("\(number)".utf8))] }
        func files(_ count: Int) throws -> [String: [UInt8]] {
            let disk = MemoryDisk()
            let store = try StateStore.open(disk).store
            for number in 41..<(41 + count) {
                try store.append([(StateKey(1, "k"), [UInt8(number)])], durably: false)
                try store.append(revision(number))
            }
            return disk.contents
        }
        for (count, text) in [(3, "came revision 43, which is"), (4, "came the revisions 43, 44, which are")] {
            var damaged = try files(count)
            // In the entry of revision 42.
            let entry = StateFormat.entryHeader + 24
            damaged["log.2"]?[StateFormat.logHeader + 3 * entry + StateFormat.entryHeader + 16] ^= 1
            var settings = StateSettings()
            (settings.reserveBytes, settings.label) = (0, label)
            let (store, notices) = try StateStore.open(
                StatePlace(directory: "store", disk: MemoryDisk(damaged), settings: settings), seed: { testSecret })
            #expect(store.value(StateKey(9, "revision")) == Array("41".utf8), "\(notices)")
            #expect(notices.contains { $0.isLoss && $0.text.contains(text) }, "\(notices)")
        }
    }
}

extension StoreFolder {
    fileprivate func mode(_ name: String) -> mode_t {
        var status = stat()
        return lstat(store + "/" + name, &status) == 0 ? status.st_mode & 0o7777 : 0
    }
    fileprivate func aside(_ name: String) -> String? {
        (try? FileManager.default.contentsOfDirectory(atPath: store))?.first { $0.hasPrefix("\(name).damaged-2") }
    }
}
