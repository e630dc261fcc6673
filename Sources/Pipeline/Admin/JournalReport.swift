import PipelineJournal
import PipelineText

/// The journal in `status`: its end, which is worth keeping elsewhere, and what it lost.
struct JournalReport {
    private let path: String
    private let counts: Journal.Counts

    init?(_ journal: Journal?) {
        guard let journal else { return nil }
        (path, counts) = (journal.path, journal.counts)
    }

    var problem: String? {
        counts.fault.map {
            "the journal is not written: \($0); \(counts.waiting) entries wait, \(counts.lost) were lost"
        }
    }

    func write(_ line: inout JSONLine) {
        line.key("journal")
        line.open()
        line.field("path", path)
        line.field("status", counts.fault == nil ? "open" : "failing")
        line.field("written", counts.written)
        line.field("waiting", counts.waiting)
        line.field("lost", counts.lost)
        line.field("seq", counts.last.map { Int(clamping: $0.number) })
        line.field("head", counts.last?.hash)
        line.field("error", counts.fault)
        line.close()
    }
}
