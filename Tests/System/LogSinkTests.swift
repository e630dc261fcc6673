import Foundation
import Glibc
import TestSupport
import Testing

/// A node whose standard streams go where a test says: what it says of itself can't be waited for, so the admin socket is
/// asked.
private final class SinkNode: Sendable {
    let child: Child
    let folder: TemporaryFolder
    let config: String
    let admin: String
    let entry: Place
    let server: Server

    /// - Parameter command: a shell command that ends in `exec` of `NODE`, with streams of its own; `DIR` is the folder.
    init(_ command: (_ folder: String) -> String, settings: [String] = []) throws {
        folder = try TemporaryFolder()
        admin = "\(folder.path)/admin.sock"
        server = try Server.echo()
        entry = Place("::1", try FreePort.take())
        let text = ConfigText(
            settings: settings + ["admin unix:\(admin)"], tlsListeners: [entry],
            routes: [RouteText(host: "a.example.com", id: "rt_a", port: entry.port, backends: [server.place])])
        config = try folder.write("node.pipeline", text.description)
        let words = command(folder.path).replacing("NODE", with: "'\(Binary.path)' run '\(config)'")
        child = try Child("/bin/sh", ["-c", words])
        try awaitUntil("an answer of the admin socket: \(child.output)") {
            guard !child.hasEnded else { throw Failure("it ended: \(child.output)") }
            return (try? self.status())?["status"] as? String == "serving"
        }
    }

    /// In time, whoever reads its lines or does not.
    @discardableResult func status() throws -> [String: Any] {
        let began = Deadline.now()
        let client = try UnixSocket(connect: admin)
        client.send("{\"command\":\"status\"}\n")
        let text = client.receiveToEnd()
        let took = Double(Deadline.now() - began) / 1e9
        guard took < 20 else { throw Failure("status took \(took) s") }
        return try (JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]).unwrap("object: \(text)")
    }

    func stream(_ name: String) throws -> (status: String, dropped: Int, lines: Int) {
        let streams = try (try status()["streams"] as? [[String: Any]]).unwrap("streams")
        let one = try streams.first { $0["stream"] as? String == name }.unwrap(name)
        return (one["status"] as? String ?? "", one["dropped"] as? Int ?? -1, one["lines"] as? Int ?? -1)
    }

    func connectOnce() throws {
        let client = try Socket.connect(to: entry)
        let hello = clientHello("a.example.com")
        try client.send(hello)
        guard try client.receive(exactly: hello.count) == hello else { throw Failure("not relayed") }
        client.finish()
        _ = try client.receiveToEnd()
    }

    /// Asks for a reload by the admin socket, whose event is some 3 KB if the config is this wrong.
    func reload() throws {
        let client = try UnixSocket(connect: admin)
        client.send("{\"command\":\"reload\"}\n")
        _ = client.receiveToEnd()
    }
    func breakConfig() throws {
        let wrong = (0..<20).map { "nonsense_\(String(repeating: "x", count: 60))_\($0)\n" }.joined()
        try (String(contentsOfFile: config, encoding: .utf8) + wrong)
            .write(toFile: config, atomically: true, encoding: .utf8)
    }
}

/// A FIFO that is read when the test says so; opened for both, so that the node's end never waits for us.
private final class Fifo {
    let path: String
    private var fd: Int32

    init(_ path: String) throws {
        self.path = path
        guard mkfifo(path, 0o600) == 0 else { throw Failure(call: "mkfifo") }
        fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC)
        guard fd >= 0 else { throw Failure(call: "open \(path)") }
    }
    deinit { close(fd) }

    func take() -> String {
        var room = [UInt8](repeating: 0, count: 65536)
        var all: [UInt8] = []
        while true {
            let count = read(fd, &room, room.count)
            guard count > 0 else { return String(decoding: all, as: UTF8.self) }
            all += room[..<count]
        }
    }
}

@Suite("R27: no log, pipe or disk that stands still stops a node")
struct LogSinkTests {
    @Test("a stalled stderr: reloads, status and SIGTERM go on; who reads again hears how many lines are missing")
    func stalledErrors() throws {
        let folder = try TemporaryFolder()
        let fifo = try Fifo("\(folder.path)/err")
        let node = try SinkNode { _ in "exec NODE >/dev/null 2>'\(folder.path)/err'" }
        try node.breakConfig()
        for _ in 0..<150 {
            try node.reload()
            try node.status()
        }
        #expect(try node.stream("stderr").dropped > 0)
        #expect(try (node.status()["problems"] as? [String])?.contains { $0.hasPrefix("standard error") } == true)
        try node.connectOnce()
        var text = ""
        try awaitUntil("the stream is open again") {
            text += fifo.take()
            return try node.stream("stderr").status == "open"
        }
        try node.reload()
        try awaitUntil("what is said now") {
            text += fifo.take()
            let lines = text.split(separator: "\n")
            let notice = lines.lastIndex { $0.contains("\"event\":\"lines_dropped\"") }
            return notice.map { lines[$0...].contains { $0.contains("\"event\":\"reload_refused\"") } } ?? false
        }
        for line in text.split(separator: "\n") where line.hasPrefix("{") {
            #expect((try? JSONSerialization.jsonObject(with: Data(line.utf8))) != nil, "\(line)")
        }
        node.child.signal(SIGTERM)
        #expect(try node.child.waitForExit() == .code(0))
    }

    @Test("a stalled stderr does not hold up the end, either")
    func stalledAtEnd() throws {
        let folder = try TemporaryFolder()
        let fifo = try Fifo("\(folder.path)/err")
        let node = try SinkNode { _ in "exec NODE >/dev/null 2>'\(folder.path)/err'" }
        try node.breakConfig()
        for _ in 0..<40 { try node.reload() }
        node.child.signal(SIGTERM)
        #expect(try node.child.waitForExit(Deadline(seconds: 20)) == .code(0))
        _ = fifo.take()
    }

    @Test("a stalled stdout: connections and status go on, and so does the log once it is read")
    func stalledConnections() throws {
        let folder = try TemporaryFolder()
        let fifo = try Fifo("\(folder.path)/out")
        let node = try SinkNode { _ in "exec NODE >'\(folder.path)/out'" }
        var count = 0
        try awaitUntil("lines are dropped", Deadline(seconds: 300)) {
            for _ in 0..<100 { try node.connectOnce() }
            count += 100
            return try node.stream("stdout").dropped > 0
        }
        try awaitUntil("stderr says so") { node.child.lines.contains { $0.isEvent("log_failed") } }
        var text = ""
        try awaitUntil("the stream is open again") {
            text += fifo.take()
            return try node.stream("stdout").status == "open"
        }
        try node.connectOnce()
        let (_, dropped, lines) = try node.stream("stdout")
        #expect(dropped > 0 && lines > 0)
        try awaitUntil("every line that was taken, and one about the others") {
            text += fifo.take()
            let found = text.split(separator: "\n")
            return found.contains { $0.contains("\"event\":\"lines_dropped\"") }
                && found.count { $0.contains("\"event\":\"connection\"") } + dropped == count + 1
        }
        try awaitUntil("stderr says that, too") { node.child.lines.contains { $0.isEvent("log_recovered") } }
        node.child.signal(SIGTERM)
        #expect(try node.child.waitForExit() == .code(0))
    }

    @Test("a full disk under both streams: the node goes on, and so do both logs", .enabled(if: geteuid() == 0))
    func fullDisk() throws {
        let node = try SinkNode({ folder in
            """
            exec unshare -m --propagation private sh -c 'mkdir "\(folder)/disk" && \
            mount -t tmpfs -o size=256k tmpfs "\(folder)/disk" && \
            head -c 245760 /dev/zero >"\(folder)/disk/filler" && exec NODE >"\(folder)/disk/out" 2>"\(folder)/disk/err"'
            """
        })
        // Its own mounts, seen from here.
        let disk = "/proc/\(node.child.pid)/root\(node.folder.path)/disk"
        try node.breakConfig()
        try awaitUntil("both streams fail") {
            try node.reload()
            for _ in 0..<5 { try node.connectOnce() }
            return try node.stream("stdout").status == "failing" && node.stream("stderr").status == "failing"
        }
        for _ in 0..<10 {
            try node.reload()
            try node.connectOnce()
        }
        #expect(
            try (node.status()["problems"] as? [String])?.filter { $0.contains("the disk is full") }.count == 2)
        // There is room again: what waited is written, from where it stopped.
        guard truncate("\(disk)/filler", 0) == 0 else { throw Failure(call: "truncate") }
        try awaitUntil("both streams go on") {
            try node.stream("stdout").status == "open" && node.stream("stderr").status == "open"
        }
        try node.connectOnce()
        let lines = try node.stream("stdout").lines
        try awaitUntil("every line of connections") {
            let text = try String(contentsOfFile: "\(disk)/out", encoding: .utf8)
            let all = text.split(separator: "\n")
            return try all.count == node.stream("stdout").lines && all.count >= lines
                && all.allSatisfy { try JSONSerialization.jsonObject(with: Data($0.utf8)) is [String: Any] }
        }
        #expect(try String(contentsOfFile: "\(disk)/err", encoding: .utf8).contains("\"event\":\"log_recovered\""))
        node.child.signal(SIGTERM)
        #expect(try node.child.waitForExit() == .code(0))
    }

    @Test("a log that can never be written is said, and changes nothing else")
    func devFull() throws {
        let node = try SinkNode { _ in "exec NODE >/dev/full" }
        try node.connectOnce()
        try awaitUntil("that it fails") { try node.stream("stdout").status == "failing" }
        try node.connectOnce()
        try awaitUntil("stderr says so") { node.child.lines.contains { $0.isEvent("log_failed") } }
        node.child.signal(SIGTERM)
        #expect(try node.child.waitForExit() == .code(0))
        #expect(node.child.lines.contains { $0.isEvent("stopped") && $0.text.contains("\"log_complete\":false") })
    }

    @Test("a reader that is gone for good ends its stream, counted, and the node goes on")
    func goneReader() throws {
        let folder = try TemporaryFolder()
        var fifo: Fifo? = try Fifo("\(folder.path)/out")
        let node = try SinkNode { _ in "exec NODE >'\(folder.path)/out'" }
        try node.connectOnce()
        try awaitUntil("the first line") { fifo?.take().contains("\"event\":\"connection\"") ?? false }
        fifo = nil
        try awaitUntil("the end of the stream") {
            try node.connectOnce()
            return try node.stream("stdout").status == "ended"
        }
        try node.connectOnce()
        try awaitUntil("stderr says so") { node.child.lines.contains { $0.isEvent("log_broken") } }
        node.child.signal(SIGTERM)
        #expect(try node.child.waitForExit() == .code(0))
        #expect(node.child.lines.count { $0.isEvent("log_broken") } == 1)
    }

    @Test("refusals have lines by reason and second, and counters have them all; relayed connections are logged whole")
    func refusals() throws {
        let node = try SinkNode({ _ in "exec NODE" }, settings: ["log connections refusals 20/s"])
        let garbage = Array("GET / HTTP/1.0\r\n\r\n".utf8)
        for number in 0..<600 {
            if number % 50 == 0 { try node.connectOnce() }
            let client = try Socket.connect(to: node.entry)
            try client.send(garbage)
            _ = try client.receiveToEnd()
        }
        let reason = "sni.not_tls client"
        try awaitUntil("every refusal is in a line or in a count") {
            let counts = try (node.status()["reasons"] as? [[String: Any]]).unwrap()
            let exact = counts.first { $0["reason"] as? String == reason }?["count"] as? Int
            let lines = try node.child.lines.filter { $0.stream == .out }.map {
                try JSONSerialization.jsonObject(with: Data($0.text.utf8)) as? [String: Any] ?? [:]
            }
            let single = lines.count { $0["event"] as? String == "connection" && $0["reason"] as? String == reason }
            let sums = lines.filter { $0["event"] as? String == "refusals" }
            let summed = sums.reduce(0) { $0 + ($1["count"] as? Int ?? 0) }
            let networks = sums.flatMap { $0["networks"] as? [[String: Any]] ?? [] }
            #expect(networks.allSatisfy { $0["network"] as? String == "::/64" })
            return exact == 600 && single + summed == 600 && summed > 0
                && lines.count { ($0["reason"] as? String ?? "").hasPrefix("relay.") } == 12
        }
        #expect(try node.status()["refusals_aggregated"] as? Int ?? 0 > 0)
        node.child.signal(SIGTERM)
        #expect(try node.child.waitForExit() == .code(0))
    }
}
