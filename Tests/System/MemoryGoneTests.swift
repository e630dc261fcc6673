import Foundation
import Glibc
import TestSupport
import Testing

/// R26, R27: what a change needs may not be there. Then the change is refused, and the node goes on.
@Suite("No memory for a change", .serialized)
struct MemoryGoneTests {
    private static func addressSpace(_ pid: Int32) throws -> UInt64 {
        let status = try String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
        let line = try status.split(separator: "\n").first { $0.hasPrefix("VmSize:") }.unwrap("VmSize")
        // A tab, and blanks where the number is short.
        return try UInt64(line.filter(\.isNumber)).unwrap("number") * 1024
    }

    @Test("a reload whose flow records have no memory is refused by name; what runs goes on, and a later one is done")
    func flows() throws {
        let echo = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        let text = ConfigText(
            workers: 8, rawListeners: [entry],
            routes: [RouteText(id: "rt_raw", port: entry.port, backends: [echo.place])]
        ).description
        let node = try Node(text)
        let recording = text.replacingOccurrences(of: "    account\n", with: "    account every 5s\n")
        let client = try Socket.connect(to: entry)
        try client.send("a")
        #expect(try client.receive(exactly: 1) == Array("a".utf8))
        // Enough to read a config, and not for the flows of eight workers.
        try ProcessLimit.set("as", of: node.child.pid, to: Self.addressSpace(node.child.pid) + 16 << 20)
        let refused = try node.reload(recording)
        #expect(refused.isEvent("reload_refused"), "\(refused.text)")
        #expect(refused.text.contains("not enough memory for `account every 5s`"), "\(refused.text)")
        try client.send("b")
        #expect(try client.receive(exactly: 1) == Array("b".utf8))
        try ProcessLimit.set("as", of: node.child.pid, to: nil)
        let done = try node.reload(recording)
        #expect(done.isEvent("reloaded"), "\(done.text)")
        try client.send("c")
        #expect(try client.receive(exactly: 1) == Array("c".utf8))
    }

    @Test("a state file that memory is too short for is refused before it is read, and nothing is changed")
    func state() throws {
        let folder = try TemporaryFolder()
        let echo = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        var config = ConfigText(rawListeners: [entry])
        config.more = "routes file state.json\n"
        var state = DesiredState(
            backendPort: echo.place.port, instances: [.init(id: "i_1")], routes: [.init(id: "rt_x", port: entry.port)])
        try folder.write("state.json", state.description)
        let node = try Node(config.description, folder: folder)
        let client = try Socket.connect(to: entry)
        try client.send("a")
        #expect(try client.receive(exactly: 1) == Array("a".utf8))
        state.revision += 1
        try folder.write("state.json", state.description + String(repeating: " ", count: 4 << 20))
        try ProcessLimit.set("as", of: node.child.pid, to: Self.addressSpace(node.child.pid) + 16 << 20)
        node.child.signal(SIGHUP)
        let refused = try node.child.wait("a refusal") { $0.first { $0.isEvent("reload_refused") } }
        #expect(refused.text.contains("not enough memory to read and parse its"), "\(refused.text)")
        try client.send("b")
        #expect(try client.receive(exactly: 1) == Array("b".utf8))
    }
}

/// R27: the node's own bound, before the kernel's.
@Suite("Memory that a node may use")
struct MemoryLimitTests {
    @Test("above the bound new connections are refused by name, what runs goes on, and a reload with more lets them in")
    func refused() throws {
        let folder = try TemporaryFolder()
        let admin = folder.path + "/admin.sock"
        let echo = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        func config(_ memory: String) -> String {
            ConfigText(
                settings: ["memory \(memory)", "admin unix:\(admin)"], rawListeners: [entry],
                routes: [RouteText(id: "rt_raw", port: entry.port, backends: [echo.place])]
            ).description
        }
        let node = try Node(config("100%"), folder: folder)
        let running = try Socket.connect(to: entry)
        try running.send("a")
        #expect(try running.receive(exactly: 1) == Array("a".utf8))
        // Less than any process has.
        #expect(try node.reload(config("1MiB")).isEvent("reloaded"))
        try node.waitForEvent("memory_short")
        let refused = try awaitValue("a refusal") { () -> Place? in
            let client = try Socket.connect(to: entry)
            let place = try client.local
            return try client.receiveToEnd().ending == .reset ? place : nil
        }
        #expect(try node.log(of: refused).reason == "limits.memory node")
        try running.send("b")
        #expect(try running.receive(exactly: 1) == Array("b".utf8))
        #expect(try node.reload(config("100%")).isEvent("reloaded"))
        try node.waitForEvent("memory_back")
        let late = try Socket.connect(to: entry)
        try late.send("c")
        #expect(try late.receive(exactly: 1) == Array("c".utf8))
    }

    @Test(
        "clients that hardly read take no more than there is: the node lives, and every stream comes whole once it is read",
        .enabled(if: MemoryGroup.obstacle == nil, "\(MemoryGroup.obstacle ?? "")"))
    func slowReaders() throws {
        let group = try MemoryGroup(bytes: 96 << 20)
        let source = try ManualServer()
        let entry = Place("::1", try FreePort.take())
        let node = try Node(
            ConfigText(
                rawListeners: [entry], routes: [RouteText(id: "rt_raw", port: entry.port, backends: [source.place])]
            ).description, bounded: group)
        // In blocks of 64 KiB they would be 125 MiB.
        let payload = pattern(400_000, seed: 3)
        let streams = try (0..<2000).map { _ in
            let client = try Socket.connect(to: entry, receiveBuffer: 4096)
            try client.send("a")
            return (client: client, backend: try source.accept())
        }
        var sent = [Int](repeating: 0, count: streams.count)
        for _ in 0..<8 {
            for (number, stream) in streams.enumerated() {
                sent[number] += try stream.backend.sendSome(payload[sent[number]...]).unwrap("open stream")
            }
        }
        #expect(!node.child.hasEnded)
        for (number, stream) in streams.enumerated() where number % 40 == 0 {
            let got = try stream.client.receive(exactly: sent[number])
            #expect(got == Array(payload[..<sent[number]]))
        }
    }
}
