import Foundation
import TestSupport
import Testing

/// What lies between a node and the servers shows to the relay as it would to the instances.
@Suite("The path behind an egress node", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct EgressPathTests {
    private static let mtus = [1280, 1281, 1300, 1372, 1400, 1420, 1450, 1480, 1492, 1499, 1500]

    /// One of each, and all MTUs for one way each time: `EGRESS_MTUS=1` tries every pair.
    private static let paths: [(mode: String, backend: String, mtu: Int)] = {
        let ways = ["transparent", "redirect"].flatMap { mode in
            ["original_destination", "original_destination from instance"].map { (mode, $0) }
        }
        let isWhole = ProcessInfo.processInfo.environment["EGRESS_MTUS"] != nil
        return mtus.enumerated().flatMap { index, mtu in
            (isWhole ? ways : [ways[index % ways.count]]).map { ($0.0, $0.1, mtu) }
        }
    }()

    @Test(
        "path MTU: 5 MB each way pass a link of smaller packets, in both families, both modes, from host and instance",
        arguments: paths)
    func narrowLink(_ mode: String, _ backend: String, _ mtu: Int) throws {
        let lab = try EgressLab()
        try lab.insertNarrowLink(mtu: mtu)
        let size = 5_000_000
        let servers = try lab.inside(lab.server) {
            try ["2001:db8:9::2", "198.51.100.2"].map { host in
                try Server(host, port: 8091) { socket in
                    let received = try socket.receiveToEnd()
                    try socket.send(received.bytes.reversed())
                    socket.finish()
                }
            }
        }
        let node = try lab.startNode(mode: mode, backend: backend)
        let sent = pattern(size)
        for server in servers {
            let place = server.place
            let answer = try lab.inside(lab.alpha) {
                let client = try Socket.connect(to: place)
                try client.send(sent)
                client.finish()
                return try client.receiveToEnd()
            }
            #expect(answer.bytes.count == size, "\(place): \(answer.ending)")
            #expect(answer.bytes == sent.reversed(), "\(place)")
        }
        withExtendedLifetime(node) {}
    }

    @Test(
        "a connect has the time that its stage gives it, and not the node's",
        arguments: ["", ", connect_timeout 600ms"])
    func connectTimeout(_ clause: String) throws {
        let lab = try EgressLab()
        // A host that drops everything.
        let chain = "add table inet dark; add chain inet dark in { type filter hook input priority 0; }"
        try lab.run(in: lab.server, ["nft", chain])
        try lab.run(in: lab.server, ["nft", "add rule inet dark in tcp dport 8092 counter drop"])
        let node = try lab.startNode(
            backend: "original_destination\(clause)", setting: "connect_timeout 100ms")
        let place = Place("2001:db8:9::2", 8092)
        let client = try lab.inside(lab.alpha) { try Socket.connect(to: place) }
        guard clause.isEmpty else {
            #expect(try client.receiveToEnd().ending == .reset)
            let line = try node.log("the timeout") { $0.destination == place.description }
            #expect(line.reason == "backend.timeout upstream" && line.durationMilliseconds >= 550, "\(line)")
            return
        }
        // 60 s, where nothing is said: the kernel asks again after one.
        try awaitUntil("the node's SYN is sent again") {
            try lab.run(in: lab.server, ["nft", "list", "table", "inet", "dark"]).contains(#/counter packets [2-9]/#)
        }
        #expect(client.isQuiet)
    }
}
