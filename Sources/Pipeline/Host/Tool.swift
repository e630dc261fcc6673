import CLinux
import Glibc
import Pipeline
import PipelineThreads

/// Runs programs of the system, each to its end.
///
/// Threading: any thread but a worker's; the caller waits.
package struct Tool: Sendable {
    /// Why it did not run, or did not succeed.
    package struct Problem: Error, Equatable, CustomStringConvertible {
        package let description: String
    }

    /// How long one may take; nil: for ever.
    package var patience: TimeSpan?
    /// Whether to give up; asked ten times a second.
    package var isGivenUp: @Sendable () -> Bool = { false }

    package init(patience: TimeSpan? = nil) { self.patience = patience }

    /// The most bytes of output (R27): a host may have a hundred thousand rules.
    private static let limit = 64 << 20

    /// - Parameter input: its standard input; beyond a pipe's 64 KiB, writing waits for it to read. - Returns: its
    ///   output. - Throws: if it can't be started, or exits with a code other than 0, with its error output.
    @discardableResult
    package func run(_ words: [String], input: String = "") throws(Problem) -> String {
        let (status, out, error) = try spawn(words, input)
        guard status == 0 else {
            let said = error.isEmpty ? "it exited with code \(status) and printed nothing" : error
            throw Problem(description: "`\(words.joined(separator: " "))`: \(said)\(Tool.remedy(said))")
        }
        return out
    }

    private static func remedy(_ said: String) -> String {
        said.contains("not permitted") || said.contains("must be root")
            ? "; run this as root, or with CAP_NET_ADMIN" : ""
    }

    private func spawn(_ words: [String], _ input: String) throws(Problem) -> (Int32, String, String) {
        // A program that exits before it has read everything reports it by its code.
        signal(SIGPIPE, SIG_IGN)
        var pipes: [(read: Int32, write: Int32)] = []
        do throws(Problem) {
            for _ in 0..<3 { pipes.append(try Tool.pipe()) }
        } catch {
            for pipe in pipes { Tool.close([pipe.read, pipe.write]) }
            throw error
        }
        let started = Tool.start(words, pipes)
        Tool.close([pipes[0].read, pipes[1].write, pipes[2].write])
        let bytes = Array(input.utf8)
        if started.failed == 0 { _ = bytes.withUnsafeBytes { cl_write_all(pipes[0].write, $0.baseAddress, $0.count) } }
        Tool.close([pipes[0].write])
        defer { Tool.close([pipes[1].read, pipes[2].read]) }
        guard started.failed == 0 else {
            throw Problem(
                description: started.failed == ENOENT
                    ? "`\(words[0])` is not installed; install the package \(Tool.package(of: words[0]))"
                    : "`\(words[0])` can't be started: \(errorText(started.failed))")
        }
        let said = readAll([pipes[1].read, pipes[2].read])
        if said == nil { kill(started.pid, SIGKILL) }
        var status: Int32 = 0
        while waitpid(started.pid, &status, 0) < 0, errno == EINTR {}
        guard let said else {
            throw Problem(description: "`\(words.joined(separator: " "))` did not end in time, or printed too much")
        }
        let code = status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + (status & 0x7F)
        return (code, said[0], said[1])
    }

    /// With no signal blocked or ignored, unlike in the node.
    private static func start(_ words: [String], _ pipes: [(read: Int32, write: Int32)]) -> (pid: pid_t, failed: Int32)
    {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, pipes[0].read, 0)
        posix_spawn_file_actions_adddup2(&actions, pipes[1].write, 1)
        posix_spawn_file_actions_adddup2(&actions, pipes[2].write, 2)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var pid: pid_t = 0
        let failed = posix_spawnp(&pid, words[0], &actions, &attributes, &arguments, environ)
        return (pid, failed)
    }

    private static func package(of program: String) -> String { program == "nft" ? "nftables" : "iproute2" }

    private static func pipe() throws(Problem) -> (read: Int32, write: Int32) {
        var ends: (Int32, Int32) = (-1, -1)
        let made = withUnsafeMutablePointer(to: &ends) {
            $0.withMemoryRebound(to: Int32.self, capacity: 2) { cl_make_barrier($0) }
        }
        guard made == 0 else { throw Problem(description: "pipe2 failed: \(errorText(-made))") }
        return ends
    }

    private static func close(_ descriptors: [Int32]) { for descriptor in descriptors { _ = cl_close(descriptor) } }

    /// All output of both until their ends; nil: it took too long, was too much, or was abandoned.
    private func readAll(_ descriptors: [Int32]) -> [String]? {
        let end = patience.map { Instant(nanoseconds: cl_now()) + $0 }
        var bytes = [[UInt8]](repeating: [], count: descriptors.count)
        var open = Set(descriptors.indices)
        var buffer = [UInt8](repeating: 0, count: 65536)
        while !open.isEmpty {
            if isGivenUp() { return nil }
            if let end, end <= Instant(nanoseconds: cl_now()) { return nil }
            let indices = open.sorted()
            var items: [cl_poll_item] = indices.map { .readable(descriptors[$0]) }
            guard Poll.wait(&items, until: Instant(nanoseconds: cl_now()) + .milliseconds(100)) >= 0 else { return nil }
            for (index, item) in zip(indices, items) where item.got != 0 {
                let count = buffer.withUnsafeMutableBytes { cl_read(item.fd, $0.baseAddress, $0.count) }
                if count > 0 { bytes[index] += buffer[..<count] } else { open.remove(index) }
                guard bytes[index].count <= Tool.limit else { return nil }
            }
        }
        return bytes.map { text in
            let last = text.lastIndex { $0 != 0x0A }
            return String(decoding: text[..<(last.map { $0 + 1 } ?? 0)], as: UTF8.self)
        }
    }
}
