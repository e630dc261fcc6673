import Foundation
import TestSupport
import Testing

/// A backend that is this node: nobody is relayed to the listener that he came by, nor to himself.
@Suite("Backends that are this node", .enabled(if: Namespace.obstacle == nil, "no network namespace here"))
struct LoopTests {
    @Test(
        "R27: a route to the node's own listener is refused when it is connected to, and takes no slot but the client's"
    )
    func ownListener() throws {
        let namespace = try Namespace()
        let port = try FreePort.take()
        let folder = try TemporaryFolder()
        let admin = "\(folder.path)/admin.sock"
        let config = ConfigText(
            settings: ["admin unix:\(admin)"], rawListeners: [Place("::", port)],
            routes: [
                RouteText(host: nil, id: "rt_raw", port: port, backends: [Place(namespace.host, port)])
            ])
        let node = try Node(config.description, folder: folder, in: namespace.name)
        let client = try Socket.connect(to: Place(namespace.host, port))
        let place = try client.local
        #expect(try client.receiveToEnd().ending == .reset)
        #expect(try node.log(of: place).reason == "backend.loop node")
        let workers = try (Admin.json(["status"], admin)["workers"] as? [[String: Any]]).unwrap("workers")
        #expect(workers.count == 1 && workers[0]["connections_accepted"] as? Int == 1, "\(workers)")
        let told = try Admin.json(
            ["explain", "--to", Place(namespace.host, port).description] + ["--from", "[2001:db8::9]:4000"], admin)
        #expect(told["reason"] as? String == "backend.loop node", "\(told)")
    }

    @Test("R13: a dead port in the range of source ports is refused, and nobody is connected to himself")
    func selfConnect() throws {
        let namespace = try Namespace()
        // Four ports: every fourth connect would find itself.
        try Namespace.run(
            "ip",
            [
                "netns", "exec", namespace.name, "sh", "-c",
                "echo 40000 40003 > /proc/sys/net/ipv4/ip_local_port_range",
            ])
        let entry = Place(namespace.host, try FreePort.take())
        let dead = Place("::1", 40_001)
        let node = try Node(
            ConfigText(
                rawListeners: [entry], routes: [RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [dead])]
            ).description, in: namespace.name)
        for number in 0..<40 {
            let client = try Socket.connect(to: entry)
            let place = try client.local
            try? client.send("an echo?")
            // Its end may have been told to `send` already.
            #expect(try client.receiveToEnd().bytes.isEmpty, "\(number)")
            #expect(try node.log(of: place).reason == "backend.refused upstream", "\(number)")
        }
    }

    @Test("R13: the ports on both sides of such a port are used, each in its turn")
    func bothHalves() throws {
        let namespace = try Namespace()
        try Namespace.run(
            "ip",
            [
                "netns", "exec", namespace.name, "sh", "-c",
                "echo 40000 40004 > /proc/sys/net/ipv4/ip_local_port_range",
            ])
        let entry = Place(namespace.host, try FreePort.take())
        let server = try namespace.concurrently { try Server("::1", port: 40_002) { _ = try $0.receiveToEnd() } }
            .value()
        let node = try Node(
            ConfigText(
                rawListeners: [entry],
                routes: [RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [server.place])]
            ).description, in: namespace.name)
        // Four at once: two below, two above; a fifth has none.
        var clients: [Socket] = []
        for _ in 0..<4 {
            let client = try Socket.connect(to: entry)
            try client.send("x")
            clients.append(client)
        }
        let last = try Socket.connect(to: entry)
        let place = try last.local
        #expect(try last.receiveToEnd().ending == .reset)
        #expect(try node.log(of: place).reason == "limits.source_ports node")
        for client in clients { #expect(client.isQuiet) }
    }
}
