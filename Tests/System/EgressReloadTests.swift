import Foundation
import TestSupport
import Testing

/// `ledger` and `export` lines that come, go and move while the node serves.
@Suite("R26: where flows are kept and sent changes by reload")
struct EgressReloadTests {
    private func send(_ count: Int, _ pair: (client: Socket, backend: Socket)) throws {
        try pair.client.send([UInt8](repeating: 7, count: count))
        _ = try pair.backend.receive(exactly: count)
    }

    private func stop(_ node: Node) throws {
        node.child.signal(SIGTERM)
        try node.waitForEvent("draining")
        // A second one doesn't wait for the connections that are open.
        node.child.signal(SIGTERM)
        #expect(try node.child.waitForExit() == .code(0))
    }

    @Test("R26: the ledger moves: the old one is flushed and closed, and what grows from then on is in the new one")
    func moves() throws {
        let site = try LedgerSite()
        let other = site.folder.path + "/other.db"
        let node = try site.start(site.config(site.ledger))
        let pair = try site.connect()
        try send(50_000, pair)
        #expect(try site.settles(out: 50_000))
        #expect(try node.reload(site.config("\(other) minutes 2h")).isEvent("reloaded"))
        let line = try node.child.wait("the change") { $0.first { $0.isEvent("ledger_changed") } }
        #expect(line.text.contains(other) && line.text.contains("\(site.ledger) is closed"), "\(line.text)")
        // Closed: SQLite has put its log away, and the room for a full disk is given back.
        for suffix in ["-wal", "-reserve"] {
            try awaitUntil("\(suffix) is gone") { !FileManager.default.fileExists(atPath: site.ledger + suffix) }
        }
        try send(30_000, pair)
        #expect(try site.settles(other, out: 30_000))
        #expect(try site.total() == LedgerSite.Total(out: 50_000, into: 0, connections: 1))
        #expect(try site.total(other) == LedgerSite.Total(out: 30_000, into: 0, connections: 0))
        #expect(!node.child.output.contains("reload_partial"))
        try send(7, pair)
        try stop(node)
        #expect(try site.total(other).out == 30_007)
    }

    @Test("R26: a ledger that can't be opened refuses the reload, and the old one goes on")
    func refuses() throws {
        let site = try LedgerSite()
        let node = try site.start(site.config(site.ledger))
        let pair = try site.connect()
        try send(1000, pair)
        let foreign = try site.folder.write(
            "letter.txt", String(repeating: "no database, but somebody's\n", count: 100))
        let wrong = [
            ("/nowhere/at/all/ledger.db", "unable to open"), (site.folder.path, "not a regular file"),
            (foreign, "not a database"),
        ]
        for (path, reason) in wrong {
            let line = try node.reload(site.config(path))
            #expect(line.isEvent("reload_refused"))
            #expect(line.text.contains(path) && line.text.contains(reason), "\(line.text)")
        }
        try send(1000, pair)
        #expect(try site.settles(out: 2000))
        #expect(!node.child.output.contains("\"event\":\"ledger_changed\""))
        #expect(try String(contentsOfFile: foreign, encoding: .utf8).hasPrefix("no database, but somebody's"))
        try stop(node)
    }

    @Test("R26: a ledger goes, and comes back; and comes to a node that never had one")
    func comesAndGoes() throws {
        let site = try LedgerSite()
        let node = try site.start(site.config(nil).replacing("account every 1s", with: "account"))
        let first = try site.connect()
        try send(100, first)
        #expect(try node.reload(site.config(site.ledger)).isEvent("reloaded"))
        let second = try site.connect()
        try send(2000, second)
        #expect(try site.settles(out: 2000))
        #expect(try node.reload(site.config(nil)).isEvent("reloaded"))
        try awaitUntil("the ledger is closed") { !FileManager.default.fileExists(atPath: site.ledger + "-wal") }
        try send(500, second)
        #expect(try node.reload(site.config("\(site.ledger) minutes 3h")).isEvent("reloaded"))
        #expect(try node.reload(site.config("\(site.ledger) minutes 4h")).isEvent("reloaded"))
        let third = try site.connect()
        try send(4000, third)
        try stop(node)
        let total = try site.total()
        // The 500 came while there was none: they may have been on their way still.
        #expect([6000, 6500].contains(total.out) && total.connections == 2, "\(total)")
        #expect(node.child.lines.filter { $0.isEvent("ledger_changed") }.count <= 3)
    }

    @Test("R26: collectors come and go: the new one gets what comes, the old one nothing more")
    func collectors() throws {
        let site = try LedgerSite()
        let places = [Place("::1", try FreePort.take()), Place("::1", try FreePort.take())]
        let inboxes = try places.map { try UDPSocket(at: $0) }
        let lines = places.map { "export ipfix udp \($0)" }
        let node = try site.start(site.config(nil))
        let pair = try site.connect()
        for (number, inbox) in inboxes.enumerated() {
            #expect(try node.reload(site.config(nil, exports: [lines[number]])).isEvent("reloaded"))
            try send(1000, pair)
            var reader = IPFIXReader()
            var bytes: UInt64 = 0
            while bytes < 1000 {
                for record in try reader.read(inbox.receive()).records { bytes += record.number(1) ?? 0 }
            }
            // The first connection's growth from before there was a collector may be with it.
            #expect(bytes == 1000, "collector \(number)")
        }
        #expect(throws: Failure.self) { try inboxes[0].receive(Deadline(seconds: 0)) }
        try stop(node)
    }
}
