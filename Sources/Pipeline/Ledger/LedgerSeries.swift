import Pipeline

extension LedgerQuery {
    /// Volume over time of the largest groups in a part, the rest together.
    func series(_ part: LedgerRange.Part) throws -> ReportSeries {
        let tally = try LedgerTally(self, LedgerRange(part))
        if let fault = fault(tally.seen) { throw fault }
        let keys = tally.rows.map(\.key)
        let volumes = try volumes(part, keys)
        var lines = keys.map { ReportSeries.Line(row($0, ReportSums()), volumes.lines[$0] ?? [:]) }
        if tally.count > keys.count { lines.append(ReportSeries.Line(nil, volumes.rest)) }
        return ReportSeries(question, step: part.level.seconds, from: part.start, to: part.end, lines: lines)
    }

    private typealias Volumes = (
        lines: [Key: [Int64: ReportSeries.Volume]], rest: [Int64: ReportSeries.Volume]
    )

    private func volumes(_ part: LedgerRange.Part, _ keys: [Key]) throws -> Volumes {
        guard question.needsDestination else { return try collect(keys) { try each(part, $0) } }
        guard question.by.contains(.destination), question.destination == nil else {
            return try collect(keys) { try eachRow(part, to: question.destination, $0) }
        }
        return try byDestination(part, keys)
    }

    private func collect(_ keys: [Key], _ each: (Body) throws -> Void) throws -> Volumes {
        var found: Volumes = (Dictionary(keys.map { ($0, [:]) }) { first, _ in first }, [:])
        let destination = question.by.contains(.destination) ? question.destination : nil
        try each { at, owner, service, sums in
            guard var key = key(owner, service) else { return }
            if let destination { key.destination = destination }
            if found.lines[key] == nil {
                found.rest[at, default: ReportSeries.Volume()].add(sums)
            } else {
                found.lines[key]?[at, default: ReportSeries.Volume()].add(sums)
            }
        }
        return found
    }

    /// Of the destinations that are shown, the rows; of all of them, a sum where there is one.
    private func byDestination(_ part: LedgerRange.Part, _ keys: [Key]) throws -> Volumes {
        var found: Volumes = (Dictionary(keys.map { ($0, [:]) }) { first, _ in first }, [:])
        for destination in Set(keys.map(\.destination)) {
            try eachRow(part, to: destination) { at, owner, service, sums in
                guard var key = key(owner, service) else { return }
                key.destination = destination
                found.lines[key]?[at, default: ReportSeries.Volume()].add(sums)
            }
        }
        try each(part) { at, owner, service, sums in
            if key(owner, service) != nil { found.rest[at, default: ReportSeries.Volume()].add(sums) }
        }
        for (at, volume) in found.lines.values.joined() {
            found.rest[at] = (found.rest[at] ?? ReportSeries.Volume()) - volume
        }
        return found
    }
}
