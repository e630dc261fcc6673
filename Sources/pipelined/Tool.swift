import CLinux
import Glibc

/// Runs a program of the system to its end.
enum Tool {
    /// Why it did not run, or did not succeed.
    struct Problem: Error, CustomStringConvertible {
        let description: String
    }

    /// - Parameter input: what it reads on standard input; at most a pipe's 64 KiB.
    /// - Returns: what it printed.
    /// - Throws: if it can't be started, or ends with another code than 0: with what it said.
    @discardableResult
    static func run(_ words: [String], input: String = "") throws(Problem) -> String {
        let (status, out, error) = try spawn(words, input)
        guard status == 0 else {
            let said = error.isEmpty ? "it ended with code \(status) and said nothing" : error
            throw Problem(description: "`\(words.joined(separator: " "))`: \(said)\(remedy(said))")
        }
        return out
    }

    private static func remedy(_ said: String) -> String {
        said.contains("not permitted") || said.contains("must be root")
            ? "; run this as root, or with CAP_NET_ADMIN" : ""
    }

    private static func spawn(_ words: [String], _ input: String) throws(Problem) -> (Int32, String, String) {
        // Who ends before it has read everything says so by its code.
        signal(SIGPIPE, SIG_IGN)
        let (inRead, inWrite) = try pipe()
        let (outRead, outWrite) = try pipe()
        let (errorRead, errorWrite) = try pipe()
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, inRead, 0)
        posix_spawn_file_actions_adddup2(&actions, outWrite, 1)
        posix_spawn_file_actions_adddup2(&actions, errorWrite, 2)
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var pid: pid_t = 0
        let failed = posix_spawnp(&pid, words[0], &actions, nil, &arguments, environ)
        for end in [inRead, outWrite, errorWrite] { close(end) }
        let bytes = Array(input.utf8)
        if failed == 0 { _ = bytes.withUnsafeBytes { cl_write_all(inWrite, $0.baseAddress, $0.count) } }
        close(inWrite)
        defer { for end in [outRead, errorRead] { close(end) } }
        guard failed == 0 else {
            throw Problem(
                description: failed == ENOENT
                    ? "`\(words[0])` is not installed; install the package \(package(of: words[0]))"
                    : "`\(words[0])` can't be started: \(String(cString: strerror(failed)))")
        }
        // What these programs say fits into a pipe: reading one after the other can't hang.
        let (out, error) = (readAll(outRead), readAll(errorRead))
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
        let code = status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + (status & 0x7F)
        return (code, out, error)
    }

    private static func package(of program: String) -> String { program == "nft" ? "nftables" : "iproute2" }

    private static func pipe() throws(Problem) -> (Int32, Int32) {
        var ends: (Int32, Int32) = (-1, -1)
        let made = withUnsafeMutablePointer(to: &ends) {
            $0.withMemoryRebound(to: Int32.self, capacity: 2) { cl_make_gate($0) }
        }
        guard made == 0 else { throw Problem(description: "no pipe: \(String(cString: strerror(-made)))") }
        return ends
    }

    private static func readAll(_ descriptor: Int32) -> String {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = buffer.withUnsafeMutableBytes { cl_read(descriptor, $0.baseAddress, $0.count) }
            guard count > 0 else { break }
            bytes += buffer[..<count]
        }
        while let last = bytes.last, last == 0x0A { bytes.removeLast() }
        return String(decoding: bytes, as: UTF8.self)
    }
}
