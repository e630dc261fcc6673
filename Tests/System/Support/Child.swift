import CLinux
import Foundation
import Glibc
import TestSupport

/// A program that a test has started: its own process group, its output line by line, its exit. Ends with its owner.
final class Child: @unchecked Sendable {
    struct Line: Sendable {
        enum Stream: Sendable { case out, error }
        let stream: Stream
        let text: String
    }

    let name: String
    let pid: pid_t
    private let condition = NSCondition()
    // Guarded by `condition`.
    private var received: [Line] = []
    private var receivedErrors: [Line] = []
    private var exit: Exit?
    private var input: Int32

    enum Exit: Equatable, Sendable {
        case code(Int32)
        case signal(Int32)
    }

    /// - Parameters:
    ///   - program: a path, or a name to look for in PATH and the sbin folders.
    ///   - descriptors: what it has as its descriptors 3 and so on.
    init(
        _ program: String, _ arguments: [String], environment: [String: String] = [:], descriptors: [Int32] = []
    ) throws {
        name = (program as NSString).lastPathComponent
        let path = try Child.find(program).unwrap("program named \(program): run make deps")
        let (inRead, inWrite) = try Child.pipe()
        let (outRead, outWrite) = try Child.pipe()
        let (errorRead, errorWrite) = try Child.pipe()
        defer { for end in [inRead, outWrite, errorWrite] { close(end) } }
        input = inWrite
        do {
            pid = try Child.spawn(path, arguments, environment, [inRead, outWrite, errorWrite] + descriptors)
        } catch {
            for end in [inWrite, outRead, errorRead] { close(end) }
            throw error
        }
        Reaper.shared.watch(pid)
        // The thread must not keep the child's owner alive: it holds what it fills, weakly.
        let pid = pid
        Thread.detachNewThread { [weak self] in
            Child.collect(pid, outRead, errorRead, line: { self?.append($0) }, exit: { self?.ended($0) })
        }
    }

    deinit {
        kill(-pid, SIGKILL)
        close(input)
        Reaper.shared.forget(pid)
    }

    static func find(_ program: String) -> String? {
        if program.contains("/") { return access(program, X_OK) == 0 ? program : nil }
        let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
        return (path.split(separator: ":").map(String.init) + ["/usr/local/sbin", "/usr/sbin", "/sbin"])
            .map { "\($0)/\(program)" }.first { access($0, X_OK) == 0 }
    }

    // MARK: Starting

    /// A pipe that blocks, and that no other child inherits.
    fileprivate static func pipe() throws -> (read: Int32, write: Int32) {
        var ends: [Int32] = [-1, -1]
        let failed = cl_pipe(&ends, 65536)
        guard failed >= 0 else { throw Failure(call: "pipe", -failed) }
        for end in ends { _ = fcntl(end, F_SETFL, fcntl(end, F_GETFL) & ~O_NONBLOCK) }
        return (ends[0], ends[1])
    }

    private static func spawn(
        _ path: String, _ arguments: [String], _ environment: [String: String], _ standard: [Int32]
    ) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        // First above all of their places, so that none is overwritten before it was copied.
        let high = standard.map { fcntl($0, F_DUPFD_CLOEXEC, Int32(standard.count)) }
        defer { for end in high { close(end) } }
        for (number, end) in high.enumerated() {
            posix_spawn_file_actions_adddup2(&actions, end, Int32(number))
        }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigdefault(&attributes, &all)

        let merged = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        var argv: [UnsafeMutablePointer<CChar>?] = ([path] + arguments).map { strdup($0) } + [nil]
        var envp: [UnsafeMutablePointer<CChar>?] = merged.map { strdup("\($0)=\($1)") } + [nil]
        defer { for pointer in argv + envp { free(pointer) } }
        var pid: pid_t = 0
        let error = posix_spawn(&pid, path, &actions, &attributes, &argv, &envp)
        guard error == 0 else { throw Failure(call: "start \(path)", error) }
        return pid
    }

    // MARK: What it says

    private static func collect(
        _ pid: pid_t, _ out: Int32, _ error: Int32, line: (Line) -> Void, exit: (Exit) -> Void
    ) {
        var buffers: [[UInt8]] = [[], []]
        let ends = [out, error]
        var open = [true, true]
        while open.contains(true) {
            var polled = zip(ends, open).map { pollfd(fd: $1 ? $0 : -1, events: Int16(POLLIN), revents: 0) }
            guard poll(&polled, 2, -1) >= 0 || errno == EINTR else { break }
            for index in 0..<2 where polled[index].revents != 0 {
                var chunk = [UInt8](repeating: 0, count: 65536)
                let count = read(ends[index], &chunk, chunk.count)
                if count <= 0 { open[index] = false }
                buffers[index] += chunk.prefix(max(0, count))
                let stream: Line.Stream = index == 0 ? .out : .error
                while let end = buffers[index].firstIndex(of: 0x0A) {
                    line(Line(stream: stream, text: String(decoding: buffers[index][..<end], as: UTF8.self)))
                    buffers[index].removeSubrange(...end)
                }
                if !open[index], !buffers[index].isEmpty {
                    line(Line(stream: stream, text: String(decoding: buffers[index], as: UTF8.self)))
                }
            }
        }
        for end in ends { close(end) }
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
        exit(status & 0x7F == 0 ? .code(status >> 8 & 0xFF) : .signal(status & 0x7F))
    }

    private func append(_ line: Line) {
        condition.withLock {
            received.append(line)
            if line.stream == .error { receivedErrors.append(line) }
            condition.broadcast()
        }
    }

    private func ended(_ exit: Exit) {
        condition.withLock {
            self.exit = exit
            condition.broadcast()
        }
    }

    var lines: [Line] { condition.withLock { received } }
    /// All that it said, for failures.
    var output: String { lines.map(\.text).joined(separator: "\n") }

    /// What `find` makes of the lines so far, as soon as it makes something.
    func wait<Found>(_ what: String, _ deadline: Deadline = Deadline(), for find: ([Line]) -> Found?) throws -> Found {
        try condition.withLock {
            while true {
                if let found = find(received) { return found }
                if let exit { throw Failure("\(name) ended (\(exit)) without \(what):\n\(tail)") }
                guard condition.wait(until: deadline.date) else {
                    throw Failure("\(name) did not say \(what) in time:\n\(tail)")
                }
            }
        }
    }

    /// The same of what it says on standard error alone: for programs that write thousands of lines on the other.
    func waitForError<Found>(
        _ what: String, _ deadline: Deadline = Deadline(), for find: ([Line]) -> Found?
    ) throws -> Found {
        var looked = -1
        return try wait(what, deadline) { _ in
            guard receivedErrors.count != looked else { return nil }
            looked = receivedErrors.count
            return find(receivedErrors)
        }
    }

    private var tail: String { received.suffix(40).map(\.text).joined(separator: "\n") }

    /// Waits until it has ended, and all of its output is there.
    @discardableResult func waitForExit(_ deadline: Deadline = Deadline()) throws -> Exit {
        try condition.withLock {
            while true {
                if let exit { return exit }
                guard condition.wait(until: deadline.date) else {
                    throw Failure("\(name) did not end in time:\n\(tail)")
                }
            }
        }
    }
    var hasEnded: Bool { condition.withLock { exit != nil } }

    // MARK: What it is told

    func signal(_ number: Int32) { kill(pid, number) }

    func write(_ text: String) throws {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { Glibc.write(input, $0.baseAddress, $0.count) }
            guard count > 0 else { throw Failure(call: "write to \(name)") }
            bytes = bytes.dropFirst(count)
        }
    }

    func closeInput() {
        close(input)
        input = -1
    }
}

/// Kills what this process started if it dies without doing so: a shell that reads process ids from a pipe, and acts at
/// its end.
final class Reaper: @unchecked Sendable {
    static let shared = Reaper()
    private let lock = NSLock()
    private let pipeEnd: Int32

    private init() {
        Glibc.signal(SIGPIPE, SIG_IGN)
        let script = """
            trap '' INT TERM HUP; list=' '
            while read -r sign pid; do
                case $sign in
                +) list="$list$pid " ;;
                -) list="${list%% $pid *} ${list#* $pid }" ;;
                esac
            done
            for pid in $list; do kill -9 -- -$pid; done 2>/dev/null
            """
        guard let (readEnd, writeEnd) = try? Child.pipe() else {
            pipeEnd = -1
            return
        }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawn_file_actions_adddup2(&actions, readEnd, 0)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP))
        let words: [String] = ["/bin/sh", "-c", script]
        var argv: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        var pid: pid_t = 0
        posix_spawn(&pid, "/bin/sh", &actions, &attributes, &argv, environ)
        for pointer in argv { free(pointer) }
        posix_spawnattr_destroy(&attributes)
        posix_spawn_file_actions_destroy(&actions)
        close(readEnd)
        pipeEnd = writeEnd
    }

    func watch(_ pid: pid_t) { tell("+ \(pid)\n") }
    func forget(_ pid: pid_t) { tell("- \(pid)\n") }

    private func tell(_ line: String) {
        lock.withLock { _ = line.withCString { write(pipeEnd, $0, strlen($0)) } }
    }
}
