import CLinux
import Glibc

/// What has happened to a watched path, as far as its reader is concerned.
package struct FileNews: Equatable, Sendable {
    package enum Standing: Equatable, Sendable {
        case unchanged
        /// It may be whole: it was closed after a write, or put in place by a rename.
        case whole
        /// Somebody may still write to it, or there is nothing at the moment.
        case unfinished
    }

    package var standing = Standing.unchanged
    /// Somebody wrote to the file.
    package var isWritten = false
    /// Events were lost (IN_Q_OVERFLOW).
    package var isLost = false
    /// The path may lead elsewhere now.
    var hasMoved = false
    /// A mode, or the like.
    package var mayBeReadable = false
    /// Names that were made, and may be links.
    var made: Set<String> = []

    package init() {}
}

/// Watches what a path leads to, by inotify(7): the file itself, for what is written in place; and the directories of the
/// way to it, for files and links that are put in its place, and for directories that are moved.
///
/// Threading: its owner's.
package final class FileWatch {
    /// What a watch is for.
    private struct Interest {
        var what: Int
        /// Names in a directory that decide where the path leads.
        var names: Set<String> = []
        /// The one of the file, if it is there.
        var end: String?
    }

    package let descriptor: Int32
    private var interests: [Int32: Interest] = [:]
    package private(set) var trail: PathTrail

    private init(_ descriptor: Int32, _ path: String) {
        self.descriptor = descriptor
        trail = PathTrail(path)
    }

    deinit { _ = cl_close(descriptor) }

    /// - Returns: nil, with an errno: nothing can be watched.
    package static func open(_ path: String) -> (watch: FileWatch?, error: Int32) {
        let descriptor = cl_watch_open()
        guard descriptor >= 0 else { return (nil, -descriptor) }
        let watch = FileWatch(descriptor, path)
        let failed = watch.follow(path)
        return failed == 0 ? (watch, 0) : (nil, failed)
    }

    /// So often a way is walked anew that changes while its watches are set up; an event then leads to the next try.
    private static let tries = 8

    /// Watches the way as it is now.
    /// - Returns: 0, or an errno: some of it can't be watched.
    package func follow(_ path: String) -> Int32 {
        for _ in 0..<FileWatch.tries {
            let (found, failed) = add(PathTrail(path))
            let now = PathTrail(path)
            guard found.trail.isSame(as: now) else { continue }
            guard failed == 0 else { return failed }
            for number in interests.keys where found.interests[number] == nil { cl_watch_drop(descriptor, number) }
            (interests, trail) = (found.interests, now)
            return 0
        }
        return EAGAIN
    }

    private func add(_ trail: PathTrail) -> (found: (trail: PathTrail, interests: [Int32: Interest]), error: Int32) {
        var wanted: [String: Interest] = [:]
        for (index, step) in trail.steps.enumerated() {
            var interest = wanted[step.folder] ?? Interest(what: CL_WATCH_FOLDER)
            let isEnd = index == trail.steps.count - 1
            if isEnd || step.sight?.kind != .folder {
                interest.what = CL_WATCH_NAMES
                interest.names.insert(step.name)
            }
            if isEnd, step.sight?.kind != .folder { interest.end = step.name }
            wanted[step.folder] = interest
        }
        // Of a device, others' writes would be told.
        if let last = trail.steps.last, last.sight?.kind == .file {
            wanted[last.path] = Interest(what: CL_WATCH_FILE)
        }
        var interests: [Int32: Interest] = [:]
        for (path, interest) in wanted {
            let number = cl_watch_add(descriptor, path, Int32(interest.what))
            // It went meanwhile: the way is walked again.
            if number == -ENOENT || number == -ENOTDIR { continue }
            // A file that may not be read: its directory tells when that changes.
            if number == -EACCES, interest.what == CL_WATCH_FILE { continue }
            guard number >= 0 else { return ((trail, interests), -number) }
            interests[number] = interest
        }
        return ((trail, interests), 0)
    }

    // MARK: Events

    /// What has come since the last call, as far as one read of the queue goes.
    /// - Parameter error: an errno: it can't be watched any more as it should.
    package func take(_ path: String, error: inout Int32) -> FileNews {
        var news = FileNews()
        withUnsafeMutablePointer(to: &news) { news in
            var context = (watch: self, news: news)
            withUnsafeMutablePointer(to: &context) { context in
                _ = cl_watch_take(descriptor, context) { context, number, what, name in
                    guard let context, let name else { return }
                    let (watch, news) =
                        context.assumingMemoryBound(
                            to: (watch: FileWatch, news: UnsafeMutablePointer<FileNews>).self
                        ).pointee
                    watch.note(number, Int(what), name, &news.pointee)
                }
            }
        }
        guard news.hasMoved || news.isLost else { return news }
        let before = trail
        error = follow(path)
        if news.standing == .unchanged, !before.isSame(as: trail) {
            // Another directory or link is in the place of one on the way, with what is in it.
            news.standing = trail.end == nil ? .unfinished : .whole
        }
        // A link needs no writer.
        if news.standing == .unfinished, trail.end != nil,
            trail.steps.contains(where: { $0.sight?.kind == .link && news.made.contains($0.name) })
        {
            news.standing = .whole
        }
        if news.isLost { (news.standing, news.isWritten) = (.whole, true) }
        return news
    }

    private func note(_ number: Int32, _ what: Int, _ name: UnsafePointer<CChar>, _ news: inout FileNews) {
        if what == CL_CHANGE_LOST {
            news.isLost = true
            return
        }
        guard let interest = interests[number] else { return }
        if name.pointee == 0 { return note(itself: what, interest, &news) }
        let name = String(cString: name)
        guard interest.names.contains(name) else { return }
        switch what {
        case CL_CHANGE_CLOSED: if interest.end == name { (news.standing, news.isWritten) = (.whole, true) }
        case CL_CHANGE_PUT: (news.hasMoved, news.standing) = (true, .whole)
        case CL_CHANGE_MADE:
            (news.hasMoved, news.standing) = (true, .unfinished)
            news.made.insert(name)
        case CL_CHANGE_GONE: (news.hasMoved, news.standing) = (true, .unfinished)
        case CL_CHANGE_MODE: (news.hasMoved, news.mayBeReadable) = (true, true)
        default: break
        }
    }

    private func note(itself what: Int, _ interest: Interest, _ news: inout FileNews) {
        let isFile = interest.what == CL_WATCH_FILE
        switch what {
        case CL_CHANGE_CLOSED: if isFile { (news.standing, news.isWritten) = (.whole, true) }
        case CL_CHANGE_WRITTEN: if isFile { (news.standing, news.isWritten) = (.unfinished, true) }
        case CL_CHANGE_ITSELF: news.hasMoved = true
        // Also what can't be looked into may be by now.
        case CL_CHANGE_MODE: (news.hasMoved, news.mayBeReadable) = (true, true)
        default: break
        }
    }
}
