import Glibc
import Pipeline

/// A file that is to be opened again, because somebody has renamed it (SIGUSR1). Until that works, lines go on to what
/// is open.
struct LogReopening {
    private(set) var isWanted = false
    private var nextTry = Instant(nanoseconds: 0)
    private var hasFailed = false

    private static let interval = TimeSpan.seconds(1)

    mutating func ask() { (isWanted, nextTry, hasFailed) = (true, Instant(nanoseconds: 0), false) }

    /// When it is tried next; nil: nobody wants it.
    var due: Instant? { isWanted ? nextTry : nil }

    enum Result {
        case opened(LogOutlet)
        /// - Parameter isNews: the first time since it was asked for.
        case failed(Int32, isNews: Bool)
    }

    mutating func attempt(_ path: String, _ now: Instant) -> Result {
        let (outlet, error) = LogOutlet.file(path)
        if let outlet {
            isWanted = false
            return .opened(outlet)
        }
        nextTry = now + LogReopening.interval
        defer { hasFailed = true }
        return .failed(error, isNews: !hasFailed)
    }
}
