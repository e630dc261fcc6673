import CLinux
import PipelineText

/// Whether a journal is whole: each line has its own hash and that of the line before, each file that of the file before,
/// and the last line is the one that `head` names.
package struct JournalVerification: Sendable {
    /// A place where it is not.
    package struct Break: Sendable, Equatable {
        package let file: String
        /// From 1; 0: the file as a whole.
        package let line: Int
        package let problem: String
    }

    package struct Line: Sendable, Equatable {
        package let number: UInt64
        package let hash: JournalHash
        package let time: String
    }

    /// The most that are kept; ``breakCount`` has all.
    static let shownBreaks = 20

    package private(set) var breaks: [Break] = []
    package private(set) var breakCount = 0
    package private(set) var files = 0
    package private(set) var lines = 0
    package private(set) var first: Line?
    package private(set) var last: Line?
    /// The line with the hash that was asked for; nil: there is none, or none was asked for.
    package private(set) var anchor: Line?
    private let wanted: JournalHash?
    private var breaksBehindAnchor = 0
    /// No writer could be kept away while the files were listed.
    package private(set) var isUnlocked = false

    // As the walk goes.
    private var link = JournalLink.none
    private var followsAny = true
    /// Of the file before.
    private var content: JournalHash?
    private var fileBefore: UInt64?
    /// The line that `head` names: where it is, and its hash.
    private var headLine: (file: UInt64, hash: JournalHash)?

    /// It is whole; with an anchor: from there on.
    package var isWhole: Bool { wanted == nil ? breakCount == 0 : anchor != nil && breaksBehindAnchor == 0 }

    private struct Snapshot {
        let files: [(number: UInt64, file: JournalFile, size: Int64)]
        let head: JournalHead.State
        let isLocked: Bool
    }

    /// How long a writer may hold its files, in milliseconds.
    private static let patience = 5000

    /// Reads all of it.
    /// - Parameters:
    ///   - path: of the journal's folder, or of the data directory that has it.
    ///   - hash: of a line that has to be there, and that everything behind it has to follow from.
    package init(_ path: String, from hash: JournalHash? = nil) throws(JournalFault) {
        wanted = hash
        let folder = try JournalFolder.open(path)
        let snapshot = try JournalVerification.snapshot(folder)
        guard !snapshot.files.isEmpty || snapshot.head != .absent else {
            throw JournalFault("there is no journal in \(folder.path)")
        }
        isUnlocked = !snapshot.isLocked
        for (number, file, size) in snapshot.files {
            try walk(number, file, size, isNewest: number == snapshot.files.last?.number, snapshot.head.head)
        }
        check(snapshot.head)
    }

    /// At a moment between two batches. Files stay open, so that rotation takes none away.
    private static func snapshot(_ folder: JournalFolder) throws(JournalFault) -> Snapshot {
        let take = { (isLocked: Bool) throws(JournalFault) -> Snapshot in
            var files: [(number: UInt64, file: JournalFile, size: Int64)] = []
            for number in try folder.files() {
                let file = try folder.open(JournalFolder.name(number), CL_OPEN_READ)
                files.append((number, file, try file.size()))
            }
            return Snapshot(files: files, head: try JournalHead.read(folder), isLocked: isLocked)
        }
        guard cl_folder_has(folder.number, JournalFolder.lockName) == 1 else { return try take(false) }
        return try folder.open(JournalFolder.lockName, CL_OPEN_READ).lockedToRead(patience: patience, take)
    }

    // MARK: The walk

    private mutating func add(_ file: String, _ line: Int, _ problem: String) {
        breakCount += 1
        if anchor != nil { breaksBehindAnchor += 1 }
        if breaks.count < JournalVerification.shownBreaks {
            breaks.append(Break(file: file, line: line, problem: problem))
        }
    }

    private mutating func walk(
        _ number: UInt64, _ file: JournalFile, _ size: Int64, isNewest: Bool, _ head: JournalHead?
    ) throws(JournalFault) {
        let name = JournalFolder.name(number)
        files += 1
        if let before = fileBefore, number != before + 1 {
            add(name, 0, "\(number - before - 1) files before it are missing")
            (followsAny, content) = (true, nil)
        }
        fileBefore = number
        var (all, split, count, place) = (SHA256(), JournalLines(), 0, self)
        let before = content
        try file.read(from: 0, to: size) { bytes in
            all.add(bytes)
            split.add(bytes) { line, _ in
                count += 1
                place.take(line, name, count, number, after: before, head)
            }
            return true
        }
        self = place
        if split.length > 0 { add(name, count + 1, "it has no end: \(split.length) bytes without a line break") }
        if count == 0, split.length == 0, !isNewest { add(name, 0, "it is empty") }
        content = all.hash
    }

    private mutating func take(
        _ bytes: [UInt8], _ file: String, _ count: Int, _ number: UInt64, after before: JournalHash?,
        _ head: JournalHead?
    ) {
        lines += 1
        let line: JournalLine
        do throws(JournalFlaw) {
            line = try JournalLine(bytes)
        } catch {
            add(file, count, "\(error)")
            followsAny = true
            return
        }
        if let flaw = JournalScan.flaw(between: link, line.link, followsAny: followsAny) { add(file, count, "\(flaw)") }
        checkOpening(line, file, count, number, after: before)
        (link, followsAny) = (line.link, false)
        let known = Line(number: line.link.number, hash: line.link.hash, time: line.time)
        if first == nil { first = known }
        last = known
        if line.link.hash == wanted { anchor = known }
        if line.link.number == head?.number { headLine = (number, line.link.hash) }
    }

    /// A file's first line, and no other, says which file it is.
    private mutating func checkOpening(
        _ line: JournalLine, _ file: String, _ count: Int, _ number: UInt64, after before: JournalHash?
    ) {
        guard count == 1 else {
            if line.outcome == .opened { add(file, count, "a file begins in the middle of one") }
            return
        }
        guard let opening = line.opening else { return add(file, count, "it does not say which file begins here") }
        guard opening.format == JournalLine.format else {
            return add(file, count, "it is of the format \(opening.format), which this version does not know")
        }
        guard opening.file == number else {
            return add(file, count, "it says that file \(opening.file) begins here")
        }
        guard let before else { return }
        guard opening.last == before else {
            return add(file, count, "it names another SHA-256 than the file before it has")
        }
    }

    private mutating func check(_ state: JournalHead.State) {
        switch state {
        case .absent: add(JournalHead.name, 0, "it is missing: whether lines are gone from the end, nobody can tell")
        case .unreadable: add(JournalHead.name, 0, "it is not what a node writes")
        case .there(let head):
            let end = last?.number ?? 0
            if head.number > end {
                add(JournalHead.name, 0, "line \(head.number) was written, and the journal ends at line \(end)")
            } else if headLine?.hash != head.hash || headLine?.file != head.file {
                add(JournalHead.name, 0, "line \(head.number) is not the one that was written")
            }
        }
    }

    // MARK: For people

    package var text: String {
        var text = ""
        for one in breaks {
            text += "broken: \(one.file)\(one.line > 0 ? ", line \(one.line)" : ""): \(one.problem)\n"
        }
        if breakCount > breaks.count { text += "broken: \(breakCount - breaks.count) more places\n" }
        if let anchor {
            text +=
                "line \(anchor.number) of \(anchor.time) has that hash; \((last?.number ?? 0) - anchor.number) lines "
            text += breaksBehindAnchor == 0 ? "follow from it\n" : "stand behind it, and not all follow from it\n"
        } else if wanted != nil {
            text += "no line has that hash: it was taken out, or is older than line \(first?.number ?? 0), the oldest "
            text += "that is kept\n"
        }
        if let first, let last {
            text += "\(breakCount == 0 ? "whole" : "not whole"): \(lines) lines in \(files) files, \(first.number) of "
            text += "\(first.time) to \(last.number) of \(last.time)\n"
            text += "head \(last.hash)\n"
        }
        return text
    }

    package var json: [UInt8] {
        var line = JSONLine()
        line.open()
        line.field("whole", isWhole)
        line.field("files", files)
        line.field("lines", lines)
        for (name, end) in [("first", first), ("last", last)] as [(StaticString, Line?)] {
            guard let end else { continue }
            line.key(name)
            line.open()
            line.field("seq", end.number)
            line.field("time", end.time)
            line.field("hash", end.hash.description)
            line.close()
        }
        line.field("head", last?.hash.description)
        if wanted != nil {
            line.field("from_seq", anchor.map { Int(clamping: $0.number) })
            line.field("broken_behind", breaksBehindAnchor)
        }
        line.field("broken", breakCount)
        line.list("breaks", breaks) { line, one in
            line.open()
            line.field("file", one.file)
            line.field("line", one.line)
            line.field("problem", one.problem)
            line.close()
        }
        line.close()
        line.newline()
        return line.bytes
    }
}
