import CLinux
import Pipeline
import PipelineHost
import PipelineJournal
import PipelineLanguage
import PipelineLastGood
import PipelineRouting
import PipelineText

/// What a config says beside its routes file: with it the file alone is read again.
struct ConfigBase {
    let compilation: Compilation
    let seed: HashSeed
    let blocks: StateDocument

    var reading: ReadConfig { ReadConfig(compilation: compilation, seed: seed, blocks: blocks) }
    /// Nil: no file is watched.
    var watchedPath: String? {
        guard compilation.watchesRoutes, let named = compilation.routesFile else { return nil }
        return configPath(named.value, from: compilation.source.file(of: named.span.start))
    }
}

/// `routes file PATH watch`: what the file says is taken as a push is, or a reload's document: compared, kept, applied.
extension RunningNode {
    private static let retryPause = TimeSpan.seconds(1)

    /// After a start or a reload: the file that its config names.
    func followRoutes(_ base: ConfigBase?, _ seen: SeenRoutes?) {
        guard let base, let path = base.watchedPath else {
            (configBase, routesWatch) = (nil, nil)
            return
        }
        configBase = base
        if routesWatch?.path != path { routesWatch = RoutesWatch(path, log) }
        routesWatch?.wasRead(seen, isInForce: desired?.refusal == nil)
    }

    func lookAtRoutes(_ now: Instant) {
        let mayRead = isSettled && !(updates?.isBusy ?? false)
        guard let watch = routesWatch, let reading = watch.tick(now, mayRead: mayRead, keepsState: desired != nil)
        else {
            return
        }
        take(reading, watch, now)
    }

    private func take(_ reading: RoutesReading, _ watch: RoutesWatch, _ now: Instant) {
        guard isNew(reading, watch, now), let base = configBase else { return watch.ended() }
        let done = { [unowned self] (result: Result<ApplyReport, UpdateRefusal>) in
            took(result, reading, watch)
            watch.ended()
        }
        if let updates { return keep(reading, base, watch, updates, done) }
        do throws(UpdateRefusal) { done(.success(try apply(reading, base, watch))) } catch { done(.failure(error)) }
    }

    /// False: it can't be read, is in force, or was refused as it is.
    private func isNew(_ reading: RoutesReading, _ watch: RoutesWatch, _ now: Instant) -> Bool {
        if let error = reading.error {
            watch.refused = nil
            refuse("can't read the state file \(error.path): \(error.problem); \(error.remedy)", watch, now)
            return false
        }
        // Of what was held since, what takes away is in force: that is given back as any update is.
        if reading.content == watch.applied, desired?.heldFile == nil {
            desired?.refusal = nil
            if watch.clear() { log.say("routes_back", "\(watch.path) says again what is in force") }
            return false
        }
        return reading.content != watch.refused
    }

    private func took(_ result: Result<ApplyReport, UpdateRefusal>, _ reading: RoutesReading, _ watch: RoutesWatch) {
        let now = Instant(nanoseconds: cl_now())
        do throws(UpdateRefusal) {
            let report = try result.get()
            (watch.applied, watch.refused) = (reading.content, nil)
            watch.clear()
            sayApplied(watch, report, now)
        } catch {
            guard error != .unfinished else { return }
            guard !error.isPassing else {
                watch.retry(after: RunningNode.retryPause)
                refuse("\(error.problem); it is tried again", watch, now)
                return
            }
            watch.refused = reading.content
            refuse(error.remedy.isEmpty ? error.problem : "\(error.problem); \(error.remedy)", watch, now)
        }
    }

    private func refuse(_ why: String, _ watch: RoutesWatch, _ now: Instant) {
        desired?.refusal = why
        guard watch.note(problem: why, now) else { return }
        log.say("routes_refused", "\(why): nothing was changed") { $0.field("path", watch.path) }
    }

    private func sayApplied(_ watch: RoutesWatch, _ report: ApplyReport, _ now: Instant) {
        routesLog.say("routes_applied", nil, now) { line in
            line.field("path", watch.path)
            if let revision { line.field("revision", revision) }
            line.field("routes", routeCount)
            line.field("added", report.added)
            line.field("changed", report.changed)
            line.field("removed", report.removed)
            if report.kept > 0 { line.field("kept_last_good", report.kept) }
            if report.problems.rejected > 0 { line.field("quarantined", report.problems.rejected) }
        }
    }

    // MARK: A node that keeps desired state

    private func keep(
        _ reading: RoutesReading, _ base: ConfigBase, _ watch: RoutesWatch, _ updates: UpdateQueue,
        _ done: @escaping (Result<ApplyReport, UpdateRefusal>) -> Void
    ) {
        let sender = Sender(source: .file(watch.path), way: "watch", actor: "file")
        guard let update = reading.update?.update else { return done(.failure(unreadable(reading, watch, sender))) }
        var read = base.reading
        read.update = reading.update
        updates.take(
            WaitingUpdate(subject: .update(update, unread: RouteProblems()), sender: sender, byteCount: 0) {
                [unowned self] outcome in
                switch outcome {
                case .taken(let taken):
                    read.nameStateFile()
                    read.reportUnread()
                    problems = RunningNode.lines(read.compilation)
                    done(.success(taken.report))
                case .waits, .discarded: done(.failure(.notPushed))
                case .refused(let refusal, _), .held(_, let refusal, _), .partly(_, let refusal, _, _):
                    guard !refusal.isPassing else { return done(.failure(refusal)) }
                    done(
                        .failure(
                            UpdateRefusal(
                                refusal.problem, remedy: RunningNode.confirmation, isHeld: refusal.isHeld)))
                }
            })
    }

    private func unreadable(_ reading: RoutesReading, _ watch: RoutesWatch, _ sender: Sender) -> UpdateRefusal {
        guard !watch.mayBeUnfinished(reading.content) else { return .unfinished }
        let why = reading.update?.failure ?? "the state file \(watch.path) can't be used"
        var entry = JournalEntry(.rejected, source: sender.source.name, what: "a document by watch")
        (entry.actor, entry.why) = (sender.actor, why)
        if watch.isWorthSaying("\(why); \(RunningNode.untilWhole)", Instant(nanoseconds: cl_now())) { record(entry) }
        return UpdateRefusal(why, remedy: RunningNode.untilWhole)
    }

    private static let untilWhole = "nothing of it is used until it is whole"
    private static let confirmation = "if that is meant, run `pipelined reload --confirm`"

    // MARK: A node that keeps nothing

    private func apply(
        _ reading: RoutesReading, _ base: ConfigBase, _ watch: RoutesWatch
    ) throws(UpdateRefusal) -> ApplyReport {
        var read = base.reading
        read.readState(base.seed) { _ throws(FileError) in reading.bytes }
        guard !read.compilation.hasErrors, let document = read.reading else {
            guard !watch.mayBeUnfinished(reading.content) else { throw .unfinished }
            let error = read.compilation.diagnostics.last { $0.severity == .error }
            throw UpdateRefusal(
                error?.message ?? "the state file \(watch.path) can't be used", remedy: RunningNode.untilWhole)
        }
        if let refusal = order.refusal(of: document, isConfirmed: false) { throw UpdateRefusal(refusal, remedy: "") }
        if order.isReused(by: document) { read.reportReused() }
        guard settles() else { throw .unsettled }
        let now = Instant(nanoseconds: cl_now())
        routing.forgetDrains { drains.isDone($0, now: now) }
        let report = routing.apply(together: read.documents, at: now)
        // When a canary ends, what was read with it is applied again.
        canary?.read.state = read.state
        read.report(applied: report.problems)
        problems = RunningNode.lines(read.compilation)
        order.applied(document)
        revision = document.revision
        bound = read.bound(program)
        putInForce(now)
        return report
    }
}

extension UpdateRefusal {
    fileprivate static let notPushed = UpdateRefusal("only a push waits", remedy: "report it")
    fileprivate static let unfinished = UpdateRefusal("it may still be written", remedy: "wait", isPassing: true)
}
