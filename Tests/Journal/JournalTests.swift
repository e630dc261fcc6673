import CLinux
import Foundation
import Glibc
import Pipeline
import TestSupport
import Testing

@testable import PipelineJournal

/// A file system of its own that is soon full. Needs root.
private final class SmallDisk {
    let path: String

    init() throws {
        path = FileManager.default.temporaryDirectory.appendingPathComponent("journal-disk-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        guard mount("tmpfs", path, "tmpfs", 0, "size=256k") == 0 else {
            try? FileManager.default.removeItem(atPath: path)
            throw Failure(call: "mount a tmpfs")
        }
    }

    deinit {
        umount2(path, Int32(MNT_DETACH))
        try? FileManager.default.removeItem(atPath: path)
    }

    static var isPossible: Bool { (try? SmallDisk()) != nil }

    func fill() {
        let file = open(path + "/others", O_WRONLY | O_CREAT | O_APPEND, 0o600)
        defer { close(file) }
        let block = [UInt8](repeating: 1, count: 4096)
        while write(file, block, block.count) > 0 {}
    }
    func empty() { unlink(path + "/others") }
    func makeReadOnly(_ isReadOnly: Bool) {
        _ = mount("tmpfs", path, "tmpfs", UInt(MS_REMOUNT) | (isReadOnly ? UInt(MS_RDONLY) : 0), "size=256k")
    }
}

@Suite("The journal's writer, and what becomes of what it can't write")
struct JournalTests {
    private func open(_ parent: String, _ heard: Notices) throws -> Journal {
        try Journal.open(in: parent, JournalLimits(fileBytes: 0, files: 4)) { heard.add($0) }
    }

    private func texts(_ parent: String) throws -> [String] {
        var texts: [String] = []
        try JournalCursor(parent).read { if case .line(let line, _) = $0 { texts.append(line.text("what") ?? "") } }
        return texts
    }

    @Test("R25: what was appended is on disk once it is finished, in order, with the time of its append")
    func order() throws {
        let (site, heard) = (try JournalSite(), Notices())
        let journal = try open(site.parent, heard)
        for number in 0..<5000 { journal.append(entry("change \(number)")) }
        #expect(journal.finish(patience: .seconds(60)))
        #expect(heard.events == [])
        // What is older than four files is gone.
        let changes = try site.lines().filter { $0.outcome == .applied }
        #expect(changes.last?.text("what") == "change 4999" && changes.count < 5000)
        #expect(try site.files.count == 4 && site.isWhole())
        #expect(journal.counts.written == 5000 && journal.counts.lost == 0)
        #expect(try journal.counts.last?.hash == site.verdict().last?.hash.description)
        #expect(zip(changes, changes.dropFirst()).allSatisfy { $0.time <= $1.time })
    }

    @Test("R27: a disk that stands still stops nobody who appends; what finds no room is counted, and a line says so")
    func standsStill() throws {
        let (site, heard) = (try JournalSite(), Notices())
        let journal = try open(site.parent, heard)
        journal.append(entry("before"))
        try awaitUntil("the first entry is written") { journal.counts.written == 1 }
        // The writer waits for this lock as it would for a disk.
        let lock = Glibc.open("\(site.folder)/lock", O_RDWR)
        #expect(cl_lock_file(lock, 0, 1) == 0)
        let count = Journal.itemLimit + 500
        for number in 0..<count { journal.append(entry("change \(number)")) }
        #expect(journal.counts.lost > 0 && journal.counts.waiting <= Journal.itemLimit)
        let lost = journal.counts.lost
        #expect(cl_unlock_file(lock) == 0)
        try awaitUntil("all is written") { journal.counts.waiting == 0 }
        // One line for all of them, though nobody appends any more.
        try awaitUntil("the gap is said") {
            try texts(site.parent).contains { $0 == "\(lost) entries were lost before this line" }
        }
        journal.append(entry("after"))
        #expect(journal.finish(patience: .seconds(60)))
        close(lock)
        let lines = try site.lines()
        let gap = try #require(lines.first { $0.outcome == .gap })
        #expect(gap.number("lost") == lost && lines.last?.text("what") == "after")
        #expect(try site.isWhole())
    }

    @Test(
        "R27: on a full disk it is said once, entries wait, and all of them are written once there is room",
        .enabled(if: SmallDisk.isPossible, "needs root, and a tmpfs"))
    func full() throws {
        let (disk, heard) = (try SmallDisk(), Notices())
        let journal = try open(disk.path, heard)
        journal.append(entry("before"))
        try awaitUntil("the first entry is written") { journal.counts.written == 1 }
        disk.fill()
        for number in 0..<100 { journal.append(entry("change \(number)")) }
        try awaitUntil("it is said") { heard.events == ["journal_failed"] }
        #expect(heard.texts[0].contains("the disk is full"), "\(heard.texts)")
        #expect(journal.counts.fault != nil && journal.counts.waiting > 0)
        // What is there is whole meanwhile.
        #expect(try JournalVerification(disk.path).isWhole)
        disk.empty()
        try awaitUntil("it is written again") { heard.events == ["journal_failed", "journal_recovered"] }
        #expect(journal.finish(patience: .seconds(60)) && journal.counts.fault == nil)
        #expect(try texts(disk.path).suffix(100) == (0..<100).map { "change \($0)" })
        #expect(try JournalVerification(disk.path).isWhole)
    }

    @Test(
        "a read-only file system, and a folder that can't be made, are tried again",
        .enabled(if: SmallDisk.isPossible, "needs root, and a tmpfs"))
    func readOnly() throws {
        let (disk, heard) = (try SmallDisk(), Notices())
        disk.makeReadOnly(true)
        let journal = try open(disk.path, heard)
        journal.append(entry("a change"))
        try awaitUntil("it is said") { heard.events == ["journal_failed"] }
        #expect(heard.texts[0].contains("read-only"), "\(heard.texts)")
        disk.makeReadOnly(false)
        try awaitUntil("it is written") { journal.counts.written == 1 }
        #expect(journal.finish(patience: .seconds(60)))
        #expect(try JournalVerification(disk.path).isWhole)
    }

    @Test("the files taken away under a writer: it goes on anew, and says what is gone")
    func takenAway() throws {
        let (site, heard) = (try JournalSite(), Notices())
        let journal = try open(site.parent, heard)
        journal.append(entry("before"))
        try awaitUntil("it is written") { journal.counts.written == 1 }
        try site.remove(try site.files[0])
        journal.append(entry("after"))
        #expect(journal.finish(patience: .seconds(60)))
        #expect(heard.events == ["journal_damaged"])
        #expect(try site.files == ["0000000002.jsonl"])
        #expect(try texts(site.parent).last == "after" && site.lines().first?.text("why")?.contains("gone") == true)
    }

    @Test("other sizes hold from the next batch on")
    func keeps() throws {
        let (site, heard) = (try JournalSite(), Notices())
        let journal = try open(site.parent, heard)
        for number in 0..<3000 { journal.append(entry("change \(number)")) }
        try awaitUntil("all is written") { journal.counts.waiting == 0 }
        #expect(try site.files.count == 4)
        journal.keep(JournalLimits(fileBytes: 1 << 20, files: 2))
        journal.append(entry("after"))
        #expect(journal.finish(patience: .seconds(60)))
        #expect(try site.files.count == 2 && site.isWhole())
    }
}
