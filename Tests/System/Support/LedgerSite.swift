import Foundation
import TestSupport

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

    private func ask(_ ledger: String?, _ arguments: [String] = []) throws -> (
        exit: Child.Exit, out: String, error: String
    ) {
        try Binary.run(["egress", "report", "--ledger", ledger ?? self.ledger, "--from", "1h", "--json"] + arguments)
    }

    private static func json(_ answer: (exit: Child.Exit, out: String, error: String)) throws -> [String: Any] {
        guard answer.exit == .code(0) else { throw Failure("egress report: \(answer.error)") }
        let json = try JSONSerialization.jsonObject(with: Data(answer.out.utf8)) as? [String: Any]
        return try json.unwrap("JSON in \(answer.out)")
    }

    func report(_ ledger: String? = nil, _ arguments: [String] = []) throws -> [String: Any] {
        try LedgerSite.json(ask(ledger, arguments))
    }

    func total(_ ledger: String? = nil) throws -> Total { try LedgerSite.total(ask(ledger)) }

    private static func total(_ answer: (exit: Child.Exit, out: String, error: String)) throws -> Total {
        let total = try (json(answer)["total"] as? [String: Any]).unwrap("total")
        let number = { (name: String) in total[name] as? Int ?? -1 }
        return Total(out: number("bytes_out"), into: number("bytes_in"), connections: number("connections"))
    }

    /// Asks until there is as much, and it is no more. A node makes its ledger while it serves already: until then it is
    /// not ready.
    func settles(_ ledger: String? = nil, out: Int, _ deadline: Deadline = Deadline()) throws -> Bool {
        try awaitValue("\(out) bytes in the ledger", deadline) {
            let answer = try ask(ledger)
            guard answer.exit == .code(0) else {
                guard LedgerSite.isNotReady(answer) else { throw Failure(answer.error) }
                return nil
            }
            let now = try LedgerSite.total(answer).out
            return now >= out ? now == out : nil
        }
    }

    /// `egress report` of a ledger that is being made, or will be.
    static func isNotReady(_ answer: (exit: Child.Exit, out: String, error: String)) -> Bool {
        answer.exit == .code(1)
            && (answer.error.contains("is not ready yet") || answer.error.contains("there is no ledger"))
    }
}

/// The programs of nfdump: a collector, and what reads its files.
final class NFCollector {
    let port: UInt16
    let child: Child
    private let folder: TemporaryFolder

    init() throws {
        let folder = try TemporaryFolder()
        self.folder = folder
        // Nobody can keep a UDP port for it: it says whether it got the one that it was told.
        (port, child) = try awaitValue("an nfcapd that started") {
            let port = try FreePort.take()
            let child = try Child(
                "nfcapd",
                ["-w", folder.path, "-t", "3600", "-b", "127.0.0.1", "-p", "\(port)", "-I", "t", "-B", "4000000"])
            let line = try? child.wait("that it started") { $0.first { $0.text.contains("Startup nfcapd") } }
            return line == nil ? nil : (port, child)
        }
    }

    /// Until everything that was sent to it was read.
    func waitUntilRead() throws {
        let mark = ":" + String(format: "%04X", port)
        try awaitUntil("nfcapd has read everything") {
            let table = try KernelTable.read("/proc/net/udp")
            let line = try table.split(separator: "\n").first {
                $0.split(separator: " ").dropFirst().first?.hasSuffix(mark) == true
            }.unwrap("socket at \(port)")
            return line.contains(":00000000 00:")
        }
    }

    /// Waits until it has read all that was sent, and ends it.
    func finish() throws {
        try waitUntilRead()
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
