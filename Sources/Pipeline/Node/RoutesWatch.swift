import CLinux
import Glibc
import Pipeline
import PipelineHost
import PipelineRuntime
import PipelineText
import PipelineThreads

/// A routes file as a start or a reload has read it.
struct SeenRoutes {
    /// Looked at before it was read; nil: there was none.
    let sight: Sight?
    /// A hash of its bytes; nil: they could not be read.
    let content: UInt64?
}

/// `routes file PATH watch`: sees that the file changes, and reads it when it seems whole.
///
/// By inotify; where that can't be had, by looking each second. It looks every ten seconds in any case, since a file
/// system that others write to, or one that is mounted over a directory, tells of nothing.
///
/// Threading: the control thread.
package final class RoutesWatch {
    static let lookInterval = TimeSpan.seconds(10)
    static let pollInterval = TimeSpan.seconds(1)

    package let path: String
    private let log: ControlLog
    private var watch: FileWatch?
    /// Why it can't be watched; nil: it is.
    package private(set) var pollingReason: String?
    private var schedule = ReadSchedule()
    private let reader = RoutesReader()
    /// What was read last; nil: there was nothing.
    private var seen: Sight?
    /// What the last look saw, if that was something else.
    private var candidate: Sight?
    private var nextLook = Instant(nanoseconds: 0)
    private var began = Instant(nanoseconds: 0)
    /// Somebody has written to the file since the read that goes on began.
    private var isWritten = false

    // MARK: What became of it

    /// Since 1970, in nanoseconds; nil: it was not read since it is watched.
    package internal(set) var readAt: UInt64?
    /// What is wrong with the file; nil: nothing.
    package private(set) var problem: String?
    private var said: (problem: String, at: Instant)?
    /// A hash of what is in force; and of what was refused, which is not tried again before it changes.
    var applied: UInt64?
    var refused: UInt64?

    init(_ path: String, _ log: ControlLog) {
        (self.path, self.log) = (path, log)
        open()
        nextLook = Instant(nanoseconds: cl_now()) + interval
    }

    package var isReading: Bool { reader?.isReading ?? false }
    private var interval: TimeSpan { pollingReason == nil ? RoutesWatch.lookInterval : RoutesWatch.pollInterval }

    /// What to wait for.
    var notices: [Descriptor] {
        [watch.map { Descriptor($0.descriptor) }, reader?.descriptor].compactMap { $0 }
    }

    /// When ``tick(_:mayRead:keepsState:)`` has work; nil: not before an event.
    var nextTick: Instant? {
        guard !isReading, let start = schedule.start else { return nextLook }
        return min(start, nextLook)
    }

    /// A start or a reload has read the file.
    /// - Parameter isInForce: it took it.
    func wasRead(_ file: SeenRoutes?, isInForce: Bool) {
        (applied, refused) = isInForce ? (file?.content, nil) : (nil, file?.content)
        seen = file?.sight
        candidate = nil
        if file?.content != nil { readAt = cl_wall_clock() }
        if isInForce { clear() }
        let now = Instant(nanoseconds: cl_now())
        let sight = watch?.trail.end ?? PathTrail(path).end
        if sight != seen || RoutesWatch.mayChangeUnseen(seen) { schedule.note(.whole, now) }
    }

    /// What was written within one tick of the file system's clock has one time.
    private static func mayChangeUnseen(_ sight: Sight?) -> Bool {
        guard let sight else { return false }
        let now = Int64(clamping: cl_wall_clock())
        return sight.modified > now - 1_000_000_000
    }

    // MARK: Time

    /// - Parameters:
    ///   - mayRead: the node can take a change.
    ///   - keepsState: see ``RoutesReader/start(_:keepsState:)``.
    /// - Returns: what was read, if that is over.
    func tick(_ now: Instant, mayRead: Bool, keepsState: Bool) -> RoutesReading? {
        let done = reader?.take()
        // Behind it: whatever happened before its read was over has its event by now.
        takeNews(now)
        if nextLook <= now { look(now) }
        if let done { return finish(done, now) }
        guard mayRead, !isReading, let start = schedule.start, start <= now else { return nil }
        schedule.begin()
        (began, isWritten, candidate) = (now, false, nil)
        if let reader, reader.start(path, keepsState: keepsState) { return nil }
        let reading = RoutesReader.read(path, keepsState: keepsState)
        takeNews(now)
        return finish(reading, now)
    }

    private func takeNews(_ now: Instant) {
        guard let watch else { return }
        var error: Int32 = 0
        let news = watch.take(path, error: &error)
        if error != 0 { poll(because: error, now) }
        schedule.note(news.standing, now)
        // What could be read may not be any more, and the reverse.
        if news.mayBeReadable, news.standing == .unchanged { schedule.note(.whole, now) }
        if news.isWritten { isWritten = true }
    }

    /// Nil: it was written to while it was read, and is read again.
    private func finish(_ reading: RoutesReading, _ now: Instant) -> RoutesReading? {
        seen = reading.sight
        guard !reading.isTorn, !isWritten else {
            if schedule.start == nil { schedule.note(.unfinished, now) }
            ended()
            return nil
        }
        if reading.error == nil { readAt = cl_wall_clock() }
        return reading
    }

    /// The change that was read has been taken, or refused.
    func ended() { schedule.ended(began: began, Instant(nanoseconds: cl_now())) }

    func retry(after pause: TimeSpan) { schedule.retry(at: Instant(nanoseconds: cl_now()) + pause) }

    private func look(_ now: Instant) {
        if watch == nil {
            open()
        } else if let failed = watch?.follow(path), failed != 0 {
            poll(because: failed, now)
        }
        nextLook = now + interval
        let sight = PathTrail(path).end
        defer { candidate = sight }
        guard sight != seen, !isReading else { return }
        // What is written in place is let come to rest.
        let isReplaced = sight == nil || seen == nil || sight?.inode != seen?.inode || sight?.device != seen?.device
        if isReplaced || sight == candidate { schedule.note(.whole, now) }
    }

    // MARK: Watching

    private func open() {
        let (opened, error) = FileWatch.open(path)
        guard let opened else { return poll(because: error, Instant(nanoseconds: cl_now())) }
        watch = opened
        guard pollingReason != nil else { return }
        pollingReason = nil
        log.say("routes_watched", "\(path) is watched again") { $0.field("path", self.path) }
    }

    private func poll(because error: Int32, _ now: Instant) {
        watch = nil
        let why = RoutesWatch.reason(error)
        nextLook = min(nextLook, now + RoutesWatch.pollInterval)
        guard pollingReason != why else { return }
        pollingReason = why
        log.say("routes_polled", "\(path) can't be watched: \(why); it is looked at each second") {
            $0.field("path", self.path)
        }
    }

    private static func reason(_ error: Int32) -> String {
        switch error {
        case EMFILE:
            "this user may have no more inotify instances (`sysctl fs.inotify.max_user_instances`), or the process no "
                + "more open files; raise the limit"
        case ENOSPC:
            "this user may have no more inotify watches; raise the limit (`sysctl fs.inotify.max_user_watches`)"
        case EACCES: "a directory on its way may not be read; check owners and modes (`namei -l`)"
        case EAGAIN: "its path changes all the time"
        default: kernelError(error)
        }
    }

    // MARK: What is wrong

    /// What could not be read last, and is to be read again before that is said.
    private var suspect: (content: UInt64, since: Instant)?

    /// What is no document may be one in the making, whose writer began before the file was watched: it counts once it is
    /// the same after a while.
    func mayBeUnfinished(_ content: UInt64) -> Bool {
        let now = Instant(nanoseconds: cl_now())
        if let suspect, suspect.content == content, now.since(suspect.since) >= ReadSchedule.settle { return false }
        if suspect?.content != content { suspect = (content, now) }
        retry(after: ReadSchedule.settle)
        return true
    }

    /// Sooner the log says no more of what goes on being wrong.
    private static let betweenProblems = TimeSpan.seconds(1)

    /// - Returns: true: it is to be said.
    func note(problem text: String, _ now: Instant) -> Bool {
        problem = text
        guard isWorthSaying(text, now) else { return false }
        said = (text, now)
        return true
    }

    /// It is new, and no file in the making, which is read again at once.
    func isWorthSaying(_ problem: String, _ now: Instant) -> Bool {
        guard schedule.start == nil else { return false }
        return said.map { $0.problem != problem && now.since($0.at) >= RoutesWatch.betweenProblems } ?? true
    }

    /// - Returns: true: something was wrong before, and was said.
    @discardableResult func clear() -> Bool {
        defer { (problem, said, suspect) = (nil, nil, nil) }
        return said != nil
    }
}
