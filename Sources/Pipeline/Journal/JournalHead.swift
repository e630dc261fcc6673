import CLinux
import Glibc
import Pipeline
import PipelineRouting
import PipelineText

/// The file `head`: the number and the hash of the last line, as of the last flush. It tells a journal whose end is gone
/// from one that is whole: the lines alone don't.
package struct JournalHead: Equatable {
    enum State: Equatable {
        case absent
        /// It is there, and is not what a node writes.
        case unreadable
        case there(JournalHead)

        var head: JournalHead? { if case .there(let head) = self { head } else { nil } }
    }

    let number: UInt64
    let file: UInt64
    let hash: JournalHash

    static let name = "head"
    /// Always, so that it is written over in one piece.
    private static let size = 192

    package var bytes: [UInt8] {
        var line = JSONLine()
        line.open()
        line.field("format", JournalLine.format)
        line.field("seq", number)
        line.field("file", file)
        line.field("hash", hash.description)
        line.close()
        let blanks = [UInt8](repeating: 0x20, count: max(0, JournalHead.size - 1 - line.bytes.count))
        return line.bytes + blanks + [0x0A]
    }

    init(number: UInt64, file: UInt64, hash: JournalHash) {
        (self.number, self.file, self.hash) = (number, file, hash)
    }

    /// Nil: these are not the bytes of one. Every byte counts.
    package init?(_ bytes: [UInt8]) {
        guard let fields = try? FlatJSON.read(bytes, names: ["seq", "file", "hash"]),
            case .number(let number)? = fields["seq"], case .number(let file)? = fields["file"],
            let hash = fields.string("hash").flatMap({ JournalHash($0) })
        else { return nil }
        self.init(number: number, file: file, hash: hash)
        guard self.bytes == bytes else { return nil }
    }

    static func read(_ folder: JournalFolder) throws(JournalFault) -> State {
        guard cl_folder_has(folder.number, name) == 1 else { return .absent }
        let file = try folder.open(name, CL_OPEN_READ)
        var bytes: [UInt8] = []
        try file.read(from: 0, to: Int64(size) + 1) {
            bytes.append(contentsOf: $0)
            return true
        }
        return JournalHead(bytes).map { .there($0) } ?? .unreadable
    }

    /// Not flushed: after a loss of power it may be an older one, never a newer.
    func write(to file: JournalFile) throws(JournalFault) {
        let bytes = bytes
        let failed = bytes.withUnsafeBytes { cl_file_write(file.number, $0.baseAddress, $0.count, 0) }
        guard failed == 0 else { throw JournalFault(file.path, "write", error: -failed) }
        if try file.size() > Int64(bytes.count) { file.cut(to: Int64(bytes.count)) }
    }
}
