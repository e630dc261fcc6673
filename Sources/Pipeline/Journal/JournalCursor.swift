import CLinux
import Glibc
import PipelineThreads

/// Reads a journal's lines in order, over all its files, and goes on where it was with those that come.
///
/// Threading: one owner. Beside a writer, whose half-written line it does not take.
package final class JournalCursor {
    package enum Item {
        case line(JournalLine, bytes: [UInt8])
        /// What stands there is no line that checks.
        case flaw(file: String, line: Int, JournalFlaw)
        /// Files were removed before they were read.
        case skipped(files: UInt64)
    }

    private let folder: JournalFolder
    private let watch: Int32
    private var file: JournalFile?
    private var number: UInt64 = 0
    /// Behind the last whole line, and how many are before.
    private var place: Int64 = 0
    private var lines = 0

    /// - Parameter path: of the journal's folder, or of the data directory that has it.
    package init(_ path: String) throws(JournalFault) {
        folder = try JournalFolder.open(path)
        guard try !folder.files().isEmpty else { throw JournalFault("there is no journal in \(folder.path)") }
        watch = cl_folder_watch(folder.path)
    }

    deinit { if watch >= 0 { _ = cl_close(watch) } }

    /// All that is there and was not read yet.
    package func read(_ each: (Item) -> Void) throws(JournalFault) {
        while true {
            if file == nil, try !openNext(each) { return }
            guard let file else { return }
            // Asked first: what is behind the last line then is all.
            let isOver = try folder.files().contains { $0 > number }
            let size = try file.size()
            try readLines(of: file, to: size, each)
            guard isOver else { return }
            if place < size {
                each(.flaw(file: JournalFolder.name(number), line: lines + 1, JournalFlaw("it has no end")))
            }
            self.file = nil
        }
    }

    /// Waits until something was written, or taken away.
    package func wait() throws(JournalFault) {
        guard watch >= 0 else { throw JournalFault(folder.path, "watch", error: -watch) }
        var items = [cl_poll_item.readable(watch)]
        _ = Poll.wait(&items, until: nil)
        var room = [UInt8](repeating: 0, count: 4096)
        while room.withUnsafeMutableBytes({ cl_read(watch, $0.baseAddress, $0.count) }) > 0 {}
    }

    private func openNext(_ each: (Item) -> Void) throws(JournalFault) -> Bool {
        while let next = try folder.files().first(where: { $0 > number }) {
            let opened = cl_folder_file(folder.number, JournalFolder.name(next), Int32(CL_OPEN_READ))
            // Removed meanwhile: the one behind it is there.
            if opened == -ENOENT { continue }
            guard opened >= 0 else {
                throw JournalFault(folder.pathOf(JournalFolder.name(next)), "open", error: -opened)
            }
            if number > 0, next > number + 1 { each(.skipped(files: next - number - 1)) }
            file = JournalFile(folder.pathOf(JournalFolder.name(next)), opened)
            (number, place, lines) = (next, 0, 0)
            return true
        }
        return false
    }

    private func readLines(
        of file: JournalFile, to size: Int64, _ each: (Item) -> Void
    ) throws(JournalFault) {
        var split = JournalLines()
        var (end, count) = (place, lines)
        let name = JournalFolder.name(number)
        try file.read(from: place, to: size) { bytes in
            split.add(bytes) { line, length in
                end += Int64(length)
                count += 1
                do throws(JournalFlaw) {
                    each(.line(try JournalLine(line), bytes: line))
                } catch {
                    each(.flaw(file: name, line: count, error))
                }
            }
            return true
        }
        (place, lines) = (end, count)
    }
}

/// Bytes in lines. One that is too long is cut, so that nothing grows.
package struct JournalLines {
    private var line: [UInt8] = []
    /// Bytes of it, also those that were cut off.
    private(set) var length = 0

    package init() {}

    /// - Parameter each: gets a line without its line break, and how long it was with it.
    package mutating func add(_ bytes: UnsafeRawBufferPointer, _ each: (_ line: [UInt8], _ length: Int) -> Void) {
        var start = 0
        while let end = bytes[start...].firstIndex(of: 0x0A) {
            take(bytes[start..<end])
            let whole = line
            each(whole, length + 1)
            (line, length) = ([], 0)
            start = end + 1
        }
        take(bytes[start...])
    }

    private mutating func take(_ bytes: Slice<UnsafeRawBufferPointer>) {
        length += bytes.count
        // One byte more than a line may have, so that it is known to be too long.
        line.append(contentsOf: bytes.prefix(max(0, JournalLine.limit + 1 - line.count)))
    }
}
