import Pipeline
import PipelineNode
import PipelineText

/// The two log streams in `status`: written, queued and dropped lines, and the error.
struct LogReport {
    private let streams: [(name: String, what: String, counts: LogStream.Counts)]
    private let summed: UInt64

    init(_ writer: LogWriter) {
        streams = [
            ("stdout", "standard output", writer.out.counts), ("stderr", "standard error", writer.error.counts),
        ]
        summed = writer.summed
    }

    private static func status(_ counts: LogStream.Counts) -> String {
        if counts.hasEnded { return "ended" }
        if counts.error != 0 { return "failing" }
        return counts.waiting > 0 ? "waiting" : "open"
    }

    var problems: [String] {
        streams.compactMap { stream in
            let counts = stream.counts
            guard counts.hasEnded || counts.error != 0 || counts.isDropping else { return nil }
            return "\(stream.what) can't be written: \(LogWriter.why(counts)); \(counts.dropped) lines were dropped"
        }
    }

    func write(_ line: inout JSONLine) {
        line.list("streams", streams) { line, stream in
            line.open()
            line.field("stream", stream.name)
            line.field("status", LogReport.status(stream.counts))
            line.field("lines", stream.counts.lines)
            line.field("dropped", stream.counts.dropped)
            line.field("waiting_bytes", stream.counts.waiting)
            line.field("error", Int(stream.counts.error))
            line.close()
        }
        line.field("refusals_aggregated", summed)
    }
}
