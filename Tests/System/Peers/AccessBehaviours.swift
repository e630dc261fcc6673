import TestSupport

/// Who may come, and how many at once.
enum AccessBehaviours {
    static let all = [allowed, denied, perSource, rate, headerIn, headerOut]

    private static let allowed = Behaviour(
        text: "allow one, deny all", origin: "stream_access.t, tcp-rules",
        nginx: { (["server \($0[0])"], ["allow 127.0.0.1", "deny all"]) },
        haproxy: { ["tcp-request connection reject if !{ src 127.0.0.1 }", "server one \($0[0])"] },
        ours: { .init(route: ["backend \($0[0])"], stages: ["address allow 127.0.0.1, deny 0.0.0.0/0"]) },
        answer: "1 -",
        ask: { "\(try $0.answers(1)[0]) \(try $0.answers(1, from: "127.0.0.2")[0])" })

    private static let denied = Behaviour(
        text: "deny a network, and no one beside it", origin: "stream_access.t, tcp-rules",
        nginx: { (["server \($0[0])"], ["deny 127.0.3.0/24"]) },
        haproxy: { ["tcp-request connection reject if { src 127.0.3.0/24 }", "server one \($0[0])"] },
        ours: { .init(route: ["backend \($0[0])"], stages: ["address deny 127.0.3.0/24"]) },
        answer: "- 1 1",
        ask: { asked in
            try ["127.0.3.255", "127.0.4.0", "127.0.2.255"].map { try asked.answers(1, from: $0)[0] }
                .joined(separator: " ")
        })

    private static let limit = """

        limit clients {
            key         client/64 v4/32
            concurrent  2
            table       1k
        }

        """

    private static let perSource = Behaviour(
        text: "two at once of a source, and the others' are their own", origin: "stream_limit_conn.t",
        nginx: { (["server \($0[0])"], ["limit_conn clients 2"]) },
        haproxy: {
            [
                "stick-table type ip size 1k expire 60s store conn_cur", "tcp-request connection track-sc0 src",
                "tcp-request connection reject if { sc0_conn_cur gt 2 }", "server one \($0[0])",
            ]
        },
        ours: { .init(route: ["backend \($0[0])"], stages: ["rate_limit clients"], more: limit) },
        answer: "1 1 - 1",
        ask: { asked in
            let held = try asked.held(3) + asked.held(1, from: "127.0.0.5")
            return held.map(\.1).joined(separator: " ")
        })

    private static let rate = Behaviour(
        text: "three new ones of a source in a while", origin: "stick_table conn_rate",
        haproxy: {
            [
                "stick-table type ip size 1k expire 60s store conn_rate(60s)",
                "tcp-request connection track-sc0 src", "tcp-request connection reject if { sc0_conn_rate gt 3 }",
                "server one \($0[0])",
            ]
        },
        ours: {
            .init(
                route: ["backend \($0[0])"], stages: ["rate_limit clients"],
                more: "\nlimit clients {\n    key    client/64 v4/32\n    rate   1/h burst 3\n    table  1k\n}\n")
        },
        answer: "1 1 1 - - 1",
        ask: { asked in
            try (asked.answers(5, from: "127.0.0.8") + asked.answers(1, from: "127.0.0.9")).joined(separator: " ")
        })

    private static let headerOut = Behaviour(
        text: "a header of version 1 says who the client is", origin: "stream_proxy_protocol.t, send-proxy",
        servers: [.repeating],
        nginx: { (["server \($0[0])"], ["proxy_protocol on"]) },
        haproxy: { ["server one \($0[0]) send-proxy"] },
        ours: {
            .init(
                route: ["backend \($0[0])", "proxy_protocol v1", "backend_expects_proxy_protocol true"],
                proxy: "proxy_v1")
        },
        answer: "PROXY TCP4 127.0.0.6 127.0.0.1",
        ask: { asked in
            let (_, answer) = try asked.connect(from: "127.0.0.6", saying: "hello")
            return answer.split(separator: " ").prefix(4).joined(separator: " ")
        })

    private static let headerIn = Behaviour(
        text: "a sender's header names who is allowed", origin: "stream_realip.t, proxy_protocol_tlv.vtc",
        haproxy: {
            [
                "tcp-request connection expect-proxy layer4 if { src 127.0.0.2 }",
                "tcp-request session reject if !{ src 203.0.113.7 }", "server one \($0[0])",
            ]
        },
        ours: {
            .init(
                route: ["backend \($0[0])"],
                stages: [
                    "anti_spoof require from 127.0.0.2/32, refuse others", "address allow 203.0.113.7, deny 0.0.0.0/0",
                ])
        },
        answer: "1 -",
        ask: { asked in
            try ["203.0.113.7", "203.0.113.8"].map {
                try asked.connect(from: "127.0.0.2", saying: "PROXY TCP4 \($0) 192.0.2.1 4000 443\r\nhello").1
            }.joined(separator: " ")
        })
}
