import Foundation
import Testing

/// What lies between a node and the servers shows to the relay as it would to the instances.
@Suite("The path behind an egress node", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct EgressPathTests {
    @Test(
        "path MTU: uploads pass a hop of smaller packets, in both families, both modes, from the host and from the instance",
        arguments: ["transparent", "redirect"], ["original_destination", "original_destination from instance"])
    func smallerHop(_ mode: String, _ backend: String) throws {
        let lab = try EgressLab()
        try lab.insertHop(mtu: 1300)
        let servers = try lab.inside(lab.server) {
            try ["2001:db8:9::2", "198.51.100.2"].map { host in
                try Server(host, port: 8091) { socket in
                    var count = 0
                    while case .bytes(let chunk) = try socket.receive() { count += chunk.count }
                    try socket.send("\(count)")
                    socket.finish()
                }
            }
        }
        let node = try lab.startNode(mode: mode, backend: backend)
        for server in servers {
            let place = server.place
            let answer = try lab.inside(lab.alpha) {
                let client = try Socket.connect(to: place)
                try client.send(pattern(5_000_000))
                client.finish()
                return try client.receiveToEnd()
            }
            #expect(String(decoding: answer.bytes, as: UTF8.self) == "5000000", "\(place): \(answer.ending)")
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
        try lab.run(in: lab.server, ["nft", "add rule inet dark in tcp dport 8092 drop"])
        let node = try lab.startNode(
            backend: "original_destination\(clause)", setting: "connect_timeout 100ms")
        let place = Place("2001:db8:9::2", 8092)
        let isShort = !clause.isEmpty
        let ending = try lab.inside(lab.alpha) {
            let client = try Socket.connect(to: place)
            return try? client.receiveToEnd(Deadline(seconds: isShort ? 60 : 3)).ending
        }
        if isShort {
            #expect(ending == .reset)
            let line = try node.log("the timeout") { $0.destination == place.description }
            #expect(line.reason == "backend.timeout upstream" && line.durationMilliseconds >= 550, "\(line)")
        } else {
            #expect(ending == nil, "60 s, where nothing is said")
        }
    }
}
