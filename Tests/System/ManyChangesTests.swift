import Foundation
import TestSupport
import Testing

/// Changes go on whatever connections hold, and what those hold goes with them (R26).
///
/// `MANY_CHANGES=10000 MANY_HOLD=1000` says how many changes there are, and how many connections are held, spread over them.
@Suite("R26: no number of held connections refuses a change")
struct ManyChangesTests {
    private static func number(_ name: String, _ otherwise: Int) -> Int {
        ProcessInfo.processInfo.environment[name].flatMap { Int($0) } ?? otherwise
    }
    private static let changes = number("MANY_CHANGES", 270)
    private static let held = number("MANY_HOLD", changes)

    private static func config(_ entry: Place, _ backend: Place, _ change: Int) -> ConfigText {
        // Each change is a program of its own, and another route.
        ConfigText(
            workers: 1, rawListeners: [entry],
            routes: [RouteText(host: nil, id: "rt_\(change)", port: entry.port, backends: [backend])])
    }

    @Test("one idle connection a change, more than 256 of them: every change is in force, and old tables are gone")
    func spread() throws {
        // Its side is the test's own: nobody gives up on a connection that is idle for long.
        let server = try ManualServer()
        let site = try ReloadTests.Site { Self.config($0, server.place, 0) }
        var (clients, backends) = ([Socket](), [Socket]())
        let before = try memory(site)
        for change in 1...Self.changes {
            if change * Self.held / Self.changes > clients.count {
                let client = try Socket.connect(to: site.entry)
                try client.send("x")
                let backend = try server.accept()
                #expect(try backend.receive(exactly: 1) == Array("x".utf8))
                clients.append(client)
                backends.append(backend)
            }
            try site.write(Self.config(site.entry, server.place, change))
            let answer = try site.run("reload")
            try #require(answer.exit == .code(0), "change \(change): \(answer.out)\(answer.error)")
        }
        try awaitUntil("old tables go") { try status(site, "tables_in_memory") <= 2 }
        // Programs that still have a connection, and the newest.
        #expect(try status(site, "programs_in_memory") >= clients.count)
        #expect(try status(site, "programs_in_memory") <= clients.count + 2)
        let grown = try memory(site) - before
        print("\(Self.changes) changes with \(clients.count) connections held: \(grown) KiB more, programs and all")
        // A held connection goes on as if nothing had happened.
        for place in [0, clients.count / 2, clients.count - 1] {
            try backends[place].send("y")
            #expect(try clients[place].receive(exactly: 1) == Array("y".utf8))
        }
        for (place, client) in clients.enumerated() where place % 2 == 0 { client.reset() }
        try awaitUntil("every other program goes") {
            try status(site, "programs_in_memory") <= clients.count / 2 + 2
        }
        for client in clients { client.reset() }
        try awaitUntil("all old programs and routes go") {
            try status(site, "programs_in_memory") == 1 && status(site, "pinned") == 0
        }
    }

    private func status(_ site: ReloadTests.Site, _ field: String) throws -> Int {
        let answer = try site.run("status", ["--json"])
        let object = try JSONSerialization.jsonObject(with: Data(answer.out.utf8)) as? [String: Any]
        return try #require(object?[field] as? Int, "\(field) in \(answer.out)")
    }

    /// KiB of the node's memory that is no file's.
    private func memory(_ site: ReloadTests.Site) throws -> Int {
        let text = try String(contentsOfFile: "/proc/\(site.node.child.pid)/status", encoding: .utf8)
        let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("RssAnon:") })
        return try #require(Int(line.filter(\.isNumber)))
    }
}
