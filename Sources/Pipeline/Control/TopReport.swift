import Pipeline
import PipelineLedger

/// What `top` asks: how flows are put together, which, and in which order.
package struct TopQuestion: Sendable, Equatable {
    package enum Order: String, CaseIterable, Sendable {
        case bytes, connections
    }

    package var by = ReportGroup.instance
    package var order = Order.bytes
    /// Over how long, in seconds; nil: four rounds of the workers.
    package var seconds: UInt64?
    package var rows = 20
    /// Only flows of this instance, and so on; all that are given have to fit.
    package var instance: String?
    package var env: String?
    package var org: String?
    package var destination: IPAddress?
    package var port: UInt16?

    package static let rowLimit = 1000
    package static let secondLimit: UInt64 = 3600
    package init() {}

    var isFiltered: Bool { instance != nil || env != nil || org != nil || destination != nil || port != nil }

    func fits(_ key: FlowKey, _ names: FlowNames) -> Bool {
        (instance == nil || instance == names.instance) && (env == nil || env == names.env)
            && (org == nil || org == names.org) && (destination == nil || destination == key.destination)
            && (port == nil || port == key.port)
    }
}

/// Who sends most right now.
struct TopReport {
    struct Row: Equatable {
        /// Of the group's own kind, and of whom it is part; empty where it means nothing.
        var name: String
        var env = ""
        var app = ""
        var org = ""
        var sums = TrafficWindow.Sums()
    }

    let question: TopQuestion
    let rows: [Row]
    /// Rows that are not shown.
    let others: Int
    let total: TrafficWindow.Sums
    let from: UInt64
    let to: UInt64
    let folded: UInt64

    /// - Parameter names: who a flow's instance is.
    init(_ question: TopQuestion, _ view: TrafficWindow.View, names: (UInt32, IPAddress) -> FlowNames) {
        var known: [UInt32: FlowNames] = [:]
        var found: [String: Row] = [:]
        var total = TrafficWindow.Sums()
        for (key, sums) in view.slices.lazy.joined() {
            // Of nobody's number there are many, each with its own address.
            let who =
                key.instance == .max ? names(.max, key.source) : known[key.instance] ?? names(key.instance, key.source)
            known[key.instance] = who
            guard question.fits(key, who) else { continue }
            total.add(sums)
            let row = TopReport.row(question.by, key, who)
            found["\(row.org)/\(row.app)/\(row.env)/\(row.name)", default: row].sums.add(sums)
        }
        let order = { (row: Row) -> (UInt64, UInt64) in
            question.order == .bytes
                ? (row.sums.bytes, row.sums.connections) : (row.sums.connections, row.sums.bytes)
        }
        let sorted = found.values.sorted { order($0) == order($1) ? $0.name < $1.name : order($0) > order($1) }
        self.question = question
        rows = Array(sorted.prefix(question.rows))
        others = sorted.count - rows.count
        self.total = total
        (from, to, folded) = (view.from, view.to, view.folded)
    }

    private static func row(_ group: ReportGroup, _ key: FlowKey, _ names: FlowNames) -> Row {
        let isFolded = TrafficWindow.isFolded(key)
        switch group {
        case .org: return Row(name: names.org)
        case .env: return Row(name: names.env, app: names.app, org: names.org)
        case .instance: return Row(name: names.instance, env: names.env, app: names.app, org: names.org)
        case .destination: return Row(name: isFolded ? "(others)" : "\(key.destination)")
        case .port: return Row(name: isFolded ? "(others)" : TopReport.port(key))
        }
    }

    private static func port(_ key: FlowKey) -> String {
        switch key.proto {
        case 6: "\(key.port)/tcp"
        case 17: "\(key.port)/udp"
        case 1: "icmp type \(key.port >> 8)"
        case 58: "icmpv6 type \(key.port >> 8)"
        default: "\(key.port)/protocol \(key.proto)"
        }
    }

    // MARK: Answers

    private var milliseconds: UInt64 { max(1, (to - from) / 1_000_000) }

    private func perSecond(_ count: UInt64) -> UInt64 {
        UInt64((Double(count) / Double(milliseconds) * 1000).rounded())
    }

    func json(now: UInt64) -> [UInt8] {
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
            for column in columns { line.field(column.key, column.value(row)) }
            write(&line, row.sums)
            line.close()
        }
        line.field("others", others)
        line.field("flows_put_together", folded)
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

    func text(node: String, now: UInt64) -> String {
        let age = now > to ? (now - to) / 1_000_000_000 : 0
        var text = "\(node): \(TopReport.seconds(milliseconds)) to \(Timestamp.text(to)), \(age) s ago, "
        text += "by \(question.by.rawValue)\n"
        if folded > 0 { text += "\(folded) small flows were counted together by instance\n" }
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
        case .env: [("ENV", "env", \.name), ("APP", "app", \.app), ("ORG", "org", \.org)]
        case .instance:
            [("INSTANCE", "instance", \.name), ("ENV", "env", \.env), ("APP", "app", \.app), ("ORG", "org", \.org)]
        case .destination: [("DESTINATION", "destination", \.name)]
        case .port: [("PORT", "port", \.name)]
        }
    }
}
