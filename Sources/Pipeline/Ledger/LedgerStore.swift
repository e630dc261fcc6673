import FilterEgressAccounting
import Pipeline
import PipelineFlows

/// A ledger that a node writes to (R21): rows by minute, hour and day, each batch in one transaction together with the
/// highest sequence of each origin, so that a batch which is tried again counts once.
///
/// Threading: one thread.
package final class LedgerStore {
    /// Who a record's source is.
    package typealias Identity = (_ instance: UInt32, _ source: IPAddress) -> FlowNames

    package private(set) var settings: LedgerSettings
    /// Tells runs of the node apart: sequences begin anew with each.
    private let run: Int64
    private let say: (LedgerEvent) -> Void
    private var database: LedgerDatabase
    private var owners: [FlowNames: Int64] = [:]
    /// What is in the database for sure.
    private var marks: [UInt16: UInt64] = [:]
    /// The finest level that is written; beyond ``LedgerLevel/minutes``: the disk is full.
    package private(set) var detail = LedgerLevel.minutes
    private var triesFullDetailAt: Int64 = 0
    private var reserve: LedgerReserve
    /// The first minute that was not written in full detail.
    private var gapStart: Int64?
    /// The error that was said last of not writing; nil: it writes.
    private var saidFailure: Int32?
    private var watch: LedgerWatch
    /// It was taken away or damaged: nothing is written to it any more, and the path is free for another, unless it could
    /// not be renamed.
    package private(set) var isLost = false
    /// It is damaged, and could not be renamed.
    package private(set) var isInTheWay = false

    /// Owners that are remembered.
    private static let ownerLimit = 100_000
    /// Seconds after which a full disk is tried with full detail again.
    private static let retryAfter: Int64 = 60
    /// Records of a transaction while the disk is full: what a transaction changes needs room before it frees any.
    private static let pieceLimit = 1000

    /// Opens or makes it.
    /// - Parameter replacesDamaged: a damaged one is set aside, and a new one begun; or else it is a problem.
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

    /// How long rows are kept from now on; the path stays.
    package func keep(_ new: LedgerSettings) {
        (settings.minutes, settings.hours, settings.days) = (new.minutes, new.hours, new.days)
    }

    /// Gives back the room that is held for a full disk: nobody writes to this ledger any more.
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
            throw LedgerProblem("can't make the ledger \(path): \(error)")
        }
    }

    /// Makes the path free for another.
    private static func setAside(
        _ path: String, _ reason: String, _ say: (LedgerEvent) -> Void
    ) throws(LedgerProblem) {
        guard let name = LedgerFile.setAside(path) else {
            throw LedgerProblem("the ledger \(path) is damaged (\(reason)), and can't be renamed")
        }
        say(
            LedgerEvent(
                event: "ledger_set_aside",
                message: "the ledger is damaged (\(reason)): it is kept as \(name), and a new one is begun"))
    }

    // MARK: Write

    /// Writes a batch, once: what was written before, by this run, is left out.
    /// - Parameter now: seconds since 1970, for what is too old to keep.
    /// - Returns: false if it was not, or not all, written; try all of it again later.
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

    /// Looks after it while nothing comes, about once a second: whether it is still there and whole, and whether there is
    /// room again.
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

    /// Whether another node wrote to it since this one began with it: one that drains, or its successor. The other learns the
    /// same of this one, whose mark it may have removed when it started.
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

    /// Somebody else wrote to the file. What is in the log heals what it has pages of.
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
                message: "somebody else wrote to \(settings.path): no damage was found, flows are kept in it as before")
        )
    }

    /// Closes it, and makes the path free for another.
    private func lose(_ reason: String, keeps: Bool) {
        isLost = true
        // First: closing removes the log by its name, which would be the next ledger's later.
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

    /// On a full disk: many small transactions. What of them is done stays done.
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
                // Room that old detail gives is needed before new rows come.
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
                // Nothing to write would say nothing of the disk.
                if records.isEmpty { try writeProof(db, now) }
                if detail > .minutes { try noteGap(batch, db, detail) }
                return batch
            }
            marks.merge(batch.marks) { max($0, $1) }
            if owners.count > LedgerStore.ownerLimit { owners.removeAll() }
            return nil
        } catch {
            // What was given out in the transaction is gone with it.
            owners.removeAll()
            return error as? DatabaseError ?? DatabaseError(DatabaseError.unknown, "\(error)")
        }
    }

    /// Whose growth a record is, within one batch.
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
                    "\(settings.path): \(error): flows are recorded \(level.words) only "
                    + "until there is room"))
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
        // Once a second would be no news.
        guard saidFailure != error.code else { return }
        saidFailure = error.code
        say(
            LedgerEvent(
                event: "ledger_failed",
                message: "\(settings.path): \(error): flows wait in memory, and are tried again"))
    }

    /// For tests: what limits a database's pages limits the disk.
    func execute(_ sql: String) throws { try database.execute(sql) }
}
