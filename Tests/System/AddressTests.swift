import Foundation
import Glibc
import TestSupport
import Testing

@Suite(
    "R9: addresses that come late, go and come back",
    .enabled(if: Namespace.obstacle == nil, "no network namespace here"))
struct AddressTests {
    private let namespace: Namespace
    private let server: Server
    private let folder: TemporaryFolder
    private let port: UInt16
    private let other: Place
    /// On the link, and not there yet.
    private let address: String

    private var admin: String { "\(folder.path)/admin.sock" }
    private var entry: Place { Place(address, port) }

    init() throws {
        namespace = try Namespace()
        server = try Server.echo(namespace.near)
        folder = try TemporaryFolder()
        port = try FreePort.take()
        other = Place(namespace.host, try FreePort.take())
        address = String(namespace.host.dropLast()) + "5"
    }

    private func config(_ listening: String) -> String {
        var config = ConfigText(
            settings: ["admin unix:\(admin)"], rawListeners: [other],
            routes: [RouteText(host: nil, id: "rt", port: port, backends: [server.place])])
        config.more = listening + "\n"
        return config.description
    }

    private func isServed() -> Bool {
        guard let client = try? Socket.connect(to: entry), (try? client.send("hi")) != nil else { return false }
        return (try? client.receive(exactly: 2)) == Array("hi".utf8)
    }

    private func state() throws -> String? {
        let listeners = try Admin.json(["status"], admin)["listeners"] as? [[String: Any]] ?? []
        return listeners.first { $0["address"] as? String == entry.description }?["status"] as? String
    }

    @Test("a `listen` address that is tentative at the start is waited for, and named")
    func tentative() throws {
        // Some seconds of it, whatever the machine does meanwhile.
        try Namespace.run(
            "ip", ["netns", "exec", namespace.name, "sysctl", "-qw", "net.ipv6.conf.eth0.dad_transmits=3"])
        try namespace.ip("-6 addr add \(address)/64 dev eth0")
        let node = try Node(config("listen \(entry) tcp_raw via raw"), folder: folder, in: namespace.name)
        #expect(node.child.lines.contains { $0.isEvent("address_tentative") && $0.text.contains(address) })
        #expect(isServed())
    }

    @Test("one that is not there at all is no reason to wait: exit 1, and it is named")
    func absent() throws {
        let file = try folder.write("node.pipeline", config("listen \(entry) tcp_raw via raw"))
        let child = try Child("ip", ["netns", "exec", namespace.name, Binary.path, "run", file])
        #expect(try child.waitForExit() == .code(1))
        #expect(child.output.contains("this node does not have the address \(address)"), "\(child.output)")
    }

    @Test("an IPv6 address of an `expose` line that appears later is listened on at once, and let go of when it goes")
    func appears() throws {
        let node = try Node(config("expose [\(address)] ports \(port) via raw"), folder: folder, in: namespace.name)
        try node.waitForEvent("listener_degraded")
        for round in 1...2 {
            // Before the retry, which is every 30 s: it is the kernel's word that counts.
            let soon = Deadline(seconds: 25)
            try namespace.ip("-6 addr add \(address)/64 dev eth0")
            _ = try node.child.wait("listener_restored", soon) { lines in
                lines.count { $0.isEvent("listener_restored") } == round ? true : nil
            }
            #expect(isServed())
            #expect(try state() == "open")
            try namespace.ip("-6 addr del \(address)/64 dev eth0")
            _ = try node.child.wait("listener_degraded", soon) { lines in
                lines.count { $0.isEvent("listener_degraded") } == round + 1 ? true : nil
            }
            #expect(try state() == "degraded")
        }
    }

    @Test("a `listen` address that goes is no open listener in status; its sockets stay, and serve when it is back")
    func listenLine() throws {
        try namespace.ip("-6 addr add \(address)/64 dev eth0 nodad")
        let node = try Node(config("listen \(entry) tcp_raw via raw"), folder: folder, in: namespace.name)
        #expect(isServed())
        #expect(try state() == "open")
        try namespace.ip("-6 addr del \(address)/64 dev eth0")
        try node.waitForEvent("listener_degraded")
        #expect(try state() == "degraded")
        try namespace.ip("-6 addr add \(address)/64 dev eth0 nodad")
        try node.waitForEvent("listener_restored")
        #expect(try state() == "open")
        #expect(isServed())
    }
}
