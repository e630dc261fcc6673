import Testing

/// Sockets to the outside that are used again: whose they are.
@Suite("Egress: sockets that are used again", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct EgressReuseTests {
    @Test("S24: a server that knows one instance's sequence numbers can't tell another's, nor those to another server")
    func sequenceNumbers() throws {
        let lab = try EgressLab()
        let servers = try lab.inside(lab.server) {
            [try ManualServer("2001:db8:9::2", keepsSyns: true), try ManualServer("2001:db8:9::2", keepsSyns: true)]
        }
        let node = try lab.startNode(setting: "spare_sockets 128 per worker")
        var seen: [(who: String, syn: Syn)] = []
        for number in 0..<48 {
            let host = number % 3 == 1 ? lab.beta : lab.alpha
            let server = servers[number % 3 == 2 ? 1 : 0]
            let client = try lab.inside(host) { try Socket.connect(to: server.place) }
            try client.send("request")
            let backend = try server.accept()
            let syn = try backend.syn
            _ = try backend.receive(exactly: 7)
            client.reset()
            _ = try backend.receiveToEnd()
            seen.append(("\(number % 3)", syn))
        }
        var again = 0
        for later in seen.indices {
            for earlier in max(0, later - 13)..<later where seen[earlier].syn.foretells(seen[later].syn) {
                #expect(seen[earlier].who == seen[later].who, "\(earlier) foretells \(later)")
                again += 1
            }
        }
        #expect(again > 12, "sockets are used again")
        withExtendedLifetime(node) {}
    }
}
