import Pipeline

/// What to put together in a report.
package enum ReportGroup: String, CaseIterable, Sendable {
    case org, env, instance, destination, port
}

/// How much moved.
package struct ReportSums: Equatable, Sendable {
    package var connections: Int64 = 0
    /// From instances.
    package var bytesOut: Int64 = 0
    /// To instances.
    package var bytesIn: Int64 = 0
    /// Seconds since 1970.
    package var first = Int64.max
    package var last: Int64 = 0

    package var bytes: Int64 { LedgerSums.capped(bytesOut, bytesIn) }

    package init(
        connections: Int64 = 0, bytesOut: Int64 = 0, bytesIn: Int64 = 0, first: Int64 = .max, last: Int64 = 0
    ) {
        self.connections = connections
        self.bytesOut = bytesOut
        self.bytesIn = bytesIn
        self.first = first
        self.last = last
    }

    mutating func add(_ other: ReportSums) {
        connections = LedgerSums.capped(connections, other.connections)
        bytesOut = LedgerSums.capped(bytesOut, other.bytesOut)
        bytesIn = LedgerSums.capped(bytesIn, other.bytesIn)
        first = min(first, other.first)
        last = max(last, other.last)
    }
}

/// One group of a report.
package struct ReportRow: Equatable, Sendable {
    /// What it is grouped by: an id, an address, `443/tcp`.
    package let name: String
    /// Whose it is, as far as the group says.
    package var org = ""
    package var app = ""
    package var env = ""
    package var sums = ReportSums()

    package init(name: String, org: String = "", app: String = "", env: String = "", sums: ReportSums = ReportSums()) {
        self.name = name
        self.org = org
        self.app = app
        self.env = env
        self.sums = sums
    }
}

/// What a range holds.
package struct Report: Equatable, Sendable {
    package let group: ReportGroup
    /// What the rows cover; it may begin before and end after what was asked for, where detail is gone.
    package let from: Int64
    package let to: Int64
    /// The largest first.
    package let rows: [ReportRow]
    /// Groups that are not in `rows`.
    package let others: Int
    package let total: ReportSums

    package init(group: ReportGroup, from: Int64, to: Int64, rows: [ReportRow], others: Int, total: ReportSums) {
        self.group = group
        self.from = from
        self.to = to
        self.rows = rows
        self.others = others
        self.total = total
    }
}

/// Volume over time of each env.
package struct ReportSeries: Equatable, Sendable {
    /// Seconds of a step.
    package let step: Int64
    package let from: Int64
    package let to: Int64
    /// The largest first, nil for all others together; bytes, both ways, by the beginning of the step.
    package let envs: [(env: EnvName?, bytes: [Int64: Int64])]

    package init(step: Int64, from: Int64, to: Int64, envs: [(env: EnvName?, bytes: [Int64: Int64])]) {
        self.step = step
        self.from = from
        self.to = to
        self.envs = envs
    }

    package static func == (a: ReportSeries, b: ReportSeries) -> Bool {
        a.step == b.step && a.from == b.from && a.to == b.to && a.envs.map(\.env) == b.envs.map(\.env)
            && a.envs.map(\.bytes) == b.envs.map(\.bytes)
    }
}
