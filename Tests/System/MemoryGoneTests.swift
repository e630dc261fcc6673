import Foundation
import Glibc
import Testing

/// R26, R27: what a change needs may not be there. Then the change is refused, and the node goes on.
@Suite("No memory for a change", .serialized)
struct MemoryGoneTests {
    private static func addressSpace(_ pid: Int32) throws -> UInt64 {
        let status = try String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
        let line = try status.split(separator: "\n").first { $0.hasPrefix("VmSize:") }.unwrap("VmSize")
        return try UInt64(line.split(separator: " ").dropFirst().first ?? "").unwrap("number") * 1024
    }

    @Test("a reload whose flow records have no memory is refused by name; what runs goes on, and a later one is done")
    func flows() throws {
        let echo = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        let text = ConfigText(
            workers: 4, rawListeners: [entry],
            routes: [RouteText(id: "rt_raw", port: entry.port, backends: [echo.place])]
        ).description
        let node = try Node(text)
        let recording = text.replacingOccurrences(of: "    account\n", with: "    account every 5s\n")
        let client = try Socket.connect(to: entry)
        try client.send("a")
        #expect(try client.receive(exactly: 1) == Array("a".utf8))
        // Enough to read a config, and not for the flows of four workers.
        try ProcessLimit.set("as", of: node.child.pid, to: Self.addressSpace(node.child.pid) + 8 << 20)
        let refused = try node.reload(recording)
        #expect(refused.isEvent("reload_refused"), "\(refused.text)")
        #expect(refused.text.contains("no memory for `account every 5s`"), "\(refused.text)")
        try client.send("b")
        #expect(try client.receive(exactly: 1) == Array("b".utf8))
        try ProcessLimit.set("as", of: node.child.pid, to: nil)
        let done = try node.reload(recording)
        #expect(done.isEvent("reloaded"), "\(done.text)")
        try client.send("c")
        #expect(try client.receive(exactly: 1) == Array("c".utf8))
    }
}
