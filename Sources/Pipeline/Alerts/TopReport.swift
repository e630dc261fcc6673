import Pipeline
import PipelineFlows
import PipelineLedger
import PipelineText

/// A question of `top`: aggregation, filters and order.
package struct TopQuestion: Sendable, Equatable {
    package enum Order: String, CaseIterable, Sendable {
        case bytes, connections
    }

    package var by = ReportGroup.instance
    package var order = Order.bytes
    /// The window in seconds; nil: four ticks of the workers.
    package var seconds: UInt64?
    package var rows = 20
    /// Only flows of this instance, and so on; all that are given have to fit.
    package var instance: String?
    /// `org/app/env`, or the env's own id where only one env has it.
    package var env: String?
    package var org: String?
    package var destination: IPAddress?
    package var port: UInt16?

    package static let rowLimit = 1000
    package static let secondLimit: UInt64 = 3600
    package init() {}

    func fits(_ key: FlowKey) -> Bool {
        (destination == nil || destination == key.destination) && (port == nil || port == key.port)
    }

    func fits(_ names: FlowNames) -> Bool {
        (instance == nil || instance == names.instance) && (org == nil || org == names.org)
            && (env == nil || env == names.env || env == names.owner.path)
    }

    /// It names an env or a part of one: all matches must have the same owner.
    var isOfOneEnv: Bool { instance != nil || env != nil }
}

/// The answer of `top`.
package struct TopReport {
    struct Row: Equatable {
        /// The group's own name and its owners' names; empty where not applicable.
        var name: String
        var env = ""
        var app = ""
        var org = ""
        /// By port: the number and the protocol of `name`.
        var service: ReportService?
        var sums = TrafficWindow.Sums()
    }

    package let question: TopQuestion
    let rows: [Row]
    /// Rows that are not shown.
    let others: Int
    let total: TrafficWindow.Sums
    let from: UInt64
    let to: UInt64
    let aggregated: UInt64
    /// The matching envs, if a question about one is ambiguous: there is no report then.
    let ambiguous: [EnvName]

    /// - Parameter names: who a flow's instance is.
    init(_ question: TopQuestion, _ view: TrafficWindow.View, names: (UInt32, IPAddress) -> FlowNames) {
        var tally = TopTally(question, view)
        while !tally.advance(until: Instant(nanoseconds: .max), names) {}
        self.init(tally)
    }

    /// Texts are made only for shown rows: there may be a hundred thousand flows, and the control thread waits.
    package init(_ tally: TopTally) {
        question = tally.question
        rows = tally.top.map { group, sums in
            var row = TopReport.row(tally.question.by, group, tally.owners)
            row.sums = sums
            return row
        }
        others = tally.found.count - rows.count
        total = tally.total
        ambiguous = question.isOfOneEnv && tally.owners.envs.count > 1 ? tally.owners.envs.sorted() : []
        (from, to, aggregated) = (tally.view.from, tally.view.to, tally.view.aggregated)
    }

    /// A row's key: an owner's index, an address, or a port.
    struct Group: Hashable {
        let high: UInt64
        let low: UInt64
        let isOwner: Bool
        let isAggregated: Bool

        init(_ group: ReportGroup, _ key: FlowKey, _ owner: Int) {
            switch group {
            case .org, .app, .env, .instance:
                (high, low, isOwner, isAggregated) = (0, UInt64(owner), true, false)
            case .destination:
                isAggregated = TrafficWindow.isAggregated(key)
                (high, low, isOwner) = (key.destination.high, key.destination.low, false)
            case .port:
                isAggregated = TrafficWindow.isAggregated(key)
                (high, low, isOwner) = (0, isAggregated ? 0 : UInt64(key.port) << 8 | UInt64(key.proto), false)
            }
        }
    }

    private static func row(_ group: ReportGroup, _ key: Group, _ owners: TopOwners) -> Row {
        if key.isAggregated { return Row(name: "(others)") }
        switch group {
        case .org, .app, .env, .instance: return owners.rows[Int(key.low)]
        case .destination: return Row(name: "\(IPAddress(high: key.high, low: key.low))")
        case .port:
            let (port, proto) = (UInt16(truncatingIfNeeded: key.low >> 8), UInt8(truncatingIfNeeded: key.low))
            let service = ReportService(port: port, proto: proto)
            return Row(name: service.text, service: service)
        }
    }

    // MARK: Answers

    /// Why the question has no answer, with a remedy; nil: it has one.
    package var fault: (problem: String, remedy: String)? {
        guard !ambiguous.isEmpty else { return nil }
        let what = question.env.map { "env \($0)" } ?? "instance \(question.instance ?? "")"
        return (
            ReportQuestion.mayBe(what, of: ambiguous.map(ReportQuestion.name)),
            "name its owner: write an env as ORG/APP/ENV"
        )
    }

    private var milliseconds: UInt64 { max(1, (to - from) / 1_000_000) }

    private func perSecond(_ count: UInt64) -> UInt64 {
        UInt64((Double(count) / Double(milliseconds) * 1000).rounded())
    }

    package func json(now: UInt64) -> [UInt8] {
        var line = JSONLine()
        line.open()
        line.field("by", question.by.rawValue)
        line.field("sort", question.order.rawValue)
        line.key("from")
        line.timestamp(from)
        line.key("to")
        line.timestamp(to)
        line.field("window_ms", milliseconds)
        line.field("age_ms", now > to ? (now - to) / 1_000_000 : 0)
        line.list("rows", rows) { line, row in
            line.open()
            if question.by == .port {
                line.fields(row.service)
            } else {
                for column in columns { line.field(column.key, column.value(row)) }
            }
            write(&line, row.sums)
            line.close()
        }
        line.field("others", others)
        line.field("flows_aggregated", aggregated)
        line.key("total")
        line.open()
        write(&line, total)
        line.close()
        line.close()
        line.newline()
        return line.bytes
    }

    private func write(_ line: inout JSONLine, _ sums: TrafficWindow.Sums) {
        line.field("bytes_out", sums.bytesOut)
        line.field("bytes_in", sums.bytesIn)
        line.field("connections", sums.connections)
        line.field("bytes_out_per_s", perSecond(sums.bytesOut))
        line.field("bytes_in_per_s", perSecond(sums.bytesIn))
    }

    package func text(node: String, now: UInt64) -> String {
        let age = now > to ? (now - to) / 1_000_000_000 : 0
        var text = "\(node): \(TopReport.seconds(milliseconds)) to \(Timestamp.text(to)), \(age) s ago, "
        text += "by \(question.by.rawValue)\n"
        if aggregated > 0 { text += "\(aggregated) small flows were aggregated by instance\n" }
        var table = TextTable(columns.map(\.head) + ["-OUT/S", "-IN/S", "-CONN/S", "-CONNECTIONS"])
        for row in rows {
            table.add(columns.map { $0.value(row).isEmpty ? "-" : $0.value(row) } + numbers(row.sums))
        }
        let blank = [String](repeating: "", count: columns.count - 1)
        if others > 0 { table.add(["(\(others) more)"] + blank + ["", "", "", ""]) }
        table.add(["total"] + blank + numbers(total))
        return text + "\n" + table.text
    }

    private func numbers(_ sums: TrafficWindow.Sums) -> [String] {
        let tenths = UInt64((Double(sums.connections) / Double(milliseconds) * 10_000).rounded())
        return [
            plainBytes(Int64(clamping: perSecond(sums.bytesOut))), plainBytes(Int64(clamping: perSecond(sums.bytesIn))),
            "\(tenths / 10).\(tenths % 10)", "\(sums.connections)",
        ]
    }

    /// `15 s`, `2.3 s`.
    private static func seconds(_ milliseconds: UInt64) -> String {
        let tenths = (milliseconds + 50) / 100
        return tenths % 10 == 0 ? "\(tenths / 10) s" : "\(tenths / 10).\(tenths % 10) s"
    }

    private var columns: [(head: String, key: StaticString, value: (Row) -> String)] {
        switch question.by {
        case .org: [("ORG", "org", \.name)]
        case .app: [("APP", "app", \.name), ("ORG", "org", \.org)]
        case .env: [("ENV", "env", \.name), ("APP", "app", \.app), ("ORG", "org", \.org)]
        case .instance:
            [("INSTANCE", "instance", \.name), ("ENV", "env", \.env), ("APP", "app", \.app), ("ORG", "org", \.org)]
        case .destination: [("DESTINATION", "destination", \.name)]
        case .port: [("PORT", "port", \.name)]
        }
    }
}
