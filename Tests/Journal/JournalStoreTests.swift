import CLinux
import Foundation
import Glibc
import TestSupport
import Testing

@testable import PipelineJournal

@Suite("The journal's files: chain, rotation, what a crash or a hand leaves")
struct JournalStoreTests {
    @Test("R25: each line follows the one before, each file begins with the SHA-256 of the one before; some are kept")
    func rotation() throws {
        let site = try JournalSite()
        let store = try site.store(fileBytes: 2000, files: 3)
        try store.write((1...40).map { entry("change \($0)") })
        let files = try site.files
        #expect(files.count == 3 && files.last != "0000000003.jsonl")
        for (before, after) in zip(files, files.dropFirst()) {
            let text = String(decoding: try site.bytes(after), as: UTF8.self)
            let hash = try site.bytes(before).withUnsafeBytes { SHA256.hash($0) }
            #expect(text.split(separator: "\n")[0].contains("\"last_file_sha256\":\"\(hash)\""))
        }
        #expect(try files.allSatisfy { try site.bytes($0).count <= 2000 })
        let lines = try site.lines()
        for (before, after) in zip(lines, lines.dropFirst()) {
            #expect(after.link.previous == before.link.hash && after.link.number == before.link.number + 1)
        }
        #expect(lines.last?.text("what") == "change 40")
        let verdict = try site.verdict()
        #expect(verdict.isWhole && verdict.last?.hash == store.last?.hash && verdict.lines == lines.count)
        var status = stat()
        #expect(stat(site.folder, &status) == 0 && status.st_mode & 0o7777 == 0o700)
        for name in files + ["head", "lock"] {
            #expect(stat("\(site.folder)/\(name)", &status) == 0 && status.st_mode & 0o7777 == 0o600)
        }
    }

    @Test("fewer files are kept at once when the setting says so")
    func fewer() throws {
        let site = try JournalSite()
        let store = try site.store(fileBytes: 2000, files: 8)
        try store.write((1...40).map { entry("change \($0)") })
        #expect(try site.files.count == 8)
        store.limits.files = 2
        try store.prune()
        #expect(try site.files.count == 2 && site.isWhole())
    }

    @Test("R25: every truncation and every byte changed, of every file, is found, and so is a file that is gone")
    func tampered() throws {
        let site = try JournalSite()
        try site.store(fileBytes: 1300).write((1...4).map { entry("change \($0)") })
        let files = try site.files + ["head"]
        #expect(try files.count == 3 && site.isWhole())
        for name in files {
            let bytes = try site.bytes(name)
            for count in bytes.indices {
                try site.write(bytes[..<count], to: name)
                #expect(try !site.isWhole(), "\(name) has its first \(count) bytes of \(bytes.count)")
                var changed = bytes
                changed[count] ^= [1, 0x20, 0x80, 0x0A][count % 4]
                try site.write(changed, to: name)
                #expect(try !site.isWhole(), "\(name) has byte \(count) changed")
            }
            for more in ["\n", "x", "{}\n"] {
                try site.write(bytes + Array(more.utf8), to: name)
                #expect(try !site.isWhole(), "\(name) has \(more.debugDescription) at its end")
            }
            try site.remove(name)
            // Who lacks the oldest file alone has what rotation leaves.
            #expect(try site.isWhole() == (name == files[0]), "without \(name)")
            try site.write(bytes, to: name)
            #expect(try site.isWhole())
        }
    }

    @Test("R25: a whole forged chain is found by a hash that is kept elsewhere, and by nothing else")
    func forged() throws {
        let site = try JournalSite()
        try site.store().write((1...5).map { entry("change \($0)") })
        let kept = try #require(try site.verdict().last)
        try site.store().write((6...9).map { entry("change \($0)") })
        let verdict = try site.verdict(from: kept.hash)
        #expect(verdict.isWhole && verdict.anchor == kept)
        #expect(verdict.text.contains("4 lines follow from it"), "\(verdict.text)")
        for name in try site.files + ["head"] { try site.remove(name) }
        try site.store().write((1...9).map { entry($0 == 3 ? "nothing" : "change \($0)") })
        #expect(try site.verdict().isWhole)
        let found = try site.verdict(from: kept.hash)
        #expect(!found.isWhole && found.anchor == nil)
        #expect(found.text.contains("no line has that hash"), "\(found.text)")
    }

    @Test("what is broken before the line that was asked for is said, and does not count; what is behind does")
    func anchor() throws {
        let site = try JournalSite()
        try site.store().write((1...6).map { entry("change \($0)") })
        let lines = try site.lines()
        let name = try site.files[0]
        let bytes = try site.bytes(name)
        let place = try #require(String(decoding: bytes, as: UTF8.self).range(of: "change 3"))
        let offset = String(decoding: bytes, as: UTF8.self).utf8.distance(from: "".startIndex, to: place.lowerBound)
        var changed = bytes
        changed[offset] ^= 1
        try site.write(changed, to: name)
        #expect(try !site.verdict(from: lines[1].link.hash).isWhole)
        let verdict = try site.verdict(from: lines[4].link.hash)
        #expect(verdict.isWhole && verdict.breakCount > 0)
        #expect(verdict.text.contains("broken: \(name), line 4: its hash is not that of its text"), "\(verdict.text)")
    }

    @Test("R23, R25: a torn end is cut, by a line that names it by its hash, and the chain goes on")
    func torn() throws {
        let site = try JournalSite()
        try site.store().write((1...3).map { entry("change \($0)") })
        let (name, head) = (try site.files[0], try site.bytes("head"))
        let known = try site.bytes(name)
        try site.store().write([entry("change 4")])
        let whole = try site.bytes(name)
        // The head is written behind a flush: a crash leaves that of the lines before.
        for count in known.count + 1..<whole.count {
            try site.write(whole[..<count], to: name)
            try site.write(head, to: "head")
            let heard = Notices()
            try site.store(heard).write([entry("after")])
            #expect(heard.events == ["journal_cut"], "\(count): \(heard.texts)")
            let lines = try site.lines()
            let cut = try #require(lines.dropLast().last)
            #expect(cut.outcome == .cut && cut.number("cut_bytes") == UInt64(count - known.count))
            let hash = whole[known.count..<count].withUnsafeBytes { SHA256.hash($0) }
            #expect(cut.text("cut_sha256") == hash.description)
            #expect(lines.last?.text("what") == "after" && lines.count == 6)
            #expect(try site.isWhole())
        }
        // Blocks that were given to the file, and never filled.
        try site.write(known + [UInt8](repeating: 0, count: 9000), to: name)
        try site.write(head, to: "head")
        try site.store().write([entry("after")])
        #expect(try site.isWhole() && site.lines().count == 6)
        // A line that is whole and was not flushed is kept.
        try site.write(whole, to: name)
        try site.write(head, to: "head")
        try site.store().write([entry("after")])
        #expect(try site.isWhole() && site.lines().map { $0.text("what") }.suffix(2) == ["change 4", "after"])
    }

    @Test("a crash while a file was begun loses nothing of the file before")
    func tornBeginning() throws {
        let site = try JournalSite()
        try site.store().write((1...3).map { entry("change \($0)") })
        let head = try site.bytes("head")
        for rest in ["", "{\"seq\":5,\"ti", "\u{0}\u{0}\u{0}\n"] {
            try site.write(Array(rest.utf8), to: "0000000002.jsonl")
            try site.write(head, to: "head")
            try site.store().write([entry("after")])
            #expect(try site.isWhole(), "\(rest.debugDescription)")
            #expect(try site.lines().map { $0.text("what") }.last == "after")
            #expect(try site.files.count == 2)
        }
    }

    @Test("R25: what was on disk and does not check any more is left as it is: a new file begins, and says so")
    func damaged() throws {
        let site = try JournalSite()
        try site.store().write((1...3).map { entry("change \($0)") })
        let (name, head) = (try site.files[0], try site.bytes("head"))
        let whole = try site.bytes(name)
        for place in stride(from: 0, to: whole.count, by: 13) {
            for isCut in [true, false] {
                var changed = isCut ? Array(whole[..<place]) : whole
                if !isCut { changed[place] ^= 1 }
                try site.write(changed, to: name)
                try site.write(head, to: "head")
                try? site.remove("0000000002.jsonl")
                let heard = Notices()
                try site.store(heard).write([entry("after")])
                #expect(try site.lines().last?.text("what") == "after")
                #expect(try !site.isWhole(), "\(place) \(isCut)")
                #expect(try site.files.count == 2)
                #expect(heard.events == ["journal_damaged"], "\(heard.texts)")
                #expect(try site.bytes(name) == changed)
                // It is the only break: what comes behind is bound to it.
                #expect(try site.verdict().breaks.allSatisfy { $0.file == name || isCut }, "\(place)")
            }
        }
    }

    @Test("two writers of one folder take turns: one chain, and nobody's line is missing")
    func two() throws {
        let site = try JournalSite()
        let (one, other) = (try site.store(fileBytes: 3000), try site.store(fileBytes: 3000))
        for number in 0..<30 {
            try one.write([entry("one \(number)")])
            if number % 3 == 0 { try other.write([entry("other \(number)"), entry("other again")]) }
        }
        #expect(try site.isWhole())
        let texts = try site.lines().compactMap { $0.text("what") }
        #expect(texts.filter { $0.hasPrefix("one") } == (0..<30).map { "one \($0)" })
        #expect(texts.count { $0.hasPrefix("other") } == 20)
    }

    @Test("a file of a later version is left alone, and it is said why")
    func newer() throws {
        let site = try JournalSite()
        try FileManager.default.createDirectory(atPath: site.folder, withIntermediateDirectories: true)
        let line = JournalLink.none.next(.opened, time: 0) { line in
            line.field("format", "pipelined.journal/2")
            line.field("file", 1)
        }.line
        try site.write(line, to: "0000000001.jsonl")
        let store = try site.store()
        let fault = #expect(throws: JournalFault.self) { try store.write([.entry(entry("a change"), time: 0)]) }
        #expect(fault?.description.contains("pipelined.journal/2") == true)
        #expect(try site.bytes("0000000001.jsonl") == line && site.files.count == 1)
    }

    @Test(
        "what is not flushed yet outlives its process; another one goes on behind it, also while the first one writes")
    func unflushed() throws {
        let site = try JournalSite()
        let items = { (number: Int) in [JournalItem.entry(entry("change \(number)"), time: 0)] }
        var first: JournalStore? = try site.store(fileBytes: 1500)
        try first?.write([entry("change 0")])
        for number in 1...2 { #expect(try first?.write(items(number)[...]) == 1) }
        #expect(first?.isUnflushed == true)
        // Its head says less, and never more.
        #expect(try site.isWhole())
        first = nil
        let (second, third) = (try site.store(fileBytes: 1500), try site.store(fileBytes: 1500))
        for number in 3...20 {
            let store = number % 2 == 0 ? second : third
            while try store.write(items(number)[...]) == 0 { try store.flush() }
        }
        for store in [second, third] { try store.flush() }
        #expect(!second.isUnflushed && !third.isUnflushed)
        #expect(try site.isWhole() && site.files.count > 2)
        let changes = try site.lines().filter { $0.outcome == .applied }
        #expect(changes.map { $0.text("what") } == (0...20).map { "change \($0)" })
    }

    @Test("a reader goes on where it was, over files that begin and files that go")
    func cursor() throws {
        let site = try JournalSite()
        let store = try site.store(fileBytes: 2000, files: 2)
        try store.write([entry("change 0")])
        let cursor = try JournalCursor(site.parent)
        var (seen, skipped): ([String], UInt64) = ([], 0)
        let read = {
            try cursor.read { item in
                switch item {
                case .line(let line, _): if line.outcome == .applied { seen.append(line.text("what") ?? "") }
                case .skipped(let files): skipped += files
                case .flaw(let file, let line, let flaw): Issue.record("\(file) \(line): \(flaw)")
                }
            }
        }
        for number in 1...12 {
            try read()
            try store.write([entry("change \(number)")])
            try cursor.wait()
        }
        try read()
        #expect(seen == (0...12).map { "change \($0)" } && skipped == 0)
        try store.write((13...60).map { entry("change \($0)") })
        try read()
        #expect(seen.last == "change 60" && skipped > 0)
    }

    @Test("a folder without a journal, and one that is no folder, are faults")
    func absent() throws {
        let site = try JournalSite()
        #expect(throws: JournalFault.self) { try site.verdict() }
        #expect(throws: JournalFault.self) { try JournalCursor(site.parent) }
        #expect(throws: JournalFault.self) { try JournalVerification("/nonexistent") }
    }
}
