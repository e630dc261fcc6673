import CLinux
import Pipeline
import PipelineText

/// Size and number of a journal's files.
package struct JournalLimits: Sendable, Equatable {
    package var fileBytes: Int64
    package var files: Int
    /// - Parameters:
    ///   - fileBytes: at most; a file that would be larger is followed by the next. At least ``leastFileBytes``.
    ///   - files: that are kept, the one that is written included. At least 2.
    package init(fileBytes: UInt64, files: Int) {
        self.fileBytes = max(JournalLimits.leastFileBytes, Int64(clamping: fileBytes))
        self.files = max(2, files)
    }
    /// A file's first line, and the longest one behind it.
    package static let leastFileBytes: Int64 = 65536
}

/// What was found at the files, for whoever reads the log.
package struct JournalNotice: Sendable, Equatable {
    package let event: String
    package let message: String
}

/// An entry that waits to be written, or what stands for some that were lost.
enum JournalItem: Sendable {
    case entry(JournalEntry, time: UInt64)
    case gap(lost: UInt64, time: UInt64)
}

/// The files of a journal as their writer has them. Each batch is written at the known end, under the folder's lock;
/// another process may have written since, and what it wrote is followed first. It is flushed with those behind it, and
/// before a file that follows is begun.
///
/// Threading: the writer's thread.
final class JournalStore {
    var limits: JournalLimits
    private let folder: JournalFolder
    private let lock: JournalFile
    private let headFile: JournalFile
    private let say: (JournalNotice) -> Void
    private var current: Current?
    /// How its file was before what is not flushed yet; nil: all is.
    private var flushed: Current?

    /// The file that is written, up to its last line.
    private struct Current {
        let number: UInt64
        let file: JournalFile
        var link: JournalLink
        var size: Int64
        var content: SHA256
    }

    /// Bytes of one batch, about.
    private static let batchBytes = 1 << 18

    /// - Parameters:
    ///   - parent: the data directory, which has or gets a folder `journal`.
    ///   - say: called on the writer's thread.
    init(in parent: String, _ limits: JournalLimits, say: @escaping (JournalNotice) -> Void) throws(JournalFault) {
        folder = try JournalFolder.make(in: parent)
        lock = try folder.open(JournalFolder.lockName, CL_OPEN_MAKE)
        headFile = try folder.open(JournalHead.name, CL_OPEN_MAKE)
        self.limits = limits
        self.say = say
    }

    /// The number and the hash of the last line, and its file; nil: nothing was written yet.
    var last: (number: UInt64, hash: JournalHash, file: UInt64)? {
        current.map { ($0.link.number, $0.link.hash, $0.number) }
    }

    // MARK: Writing

    /// Writes as many as fit, in order; they are on disk once ``flush()`` was called.
    /// - Returns: how many, at least one; 0: what was written before is to be flushed first.
    func write(_ items: ArraySlice<JournalItem>) throws(JournalFault) -> Int {
        try lock.locked { () throws(JournalFault) -> Int in
            try catchUp()
            if let count = try append(items) { return count }
            guard flushed == nil else { return 0 }
            try beginNext()
            return try append(items) ?? 0
        }
    }

    /// Something that was written may not be on disk.
    var isUnflushed: Bool { flushed != nil }

    /// What becomes of lines that can't be flushed.
    enum Unflushed {
        /// They are not in the file any more: they may be written again.
        case takenBack
        /// Another process has written behind them: they are there, and whether on disk is not known.
        case left
    }

    /// What was written is on disk afterwards.
    /// - Parameter failed: called with what became of it, if it is not.
    func flush(_ failed: (Unflushed) -> Void = { _ in }) throws(JournalFault) {
        guard let before = flushed else { return }
        try lock.locked { () throws(JournalFault) in
            let isLast = current.map { $0.file === before.file && cl_linked_size($0.file.number) == $0.size } ?? false
            flushed = nil
            do throws(JournalFault) { try before.file.flush() } catch {
                current = isLast ? before : nil
                // For a second flush it would be clean, written or not.
                if isLast { before.file.cut(to: before.size) }
                failed(isLast ? .takenBack : .left)
                throw error
            }
            if isLast { noteLast() }
        }
    }

    /// Why the last line's hash could not be written beside it; nil: it was. The line itself is on disk.
    private(set) var headFault: JournalFault?

    /// Removes files beyond the number that is kept.
    func prune() throws(JournalFault) {
        guard let newest = current?.number else { return }
        for file in try folder.files() where file + UInt64(limits.files) <= newest {
            let failed = folder.remove(file)
            guard failed == 0 else {
                throw JournalFault(folder.pathOf(JournalFolder.name(file)), "remove", error: failed)
            }
        }
    }

    /// Nil: the file is full.
    private func append(_ items: ArraySlice<JournalItem>) throws(JournalFault) -> Int? {
        guard let now = current else { return 0 }
        var (bytes, link, count): ([UInt8], JournalLink, Int) = ([], now.link, 0)
        for item in items {
            let (line, next) = JournalStore.line(item, after: link)
            guard now.size + Int64(bytes.count + line.count) <= limits.fileBytes,
                bytes.count < JournalStore.batchBytes
            else { break }
            bytes += line
            link = next
            count += 1
        }
        guard count > 0 else { return nil }
        try commit(bytes, link)
        return count
    }

    private static func line(_ item: JournalItem, after link: JournalLink) -> (line: [UInt8], link: JournalLink) {
        switch item {
        case .entry(let entry, let time):
            link.next(entry.outcome, time: time) { line in
                entry.write(&line)
                line.field("node_pid", Int(cl_process_id()))
            }
        case .gap(let lost, let time):
            link.next(.gap, time: time) { line in
                line.field("source", "journal")
                line.field("what", "\(lost) entries were lost before this line")
                line.field("why", "the journal could not be written, and the queue was full")
                line.field("lost", lost)
                line.field("node_pid", Int(cl_process_id()))
            }
        }
    }

    /// At the end of the file, or not at all.
    private func commit(_ bytes: [UInt8], _ link: JournalLink) throws(JournalFault) {
        guard var now = current else { return }
        do throws(JournalFault) {
            try now.file.write(bytes, at: now.size)
        } catch {
            // What went in part is taken back, as far as that can be; else the next batch overwrites it.
            now.file.cut(to: now.size)
            throw error
        }
        bytes.withUnsafeBytes { now.content.add($0) }
        now.size += Int64(bytes.count)
        now.link = link
        if flushed == nil { flushed = current }
        current = now
    }

    /// Beside the lines: how far they are on disk.
    private func noteLast() {
        guard let now = current else { return }
        do throws(JournalFault) {
            try JournalHead(number: now.link.number, file: now.number, hash: now.link.hash).write(to: headFile)
            headFault = nil
        } catch {
            headFault = error
        }
    }

    // MARK: Files

    /// Begins a file behind the current one.
    private func beginNext() throws(JournalFault) {
        guard let last = current else { return }
        try begin(last.number + 1, after: last.link, content: last.content.hash, why: nil)
        try prune()
    }

    /// - Parameters:
    ///   - link: the line that its first one follows.
    ///   - content: the hash of the file before; nil: there is none.
    private func begin(
        _ file: UInt64, after link: JournalLink, content: JournalHash?, why: String?
    ) throws(JournalFault) {
        let name = JournalFolder.name(file)
        let made = try folder.open(name, CL_OPEN_MAKE)
        let (line, first) = link.next(.opened, time: cl_wall_clock()) { line in
            line.field("format", JournalLine.format)
            line.field("file", file)
            if let content { line.field("last_file_sha256", content.description) }
            line.field("source", "journal")
            line.field("what", "\(name) begins")
            if let why { line.field("why", why) }
            line.field("node_pid", Int(cl_process_id()))
        }
        current = Current(number: file, file: made, link: link, size: 0, content: SHA256())
        do throws(JournalFault) {
            try commit(line, first)
            try made.flush()
            flushed = nil
            noteLast()
            try folder.flush()
        } catch {
            (current, flushed) = (nil, nil)
            throw error
        }
    }

    // MARK: What is there

    /// Brings ``current`` to the end of what is there, mending it if need be.
    private func catchUp() throws(JournalFault) {
        if let now = current {
            let size = cl_linked_size(now.file.number)
            if size == now.size, !folder.has(now.number + 1) { return }
            // What is not flushed of it is, with what the other has written behind it.
            if let before = flushed {
                flushed = nil
                try before.file.flush()
            }
            current = nil
        }
        let files = try folder.files()
        let head = try JournalHead.read(folder)
        guard let newest = files.last else {
            guard let lost = head.head else { return try begin(1, after: .none, content: nil, why: nil) }
            let why = "the files up to line \(lost.number) are gone"
            say(JournalNotice(event: "journal_damaged", message: "the journal \(folder.path) goes on anew: \(why)"))
            return try begin(
                lost.file + 1, after: JournalLink(number: lost.number, hash: lost.hash, previous: .none),
                content: nil, why: why)
        }
        let scanned = try scan(newest)
        guard scanned.scan.lines > 0 else { return try resumeBegin(newest, files.dropLast().last, scanned, head) }
        try resume(newest, scanned, head)
    }

    private struct Scanned {
        let file: JournalFile
        var scan: JournalScan
        let size: Int64
        var rest: Int64 { size - scan.size }
    }

    private func scan(_ number: UInt64) throws(JournalFault) -> Scanned {
        let file = try folder.open(JournalFolder.name(number), CL_OPEN_WRITE)
        let size = try file.size()
        var scan = JournalScan(after: nil)
        try file.read(from: 0, to: size) {
            scan.add($0)
            return scan.flaw == nil
        }
        try refuseNewer(file)
        return Scanned(file: file, scan: scan, size: size)
    }

    /// A file of a later version is left alone.
    private func refuseNewer(_ file: JournalFile) throws(JournalFault) {
        var start: [UInt8] = []
        try file.read(from: 0, to: Int64(JournalLine.limit)) {
            start += $0
            return false
        }
        guard let line = try? JournalLine(Array(start.prefix { $0 != 0x0A })), let opening = line.opening,
            opening.format != JournalLine.format
        else { return }
        throw JournalFault(
            "\(file.path) is of the format \(opening.format), and this version writes \(JournalLine.format): it is left as it is"
        )
    }

    /// The newest file has no whole line: a crash cut its beginning off, or it was changed.
    private func resumeBegin(
        _ number: UInt64, _ before: UInt64?, _ scanned: Scanned, _ head: JournalHead.State
    ) throws(JournalFault) {
        var (last, content): (JournalLink, JournalHash?) = (.none, nil)
        if let before {
            let earlier = try scan(before)
            last = earlier.scan.link
            content = try JournalStore.hash(of: earlier)
        }
        if let why = try damage(scanned, after: last, head) {
            return try setAside(number, scanned, after: last, head, why)
        }
        let why = scanned.size > 0 ? "a crash had left \(scanned.size) bytes that are no line" : nil
        try begin(number, after: last, content: content, why: why)
    }

    private static func hash(of scanned: Scanned) throws(JournalFault) -> JournalHash {
        var all = scanned.scan.content
        try scanned.file.read(from: scanned.scan.size, to: scanned.size) {
            all.add($0)
            return true
        }
        return all.hash
    }

    private func resume(_ number: UInt64, _ scanned: Scanned, _ head: JournalHead.State) throws(JournalFault) {
        let link = scanned.scan.link
        if let why = try damage(scanned, after: link, head) {
            return try setAside(number, scanned, after: link, head, why)
        }
        current = Current(
            number: number, file: scanned.file, link: link, size: scanned.scan.size, content: scanned.scan.content)
        if scanned.rest > 0 { try cut(scanned) }
    }

    /// Leaves the newest file as it is, and begins one behind it.
    private func setAside(
        _ number: UInt64, _ scanned: Scanned, after link: JournalLink, _ head: JournalHead.State, _ why: String
    ) throws(JournalFault) {
        let known = head.head.flatMap { $0.number > link.number ? $0 : nil }
        let last = known.map { JournalLink(number: $0.number, hash: $0.hash, previous: .none) } ?? link
        try begin(
            number + 1, after: last, content: try JournalStore.hash(of: scanned),
            why: "\(JournalFolder.name(number)): \(why)")
        try prune()
        say(
            JournalNotice(
                event: "journal_damaged",
                message: "\(scanned.file.path): \(why); it is left as it is, and a new file begins: run "
                    + "`pipelined audit --verify \(folder.path)`"))
    }

    /// Why the newest file can't be what a crash has left; nil: it can.
    /// - Parameter link: the last line that checks.
    private func damage(
        _ scanned: Scanned, after link: JournalLink, _ head: JournalHead.State
    ) throws(JournalFault) -> String? {
        if let head = head.head {
            if head.number > link.number {
                return
                    "line \(link.number + 1) was on disk, and "
                    + (scanned.scan.flaw.map { "what stands there does not check: \($0)" } ?? "is gone")
            }
            if head.number == link.number, head.hash != link.hash {
                return "line \(head.number) is not the one that was written"
            }
        }
        guard scanned.rest > 0 else { return nil }
        // A crash leaves no line behind a torn one.
        var follower = JournalStray()
        try scanned.file.read(from: scanned.scan.size, to: scanned.size) { follower.finds($0) == false }
        return follower.found ? "line \(link.number + 1) does not check, and lines stand behind it" : nil
    }

    /// What a crash has left behind the last line is overwritten by a line that names it.
    private func cut(_ scanned: Scanned) throws(JournalFault) {
        guard let now = current else { return }
        var torn = SHA256()
        try scanned.file.read(from: now.size, to: scanned.size) {
            torn.add($0)
            return true
        }
        let (line, link) = now.link.next(.cut, time: cl_wall_clock()) { line in
            line.field("source", "journal")
            line.field("what", "\(scanned.rest) bytes behind line \(now.link.number) were cut")
            line.field("why", "the process or the machine ended while they were written")
            line.field("cut_bytes", UInt64(clamping: scanned.rest))
            line.field("cut_sha256", torn.hash.description)
            line.field("node_pid", Int(cl_process_id()))
        }
        try commit(line, link)
        say(
            JournalNotice(
                event: "journal_cut",
                message:
                    "\(scanned.file.path): \(scanned.rest) bytes behind line \(now.link.number) were no whole line "
                    + "and are cut; line \(link.number) says so"))
    }
}
