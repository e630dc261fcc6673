import Pipeline

/// The record that says to people which change an entry of the log is.
public struct EntryLabel: Sendable {
    public let key: StateKey
    /// `revision`.
    public let noun: String

    public init(_ key: StateKey, noun: String) {
        self.key = key
        self.noun = noun
    }
}

/// Entries that are whole and can't be used, since one before them is damaged: a state with a gap never was.
struct LostEntries {
    private static let most = 1000

    private let label: EntryLabel?
    /// The sequence of the last.
    private(set) var last: UInt64 = 0
    private var labels: [String] = []
    private var count = 0

    init(_ label: EntryLabel?) { self.label = label }

    /// - Parameters:
    ///   - offset: where an entry begins, or what is damaged.
    ///   - sequence: of the last that is used.
    mutating func add(_ log: LogImage, from offset: Int, behind sequence: UInt64, below limit: UInt64 = .max) {
        var place = offset
        while place + StateFormat.entryHeader <= log.bytes.count {
            let rest = UnsafeRawBufferPointer(rebasing: log.bytes[place...])
            guard let entry = LogEntry(header: rest, salt: log.salt), entry.sequence > sequence, entry.sequence < limit
            else {
                place += 8
                continue
            }
            last = max(last, entry.sequence)
            if entry.isWhole { note(entry) }
            place += entry.byteCount
        }
    }

    private mutating func note(_ entry: LogEntry) {
        guard let label else { return }
        entry.visit { record in
            guard record.kind == label.key.kind, !record.isDeletion, record.id.elementsEqual(label.key.id) else {
                return
            }
            let text = String(decoding: record.value, as: UTF8.self)
            guard !text.isEmpty, labels.last != text else { return }
            count += 1
            if labels.count < LostEntries.most { labels.append(text) }
        }
    }

    /// `: behind what is damaged came the revisions 43, 44 and 45, which are set aside with it`.
    var text: String {
        guard let label, let first = labels.first else { return "" }
        guard count > 1 else {
            return ": behind what is damaged came \(label.noun) \(first), which is set aside with it"
        }
        let shown = labels.prefix(20).joined(separator: ", ")
        let rest = count > 20 ? " and \(count - 20) more, the last of them \(labels.last ?? "")" : ""
        return ": behind what is damaged came the \(label.noun)s \(shown)\(rest), which are set aside with it"
    }
}
