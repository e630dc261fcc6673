import Pipeline
import PipelineNode
import PipelineText

/// The two log streams in `status`: written, queued and dropped lines, and the error.
struct LogReport {
    private struct Stream {
        let name: String
        let log: String
        let to: String
        /// In messages.
        let subject: String
        let counts: LogStream.Counts
        /// Not every loss is known.
        let isUDP: Bool

        init(_ name: String, _ standard: String, _ log: String, _ destination: LogDestination, _ stream: LogStream) {
            (self.name, self.log) = (name, log)
            to = destination.text(name)
            subject = destination == .standard ? standard : "the \(log) log, \(to),"
            counts = stream.counts
            isUDP = if case .syslog(let settings) = destination { settings.address.isUDP } else { false }
        }
    }
    private let streams: [Stream]
    private let counts: (refusals: UInt64, excluded: UInt64, sampledOut: UInt64)

    init(_ writer: LogWriter) {
        streams = [
            Stream("stdout", "standard output", "connections", writer.settings.connections, writer.out),
            Stream("stderr", "standard error", "events", writer.settings.events, writer.error),
        ]
        counts = (writer.summed, writer.excluded, writer.sampledOut)
    }

    private static func status(_ counts: LogStream.Counts) -> String {
        if counts.hasEnded { return "ended" }
        if counts.error != 0 || counts.isStalled { return "failing" }
        return counts.waiting > 0 ? "waiting" : "open"
    }

    var problems: [String] {
        streams.flatMap { stream -> [String] in
            let counts = stream.counts
            var texts: [String] = []
            if counts.hasEnded || counts.error != 0 || counts.isDropping || counts.isStalled {
                texts.append(
                    "\(stream.subject) can't be written: \(LogWriter.why(counts)); \(stream.isUDP ? "at least " : "")"
                        + "\(counts.dropped) lines were dropped")
            }
            if counts.reopenError != 0 {
                texts.append(
                    "\(stream.subject) can't be opened again: \(LogWriter.whyNotReopened(counts)); lines go on to the "
                        + "file that is open")
            }
            return texts
        }
    }

    func write(_ line: inout JSONLine) {
        line.list("streams", streams) { line, stream in
            line.open()
            line.field("stream", stream.name)
            line.field("log", stream.log)
            line.field("to", stream.to)
            line.field("status", LogReport.status(stream.counts))
            line.field("lines", stream.counts.lines)
            line.field("dropped", stream.counts.dropped)
            if stream.isUDP { line.field("more_possible", true) }
            line.field("waiting_bytes", stream.counts.waiting)
            line.field("error", Int(stream.counts.error))
            line.close()
        }
        line.field("refusals_aggregated", counts.refusals)
        line.field("log_excluded", counts.excluded)
        line.field("log_sampled_out", counts.sampledOut)
    }
}
