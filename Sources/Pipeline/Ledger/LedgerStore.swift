import FilterEgressAccounting
import Pipeline
import PipelineFlows

/// The ledger that a node writes (R21): rows by minute, hour and day. Each batch is one transaction with the highest
/// sequence of each origin, so that a retried batch counts once.
///
/// Threading: one thread.
package final class LedgerStore {
    /// Resolves a record's source.
    package typealias Identity = (_ instance: UInt32, _ source: IPAddress) -> FlowNames

    package private(set) var settings: LedgerSettings
    /// Identifies the run of the node: sequences restart with each.
    private let run: Int64
    private let say: (LedgerEvent) -> Void
    private var database: LedgerDatabase
    private var owners: [FlowNames: Int64] = [:]
    /// The sequences that are committed.
    private var marks: [UInt16: UInt64] = [:]
    /// The finest level that is written; beyond ``LedgerLevel/minutes``: the disk is full.
    package private(set) var detail = LedgerLevel.minutes
    private var triesFullDetailAt: Int64 = 0
    private var reserve: LedgerReserve
    /// The first minute that was not written in full detail.
    private var gapStart: Int64?
    /// The last reported write error; nil: writes succeed.
    private var saidFailure: Int32?
    private var watch: LedgerWatch
    /// The file was removed or damaged: nothing more is written, and the path is free for another ledger, unless it
    /// could not be renamed.
    package private(set) var isLost = false
    /// It is damaged, and could not be renamed.
    package private(set) var isInTheWay = false

    /// The most cached owners.
    private static let ownerLimit = 100_000
    /// Seconds until full detail is tried again on a full disk.
    private static let retryAfter: Int64 = 60
    /// Records of a transaction while the disk is full: a transaction needs room before it frees any.
    private static let pieceLimit = 1000

    /// Opens or creates it.
    /// - Parameter replacesDamaged: a damaged one is set aside, and a new one created; otherwise an error.
    package init(
        _ settings: LedgerSettings, replacesDamaged: Bool = true,
        run: UInt64 = .random(in: 1...UInt64(Int64.max)),
        say: @escaping (LedgerEvent) -> Void
    ) throws(LedgerProblem) {
        self.settings = settings
        self.run = Int64(clamping: run)
        self.say = say
        database = try LedgerStore.openOrReplace(settings.path, replacesDamaged, say)
        reserve = LedgerReserve(ledger: settings.path)
        watch = LedgerWatch(settings.path)
        forgetOld()
        watch.wrote()
    }

    /// Earlier runs' marks have nothing to say to this one. On a full disk they stay until the next start. Its own one is seen
    /// by a node that drains and writes to the same ledger.
    private func forgetOld() {
        try? database.write { db in
            try db.run("DELETE FROM marks WHERE run <> ?", [run])
            try showMark(db)
            try db.execute("DELETE FROM gaps WHERE stop < (SELECT min(at) FROM days)")
        }
    }

    /// Changes the retention; the path stays.
    package func keep(_ new: LedgerSettings) {
        (settings.minutes, settings.hours, settings.days) = (new.minutes, new.hours, new.days)
    }

    /// Ends writing to this ledger, and frees its disk reserve.
    package func retire() { reserve.release() }

    private static func openOrReplace(
        _ path: String, _ replacesDamaged: Bool, _ say: (LedgerEvent) -> Void
    ) throws(LedgerProblem) -> LedgerDatabase {
        do {
            return try LedgerFile.open(path, say: say)
        } catch let problem as LedgerProblem {
            throw problem
        } catch let error as DatabaseError where error.isDamage && replacesDamaged {
            return try replace(path, "\(error)", say)
        } catch {
            throw LedgerProblem("can't open the ledger \(path): \(error)")
        }
    }

    private static func replace(
        _ path: String, _ reason: String, _ say: (LedgerEvent) -> Void
    ) throws(LedgerProblem) -> LedgerDatabase {
        try setAside(path, reason, say)
        do {
            return try LedgerFile.open(path)
        } catch {
            throw LedgerProblem("can't create the ledger \(path): \(error)")
        }
    }

    /// Frees the path for another ledger.
    private static func setAside(
        _ path: String, _ reason: String, _ say: (LedgerEvent) -> Void
    ) throws(LedgerProblem) {
        guard let name = LedgerFile.setAside(path) else {
            throw LedgerProblem("the ledger \(path) is damaged (\(reason)), and can't be renamed")
        }
        say(
            LedgerEvent(
                event: "ledger_set_aside",
                message: "the ledger is damaged (\(reason)): it was renamed to \(name), and a new one was started"))
    }

    // MARK: Write

    /// Writes a batch once: records that this run wrote before are skipped.
    /// - Parameter now: seconds since 1970, for what is too old to keep.
    /// - Returns: false if not all was written; retry the whole batch later.
    package func write(_ records: [FlowRecord], identity: Identity, now: Int64) -> Bool {
        guard !isLost else { return false }
        defer { if !isLost { watch.wrote() } }
        if triesFullDetail(records, identity, now) { return true }
        while true {
            let error = detail == .minutes ? attempt(records, identity, now, detail) : pieces(records, identity, now)
            guard let error else {
                if saidFailure != nil { wroteAgain() }
                return true
            }
            guard error.isFull else {
                failed(error)
                return false
            }
            reserve.release()
            // Frees the log's pages, where the database itself has room for them.
            try? database.checkpoint()
            guard let coarser = LedgerLevel(rawValue: detail.rawValue + 1) else {
                failed(error)
                return false
            }
            degrade(to: coarser, now, error)
        }
    }

    /// True: it is no longer short of room, and all is written.
    private func triesFullDetail(_ records: [FlowRecord], _ identity: Identity, _ now: Int64) -> Bool {
        guard detail > .minutes, now >= triesFullDetailAt else { return false }
        triesFullDetailAt = now + LedgerStore.retryAfter
        // No room for the reserve is no room for anything.
        guard reserve.take() || !reserve.wasHeld && reserve.isRoom else { return false }
        guard attempt(records, identity, now, .minutes) == nil else { return false }
        recovered()
        return true
    }

    /// Maintenance about once a second while no records come: checks that the file is there and intact, and whether
    /// there is room again.
    package func tick(now: Int64) {
        guard !isLost else { return }
        switch watch.look() {
        case .same: break
        case .touched: examine()
        case .gone(let what): lose(what, keeps: false)
        }
        guard !isLost, detail > .minutes else { return }
        _ = triesFullDetail([], { _, _ in FlowNames() }, now)
        watch.wrote()
    }

    private func showMark(_ db: LedgerDatabase) throws {
        try db.run("INSERT OR IGNORE INTO marks VALUES (?, -1, 0)", [run])
    }

    /// Whether another node, draining or its successor, wrote to it since this one opened it. The other detects the
    /// same, since it may have removed this one's mark at its start.
    private func sharesWithNode() throws -> Bool {
        do {
            return try database.write { db in
                try showMark(db)
                return try db.integer("SELECT 1 FROM marks WHERE run <> ? LIMIT 1", [run]) != nil
            }
        } catch let error as DatabaseError where !error.isDamage {
            return false
        }
    }

    /// Another program wrote to the file. The log repairs the pages that it contains.
    private func examine() {
        var isNews = true
        do {
            isNews = try !sharesWithNode()
            try database.checkpoint()
            if let wrong = try LedgerCheck.run(settings.path) { return lose(wrong, keeps: true) }
        } catch let error as DatabaseError where error.isDamage {
            return lose("\(error)", keeps: true)
        } catch let problem as LedgerProblem {
            return lose("\(problem)", keeps: true)
        } catch {}
        watch.wrote()
        guard isNews else { return }
        say(
            LedgerEvent(
                event: "ledger_changed",
                message: "another program wrote to \(settings.path): no damage was found, and flows are stored in it "
                    + "as before")
        )
    }

    /// Closes it, and frees the path for another ledger.
    private func lose(_ reason: String, keeps: Bool) {
        isLost = true
        // First, because closing removes the log by its name, which may later be the next ledger's.
        database.close()
        guard keeps else {
            say(LedgerEvent(event: "ledger_set_aside", message: "\(settings.path) \(reason)"))
            return
        }
        do throws(LedgerProblem) {
            try LedgerStore.setAside(settings.path, reason, say)
        } catch {
            isInTheWay = true
            say(LedgerEvent(event: "ledger_failed", message: "\(error)"))
        }
    }

    /// On a full disk: many small transactions, each of which stays committed.
    private func pieces(_ records: [FlowRecord], _ identity: Identity, _ now: Int64) -> DatabaseError? {
        for start in stride(from: 0, to: records.count, by: LedgerStore.pieceLimit) {
            let piece = Array(records[start..<min(records.count, start + LedgerStore.pieceLimit)])
            if let error = attempt(piece, identity, now, detail) { return error }
        }
        return nil
    }

    /// Nil: it is done.
    private func attempt(
        _ records: [FlowRecord], _ identity: Identity, _ now: Int64, _ detail: LedgerLevel
    ) -> DatabaseError? {
        do {
            let batch = try database.write { db in
                // Old detail is removed before new rows are added.
                try LedgerPrune(settings: settings, now: now, isShort: detail > .minutes).run(db)
                var known: [Source: Int64] = [:]
                let batch = try LedgerBatch(records, after: marks) { record in
                    let source = Source(instance: record.key.instance, address: record.key.source)
                    if let owner = known[source] { return owner }
                    let owner = try owner(identity(source.instance, source.address), db)
                    known[source] = owner
                    return owner
                }
                for level in LedgerLevel.allCases where level >= detail { try batch.write(db, level) }
                try batch.writeMarks(db, run: run)
                // Without a write the disk is not tested.
                if records.isEmpty { try writeProof(db, now) }
                if detail > .minutes { try noteGap(batch, db, detail) }
                return batch
            }
            marks.merge(batch.marks) { max($0, $1) }
            if owners.count > LedgerStore.ownerLimit { owners.removeAll() }
            return nil
        } catch {
            // Ids assigned in the transaction are lost with it.
            owners.removeAll()
            return error as? DatabaseError ?? DatabaseError(DatabaseError.unknown, "\(error)")
        }
    }

    /// A record's owner, within one batch.
    private struct Source: Hashable {
        let instance: UInt32
        let address: IPAddress
    }

    /// Reports must know which rows are missing.
    private func noteGap(_ batch: LedgerBatch, _ db: LedgerDatabase, _ detail: LedgerLevel) throws {
        guard let minutes = batch.minutes else { return }
        let start = min(gapStart ?? minutes.first, minutes.first)
        gapStart = start
        for level in LedgerLevel.allCases where level < detail {
            try db.run(
                "INSERT INTO gaps VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET stop = max(stop, excluded.stop)",
                [level.number, start, minutes.last + LedgerLevel.minutes.seconds])
        }
    }

    private func owner(_ owner: FlowNames, _ db: LedgerDatabase) throws -> Int64 {
        if let id = owners[owner] { return id }
        let names = [owner.instance, owner.env, owner.app, owner.org]
        let insert = try db.statement("INSERT OR IGNORE INTO owners(instance, env, app, org) VALUES (?, ?, ?, ?)")
        insert.bind(names)
        try insert.run()
        let select = try db.statement(
            "SELECT id FROM owners WHERE instance = ? AND env = ? AND app = ? AND org = ?")
        select.bind(names)
        defer { select.reset() }
        guard try select.step() else { throw DatabaseError(DatabaseError.unknown, "an owner was not written") }
        let id = select.integer(0)
        owners[owner] = id
        return id
    }

    // MARK: Trouble

    private func degrade(to level: LedgerLevel, _ now: Int64, _ error: DatabaseError) {
        detail = level
        triesFullDetailAt = now + LedgerStore.retryAfter
        say(
            LedgerEvent(
                event: "ledger_degraded",
                message:
                    "\(settings.path): \(error): until there is room, flows are recorded only \(level.words)"))
    }

    private func writeProof(_ db: LedgerDatabase, _ now: Int64) throws {
        try db.run("INSERT OR REPLACE INTO marks VALUES (?, -1, ?)", [run, now])
    }

    private func wroteAgain() {
        saidFailure = nil
        say(
            LedgerEvent(
                event: "ledger_recovered",
                message: "\(settings.path): flows are written again, \(detail.words)"))
    }

    private func recovered() {
        (detail, saidFailure) = (.minutes, nil)
        gapStart = nil
        say(
            LedgerEvent(
                event: "ledger_recovered", message: "\(settings.path): flows are recorded \(detail.words) again"))
    }

    private func failed(_ error: DatabaseError) {
        if error.isDamage { return lose("\(error)", keeps: true) }
        // Logged once, not every second.
        guard saidFailure != error.code else { return }
        saidFailure = error.code
        say(
            LedgerEvent(
                event: "ledger_failed",
                message: "\(settings.path): \(error): flows wait in memory, and the node tries again"))
    }

    /// For tests: what limits a database's pages limits the disk.
    func execute(_ sql: String) throws { try database.execute(sql) }
}
