import GRDB
import Pipeline

/// A ledger that a node writes to (R21): rows by minute, hour and day, each batch in one transaction together with the
/// highest sequence of each origin, so that a batch which is tried again counts once.
///
/// Threading: one thread.
package final class LedgerStore {
    /// Who a record's source is.
    package typealias Identity = (_ instance: UInt32, _ source: IPAddress) -> FlowNames

    private let settings: LedgerSettings
    /// Tells runs of the node apart: sequences begin anew with each.
    private let run: Int64
    private let say: (LedgerEvent) -> Void
    private var queue: DatabaseQueue
    private var owners: [FlowNames: Int64] = [:]
    /// What is in the database for sure.
    private var marks: [UInt16: UInt64] = [:]
    /// The finest level that is written; beyond ``LedgerLevel/minutes``: the disk is full.
    package private(set) var detail = LedgerLevel.minutes
    private var triesFullDetailAt: Int64 = 0
    /// What was said last of not writing; nil: it writes.
    private var saidFailure: String?

    /// Owners that are remembered.
    private static let ownerLimit = 100_000
    /// Seconds after which a full disk is tried with full detail again.
    private static let retryAfter: Int64 = 60
    /// Buckets of a level that one batch removes at most.
    private static let pruneLimit = 4

    /// Opens or makes it. A damaged one is set aside, and a new one begun.
    package init(
        _ settings: LedgerSettings, run: UInt64 = .random(in: 1...UInt64(Int64.max)),
        say: @escaping (LedgerEvent) -> Void
    ) throws(LedgerProblem) {
        self.settings = settings
        self.run = Int64(clamping: run)
        self.say = say
        queue = try LedgerStore.openOrReplace(settings.path, say)
    }

    private static func openOrReplace(
        _ path: String, _ say: (LedgerEvent) -> Void
    ) throws(LedgerProblem) -> DatabaseQueue {
        do {
            return try LedgerFile.open(path)
        } catch let problem as LedgerProblem {
            throw problem
        } catch let error as DatabaseError where error.isDamage {
            return try replace(path, "\(error)", say)
        } catch {
            throw LedgerProblem("can't open the ledger \(path): \(error)")
        }
    }

    private static func replace(
        _ path: String, _ reason: String, _ say: (LedgerEvent) -> Void
    ) throws(LedgerProblem) -> DatabaseQueue {
        guard let name = LedgerFile.setAside(path) else {
            throw LedgerProblem("the ledger \(path) is damaged (\(reason)), and can't be renamed")
        }
        say(
            LedgerEvent(
                event: "ledger_set_aside",
                message: "the ledger is damaged (\(reason)): it is kept as \(name), and a new one was begun"))
        do {
            return try LedgerFile.open(path)
        } catch {
            throw LedgerProblem("can't make the ledger \(path): \(error)")
        }
    }

    // MARK: Write

    /// Writes a batch, once: what was written before, by this run, is left out.
    /// - Parameter now: seconds since 1970, for what is too old to keep.
    /// - Returns: false if nothing was written; try again later.
    package func write(_ records: [FlowRecord], identity: Identity, now: Int64) -> Bool {
        if detail > .minutes, now >= triesFullDetailAt {
            if attempt(records, identity, now, .minutes) == nil {
                recovered()
                return true
            }
            triesFullDetailAt = now + LedgerStore.retryAfter
        }
        while true {
            guard let error = attempt(records, identity, now, detail) else {
                saidFailure = nil
                return true
            }
            guard error.isFull, let coarser = LedgerLevel(rawValue: detail.rawValue + 1) else {
                failed(error)
                return false
            }
            degrade(to: coarser, now, error)
        }
    }

    /// Nil: it is done.
    private func attempt(
        _ records: [FlowRecord], _ identity: Identity, _ now: Int64, _ detail: LedgerLevel
    ) -> DatabaseError? {
        do {
            let batch = try queue.write { db in
                // Room that old detail gives is needed before new rows come.
                try prune(db, now, isShort: detail > .minutes)
                let batch = try LedgerBatch(records, after: marks) { try owner(of: $0, identity, db) }
                for level in LedgerLevel.allCases where level >= detail { try batch.write(db, level) }
                try batch.writeMarks(db, run: run)
                return batch
            }
            marks.merge(batch.marks) { max($0, $1) }
            if owners.count > LedgerStore.ownerLimit { owners.removeAll() }
            return nil
        } catch {
            // What was given out in the transaction is gone with it.
            owners.removeAll()
            return error as? DatabaseError ?? DatabaseError(message: "\(error)")
        }
    }

    private func owner(of record: FlowRecord, _ identity: Identity, _ db: Database) throws -> Int64 {
        let owner = identity(record.key.instance, record.key.source)
        if let id = owners[owner] { return id }
        let arguments: StatementArguments = [owner.instance, owner.env, owner.app, owner.org]
        try db.cachedStatement(sql: "INSERT OR IGNORE INTO owners(instance, env, app, org) VALUES (?, ?, ?, ?)")
            .execute(arguments: arguments)
        let id = try Int64.fetchOne(
            db.cachedStatement(sql: "SELECT id FROM owners WHERE instance = ? AND env = ? AND app = ? AND org = ?"),
            arguments: arguments)
        guard let id else { throw DatabaseError(message: "an owner was not written") }
        owners[owner] = id
        return id
    }

    // MARK: Age

    private func prune(_ db: Database, _ now: Int64, isShort: Bool) throws {
        let kept = [settings.minutes, settings.hours, settings.days]
        for level in LedgerLevel.allCases {
            let oldest = now - Int64(clamping: kept[level.rawValue].nanoseconds / 1_000_000_000) - level.seconds
            for round in 0..<LedgerStore.pruneLimit {
                let first = try Int64.fetchOne(db.cachedStatement(sql: "SELECT min(at) FROM \(level.table)"))
                // On a full disk the oldest of the finest detail goes first.
                let isSpare = isShort && level == .minutes && round == 0
                guard let first, first < oldest || isSpare else { break }
                try db.cachedStatement(sql: "DELETE FROM \(level.table) WHERE at = ?").execute(arguments: [first])
            }
        }
    }

    // MARK: Trouble

    private func degrade(to level: LedgerLevel, _ now: Int64, _ error: DatabaseError) {
        detail = level
        triesFullDetailAt = now + LedgerStore.retryAfter
        say(
            LedgerEvent(
                event: "ledger_degraded",
                message:
                    "\(settings.path): \(error): flows are recorded by \(level == .hours ? "hour and day" : "day") only "
                    + "until there is room"))
    }

    private func recovered() {
        detail = .minutes
        say(
            LedgerEvent(
                event: "ledger_recovered", message: "\(settings.path): flows are recorded by minute, hour and day again"
            ))
    }

    private func failed(_ error: DatabaseError) {
        if error.isDamage {
            do throws(LedgerProblem) {
                queue = try LedgerStore.replace(settings.path, "\(error)", say)
                return
            } catch {
                say(LedgerEvent(event: "ledger_failed", message: "\(error)"))
                return
            }
        }
        // Once a second would be no news.
        guard saidFailure != "\(error.resultCode)" else { return }
        saidFailure = "\(error.resultCode)"
        say(
            LedgerEvent(
                event: "ledger_failed",
                message: "\(settings.path): \(error): flows wait in memory, and are tried again"))
    }

    /// For tests: what limits a database's pages limits the disk.
    func execute(_ sql: String) throws { try queue.writeWithoutTransaction { try $0.execute(sql: sql) } }
}
