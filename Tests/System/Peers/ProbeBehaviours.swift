import TestSupport

/// Which servers a check takes out: what the servers say is the same for all, HAProxy's checks beside ours. nginx has checks
/// in its commercial build alone.
enum ProbeBehaviours {
    static let all = [
        probe("redis-check.vtc", ["option redis-check"], "redis", good: "+PONG\r\n", bad: "-ERR no\r\n"),
        probe(
            "http-check.vtc", ["option httpchk GET /up", "http-check expect status 200-299"],
            "http /up expect 200-299", good: "HTTP/1.0 204 No\r\n\r\n", bad: "HTTP/1.0 500 No\r\n\r\n"),
        probe(
            "tcp-check_min-recv.vtc",
            ["option tcp-check", #"tcp-check send ping\r\n"#, "tcp-check expect string pong"],
            #"send "ping\r\n" expect "pong""#, good: "pong\r\n", bad: "ping\r\n"),
        probe(
            "ssl-hello-check.vtc", ["option ssl-hello-chk"], "tls sni a.example.com", good: alert, bad: "no TLS\r\n",
            ourGood: nil),
    ]

    /// An alert of TLS 1.0: `ssl-hello-chk` takes it for an answer, and we do not.
    private static let alert = "\u{15}\u{3}\u{1}\u{0}\u{2}\u{2}\u{28}"

    /// One server that answers well and one that does not: who is left once the check has seen both.
    private static func probe(
        _ origin: String, _ options: [String], _ words: String, good: String, bad: String, ourGood: String? = "2"
    ) -> Behaviour {
        Behaviour(
            text: "who answers \(words) wrongly is out", origin: origin, servers: [.answering(bad), .answering(good)],
            haproxy: { places in
                options + [
                    "server one \(places[0]) check inter 200ms fall 1", "server two \(places[1]) check inter 200ms",
                ]
            },
            ours: { places in
                Behaviour.Ours(
                    route: ["backend \(places[0]) \(places[1])"], backend: "round_robin, health checks",
                    more: """

                        health checks {
                            probe     \(words)
                            interval  200ms
                            timeout   200ms
                            fall      1
                            panic     fail_fast
                        }

                        """)
            },
            answer: ourGood ?? "-", haproxyAnswers: ourGood == nil ? "2" : nil,
            ask: { asked in
                try awaitUntil("the check has taken out who answers wrongly") {
                    Set(try (0..<4).map { _ in try asked.connect(saying: "who").1 }) == [asked.answer]
                }
                return asked.answer
            })
    }
}
