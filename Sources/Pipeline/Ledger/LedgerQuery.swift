import Pipeline
import PipelineFlows

/// Reads the growth for a question by the cheapest way: sums by owner or service, sums of both, or the rows.
struct LedgerQuery {
    /// The aggregation key of flows. Parts that the question does not use are constant.
    struct Key: Hashable {
        /// Index into the query's owners.
        var owner = 0
        var destination = IPAddress.unspecified
        var service: Int64 = 0
    }
    /// Growth of one owner and service; -1: all.
    typealias Body = (_ at: Int64, _ owner: Int64, _ service: Int64, ReportSums) -> Void

    let db: LedgerDatabase
    let question: ReportQuestion
    /// Names up to the question's level: instances of one env are equal if it is by env.
    private(set) var owners: [FlowNames] = []
    private var places: [Int64: Int] = [:]
    private var names: [Int64: FlowNames] = [:]

    init(_ db: LedgerDatabase, _ question: ReportQuestion) throws {
        (self.db, self.question) = (db, question)
        guard question.needsOwner else { return }
        var known: [FlowNames: Int] = [:]
        try db.statement("SELECT id, instance, env, app, org FROM owners").each { row in
            let whole = FlowNames(instance: row.text(1), env: row.text(2), app: row.text(3), org: row.text(4))
            guard question.fits(whole) else { return }
            let name = question.part(whole)
            let place = known[name] ?? owners.count
            if place == owners.count { owners.append(name) }
            known[name] = place
            let id = row.integer(0)
            (places[id], names[id]) = (place, whole)
        }
    }

    /// Nil: the question is not about it.
    func key(_ owner: Int64, _ service: Int64) -> Key? {
        var key = Key()
        if question.needsOwner {
            guard let place = places[owner] else { return nil }
            key.owner = place
        }
        if question.asksService, !question.fits(service) { return nil }
        if question.by.contains(.port) { key.service = service }
        return key
    }

    func row(_ key: Key, _ sums: ReportSums) -> ReportRow {
        ReportRow(
            owners.indices.contains(key.owner) ? owners[key.owner] : FlowNames(),
            destination: question.by.contains(.destination) ? key.destination : nil,
            service: question.by.contains(.port) ? ReportService(key.service) : nil, sums: sums)
    }

    func precedes(_ a: Key, _ b: Key) -> Bool {
        if a.owner != b.owner {
            let (a, b) = (owners[a.owner], owners[b.owner])
            return (a.instance, a.env, a.org, a.app) < (b.instance, b.env, b.org, b.app)
        }
        return a.destination != b.destination ? a.destination < b.destination : a.service < b.service
    }

    /// - Parameter seen: owners whose flows were found.
    func fault(_ seen: Set<Int64>) -> LedgerProblem? { question.fault(Set(seen.compactMap { names[$0] })) }

    // MARK: Growth

    /// All growth in a part of the range, without destinations.
    func each(_ part: LedgerRange.Part, _ body: Body) throws {
        switch (question.needsOwner, question.needsService) {
        case (true, false), (false, false): try eachSum(.owner, part) { body($0, $1, -1, $2) }
        case (false, true): try eachSum(.service, part) { body($0, -1, $1, $2) }
        case (true, true):
            if try LedgerPairs.levels.contains(part.level) && isExact(part) {
                try eachPair(part, body)
            } else {
                try eachRow(part, body)
            }
        }
    }

    /// Whether the sums of owners and services separate the requested port.
    private func isExact(_ part: LedgerRange.Part) throws -> Bool {
        guard question.asksService else { return true }
        if let port = question.port {
            let protocols: [UInt8] = question.proto.map { [$0] } ?? [6, 17]
            if protocols.allSatisfy({ LedgerPairs.isKept(ReportService(port: port, proto: $0).value) }) { return true }
        }
        return try !rests(part).contains { places[$0] != nil }
    }

    private func rests(_ part: LedgerRange.Part) throws -> [Int64] {
        var found: [Int64] = []
        let statement = try db.statement(
            "SELECT owner FROM pairs WHERE level = ? AND at >= ? AND at < ? AND service = -1")
        statement.bind([part.level.number, part.start, part.end])
        try statement.each { found.append($0.integer(0)) }
        return found
    }

    private func eachSum(
        _ rollup: LedgerRollup, _ part: LedgerRange.Part, _ body: (Int64, Int64, ReportSums) -> Void
    ) throws {
        let statement = try db.statement(
            """
            SELECT at, key, connections, bytes_out, bytes_in, first, last FROM sums
            WHERE level = ? AND what = ? AND at >= ? AND at < ?
            """)
        statement.bind([part.level.number, rollup.rawValue, part.start, part.end])
        try statement.each { row in
            let at = row.integer(0)
            body(at, row.integer(1), row.sums(2, at: at))
        }
    }

    private func eachPair(_ part: LedgerRange.Part, _ body: Body) throws {
        let statement = try db.statement(
            """
            SELECT at, owner, service, connections, bytes_out, bytes_in, first, last FROM pairs
            WHERE level = ? AND at >= ? AND at < ?
            """)
        statement.bind([part.level.number, part.start, part.end])
        try statement.each { row in
            let at = row.integer(0)
            body(at, row.integer(1), row.integer(2), row.sums(3, at: at))
        }
    }

    /// - Parameter destination: only this one; nil: all.
    func eachRow(_ part: LedgerRange.Part, to destination: IPAddress? = nil, _ body: Body) throws {
        let statement = try db.statement(
            """
            SELECT owner, service, connections, bytes_out, bytes_in, first, last FROM \(part.level.table)
            WHERE at = ? \(destination == nil ? "" : "AND destination = ?")
            """)
        for at in try part.buckets(db) {
            statement.bind(1, at)
            if let destination { statement.bind(2, destination) }
            try statement.each { body(at, $0.integer(0), $0.integer(1), $0.sums(2, at: at)) }
        }
    }
}

extension ReportQuestion {
    /// The parts of a name that its rows distinguish.
    fileprivate func part(_ names: FlowNames) -> FlowNames {
        var names = names
        let groups = Set(by)
        guard !groups.contains(.instance) else { return names }
        names.instance = ""
        guard !groups.contains(.env) else { return names }
        names.env = ""
        guard !groups.contains(.app) else { return names }
        names.app = ""
        if !groups.contains(.org) { names.org = "" }
        return names
    }
}
