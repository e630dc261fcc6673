import CLinux
import Foundation
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import PipelineJournal

/// A data directory that goes with its owner.
final class JournalSite {
    let parent: String
    var folder: String { parent + "/journal" }

    init() throws {
        var path = Array("\(NSTemporaryDirectory())journal-XXXXXX".utf8CString)
        try #require(mkdtemp(&path) != nil)
        parent = String(decoding: path.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    deinit { try? FileManager.default.removeItem(atPath: parent) }

    /// A writer on this thread. - Parameter fileBytes: less than a node allows, for files that are quickly full.
    func store(fileBytes: Int64 = 1 << 20, files: Int = 16, _ heard: Notices = Notices()) throws -> JournalStore {
        var limits = JournalLimits(fileBytes: 0, files: files)
        limits.fileBytes = fileBytes
        return try JournalStore(in: parent, limits) { heard.add($0) }
    }

    /// The files of lines, in order.
    var files: [String] {
        get throws {
            try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasSuffix(".jsonl") }.sorted()
        }
    }

    func bytes(_ name: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: URL(filePath: "\(folder)/\(name)"))) }

    func write(_ bytes: some Sequence<UInt8>, to name: String) throws {
        try Data(bytes).write(to: URL(filePath: "\(folder)/\(name)"))
    }

    func remove(_ name: String) throws { try FileManager.default.removeItem(atPath: "\(folder)/\(name)") }

    /// All lines that check.
    func lines() throws -> [JournalLine] {
        var lines: [JournalLine] = []
        try JournalCursor(folder).read { if case .line(let line, _) = $0 { lines.append(line) } }
        return lines
    }

    func verdict(from hash: JournalHash? = nil) throws -> JournalVerification {
        try JournalVerification(folder, from: hash)
    }

    func isWhole() throws -> Bool { try verdict().isWhole }
}

final class Notices: Sendable {
    private let all = Mutex<[JournalNotice]>([])
    func add(_ notice: JournalNotice) { all.withLock { $0.append(notice) } }
    var events: [String] { all.withLock { $0.map(\.event) } }
    var texts: [String] { all.withLock { $0.map(\.message) } }
}

extension JournalStore {
    /// Writes all of them, each by itself, with a flush behind it.
    func write(_ entries: [JournalEntry]) throws {
        for entry in entries {
            #expect(try write([.entry(entry, time: 1_764_480_000_000_000_000)]) == 1)
            try flush()
        }
    }
}

func entry(_ what: String, _ outcome: JournalEntry.Outcome = .applied) -> JournalEntry {
    var entry = JournalEntry(outcome, source: "config", what: what)
    entry.why = "a test"
    return entry
}
