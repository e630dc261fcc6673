import CLinux
import Pipeline
import PipelineHost
import PipelineRuntime
import PipelineThreads
import Synchronization

/// A routes file as it was read.
struct RoutesReading: @unchecked Sendable {
    /// Why there is nothing; nil: there is.
    var error: FileError?
    /// What was read; nil: it could not be told.
    var sight: Sight?
    /// Somebody wrote to it meanwhile: what was read may be of two documents.
    var isTorn = false
    var bytes: [UInt8] = []
    /// A hash of its bytes.
    var content: UInt64 = 0
    /// For a node that keeps desired state: the document.
    var update: ReadUpdate?
    /// When its reading began.
    var began = Instant(nanoseconds: 0)
}

/// Reads a routes file beside the control thread: neither its size nor a file system that does not answer holds that
/// up.
///
/// Threading: the control thread; each read has a thread of its own, which hands over what it has made and ends.
final class RoutesReader {
    private final class Result: @unchecked Sendable {
        let notice: Int32
        private let reading = Mutex<RoutesReading?>(nil)

        init(_ notice: Int32) { self.notice = notice }
        deinit { _ = cl_close(notice) }

        func put(_ new: RoutesReading) {
            reading.withLock { $0 = new }
            _ = cl_eventfd_signal(notice)
        }
        func take() -> RoutesReading? {
            reading.withLock { reading in
                defer { reading = nil }
                return reading
            }
        }
    }

    private let result: Result
    private var thread: UInt64 = 0
    private(set) var isReading = false
    /// Readable when a read is over.
    var descriptor: Descriptor { Descriptor(result.notice) }

    private static let stackBytes = 1 << 20

    /// Nil: no descriptor for it.
    init?() {
        let notice = cl_eventfd()
        guard notice >= 0 else { return nil }
        result = Result(notice)
    }

    /// - Parameter keepsState: the document is split into objects, too.
    /// - Returns: false: nothing runs.
    func start(_ path: String, keepsState: Bool) -> Bool {
        let failed = NamedThread.start("routes-file", stackBytes: RoutesReader.stackBytes, handle: &thread) {
            [result] in result.put(RoutesReader.read(path, keepsState: keepsState))
        }
        isReading = failed == 0
        return isReading
    }

    /// Nil: none is over.
    func take() -> RoutesReading? {
        guard isReading, let reading = result.take() else { return nil }
        _ = cl_eventfd_clear(result.notice)
        _ = cl_thread_join(thread)
        isReading = false
        return reading
    }

    static func read(_ path: String, keepsState: Bool) -> RoutesReading {
        var reading = RoutesReading()
        reading.began = Instant(nanoseconds: cl_now())
        do throws(FileError) {
            let read = try Files.readLooking(path, limit: ConfigLoader.stateFileLimit)
            (reading.bytes, reading.sight, reading.isTorn) = (read.bytes, read.sight, !read.isSteady)
        } catch {
            reading.error = error
            return reading
        }
        reading.content = StateOrder.hash(reading.bytes)
        if keepsState, !reading.isTorn {
            reading.update = ReadUpdate.read(reading.bytes, path)
            reading.bytes = []
        }
        return reading
    }
}
