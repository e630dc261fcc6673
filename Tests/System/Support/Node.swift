import Foundation
import Glibc
import TestSupport

/// The `pipelined` that was built beside these tests, or the one that `PIPELINED_BINARY` names.
enum Binary {
    static let path: String = {
        if let named = ProcessInfo.processInfo.environment["PIPELINED_BINARY"] { return named }
        let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        return (own as NSString).deletingLastPathComponent + "/pipelined"
    }()

    /// Runs a subcommand to its end.
    /// - Parameter program: what runs it, as `setpriv`, which `arguments` are then of; nil: nothing does.
    static func run(
        _ arguments: [String], by program: String? = nil, input: String = ""
    ) throws -> (exit: Child.Exit, out: String, error: String) {
        let child = try Child(program ?? path, arguments)
        try child.write(input)
        child.closeInput()
        let exit = try child.waitForExit()
        let text = { (stream: Child.Line.Stream) in
            child.lines.filter { $0.stream == stream }.map(\.text).joined(separator: "\n")
        }
        return (exit, text(.out), text(.error))
    }
}

/// One ended connection, as the node's log line has it (R28).
struct LogLine: Sendable, CustomStringConvertible {
    let reason: String
    /// When it ended, as RFC 3339.
    let time: String
    let route: String?
    let serverName: String?
    let sniff: String?
    let client: String?
    /// Who connected: the client, unless a PROXY header named another one.
    let peer: String?
    let destination: String?
    let backend: String?
    let attempts: Int
    let bytesToBackend: Int
    let bytesToClient: Int
    let durationMilliseconds: Int
    let uniqueID: String?
    /// `org/app/env`, of the three fields; nil: none is there.
    let owner: String?
    let env: String?
    let instance: String?
    /// By which it came, if no instance is known for it.
    let interface: String?
    let description: String

    /// Nil if it is no line about a connection.
    init?(_ text: String) {
        guard let json = try? JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any],
            json["event"] as? String == "connection", let reason = json["reason"] as? String
        else { return nil }
        self.reason = reason
        time = json["time"] as? String ?? ""
        route = json["route"] as? String
        serverName = json["server_name"] as? String
        sniff = json["sniff"] as? String
        client = json["client"] as? String
        peer = json["peer"] as? String ?? client
        destination = json["destination"] as? String
        backend = json["backend"] as? String
        attempts = json["attempts"] as? Int ?? -1
        bytesToBackend = json["bytes_to_backend"] as? Int ?? -1
        bytesToClient = json["bytes_to_client"] as? Int ?? -1
        durationMilliseconds = json["duration_ms"] as? Int ?? -1
        uniqueID = json["unique_id"] as? String
        env = json["env"] as? String
        let path = ["org", "app", "env"].compactMap { json[$0] as? String }
        owner = path.isEmpty ? nil : path.joined(separator: "/")
        instance = json["instance"] as? String
        interface = json["interface"] as? String
        description = text
    }

    /// False if its connection had ended when the one of that socket began: it had the same port before.
    func isOf(_ client: Place) -> Bool {
        guard peer == client.description else { return false }
        guard client.since > 0, let ended else { return true }
        return UInt64((ended.timeIntervalSince1970 * 1000).rounded()) >= client.since
    }

    /// ``time``, by the wall clock.
    var ended: Date? { try? Date.ISO8601FormatStyle(includingFractionalSeconds: true).parse(time) }

    /// How long after that moment it ended, in seconds, by the node's own word: however late a test looks.
    func seconds(after moment: Date) throws -> Double { try ended.unwrap("time").timeIntervalSince(moment) }
}

/// A running node with a config of its own.
final class Node: Sendable {
    let child: Child
    let folder: TemporaryFolder
    let config: String

    /// Returns once the node says that it is ready.
    /// - Parameters:
    ///   - namespace: the network namespace to run it in; nil: the test's own.
    ///   - group: the cgroup that bounds its memory, from its first page on.
    ///   - launcher: a command that becomes the node, whose own command line follows it.
    init(
        _ config: String, folder: TemporaryFolder? = nil, in namespace: String? = nil,
        bounded group: MemoryGroup? = nil, launcher: [String] = []
    ) throws {
        let folder = try folder ?? TemporaryFolder()
        self.folder = folder
        self.config = try folder.write("node.pipeline", config)
        let prefix = (namespace.map { ["ip", "netns", "exec", $0] } ?? []) + (group?.prefix ?? []) + launcher
        let words = prefix + [Binary.path, "run", self.config]
        child = try Child(words[0], Array(words.dropFirst()))
        _ = try child.wait("that it is ready") { lines in lines.first { $0.isEvent("ready") } }
    }

    /// The log line of the connection that came from the socket at `client`.
    func log(of client: Place, _ deadline: Deadline = Deadline()) throws -> LogLine {
        try log("a log line for \(client)", deadline) { $0.isOf(client) }
    }

    func log(_ what: String, _ deadline: Deadline = Deadline(), where matches: (LogLine) -> Bool) throws -> LogLine {
        try child.wait(what, deadline) { lines in
            // Cheap first: most lines are about other connections.
            lines.lazy.filter { $0.stream == .out }.compactMap { LogLine($0.text) }.first(where: matches)
        }
    }

    /// All lines, by the socket that they came from, once there are `count`.
    func logs(_ count: Int, _ deadline: Deadline = Deadline()) throws -> [String: LogLine] {
        let lines = try child.wait("\(count) log lines", deadline) { lines in
            let out = lines.filter { $0.stream == .out }
            return out.count >= count ? out : nil
        }
        return Dictionary(
            lines.compactMap { LogLine($0.text) }.compactMap { line in line.peer.map { ($0, line) } },
            uniquingKeysWith: { $1 })
    }

    /// SIGKILL, and it has ended.
    func kill() throws {
        child.signal(SIGKILL)
        _ = try child.waitForExit()
    }

    func waitForEvent(_ event: String, _ deadline: Deadline = Deadline()) throws {
        _ = try child.wait("the event \(event)", deadline) { lines in lines.first { $0.isEvent(event) } }
    }

    /// The reload that SIGHUP asks for is over, whichever way it ended, and it was this revision's.
    func reload(revision: Int) throws {
        child.signal(SIGHUP)
        _ = try child.waitForError("revision \(revision)") { lines in
            lines.first { $0.isEvent("reloaded") && $0.text.contains("\"revision\":\(revision),") }
        }
    }

    /// Writes the config anew, and asks for a reload by SIGHUP; its event, `reloaded` or `reload_refused`.
    func reload(_ text: String) throws -> Child.Line {
        // The line of a reload that a command asked for may come only after its answer.
        let isOver = { (line: Child.Line) in
            (line.isEvent("reloaded") || line.isEvent("reload_refused")) && line.text.contains("\"by\":\"SIGHUP\"")
        }
        let before = child.lines.filter(isOver).count
        try text.write(toFile: config, atomically: true, encoding: .utf8)
        child.signal(SIGHUP)
        return try child.wait("the end of a reload") { lines in
            let events = lines.filter(isOver)
            return events.count > before ? events.last : nil
        }
    }

    /// Processor time that it has used, in seconds.
    var processorSeconds: Double {
        get throws {
            // The name may have spaces; the fields after it don't.
            let text = try String(contentsOfFile: "/proc/\(child.pid)/stat", encoding: .utf8)
            let fields = text.split(separator: ")").last?.split(separator: " ") ?? []
            guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else {
                throw Failure("/proc/PID/stat says \(text)")
            }
            return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
        }
    }

    /// How often its control thread has waited for something.
    var rests: Int {
        get throws {
            let status = try String(contentsOfFile: "/proc/\(child.pid)/task/\(child.pid)/status", encoding: .utf8)
            let line = try status.split(separator: "\n").first { $0.hasPrefix("voluntary_ctxt_switches:") }
                .unwrap("voluntary_ctxt_switches")
            return try Int(line.split(separator: "\t").last ?? "").unwrap("number")
        }
    }

    /// Names of its threads; one that has just ended may be missing.
    var threads: [String] {
        get throws {
            let tasks = "/proc/\(child.pid)/task"
            return try FileManager.default.contentsOfDirectory(atPath: tasks).compactMap {
                try? String(contentsOfFile: "\(tasks)/\($0)/comm", encoding: .utf8)
                    .trimmingCharacters(in: .whitespacesAndNewlines)
            }
        }
    }

    /// Bytes of memory that are the process's own: resident, not backed by a file.
    var residentBytes: Int {
        get throws {
            let status = try String(contentsOfFile: "/proc/\(child.pid)/status", encoding: .utf8)
            let line = try status.split(separator: "\n").first { $0.hasPrefix("RssAnon:") }.unwrap("RssAnon")
            return try Int(line.split(separator: " ").dropFirst().first ?? "").unwrap("number") * 1024
        }
    }

    /// Open descriptors of the table that control has.
    var processDescriptorCount: Int {
        get throws { try FileManager.default.contentsOfDirectory(atPath: "/proc/\(child.pid)/fd").count }
    }

    /// Open descriptors of the node: the process's, and those of each worker that has a table of its own. Other threads come
    /// and go, and have the process's.
    ///
    /// A worker takes what is its own after it was started, and ends it after it was told to: before it is first counted
    /// let every worker have taken up a change (``settle()``), and await what it comes to.
    var descriptorCount: Int {
        get throws {
            let tasks = "/proc/\(child.pid)/task"
            var count = try processDescriptorCount
            guard try !String(contentsOfFile: config, encoding: .utf8).contains("descriptors shared") else {
                return count
            }
            for task in try FileManager.default.contentsOfDirectory(atPath: tasks) {
                // A thread may have ended since.
                let name = try? String(contentsOfFile: "\(tasks)/\(task)/comm", encoding: .utf8)
                guard name?.hasPrefix("worker-") == true else { continue }
                count += try FileManager.default.contentsOfDirectory(atPath: "\(tasks)/\(task)/fd").count
            }
            return count
        }
    }

    /// Has every worker take up a change, and so be whole: a reload of the config as it is.
    func settle() throws {
        let text = try String(contentsOfFile: config, encoding: .utf8)
        try awaitUntil("every worker has taken up a reload") {
            let line = try reload(text)
            guard line.isEvent("reloaded") else { throw Failure(line.text) }
            return !line.text.contains("workers_behind")
        }
    }
}

extension Child.Line {
    func isEvent(_ event: String) -> Bool { stream == .error && text.contains("\"event\":\"\(event)\"") }
    /// In the place of lines of standard output that are missing.
    var isMark: Bool { stream == .out && text.contains("\"event\":\"lines_dropped\"") }
    /// The whole number of a field; nil: there is no such field.
    func number(_ field: String) -> Int? {
        text.range(of: "\"\(field)\":").flatMap { Int(text[$0.upperBound...].prefix(while: \.isNumber)) }
    }
}

/// A `route` block.
struct RouteText: Sendable, CustomStringConvertible {
    var host: String?
    var id: String
    /// Nil: an env of its own.
    var owner: String?
    var port: UInt16
    var backends: [Place]
    var proxy = false
    var allowsNonTLS = false
    /// Further lines.
    var more: [String] = []

    var description: String {
        """
        route \(host.map { "\($0) " } ?? ""){
            id       \(id)
            owner    \(owner ?? "acme/\(id)/prod")
            listen   \(port)
        \(backends.isEmpty ? "" : "    backend  \(backends.map(\.description).joined(separator: " "))\n")\
        \(proxy ? "    proxy_protocol v2\n    backend_expects_proxy_protocol true\n" : "")\
        \(more.map { "    \($0)\n" }.joined())\
        \(allowsNonTLS ? "    allow_non_tls true\n" : "")}

        """
    }
}

/// The text of a config with one pipeline for TLS and one for raw TCP.
struct ConfigText: Sendable, CustomStringConvertible {
    var settings: [String] = []
    var workers = 1
    var sniff = "timeout 10s, max 16KiB"
    var tlsListeners: [Place] = []
    var rawListeners: [Place] = []
    /// Stages before the backend, besides `sni`.
    var firstStages: [String] = []
    /// Clauses of `backend`.
    var backend = "round_robin"
    var proxy = "proxy_v2"
    var routes: [RouteText] = []
    var more = ""

    var description: String {
        var text = "node test {\n    workers  \(workers)\n"
        for setting in settings { text += "    \(setting)\n" }
        // Addresses go from env to env as tests need them.
        if !settings.contains(where: { $0.hasPrefix("cooldown ") }) { text += "    cooldown 0s\n" }
        // Tests count lines.
        if !settings.contains(where: { $0.hasPrefix("log ") }) { text += "    log connections refusals 1M/s\n" }
        text += "}\n\n"
        if !tlsListeners.isEmpty {
            text += pipeline("tls", firstStages + ["sni \(sniff)", "backend \(backend)", proxy, "account"])
        }
        if !rawListeners.isEmpty {
            text += pipeline("raw", firstStages + ["backend \(backend)", proxy, "account"])
        }
        for place in tlsListeners { text += "listen \(place) tls_passthrough via tls\n" }
        for place in rawListeners { text += "listen \(place) tcp_raw via raw\n" }
        return text + "\n" + routes.map(\.description).joined(separator: "\n") + more
    }

    private func pipeline(_ name: String, _ stages: [String]) -> String {
        "pipeline \(name) {\n" + stages.map { "    \($0)\n" }.joined() + "}\n\n"
    }
}
