import Foundation
import TestSupport
import Testing

/// Flows of a real node, as `pipelined egress report` tells of them (R21).
@Suite("The ledger of a running node")
struct EgressLedgerTests {
    private struct Site {
        let node: Node
        let ledger: String
        let client: Socket
        let backend: Socket

        init() throws {
            let folder = try TemporaryFolder()
            ledger = folder.path + "/ledger.db"
            let server = try ManualServer()
            let entry = Place("::1", try FreePort.take())
            let route = RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [server.place])
            let config = ConfigText(
                settings: ["ledger \(ledger) minutes 2h"], rawListeners: [entry], routes: [route])
            node = try Node(
                config.description.replacing("    account\n", with: "    account every 1s\n"), folder: folder)
            client = try Socket.connect(to: entry)
            backend = try server.accept()
        }

        func total(_ arguments: [String] = []) throws -> (out: Int, into: Int, connections: Int) {
            let answer = try Binary.run(["egress", "report", "--ledger", ledger, "--from", "1h", "--json"] + arguments)
            if LedgerSite.isNotReady(answer) { return (-1, -1, -1) }
            guard answer.exit == .code(0),
                let json = try JSONSerialization.jsonObject(with: Data(answer.out.utf8)) as? [String: Any],
                let total = json["total"] as? [String: Any]
            else { throw Failure("egress report: \(answer)") }
            let number = { (name: String) in total[name] as? Int ?? -1 }
            return (number("bytes_out"), number("bytes_in"), number("connections"))
        }

        /// Asks until the ledger has what it should, or the deadline passes.
        func settles(at out: Int, _ into: Int, _ deadline: Deadline = Deadline()) throws -> Bool {
            try awaitValue("\(out) and \(into) bytes in the ledger", deadline) {
                let now = try total()
                if now.out > out || now.into > into { return false }
                return now == (out, into, 1) ? true : nil
            }
        }
    }

    @Test("R21: a connection that lives is in the ledger, grows, and its end adds only the rest")
    func living() throws {
        let site = try Site()
        let block = [UInt8](repeating: 7, count: 100_000)
        try site.client.send(block)
        _ = try site.backend.receive(exactly: block.count)
        try site.backend.send("answer")
        _ = try site.client.receive(exactly: 6)
        #expect(try site.settles(at: 100_000, 6))
        try site.client.send(block)
        _ = try site.backend.receive(exactly: block.count)
        #expect(try site.settles(at: 200_000, 6))
        try site.client.send("end")
        site.client.finish()
        _ = try site.backend.receiveToEnd()
        site.backend.finish()
        _ = try site.client.receiveToEnd()
        // The node's own end writes what is left.
        site.node.child.signal(SIGTERM)
        #expect(try site.node.child.waitForExit() == .code(0))
        #expect(try site.total() == (200_003, 6, 1))
        let table = try Binary.run(["egress", "report", "--config", site.node.config, "--by", "instance"])
        #expect(table.exit == .code(0))
        #expect(table.out.contains("::1") && table.out.contains("195.3 KiB"))
    }

    @Test("R21: a SIGKILL of the node costs what is not older than a few seconds, and the ledger opens")
    func killed() throws {
        let site = try Site()
        try site.client.send([UInt8](repeating: 7, count: 50_000))
        _ = try site.backend.receive(exactly: 50_000)
        #expect(try site.settles(at: 50_000, 0))
        site.node.child.signal(SIGKILL)
        _ = try site.node.child.waitForExit()
        #expect(try site.total() == (50_000, 0, 1))
        let plot = site.node.folder.path + "/plot.svg"
        #expect(try Binary.run(["egress", "report", "--ledger", site.ledger, "--plot", plot]).exit == .code(0))
        #expect(try String(contentsOfFile: plot, encoding: .utf8).hasPrefix("<svg "))
    }

    @Test(
        "IPFIX of a run has the same totals as its ledger, as nfdump reads them",
        .enabled(if: Child.find("nfcapd") != nil && Child.find("nfdump") != nil, "nfdump is missing: run make deps"))
    func sameAsExported() throws {
        let collector = try NFCollector()
        let site = try LedgerSite()
        let export = "export ipfix udp 127.0.0.1:\(collector.port)"
        let node = try site.start(site.config(site.ledger, exports: [export]))
        let long = try site.connect()
        for round in 1...40 {
            let (client, backend) = try site.connect()
            try client.send([UInt8](repeating: 7, count: round * 1000))
            _ = try backend.receive(exactly: round * 1000)
            try backend.send([UInt8](repeating: 8, count: round * 77))
            _ = try client.receive(exactly: round * 77)
            client.finish()
            backend.finish()
            _ = try client.receiveToEnd()
            try long.client.send([UInt8](repeating: 7, count: 500))
            _ = try long.backend.receive(exactly: 500)
        }
        let (out, into) = (820 * 1000 + 40 * 500, 820 * 77)
        #expect(try site.settles(out: out))
        // What grew after a record was sent is in another.
        try long.client.send([UInt8](repeating: 7, count: 12_345))
        _ = try long.backend.receive(exactly: 12_345)
        long.client.finish()
        long.backend.finish()
        _ = try long.client.receiveToEnd()
        node.child.signal(SIGTERM)
        #expect(try node.child.waitForExit() == .code(0))
        try collector.finish()
        let ledger = try site.total()
        #expect(ledger == LedgerSite.Total(out: out + 12_345, into: into, connections: 41))
        let rows = try collector.rows(["%da", "%dp", "%ibyt", "%obyt"])
        let sum = { (column: Int) in rows.reduce(0) { $0 + (Int($1[column]) ?? 0) } }
        #expect(sum(2) == ledger.out && sum(3) == ledger.into, "\(rows)")
        #expect(rows.count > 1)
        #expect(collector.child.output.contains("Sequence Errors: 0, Bad Packets: 0"), "\(collector.child.output)")
        // By where it went, as well.
        let reported = try (site.report(nil, ["--by", "destination"])["rows"] as? [[String: Any]]).unwrap("rows")
        for row in reported {
            let name = row["destination"] as? String
            let exported = rows.filter { $0[0] == name }.reduce(0) { $0 + (Int($1[2]) ?? 0) }
            #expect(row["bytes_out"] as? Int == exported, "\(row)")
        }
        #expect(!reported.isEmpty)
    }

    @Test("a ledger that a node has begun to make and not finished is not ready yet: said so, with exit code 1")
    func beingMade() throws {
        let folder = try TemporaryFolder()
        let begun = try folder.write("ledger.db", "")
        let answer = try Binary.run(["egress", "report", "--ledger", begun])
        #expect(answer.exit == .code(1) && answer.out == "")
        #expect(answer.error.contains("\(begun) is not ready yet"), "\(answer.error)")
    }

    @Test("a pipe or a device is no ledger: said at once, with exit code 1")
    func irregular() throws {
        let folder = try TemporaryFolder()
        let pipe = folder.path + "/pipe"
        #expect(mkfifo(pipe, 0o600) == 0)
        for path in [pipe, "/dev/zero"] {
            let answer = try Binary.run(["egress", "report", "--ledger", path])
            #expect(answer.exit == .code(1) && answer.out == "")
            #expect(
                answer.error.contains("\(path) is not a ledger of pipelined: it is not a regular file"),
                "\(answer.error)")
        }
    }

    @Test("a ledger that isn't there, a wrong range and wrong words are said, with their exit codes")
    func wrong() throws {
        let missing = try Binary.run(["egress", "report", "--ledger", "/nowhere/ledger.db"])
        #expect(missing.exit == .code(1))
        #expect(missing.error.contains("there is no ledger at /nowhere/ledger.db"), "\(missing.error)")
        #expect(try Binary.run(["egress", "report", "--from", "yesterday"]).exit == .code(2))
        #expect(try Binary.run(["egress", "report", "--from", "1h", "--to", "2h"]).exit == .code(2))
        #expect(try Binary.run(["egress", "report", "--json", "--csv"]).exit == .code(2))
    }
}
