import Pipeline

/// What has become of the node's flow records (R21). Counters of the process, none by instance (R27).
struct FlowCounts {
    /// Its path; nil: there is none.
    let ledger: String?
    /// Records that are in the ledger.
    let recordsWritten: UInt64
    /// Keys that were counted together with others, because a table had no room for them.
    let keysFolded: UInt64
    let exports: [(settings: ExportSettings, statistics: ExportStatistics)]
    /// Nil: not counted.
    let conntrack: ConntrackCollector.Statistics?

    func write(_ line: inout JSONLine) {
        line.key("flows")
        line.open()
        if let ledger {
            line.field("ledger", ledger)
            line.field("records_written", recordsWritten)
        }
        line.field("keys_folded", keysFolded)
        line.list("exports", exports) { line, export in FlowCounts.write(&line, export.settings, export.statistics) }
        if let conntrack { FlowCounts.write(&line, conntrack) } else { line.nullField("conntrack") }
        line.close()
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
        line.field("dumps", conntrack.dumps)
        line.field("broken_dumps", conntrack.brokenDumps)
        line.field("overruns", conntrack.overruns)
        line.field("missed_ends", conntrack.missedEnds)
        line.field("deferred", conntrack.deferred)
        line.field("without_counters", conntrack.withoutCounters)
        line.field("unreadable", conntrack.unreadable)
        line.close()
    }

    var text: String {
        var table = TextTable(["FLOWS", "STATE", "-RECORDS", "-LOST"])
        if let ledger { table.add(["ledger \(ledger)", "", "\(recordsWritten)", "0"]) }
        for (settings, export) in exports {
            table.add([
                "export \(settings.collector)", export.isConnected ? "connected" : "away", "\(export.sent)",
                "\(export.dropped + export.lost)",
            ])
        }
        if let conntrack {
            let state = conntrack.overruns == 0 ? "\(conntrack.tracked) tracked" : "\(conntrack.overruns) overruns"
            table.add(["conntrack", state, "\(conntrack.records)", "\(conntrack.missedEnds)"])
        }
        if keysFolded > 0 { table.add(["keys counted together", "", "\(keysFolded)", ""]) }
        return "\n" + table.text
    }
}
