import Foundation
import Glibc
import TestSupport
import Testing

/// The ledger's files: who may read them, and what becomes of a node whose ledger is taken away.
@Suite("The ledger's files under a running node and after it")
struct EgressLedgerFileTests {
    private func send(_ count: Int, _ pair: (client: Socket, backend: Socket)) throws {
        try pair.client.send([UInt8](repeating: 7, count: count))
        _ = try pair.backend.receive(exactly: count)
    }

    /// `egress report` as a user who is nobody, but in the group that the ledger's files have here.
    private static func asReader(_ ledger: String, _ more: [String] = []) throws -> (Child.Exit, String) {
        let child = try Child(
            "setpriv",
            ["--reuid", "65534", "--regid", "65534", "--groups", "0", "--inh-caps", "-all", "--bounding-set", "-all"]
                + [Binary.path, "egress", "report", "--ledger", ledger, "--from", "1h"] + more)
        let exit = try child.waitForExit()
        return (exit, child.lines.map(\.text).joined(separator: "\n"))
    }

    /// Somebody who is not root can run the binary where it lies.
    private static let canBeReader: Bool =
        geteuid() == 0 && Child.find("setpriv") != nil
        && (try? asReader("/nowhere")).map { $0.0 == .code(1) } ?? false

    /// Names, sizes and times of what lies in a folder.
    private func listing(_ folder: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder).sorted().map { name in
            var status = stat()
            guard stat("\(folder)/\(name)", &status) == 0 else { throw Failure(call: "stat") }
            return "\(name) \(status.st_size) \(status.st_mtim.tv_sec).\(status.st_mtim.tv_nsec) \(status.st_mode)"
        }
    }

    @Test(
        "who is in the ledger's group reads it while the node runs, after its end and a SIGKILL, and writes nothing",
        .enabled(if: canBeReader, "needs root, setpriv, and a binary that others may run"),
        arguments: [SIGTERM, SIGKILL])
    func reader(signal: Int32) throws {
        let site = try LedgerSite()
        // The node makes this folder.
        let folder = site.folder.path + "/data"
        let ledger = folder + "/ledger.db"
        let node = try site.start(site.config(ledger))
        let pair = try site.connect()
        try send(50_000, pair)
        #expect(try site.settles(ledger, out: 50_000))
        var status = stat()
        #expect(stat(folder, &status) == 0 && status.st_mode & 0o777 == 0o750)
        for suffix in ["", "-wal", "-shm"] {
            #expect(stat(ledger + suffix, &status) == 0 && status.st_mode & 0o777 == 0o640, "\(suffix)")
        }
        let running = try Self.asReader(ledger)
        #expect(running.0 == .code(0) && running.1.contains("48.8 KiB"), "\(running)")
        pair.client.finish()
        pair.backend.finish()
        _ = try pair.client.receiveToEnd()
        node.child.signal(signal)
        _ = try node.child.waitForExit()
        let before = try listing(folder)
        for by in ["env", "destination", "instance,port"] {
            let answer = try Self.asReader(ledger, ["--by", by])
            #expect(answer.0 == .code(0) && answer.1.contains("48.8 KiB"), "\(answer)")
        }
        #expect(try listing(folder) == before)
        // Root leaves nothing either, where the ledger lies whole in its file.
        if signal == SIGTERM {
            #expect(try site.total(ledger).out == 50_000)
            #expect(try listing(folder) == before)
        }
    }

    @Test("a ledger that is removed under the node is noticed without traffic, and what comes then is in a new one")
    func removed() throws {
        let site = try LedgerSite()
        let node = try site.start(site.config(site.ledger))
        let pair = try site.connect()
        try send(50_000, pair)
        #expect(try site.settles(out: 50_000))
        for suffix in ["", "-wal", "-shm"] { unlink(site.ledger + suffix) }
        let line = try node.child.wait("the loss") { $0.first { $0.isEvent("ledger_set_aside") } }
        #expect(line.text.contains("was removed while in use"), "\(line.text)")
        try awaitUntil("a new one") { FileManager.default.fileExists(atPath: site.ledger) }
        try send(7000, pair)
        #expect(try site.settles(out: 7000))
        withExtendedLifetime(node) {}
    }

    @Test("a ledger that is written over under the node is set aside without traffic", arguments: [0, 8192])
    func overwritten(offset: UInt64) throws {
        let site = try LedgerSite()
        // The end of the first one puts all pages into the file: from the log they would be healed.
        do {
            let first = try site.start(site.config(site.ledger))
            let pair = try site.connect()
            try send(50_000, pair)
            #expect(try site.settles(out: 50_000))
            pair.client.finish()
            pair.backend.finish()
            _ = try pair.client.receiveToEnd()
            first.child.signal(SIGTERM)
            _ = try first.child.waitForExit()
        }
        let node = try site.start(site.config(site.ledger))
        let pair = try site.connect()
        try send(500, pair)
        #expect(try site.settles(out: 50_500))
        let file = try FileHandle(forWritingAtPath: site.ledger).unwrap("the ledger")
        try file.seek(toOffset: offset)
        try file.write(contentsOf: Data((0..<200_000).map { _ in UInt8.random(in: 0...255) }))
        try file.close()
        let line = try node.child.wait("the damage") { $0.first { $0.isEvent("ledger_set_aside") } }
        #expect(line.text.contains("it was renamed to \(site.ledger).damaged-"), "\(line.text)")
        try send(7000, pair)
        #expect(try site.settles(out: 7000))
        let names = try FileManager.default.contentsOfDirectory(atPath: site.folder.path)
        #expect(names.contains { $0.hasPrefix("ledger.db.damaged-") })
        withExtendedLifetime(node) {}
    }

    @Test("who sent to a port, who went to most places, who moved most to where: asked of a real node's ledger")
    func questions() throws {
        let site = try LedgerSite()
        let node = try site.start(site.config(site.ledger))
        let pair = try site.connect()
        try send(50_000, pair)
        #expect(try site.settles(out: 50_000))
        let port = site.entry.port
        func rows(_ arguments: [String]) throws -> [[String: Any]] {
            try (site.report(nil, arguments)["rows"] as? [[String: Any]]).unwrap("rows")
        }
        let pairs = try rows(["--by", "instance,port", "--sort", "connections", "--protocol", "tcp"])
        #expect(pairs.count == 1 && pairs[0]["instance"] as? String == "::1", "\(pairs)")
        #expect(pairs[0]["port"] as? Int == Int(port) && pairs[0]["protocol"] as? String == "tcp", "\(pairs)")
        #expect(pairs[0]["app"] as? String == "(unknown)")
        let scans = try rows(["--by", "instance", "--sort", "destinations", "--port", "\(port)"])
        #expect(scans.count == 1 && scans[0]["destinations"] as? Int == 1, "\(scans)")
        #expect(try rows(["--by", "app", "--destination", "::1"]).count == 1)
        #expect(try rows(["--port", "25"]).isEmpty && rows(["--protocol", "udp"]).isEmpty)
        #expect(try rows(["--org", "acme"]).isEmpty && rows(["--env", "a/b/c", "--app", "a/b"]).isEmpty)
        for wrong in [
            ["--by", "instance,instance"], ["--by", "org,app,env"], ["--by", "host"], ["--protocol", "quic"],
            ["--destination", "example.com"], ["--port", "65536"], ["--sort", "name"],
        ] {
            let answer = try Binary.run(["egress", "report", "--ledger", site.ledger] + wrong)
            #expect(answer.exit == .code(2), "\(wrong): \(answer)")
        }
        withExtendedLifetime(node) {}
    }
}
