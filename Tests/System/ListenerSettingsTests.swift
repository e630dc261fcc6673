import Foundation
import Glibc
import TestSupport
import Testing

/// What a `listen` line says of its sockets, in a network of the test's own, where every port is free.
@Suite(
    "Listener settings: interface, backlog, fastopen, multipath",
    .enabled(if: Namespace.obstacle == nil, "no network namespace here"))
struct ListenerSettingsTests {
    private let namespace: Namespace
    private let server: Server
    private let folder: TemporaryFolder
    private static let port: UInt16 = 8080

    private var admin: String { "\(folder.path)/admin.sock" }
    private var entry: Place { Place(namespace.host, Self.port) }
    /// The namespace's address on its second link.
    private var otherHost: String { String(namespace.host.dropLast()) + "1:2" }
    private var otherNear: String { String(namespace.host.dropLast()) + "1:1" }

    init() throws {
        namespace = try Namespace()
        server = try Server.echo(namespace.near)
        folder = try TemporaryFolder()
    }

    private func config(_ listening: String, workers: Int = 1, port: String = "8080") -> String {
        """
        node test {
            workers  \(workers)
            admin    unix:\(admin)
        }
        pipeline raw {
            backend  round_robin
        }
        pipeline closed {
            address  deny from ::/0
            backend  round_robin
        }
        pipeline tls {
            sni      timeout 10s
            backend  round_robin
        }
        \(listening)
        route {
            id       rt
            owner    a/b/c
            listen   \(port)
            backend  \(server.place)
        }
        route a.example {
            id       rt_a
            owner    a/b/c
            listen   443
            backend  \(server.place)
        }

        """
    }

    private func node(_ listening: String, workers: Int = 1) throws -> Node {
        try Node(config(listening, workers: workers), folder: folder, in: namespace.name)
    }

    /// Its ports are free then.
    private func stop(_ node: Node) throws {
        node.child.signal(SIGKILL)
        _ = try node.child.waitForExit()
    }

    private func isServed(_ place: Place) -> Bool {
        guard let client = try? Socket.connect(to: place), (try? client.send("hi")) != nil else { return false }
        return (try? client.receive(exactly: 2)) == Array("hi".utf8)
    }

    private func haproxy(_ bind: String) throws -> HAProxy {
        try HAProxy(
            """
            defaults
                mode tcp
                timeout connect 1s
                timeout client 10s
                timeout server 10s
            listen raw
                bind \(bind)
                server s \(server.place)
            """, in: namespace.name, ready: entry)
    }

    private func addLink(_ name: String) throws {
        let far = "q\(namespace.link.dropFirst())"
        try Namespace.run(
            "ip", ["link", "add", far, "type", "veth", "peer", "name", name, "netns", namespace.name])
        try Namespace.run("ip", ["-6", "addr", "add", "\(otherNear)/112", "dev", far, "nodad"])
        try Namespace.run("ip", ["link", "set", far, "up"])
        try namespace.ip("-6 addr add \(otherHost)/112 dev \(name) nodad")
        try namespace.ip("link set \(name) up")
    }

    /// What `status` has of the first listener.
    private func listener<Field>(_ field: String, as type: Field.Type = Field.self) throws -> Field? {
        let listeners = try Admin.json(["status"], admin)["listeners"] as? [[String: Any]] ?? []
        return listeners.first?[field] as? Field
    }

    // MARK: interface

    @Test("connections that come in by another interface are not this listener's; HAProxy's `interface` does the same")
    func interface() throws {
        try addLink("eth1")
        let other = Place(otherHost, Self.port)
        do {
            let node = try node("listen [::]:8080 tcp_raw via raw interface eth0")
            #expect(isServed(entry))
            #expect(throws: (any Error).self) { try Socket.connect(to: other) }
            #expect(try listener("interface") == "eth0")
            let seen = try Binary.run(["status", "--admin", admin]).out
            #expect(seen.contains("[::]:8080 eth0"), "\(seen)")
            try stop(node)
        }
        let peer = try haproxy(":::8080 interface eth0")
        #expect(isServed(entry))
        #expect(throws: (any Error).self) { try Socket.connect(to: other) }
        _ = peer
    }

    @Test("two interfaces at one port are two listeners, and a reload moves one of them without ending a connection")
    func twoInterfaces() throws {
        try addLink("eth1")
        let other = Place(otherHost, Self.port)
        let node = try node(
            "listen [::]:8080 tcp_raw via raw interface eth0\nlisten [::]:8080 tcp_raw via closed interface eth1",
            workers: 2)
        #expect(isServed(entry))
        #expect(!isServed(other))
        let old = try Socket.connect(to: entry)
        try old.send("1")
        #expect(try old.receive(exactly: 1) == Array("1".utf8))
        let line = try node.reload(config("listen [::]:8080 tcp_raw via raw interface eth1", workers: 2))
        #expect(line.isEvent("reloaded"), "\(line.text)")
        #expect(isServed(other))
        #expect(throws: (any Error).self) { try Socket.connect(to: entry) }
        try old.send("2")
        #expect(try old.receive(exactly: 1) == Array("2".utf8))
        let all = try node.reload(config("listen [::]:8080 tcp_raw via raw", workers: 2))
        #expect(all.isEvent("reloaded"), "\(all.text)")
        #expect(isServed(other) && isServed(entry))
        try old.send("3")
        #expect(try old.receive(exactly: 1) == Array("3".utf8))
    }

    @Test("R26: a listener for all interfaces beside one for eth1 is refused: the kernel takes whichever comes first")
    func mixed() throws {
        let node = try node("listen [::]:8080 tcp_raw via raw")
        let both = "listen [::]:8080 tcp_raw via raw\nlisten [::]:8080 tcp_raw via closed interface eth1"
        let line = try node.reload(config(both))
        #expect(
            line.isEvent("reload_refused") && line.text.contains("for all interfaces and one for eth1"), "\(line.text)")
        #expect(isServed(entry))
    }

    @Test("explain names both listeners of a port, and by which interface")
    func explained() throws {
        let file = try folder.write(
            "e.pipeline",
            config(
                "listen [::]:8080 tcp_raw via raw interface eth0\nlisten [::]:8080 tcp_raw via closed interface eth1"))
        let out = try Binary.run(["explain", file, "--to", "[2001:db8::1]:8080", "--from", "[2001:db8::2]:1"]).out
        #expect(out.contains("[::]:8080 tcp_raw via raw interface eth0 (line "), "\(out)")
        #expect(out.contains("or        [::]:8080 tcp_raw via closed interface eth1 (line "), "\(out)")
    }

    @Test("a `listen` interface that is not there: exit 1, and it is named")
    func absent() throws {
        let file = try folder.write("node.pipeline", config("listen [::]:8080 tcp_raw via raw interface eth7"))
        let child = try Child("ip", ["netns", "exec", namespace.name, Binary.path, "run", file])
        #expect(try child.waitForExit() == .code(1))
        #expect(child.output.contains("at eth7: this node has no interface eth7"), "\(child.output)")
    }

    @Test(
        "an interface that goes and comes back under its name is listened at anew, whoever the line belongs to",
        arguments: [
            "listen [::]:8080 tcp_raw via raw interface eth1", "expose [::] ports 8000-9000 via raw interface eth1",
        ])
    func comesBack(_ line: String) throws {
        let other = Place(otherHost, Self.port)
        let isExpose = line.hasPrefix("expose")
        if !isExpose { try addLink("eth1") }
        let node = try node("\(line)\nlisten \(Place(namespace.host, 9999)) tcp_raw via raw", workers: 2)
        if isExpose {
            try node.waitForEvent("listener_degraded")
            try addLink("eth1")
            try node.waitForEvent("listener_restored")
        }
        #expect(isServed(other))
        let before = node.child.lines.count { $0.isEvent("listener_restored") }
        for round in 1...2 {
            // Less than the retry's time: it is the kernel's word that counts.
            let soon = Deadline(seconds: 20)
            try namespace.ip("link del eth1")
            _ = try node.child.wait("listener_degraded", soon) { lines in
                lines.count { $0.isEvent("listener_degraded") && $0.text.contains("no interface eth1") }
                    == round + (isExpose ? 1 : 0) ? true : nil
            }
            // Another reload is none of its business.
            if round == 1 {
                let text = config("\(line)\nlisten \(Place(namespace.host, 9999)) tcp_raw via raw", workers: 2)
                let reloaded = try node.reload(text)
                #expect(reloaded.isEvent("reloaded"), "\(reloaded.text)")
            }
            try addLink("eth1")
            _ = try node.child.wait("listener_restored", soon) { lines in
                lines.count { $0.isEvent("listener_restored") } == before + round ? true : nil
            }
            try node.settle()
            #expect(isServed(other))
        }
    }

    // MARK: backlog

    /// What `ss` has as Send-Q of a listening socket, for each of them.
    private func backlogs() throws -> [Int] {
        let child = try Child("ip", ["netns", "exec", namespace.name, "ss", "-Hltn", "sport", "=", ":8080"])
        child.closeInput()
        _ = try child.waitForExit()
        return child.lines.compactMap { line in
            let fields = line.text.split(separator: " ")
            return fields.count > 2 ? Int(fields[2]) : nil
        }
    }

    @Test("`backlog` is what ss shows, for each worker; a reload changes it at the open sockets; HAProxy's is the same")
    func backlog() throws {
        do {
            let node = try node("listen [::]:8080 tcp_raw via raw backlog 77", workers: 2)
            #expect(try backlogs() == [77, 77])
            let client = try Socket.connect(to: entry)
            let line = try node.reload(config("listen [::]:8080 tcp_raw via raw backlog 99", workers: 2))
            #expect(line.isEvent("reloaded"), "\(line.text)")
            #expect(try backlogs() == [99, 99])
            _ = try node.reload(config("listen [::]:8080 tcp_raw via raw", workers: 2))
            #expect(try backlogs().allSatisfy { $0 > 99 })
            try client.send("x")
            #expect(try client.receive(exactly: 1) == Array("x".utf8))
            #expect(!node.child.lines.contains { $0.isEvent("listener_opened") || $0.isEvent("backlog_capped") })
            try stop(node)
        }
        let peer = try haproxy(":::8080 backlog 77")
        #expect(try backlogs() == [77])
        _ = peer
    }

    @Test("a backlog beyond the system's bound is said, with both numbers")
    func backlogCapped() throws {
        try Namespace.run("ip", ["netns", "exec", namespace.name, "sysctl", "-qw", "net.core.somaxconn=50"])
        let node = try node("listen [::]:8080 tcp_raw via raw backlog 77")
        #expect(try backlogs() == [50])
        try node.waitForEvent("backlog_capped")
        #expect(node.child.lines.contains { $0.isEvent("backlog_capped") && $0.text.contains("caps it at 50") })
    }

    // MARK: fastopen

    private func allowFastOpen() throws {
        try Namespace.run("ip", ["netns", "exec", namespace.name, "sysctl", "-qw", "net.ipv4.tcp_fastopen=3"])
    }

    /// Connections of the namespace whose SYN had data that was taken.
    private func fastOpens() throws -> Int {
        let child = try Child("ip", ["netns", "exec", namespace.name, "cat", "/proc/net/netstat"])
        child.closeInput()
        _ = try child.waitForExit()
        let rows = child.lines.map { $0.text.split(separator: " ") }.filter { $0.first == "TcpExt:" }
        guard rows.count == 2, let column = rows[0].firstIndex(of: "TCPFastOpenPassive") else { return -1 }
        return Int(rows[1][column]) ?? -1
    }

    @Test("data in a SYN is taken and answered, from the second connection on; HAProxy's `tfo` is the same")
    func fastOpen() throws {
        try allowFastOpen()
        do {
            let node = try node("listen [::]:8080 tcp_raw via raw fastopen 16", workers: 2)
            for round in 0..<3 {
                let client = try Socket.connect(to: entry, sending: Array("early".utf8))
                #expect(try client.receive(exactly: 5) == Array("early".utf8))
                // The first has no cookie yet.
                #expect(try fastOpens() == round)
            }
            _ = try node.reload(config("listen [::]:8080 tcp_raw via raw fastopen off", workers: 2))
            let client = try Socket.connect(to: entry, sending: Array("late".utf8))
            #expect(try client.receive(exactly: 4) == Array("late".utf8))
            #expect(try fastOpens() == 2)
            try stop(node)
        }
        let peer = try haproxy(":::8080 tfo")
        let before = try fastOpens()
        for _ in 0..<3 {
            let client = try Socket.connect(to: entry, sending: Array("early".utf8))
            #expect(try client.receive(exactly: 5) == Array("early".utf8))
        }
        #expect(try fastOpens() > before)
        _ = peer
    }

    @Test("a ClientHello in the SYN is routed by its name, and the backend has it once and whole")
    func fastHello() throws {
        try allowFastOpen()
        let node = try node("listen [::]:443 tls_passthrough via tls fastopen 16")
        let hello = HelloBuilder("a.example").bytes
        for round in 0..<3 {
            let client = try Socket.connect(to: Place(namespace.host, 443), sending: hello)
            client.finish()
            #expect(try client.receiveToEnd().bytes == hello)
            #expect(try fastOpens() == round)
        }
        #expect(try node.logs(3).count == 3)
    }

    @Test("where the system lets no server take it, that is said, and clients are served all the same")
    func fastOpenOff() throws {
        let node = try node("listen [::]:8080 tcp_raw via raw fastopen 16")
        try node.waitForEvent("fastopen_unavailable")
        let client = try Socket.connect(to: entry, sending: Array("hello".utf8))
        #expect(try client.receive(exactly: 5) == Array("hello".utf8))
        #expect(try fastOpens() == 0)
    }

    // MARK: multipath

    @Test(
        "clients of Multipath TCP and of TCP are served alike: bulk both ways, half-close, reset",
        .enabled(if: Socket.hasMultipath, "this kernel has no Multipath TCP"), arguments: [true, false])
    func multipath(isMultipath: Bool) throws {
        let node = try node("listen [::]:8080 tcp_raw via raw multipath on", workers: 2)
        #expect(try listener("multipath") == true)
        let client = try Socket.connect(to: entry, multipath: isMultipath)
        try client.send("hi")
        #expect(try client.receive(exactly: 2) == Array("hi".utf8))
        #expect(client.isMultipath == isMultipath)
        // Long enough to be spliced.
        let block = (0..<65_537).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 13) }
        let bytes = [UInt8]((0..<400).map { _ in block }.joined())
        let sent = Promise<Bool>()
        Thread.detachNewThread {
            sent.fulfil(
                Result {
                    try client.send(bytes, Deadline(seconds: 60))
                    client.finish()
                    return true
                })
        }
        let (back, ending) = try client.receiveToEnd(Deadline(seconds: 60))
        #expect(back == bytes)
        #expect(ending == .fin)
        #expect(try sent.value())
        let gone = try Socket.connect(to: entry, multipath: isMultipath)
        try gone.send("hi")
        #expect(try gone.receive(exactly: 2) == Array("hi".utf8))
        let place = try gone.local
        gone.reset()
        #expect(try node.log(of: place).reason.contains("reset"))
    }

    @Test(
        "a listener without `multipath` answers a client of Multipath TCP by plain TCP, and a reload changes that",
        .enabled(if: Socket.hasMultipath, "this kernel has no Multipath TCP"))
    func multipathReload() throws {
        let node = try node("listen [::]:8080 tcp_raw via raw", workers: 2)
        let old = try Socket.connect(to: entry, multipath: true)
        try old.send("1")
        #expect(try old.receive(exactly: 1) == Array("1".utf8))
        #expect(!old.isMultipath)
        let line = try node.reload(config("listen [::]:8080 tcp_raw via raw multipath on", workers: 2))
        #expect(line.isEvent("reloaded"), "\(line.text)")
        let new = try Socket.connect(to: entry, multipath: true)
        try new.send("2")
        #expect(try new.receive(exactly: 1) == Array("2".utf8))
        #expect(new.isMultipath)
        try old.send("3")
        #expect(try old.receive(exactly: 1) == Array("3".utf8))
    }

    @Test(
        "where the kernel does not offer it, that is said, and plain TCP serves",
        .enabled(if: Socket.hasMultipath, "this kernel has no Multipath TCP"))
    func noMultipath() throws {
        try Namespace.run("ip", ["netns", "exec", namespace.name, "sysctl", "-qw", "net.mptcp.enabled=0"])
        let node = try node("listen [::]:8080 tcp_raw via raw multipath on", workers: 2)
        try node.waitForEvent("multipath_unavailable")
        #expect(isServed(entry))
        #expect(try listener("multipath") == false)
    }
}
