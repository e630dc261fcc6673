import Foundation
import Pipeline
import PipelineText
import TestSupport
import Testing

@testable import PipelineJournal

@Suite("Lines of the journal, and their hashes")
struct JournalLineTests {
    @Test(
        "SHA-256 of the standard's examples (FIPS 180-4)",
        arguments: [
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
            ),
        ])
    func vectors(text: String, hash: String) {
        let bytes = Array(text.utf8)
        #expect(bytes.withUnsafeBytes { SHA256.hash($0) }.description == hash)
        var pieces = SHA256()
        for byte in bytes { withUnsafeBytes(of: byte) { pieces.add($0) } }
        #expect(pieces.hash.description == hash)
        #expect(JournalHash(hash)?.description == hash)
    }

    @Test("a hash has one text: 64 digits of lower case")
    func texts() {
        let text = String(repeating: "0a", count: 32)
        #expect(JournalHash(text) != nil)
        for other in [text.uppercased(), String(text.dropLast()), text + "0", text.replacing("a", with: "g"), ""] {
            #expect(JournalHash(other) == nil, "\(other)")
        }
    }

    private func line(_ entry: JournalEntry) -> [UInt8] {
        JournalLink.none.next(entry.outcome, time: 1_764_480_000_123_000_000) { entry.bounded.write(&$0) }.line
    }

    @Test("R25: a line has when, source, actor, uid, request, revision, what and why, and is JSON")
    func fields() throws {
        var entry = JournalEntry(.rejected, source: "push", what: "change 7")
        (entry.actor, entry.request, entry.revision, entry.why) = ("deploy@acme", "req-1", 42, "held \"back\"\n")
        entry.peer = .init(user: 1001, process: 4321, command: "ba\u{1B}sh")
        let bytes = line(entry)
        #expect(bytes.last == 0x0A && bytes.dropLast().allSatisfy { $0 >= 0x20 && $0 != 0x7F })
        let json = try #require(try JSONSerialization.jsonObject(with: Data(bytes)) as? [String: Any])
        #expect(json["seq"] as? Int == 1)
        #expect(json["time"] as? String == "2025-11-30T05:20:00.123Z")
        #expect(json["outcome"] as? String == "rejected")
        #expect(json["source"] as? String == "push" && json["actor"] as? String == "deploy@acme")
        #expect(json["uid"] as? Int == 1001 && json["pid"] as? Int == 4321)
        #expect(json["command"] as? String == "ba\u{1B}sh")
        #expect(json["request"] as? String == "req-1" && json["revision"] as? Int == 42)
        #expect(json["what"] as? String == "change 7" && json["why"] as? String == "held \"back\"\n")
        let read = try JournalLine(Array(bytes.dropLast()))
        #expect(read.outcome == .rejected && read.number("revision") == 42 && read.text("actor") == "deploy@acme")
    }

    @Test(
        "R27: whatever a pusher writes, a line is one line, JSON, and below 16 KiB",
        arguments: ["\u{0}", "\n", "\"", "\u{202E}", "😀", "e\u{301}", "\\"])
    func bounded(character: String) throws {
        var entry = JournalEntry(.applied, source: String(repeating: character, count: 100_000), what: "")
        let long = String(repeating: character, count: 100_000)
        (entry.actor, entry.request, entry.why) = (long, long, long)
        entry.peer = .init(user: .max, process: .max, command: long)
        let whole = JournalEntry(.applied, source: entry.source, what: long)
        entry = {
            var copy = whole
            (copy.actor, copy.request, copy.why, copy.peer, copy.revision) = (
                entry.actor, entry.request, entry.why, entry.peer, .max
            )
            return copy
        }()
        let bytes = line(entry)
        #expect(bytes.count <= JournalLine.limit, "\(bytes.count)")
        #expect(bytes.dropLast().allSatisfy { $0 >= 0x20 })
        let read = try JournalLine(Array(bytes.dropLast()))
        let what = try #require(read.text("what"))
        #expect(what.hasSuffix("…") && Array(long.utf8).starts(with: what.utf8.dropLast(3)) && what.utf8.count <= 515)
        #expect(entry.bounded.weight < 4096)
    }

    @Test("a byte of a line changed, and every prefix of it, is a flaw")
    func hostile() {
        let bytes = Array(line(entry("a change")).dropLast())
        for count in 0..<bytes.count {
            #expect(throws: JournalFlaw.self) { try JournalLine(Array(bytes[..<count])) }
        }
        for index in bytes.indices {
            for bit in 0..<8 {
                var changed = bytes
                changed[index] ^= 1 << bit
                #expect(throws: JournalFlaw.self) { try JournalLine(changed) }
            }
        }
    }

    @Test("a filter asks for time, actor or uid, source, outcome and text, all of them at once")
    func filters() throws {
        var made = JournalEntry(.admin, source: "signal", what: "the node drains")
        made.actor = "SIGTERM"
        made.peer = .init(user: 1001, process: 1, command: "kill")
        let read = try JournalLine(Array(line(made).dropLast()))
        let matches = { (change: (inout AuditFilter) -> Void) in
            var filter = AuditFilter()
            change(&filter)
            return filter.matches(read)
        }
        #expect(matches { _ in })
        #expect(matches { $0.since = "2025-11-30T05:20:00Z" } && !matches { $0.since = "2025-11-30T05:20:01Z" })
        #expect(matches { $0.until = "2025-11-30T05:20:01Z" } && !matches { $0.until = "2025-11-30T05:20:00Z" })
        #expect(matches { $0.actor = "SIGTERM" } && matches { $0.actor = "1001" } && !matches { $0.actor = "100" })
        #expect(matches { $0.source = "signal" } && !matches { $0.source = "admin" })
        #expect(matches { $0.outcome = .admin } && !matches { $0.outcome = .applied })
        #expect(
            matches { $0.contains = "drains" } && matches { $0.contains = "kill" } && !matches { $0.contains = "Z" })
        #expect(!matches { ($0.actor, $0.source) = ("SIGTERM", "config") })
    }
}

@Suite("the corpus of Journal")
struct JournalCorpusTests {
    @Test("R25: what the fuzzer found, again", .timeLimit(.minutes(5))) func replay() throws {
        for input in try Corpus.inputs("Journal") { expect(input) }
    }

    @Test("R25: every prefix and every byte of it changed", .timeLimit(.minutes(5))) func variants() throws {
        Corpus.forEachVariant(try Corpus.inputs("Journal"), budget: 4000) { expect($0) }
    }

    private func expect(_ input: Corpus.Input) {
        let violation = withExactBytes(input.bytes) { JournalProperties.violation($0) }
        #expect(violation == nil, "\(input.name): \(hex(input.bytes))")
    }
}
