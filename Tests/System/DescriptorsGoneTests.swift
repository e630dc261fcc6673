import Foundation
import Glibc
import TestSupport
import Testing

/// R27: no descriptor is left, not even the one to refuse with: a worker waits, and does not ask without end.
@Suite("No descriptor left", .serialized)
struct DescriptorsGoneTests {
    @Test("the listener is left alone for a while, it is said once, and whoever waits is served afterwards")
    func pause() throws {
        let echo = try Server.echo()
        let folder = try TemporaryFolder()
        let admin = folder.path + "/admin.sock"
        let entry = Place("::1", try FreePort.take())
        let route = RouteText(id: "rt_raw", port: entry.port, backends: [echo.place])
        let node = try Node(
            ConfigText(
                settings: ["descriptors shared", "admin unix:\(admin)"], rawListeners: [entry], routes: [route]
            ).description, folder: folder)
        let before = try NodeStatus.total("wakeups", admin)
        // Below every number that the process has but the standard streams: the reserve can't be opened again.
        let usual = try ProcessLimit.of(node.child.pid, "Max open files")
        try ProcessLimit.set("nofile", of: node.child.pid, to: 3)
        let client = try Socket.connect(to: entry)
        try node.waitForEvent("accept_paused")
        try ProcessLimit.set("nofile", of: node.child.pid, to: usual)
        try client.send("on")
        #expect(try client.receive(exactly: 2) == Array("on".utf8))
        // Ten tries a second at most, and what the connection itself takes. Asked without end, it would be thousands.
        #expect(try NodeStatus.total("wakeups", admin) - before < 300)
        #expect(try NodeStatus.total("accept_pauses", admin) >= 1)
        #expect(node.child.lines.count { $0.isEvent("accept_paused") } == 1)
    }

    @Test("an admin client without a descriptor waits, and so does the node: no loop; it is answered once there is one")
    func adminClient() throws {
        let folder = try TemporaryFolder()
        let admin = folder.path + "/admin.sock"
        let node = try Node(ConfigText(settings: ["admin unix:\(admin)"]).description, folder: folder)
        _ = try NodeStatus.total("wakeups", admin)
        let usual = try ProcessLimit.of(node.child.pid, "Max open files")
        try ProcessLimit.set("nofile", of: node.child.pid, to: 3)
        let status = try Child(Binary.path, ["status", "--admin", admin])
        // Who asks without end never rests. Five rests of such a client are more than a second.
        let (rests, before) = (try node.rests, try node.processorSeconds)
        try awaitUntil("the control thread rests") { try node.rests >= rests + 5 }
        #expect(try node.processorSeconds - before < 0.75)
        #expect(!status.hasEnded)
        try ProcessLimit.set("nofile", of: node.child.pid, to: usual)
        #expect(try status.waitForExit() == .code(0))
    }

    @Test("when the last descriptor is gone, the operator still gets an answer: one client has a place kept for it")
    func adminReserve() throws {
        let folder = try TemporaryFolder()
        let admin = folder.path + "/admin.sock"
        let node = try Node(ConfigText(settings: ["admin unix:\(admin)"]).description, folder: folder)
        _ = try NodeStatus.total("wakeups", admin)
        let usual = try ProcessLimit.of(node.child.pid, "Max open files")
        let open = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(node.child.pid)/fd").compactMap {
            Int($0)
        }
        let free = try #require((0...open.count).first { !open.contains($0) })
        try ProcessLimit.set("nofile", of: node.child.pid, to: UInt64(free))
        for _ in 0..<5 { _ = try NodeStatus.total("wakeups", admin) }
        try ProcessLimit.set("nofile", of: node.child.pid, to: usual)
        _ = try NodeStatus.total("wakeups", admin)
    }
}
