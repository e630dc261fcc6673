import Foundation

/// A node with one raw route and a ledger, from a config that can be written anew.
struct LedgerSite {
    let folder: TemporaryFolder
    let server: ManualServer
    let entry: Place
    /// A ledger of this site; there may be others.
    var ledger: String { folder.path + "/ledger.db" }

    init() throws {
        folder = try TemporaryFolder()
        server = try ManualServer()
        entry = Place("::1", try FreePort.take())
    }

    /// - Parameters:
    ///   - ledger: the words after `ledger`; nil: no such line.
    ///   - exports: whole lines.
    func config(_ ledger: String?, every: String = "1s", exports: [String] = []) -> String {
        let route = RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [server.place])
        let text = ConfigText(
            settings: ledger.map { ["ledger \($0)"] } ?? [], rawListeners: [entry], routes: [route],
            more: exports.map { "\($0)\n" }.joined())
        return text.description.replacing("    account\n", with: "    account every \(every)\n")
    }

    func start(_ config: String) throws -> Node { try Node(config, folder: folder) }

    /// A connection through the node, and its other end.
    func connect() throws -> (client: Socket, backend: Socket) {
        let client = try Socket.connect(to: entry)
        return (client, try server.accept())
    }

    // MARK: What the ledger says

    struct Total: Equatable {
        var out = 0
        var into = 0
        var connections = 0
    }

    func report(_ ledger: String? = nil, _ arguments: [String] = []) throws -> [String: Any] {
        let words = ["egress", "report", "--ledger", ledger ?? self.ledger, "--from", "1h", "--json"] + arguments
        let answer = try Binary.run(words)
        guard answer.exit == .code(0) else { throw Failure("\(words):\n\(answer.error)") }
        let json = try JSONSerialization.jsonObject(with: Data(answer.out.utf8)) as? [String: Any]
        return try json.unwrap("JSON in \(answer.out)")
    }

    func total(_ ledger: String? = nil) throws -> Total {
        let total = try (report(ledger)["total"] as? [String: Any]).unwrap("total")
        let number = { (name: String) in total[name] as? Int ?? -1 }
        return Total(out: number("bytes_out"), into: number("bytes_in"), connections: number("connections"))
    }

    /// Asks until it is so, or the deadline passes.
    func settles(_ ledger: String? = nil, out: Int, _ deadline: Deadline = Deadline()) throws -> Bool {
        while !deadline.hasPassed {
            let now = try total(ledger).out
            if now >= out { return now == out }
            Thread.sleep(forTimeInterval: 0.05)
        }
        return false
    }
}

/// The programs of nfdump: a collector, and what reads its files.
final class NFCollector {
    let port: UInt16
    let child: Child
    private let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
        port = try FreePort.take()
        child = try Child(
            "nfcapd", ["-w", folder.path, "-t", "3600", "-b", "127.0.0.1", "-p", "\(port)", "-I", "t", "-B", "4000000"])
        _ = try child.wait("that it started") { $0.first { $0.text.contains("Startup nfcapd") } }
    }

    /// Waits until it has read all that was sent, and ends it.
    func finish() throws {
        let deadline = Deadline()
        let mark = ":" + String(format: "%04X", port)
        while true {
            let table = try String(contentsOfFile: "/proc/net/udp", encoding: .utf8)
            let line = try table.split(separator: "\n").first {
                $0.split(separator: " ").dropFirst().first?.hasSuffix(mark) == true
            }.unwrap("socket at \(port)")
            if line.contains(":00000000 00:") { break }
            guard !deadline.hasPassed else { throw Failure("unread: \(line)") }
            usleep(2000)
        }
        child.signal(SIGTERM)
        guard try child.waitForExit() == .code(0) else { throw Failure(child.output) }
    }

    /// Columns of its records, by nfdump's own names for them, as `%ibyt`.
    func rows(_ columns: [String]) throws -> [[String]] {
        let format = "fmt:" + columns.joined(separator: "|")
        let reader = try Child("nfdump", ["-R", folder.path, "-q", "-N", "-o", format])
        guard try reader.waitForExit() == .code(0) else { throw Failure(reader.output) }
        return reader.lines.map { $0.text.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) } }
            .filter { $0.count == columns.count }
    }
}
