import FilterEgressAccounting
import Pipeline
import PipelineText

/// Counters of the node's flow records (R21), for the process, not by instance (R27).
package struct FlowCounts {
    /// Its path; nil: there is none.
    let ledger: String?
    /// Records that are in the ledger.
    let recordsWritten: UInt64
    /// Records that are taken, and not in it yet.
    let recordsWaiting: Int
    /// When it was last written to: nanoseconds since 1970, 0 for never.
    let lastWrite: UInt64
    /// Keys that were aggregated because a table was full.
    let keysAggregated: UInt64
    let exports: [(settings: ExportSettings, statistics: ExportStatistics)]
    /// Nil: not counted.
    let conntrack: ConntrackCollector.Statistics?

    package func write(_ line: inout JSONLine) {
        line.key("flows")
        line.open()
        if let ledger {
            line.field("ledger", ledger)
            FlowCounts.write(&line, "last_write", lastWrite)
            line.field("records_written", recordsWritten)
            line.field("records_waiting", recordsWaiting)
        }
        line.field("keys_aggregated", keysAggregated)
        line.list("exports", exports) { line, export in FlowCounts.write(&line, export.settings, export.statistics) }
        if let conntrack { FlowCounts.write(&line, conntrack) } else { line.nullField("conntrack") }
        line.close()
    }

    private static func write(_ line: inout JSONLine, _ name: StaticString, _ time: UInt64) {
        guard time != 0 else { return line.nullField(name) }
        line.key(name)
        line.timestamp(time)
    }

    private static func write(_ line: inout JSONLine, _ settings: ExportSettings, _ statistics: ExportStatistics) {
        line.open()
        line.field("collector", "\(settings.collector)")
        line.field("transport", settings.transport.rawValue)
        line.field("connected", statistics.isConnected)
        line.field("sent", statistics.sent)
        line.field("waiting", statistics.waiting)
        line.field("dropped", statistics.dropped)
        line.field("lost", statistics.lost)
        line.field("failures", statistics.failures)
        line.close()
    }

    private static func write(_ line: inout JSONLine, _ conntrack: ConntrackCollector.Statistics) {
        line.key("conntrack")
        line.open()
        line.field("tracked", conntrack.tracked)
        line.field("records", conntrack.records)
        FlowCounts.write(&line, "last_dump", conntrack.lastDump)
        line.field("dumps", conntrack.dumps)
        line.field("broken_dumps", conntrack.brokenDumps)
        line.field("overruns", conntrack.overruns)
        line.field("missed_ends", conntrack.missedEnds)
        line.field("deferred", conntrack.deferred)
        line.field("baselined", conntrack.baselined)
        line.field("without_counters", conntrack.withoutCounters)
        line.field("unreadable", conntrack.unreadable)
        if let table = conntrack.table {
            line.key("table")
            line.open()
            line.field("count", table.count)
            line.field("max", table.most)
            line.field("dropped", table.dropped)
            line.close()
        } else {
            line.nullField("table")
        }
        line.close()
    }

    /// Empty: no flow is recorded.
    package var text: String {
        guard ledger != nil || !exports.isEmpty || conntrack != nil else { return "" }
        var table = TextTable(["FLOWS", "STATUS", "-RECORDS", "-WAITING", "-LOST"])
        if let ledger {
            table.add([
                "ledger \(ledger)", FlowCounts.status("written", lastWrite), "\(recordsWritten)", "\(recordsWaiting)",
                "0",
            ])
        }
        for (settings, export) in exports {
            table.add([
                "export \(settings.collector)", export.isConnected ? "connected" : "away", "\(export.sent)",
                "\(export.waiting)", "\(export.dropped + export.lost)",
            ])
        }
        if let conntrack {
            table.add([
                "conntrack", FlowCounts.status("read", conntrack.lastDump), "\(conntrack.records)", "", "",
            ])
        }
        if keysAggregated > 0 { table.add(["keys aggregated", "", "\(keysAggregated)", "", ""]) }
        return "\n" + table.text + (conntrack.map { "\n" + FlowCounts.text($0) } ?? "")
    }

    private static func status(_ done: String, _ time: UInt64) -> String {
        time == 0 ? "not \(done) yet" : "\(done) \(Timestamp.text(time))"
    }

    private static func text(_ conntrack: ConntrackCollector.Statistics) -> String {
        var table = TextTable([
            "-TRACKED", "-DUMPS", "-BROKEN", "-OVERRUNS", "-MISSED ENDS", "-DEFERRED", "-WITHOUT COUNTERS",
        ])
        table.add([
            "\(conntrack.tracked)", "\(conntrack.dumps)", "\(conntrack.brokenDumps)", "\(conntrack.overruns)",
            "\(conntrack.missedEnds)", "\(conntrack.deferred)", "\(conntrack.withoutCounters)",
        ])
        return table.text
    }
}
