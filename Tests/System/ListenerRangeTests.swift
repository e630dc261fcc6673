import Foundation
import Glibc
import TestSupport
import Testing

/// Ports by the hundred in one line, in a network of the test's own.
@Suite("Port ranges", .enabled(if: Namespace.obstacle == nil, "no network namespace here"))
struct ListenerRangeTests {
    private let namespace: Namespace
    private let server: Server
    private let folder: TemporaryFolder

    private var admin: String { "\(folder.path)/admin.sock" }

    init() throws {
        namespace = try Namespace()
        server = try Server.echo(namespace.near)
        folder = try TemporaryFolder()
    }

    private func config(_ ports: String, workers: Int = 1) -> String {
        """
        node test {
            workers      \(workers)
            connections  100 per worker
            admin        unix:\(admin)
        }
        pipeline raw {
            backend  round_robin
        }
        listen [::]:\(ports) tcp_raw via raw
        route {
            id       rt
            owner    a/b/c
            listen   \(ports)
            backend  \(server.place)
        }

        """
    }

    private func isServed(_ port: UInt16) -> Bool {
        guard let client = try? Socket.connect(to: Place(namespace.host, port)), (try? client.send("hi")) != nil else {
            return false
        }
        return (try? client.receive(exactly: 2)) == Array("hi".utf8)
    }

    @Test("the first and the last port of a range are served, those beyond are not; HAProxy's range is the same")
    func range() throws {
        do {
            let node = try Node(config("30000-30100", workers: 2), folder: folder, in: namespace.name)
            #expect([30000, 30050, 30100].allSatisfy(isServed))
            #expect(![29999, 30101].contains(where: isServed))
            // One line for all of them.
            #expect(node.child.lines.contains { $0.isEvent("ready") && $0.text.contains("\"[::]:30000-30100\"") })
            let text = try Binary.run(["status", "--admin", admin]).out
            #expect(text.contains("[::]:30000-30100"), "\(text)")
            // By what port they came is in the log.
            let line = try node.log("port 30100") { $0.destination?.hasSuffix(":30100") == true }
            #expect(line.route == "rt", "\(line)")
            node.child.signal(SIGKILL)
            _ = try node.child.waitForExit()
        }
        let peer = try HAProxy(
            """
            defaults
                mode tcp
                timeout connect 1s
                timeout client 10s
                timeout server 10s
            listen raw
                bind :::30000-30100
                server s \(server.place)
            """, in: namespace.name, ready: Place(namespace.host, 30000))
        #expect([30000, 30050, 30100].allSatisfy(isServed))
        #expect(![29999, 30101].contains(where: isServed))
        _ = peer
    }

    @Test("a reload moves a range; the ports in both keep their sockets, and connections go on")
    func reload() throws {
        let node = try Node(config("30000-30100", workers: 2), folder: folder, in: namespace.name)
        let (kept, gone) = (
            try Socket.connect(to: Place(namespace.host, 30100)), try Socket.connect(to: Place(namespace.host, 30000))
        )
        for client in [kept, gone] {
            try client.send("1")
            #expect(try client.receive(exactly: 1) == Array("1".utf8))
        }
        let line = try node.reload(config("30050-30150", workers: 2))
        #expect(line.isEvent("reloaded"), "\(line.text)")
        try node.settle()
        #expect([30050, 30100, 30150].allSatisfy(isServed))
        #expect(!isServed(30000) && !isServed(30049) && !isServed(30151))
        for client in [kept, gone] {
            try client.send("2")
            #expect(try client.receive(exactly: 1) == Array("2".utf8))
        }
        // What opened and what closed is one line each.
        for event in ["listener_opened", "listeners_closed"] { try node.waitForEvent(event) }
        #expect(node.child.lines.count { $0.isEvent("listener_opened") } == 1)
        #expect(node.child.lines.contains { $0.isEvent("listener_opened") && $0.text.contains("[::]:30101-30150") })
        #expect(node.child.lines.contains { $0.isEvent("listeners_closed") && $0.text.contains("[::]:30000-30049") })
    }

    @Test("a port that is taken in the middle of a range refuses the start, and is named")
    func taken() throws {
        let holder = try namespace.concurrently { try Socket.listen(at: Place("::", 30050)) }.value()
        let file = try folder.write("node.pipeline", config("30000-30100"))
        let child = try Child("ip", ["netns", "exec", namespace.name, Binary.path, "run", file])
        #expect(try child.waitForExit() == .code(1))
        #expect(child.output.contains("can't listen on [::]:30050: the port is taken"), "\(child.output)")
        _ = holder
    }

    @Test(
        "a thousand ports: a descriptor for each at each worker, and for each of those at control",
        .timeLimit(.minutes(5)))
    func thousand() throws {
        let few = try Node(config("30000-30000", workers: 2), folder: TemporaryFolder(), in: namespace.name)
        try few.settle()
        let base = try few.descriptorCount
        few.child.signal(SIGTERM)
        _ = try few.child.waitForExit()
        let node = try Node(config("30000-30999", workers: 2), folder: folder, in: namespace.name)
        #expect([30000, 30500, 30999].allSatisfy(isServed))
        try node.settle()
        // 999 more ports: two of control's for each, and one of each worker's.
        #expect(try (node.descriptorCount - base - 999 * 4).magnitude < 40)
        let backends = try Admin.json(["backends"], admin)["backends"] as? [[String: Any]] ?? []
        // The same server at every port is one backend.
        #expect(backends.count == 1, "\(backends.count)")
    }

    @Test("more ports than there are descriptors for: nothing is started, and a running node keeps what it has")
    func descriptors() throws {
        let limited = { (limit: Int, file: String) in
            try Child(
                "ip",
                ["netns", "exec", namespace.name, "sh", "-c", "ulimit -n \(limit); exec \(Binary.path) run \(file)"])
        }
        let file = try folder.write("node.pipeline", config("30000-30999", workers: 2))
        let child = try limited(1000, file)
        #expect(try child.waitForExit() == .code(1))
        #expect(
            child.output.contains("the limit of 1000 open files is too low for 1000 listeners on 2 workers"),
            "\(child.output)")
        let small = try folder.write("small.pipeline", config("30000-30001", workers: 2))
        let running = try limited(1000, small)
        _ = try running.wait("ready") { lines in lines.first { $0.isEvent("ready") } }
        try config("30000-30999", workers: 2).write(toFile: small, atomically: true, encoding: .utf8)
        running.signal(SIGHUP)
        let refused = try running.wait("a refusal") { lines in lines.first { $0.isEvent("reload_refused") } }
        #expect(refused.text.contains("have 1000 ports: 2000 descriptors"), "\(refused.text)")
        #expect(isServed(30001) && !isServed(30002))
    }
}
