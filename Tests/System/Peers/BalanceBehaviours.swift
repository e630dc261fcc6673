import TestSupport

/// How connections spread over servers.
enum BalanceBehaviours {
    static let all = [weights, backup, down, leastConnections, sameClient, whoStays, full, waits]

    private static let weights = Behaviour(
        text: "weights share turns", origin: "stream_upstream.t, balance-rr.vtc",
        nginx: { (["server \($0[0]) weight=2", "server \($0[1])"], []) },
        haproxy: { ["server one \($0[0]) weight 2", "server two \($0[1]) weight 1"] },
        ours: { .init(route: ["backend \($0[0]) weight 2", "backend \($0[1])"]) },
        answer: "1:6 2:3", ask: { try $0.counts(9) })

    private static let backup = Behaviour(
        text: "a backup serves while no primary does", origin: "stream_upstream.t", servers: [.dead, .saying],
        nginx: { (["server \($0[0])", "server \($0[1]) backup"], []) },
        haproxy: { ["server one \($0[0])", "server two \($0[1]) backup"] },
        ours: { .init(route: ["backend \($0[0])", "backend \($0[1]) backup"]) },
        answer: "2:3",
        // It has to know by a check that the primary is down.
        haproxyAnswers: "-:3", ask: { try $0.counts(3) })

    private static let down = Behaviour(
        text: "a server that is told off gets none", origin: "stream_upstream.t",
        nginx: { (["server \($0[0]) down", "server \($0[1])"], []) },
        haproxy: { ["server one \($0[0]) weight 0", "server two \($0[1])"] },
        ours: { .init(route: ["backend \($0[0]) weight 0", "backend \($0[1])"]) },
        answer: "2:4", ask: { try $0.counts(4) })

    private static let leastConnections = Behaviour(
        text: "the one with fewer connections is next", origin: "stream_upstream_least_conn.t",
        nginx: { (["least_conn", "server \($0[0])", "server \($0[1])"], []) },
        haproxy: { ["balance leastconn", "server one \($0[0])", "server two \($0[1])"] },
        ours: { .init(route: ["backend \($0[0]) \($0[1])"], backend: "least_connections") },
        answer: "2 of each",
        ask: { asked in
            let four = try asked.held(4)
            return Behaviour.Asked.counted(four.map(\.1)) == "1:2 2:2" ? "2 of each" : "\(four.map(\.1))"
        })

    private static let sameClient = Behaviour(
        text: "a client's connections go to one server", origin: "stream_upstream_hash.t",
        servers: [.saying, .saying, .saying],
        nginx: { (["hash $remote_addr consistent"] + $0.map { "server \($0)" }, []) },
        haproxy: { ["balance source", "hash-type consistent"] + Self.servers($0) },
        ours: { .init(route: ["backend \(Self.list($0))"], backend: "consistent_hash") },
        answer: "one",
        ask: { asked in Set(try asked.answers(5, from: "127.0.0.7")).count == 1 ? "one" : "several" })

    private static let whoStays = Behaviour(
        text: "a server that goes moves its own clients alone", origin: "stream_upstream_hash.t",
        servers: [.saying, .saying, .saying, .dead],
        nginx: { (["hash $remote_addr consistent"] + $0.map { "server \($0) max_fails=0" }, []) },
        haproxy: { ["balance source", "hash-type consistent"] + Self.servers($0.dropLast()) },
        ours: { .init(route: ["backend \(Self.list($0.dropLast()))"], backend: "consistent_hash") },
        answer: "all three serve, and each client has one",
        ask: { asked in
            let sources = (1...40).map { "127.0.1.\($0)" }
            let first = try sources.map { try asked.answers(1, from: $0)[0] }
            let again = try sources.map { try asked.answers(1, from: $0)[0] }
            return first == again && Set(first) == ["1", "2", "3"]
                ? "all three serve, and each client has one" : "\(first) \(again)"
        })

    private static let full = Behaviour(
        text: "servers at their limits: the next is refused", origin: "stream_upstream_max_conns.t",
        nginx: { (["zone pool 64k", "server \($0[0]) max_conns=1", "server \($0[1]) max_conns=1"], []) },
        // It waits for `timeout queue` first.
        haproxy: { ["server one \($0[0]) maxconn 1", "server two \($0[1]) maxconn 1"] },
        ours: { .init(route: ["backend \($0[0]) max 1", "backend \($0[1]) max 1"]) },
        answer: "-:1 1:1 2:1",
        ask: { asked in Behaviour.Asked.counted(try asked.held(3).map(\.1)) })

    private static let waits = Behaviour(
        text: "at the limit one waits, and is served when the other has gone",
        origin: "balance/balance-rr.vtc, maxconn",
        servers: [.saying],
        haproxy: { ["timeout queue 20s", "server one \($0[0]) maxconn 1"] },
        ours: { .init(route: ["backend \($0[0]) max 1", "queue 10 for 20s"]) },
        answer: "1, then 1",
        ask: { asked in
            let (first, one) = try asked.connect()
            let second = try Socket.connect(to: asked.entry, from: Place("127.0.0.4", 0))
            first.finish()
            guard case .bytes(let bytes) = try second.receive() else { return "nobody" }
            return "\(one), then \(String(decoding: bytes, as: UTF8.self))"
        })

    private static func servers(_ places: some Sequence<Place>) -> [String] {
        places.enumerated().map { "server s\($0) \($1)" }
    }
    private static func list(_ places: some Sequence<Place>) -> String {
        places.map(\.description).joined(separator: " ")
    }
}
