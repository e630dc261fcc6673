import TestSupport

/// What a proxy does with a server that does not answer, and how long it waits.
enum AttemptBehaviours {
    static let all = [
        refused, noRetry, triesBounded, silent, everyoneDead, halfClose, quiet, weightOfTheDead,
    ]

    private static let refused = Behaviour(
        text: "a refused connection goes on to the next", origin: "stream_upstream.t, retry-rules.vtc",
        servers: [.dead, .saying],
        nginx: { (["server \($0[0])", "server \($0[1])"], []) },
        haproxy: { ["server one \($0[0])", "server two \($0[1])"] },
        ours: { .init(route: ["backend \($0[0]) \($0[1])"]) },
        answer: "2:4", ask: { try $0.counts(4) })

    private static let noRetry = Behaviour(
        text: "no retry: the client of a dead server gets none", origin: "stream_proxy_next_upstream.t",
        servers: [.dead, .saying],
        nginx: { (["server \($0[0]) max_fails=0", "server \($0[1])"], ["proxy_next_upstream off"]) },
        haproxy: { ["retries 0", "server one \($0[0])", "server two \($0[1])"] },
        ours: { .init(route: ["backend \($0[0]) \($0[1])"], backend: "round_robin, retries off") },
        answer: "-:2 2:2", ask: { try $0.counts(4) })

    private static let triesBounded = Behaviour(
        text: "two tries: who meets two dead servers in a row gets none", origin: "stream_proxy_next_upstream_tries.t",
        servers: [.dead, .dead, .saying],
        nginx: { ($0.map { "server \($0) max_fails=0" }, ["proxy_next_upstream_tries 2"]) },
        haproxy: { ["retries 1", "server a \($0[0])", "server b \($0[1])", "server c \($0[2])"] },
        ours: { .init(route: ["backend \($0[0]) \($0[1]) \($0[2])"], backend: "round_robin, retries 1") },
        answer: "- 3", ask: { Set(try $0.answers(4)).sorted().joined(separator: " ") })

    private static let silent = Behaviour(
        text: "a server that answers no SYN: the next, after the connect timeout",
        origin: "stream_proxy_next_upstream.t",
        servers: [.silent, .saying],
        nginx: { (["server \($0[0])", "server \($0[1])"], []) },
        haproxy: { ["server one \($0[0])", "server two \($0[1])"] },
        ours: { .init(route: ["backend \($0[0]) \($0[1])"]) },
        answer: "2", ask: { try $0.answers(1)[0] })

    private static let everyoneDead = Behaviour(
        text: "all are dead: the client is told at once", origin: "stream_upstream.t", servers: [.dead, .dead],
        nginx: { (["server \($0[0])", "server \($0[1])"], []) },
        haproxy: { ["server one \($0[0])", "server two \($0[1])"] },
        ours: { .init(route: ["backend \($0[0]) \($0[1])"]) },
        answer: "-:3", ask: { try $0.counts(3) })

    private static let halfClose = Behaviour(
        text: "what a server says after the client's FIN arrives", origin: "stream_proxy_half_close.t",
        servers: [.patient],
        nginx: { (["server \($0[0])"], ["proxy_half_close on"]) },
        haproxy: { ["server one \($0[0])"] },
        ours: { .init(route: ["backend \($0[0])"]) },
        answer: "1 after 5",
        ask: { asked in
            let client = try Socket.connect(to: asked.entry)
            try client.send("hello")
            client.finish()
            return String(decoding: try client.receiveToEnd().bytes, as: UTF8.self)
        })

    private static let quiet = Behaviour(
        text: "a connection that is quiet both ways ends", origin: "stream_proxy_timeout.t, timeout client",
        nginx: { (["server \($0[0])"], ["proxy_timeout 1s"]) },
        haproxy: { ["timeout client 1s", "timeout server 1s", "server one \($0[0])"] },
        ours: { .init(route: ["backend \($0[0])"], backend: "round_robin, idle_timeout 1s") },
        answer: "1, and an end",
        ask: { asked in
            let (client, who) = try asked.connect()
            return try client.receiveToEnd().bytes.isEmpty ? "\(who), and an end" : who
        })

    private static let weightOfTheDead = Behaviour(
        text: "a dead server's share goes to the others", origin: "stream_upstream_random.t, balance-rr.vtc",
        servers: [.dead, .saying, .saying],
        nginx: { (["server \($0[0]) weight=8", "server \($0[1])", "server \($0[2])"], []) },
        haproxy: { ["server a \($0[0]) weight 8", "server b \($0[1]) weight 1", "server c \($0[2]) weight 1"] },
        ours: { .init(route: ["backend \($0[0]) weight 8", "backend \($0[1]) \($0[2])"]) },
        answer: "all served, by both",
        ask: { asked in
            let answers = try asked.answers(12)
            return Set(answers) == ["2", "3"] ? "all served, by both" : "\(answers)"
        })
}
