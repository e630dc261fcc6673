import Pipeline

/// Other proxies' words for balances, probes and ejection.
extension BackendFilter {
    static let foreignWords: [String: ForeignWord] = [
        "roundrobin": ForeignWord("round_robin"), "static-rr": ForeignWord("round_robin"),
        "rr": ForeignWord("round_robin"),
        "leastconn": ForeignWord("least_connections"), "least_conn": ForeignWord("least_connections"),
        "least_request": ForeignWord("least_connections"), "random": ForeignWord("random_of_two"),
        "source": ForeignWord("consistent_hash"), "ip_hash": ForeignWord("consistent_hash"),
        "hash": ForeignWord("consistent_hash"), "maglev": ForeignWord("consistent_hash"),
        "ring_hash": ForeignWord("consistent_hash"),
        "inter": ForeignWord("interval"), "max_fails": ForeignWord("eject", "fall"),
        "fail_timeout": ForeignWord("eject"), "max_ejection_percent": ForeignWord("panic"),
        "slowstart": ForeignWord("slow_start"),
        "resolvers": ForeignWord("resolve"), "resolver": ForeignWord("resolve"),
        "nameserver": ForeignWord("nameservers"), "resolve_retries": ForeignWord("retries"),
        "resolver_timeout": ForeignWord("timeout"),
        "server-template": ForeignWord("backend", advice: "write `backend NAME:PORT`, or `backend srv NAME`"),
        "check": ForeignWord("health", "probe", advice: probes),
        "health_check": ForeignWord("health", "probe", advice: probes),
        "usesrc": ForeignWord(advice: asClient), "transparent": ForeignWord(advice: asClient),
        "proxy_bind": ForeignWord("source", advice: from),
        "timeout": ForeignWord(advice: idle), "idle_timeout": ForeignWord(advice: idle),
        "proxy_timeout": ForeignWord(advice: idle), "idle": ForeignWord(advice: idle),
    ]

    private static let probes =
        "probes are set in a `health` block, which the stage `backend` names: `backend round_robin, health NAME`"
    private static let from =
        "write `source ADDRESS` in a route or a `backends` block, or `backend round_robin, source ADDRESS`"
    private static let asClient = "for connections from the client's own address write `source client`, and no address"
    private static let idle = "for connections without a byte write `backend round_robin, idle_timeout 5m`"
}
