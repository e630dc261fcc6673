import Pipeline

/// Other proxies' words for balances, probes, ejection, retries and lookups of names.
extension BackendFilter {
    static let foreignWords: [String: ForeignWord] = .foreignWords([
        "roundrobin|static-rr|rr": balance("round_robin"), "leastconn|least_conn": balance("least_connections"),
        "least_request": ForeignWord("random_of_two", "least_connections", advice: balances),
        "random": balance("random_of_two"),
        // Of a line of its own it is an address to connect from.
        "source": ForeignWord("consistent_hash", "source", advice: from),
        "ip_hash|hash|maglev|ring_hash|hash-type|stick": balance("consistent_hash"),
        // Probes.
        "check|health_check": ForeignWord("health", "probe", advice: probes),
        "track": ForeignWord("health", advice: probes),
        "default-server": ForeignWord("health", "backend", advice: probes),
        "no-check": ForeignWord("health off"), "inter|jitter": ForeignWord("interval"),
        "spread-checks|max-spread-checks": ForeignWord(advice: "write `interval 2s jitter 10%` in a `health` block"),
        "fall|fails": ForeignWord("fall"), "rise|passes": ForeignWord("rise"), "interval": ForeignWord("interval"),
        "addr": ForeignWord("address", advice: "`address` is a line of a `health` block"), "port": ForeignWord("port"),
        "timeout check|health_check_timeout": ForeignWord("timeout", advice: "`timeout` is a line of a `health` block"),
        "check-ssl|option ssl-hello-chk": ForeignWord("probe tls"), "check-sni": ForeignWord("probe tls sni NAME"),
        "no-check-ssl": ForeignWord(advice: "leave it out: without `probe tls` no probe speaks TLS"),
        "option tcp-check": ForeignWord("probe tcp"), "option smtpchk": ForeignWord("probe smtp"),
        "tcp-check": ForeignWord("probe send TEXT expect TEXT"), "match": ForeignWord("probe send TEXT expect TEXT"),
        "option httpchk|http-check": ForeignWord("probe http PATH host HOST expect CODES"),
        "option mysql-check": ForeignWord("probe mysql"), "option pgsql-check": ForeignWord("probe postgresql"),
        "option redis-check": ForeignWord("probe redis"),
        "agent-check|agent-addr|agent-port|agent-inter|agent-send": ForeignWord("probe agent"),
        "no-agent-check": ForeignWord(advice: "leave it out: without `probe agent` no agent is asked"),
        "on-marked-down": ForeignWord("on_down end"), "on-marked-up": ForeignWord("on_up end_backup"),
        "option log-health-checks": ForeignWord(advice: "always: `backend_down` and `backend_up` are events"),
        "tune.max-checks-per-thread": ForeignWord(advice: "write `rate 100/s` in a `health` block"),
        // Ejection and retries.
        "max_fails": ForeignWord("eject", "fall"), "fail_timeout|observe|error-limit|on-error": ForeignWord("eject"),
        "max_ejection_percent": ForeignWord("panic"), "slowstart|slow_start": ForeignWord("slow_start"),
        "retries|proxy_next_upstream_tries": ForeignWord("retries"),
        "proxy_next_upstream_timeout": ForeignWord("retry_within"),
        "option redispatch|retry-on|proxy_next_upstream": ForeignWord(
            advice: "always: the stage `backend` tries another one after a connect that failed; `retries N` bounds it"),
        "option abortonclose": ForeignWord(
            advice: "always: a client that is gone ends its connect or its wait (`backend.abandoned`)"),
        "usesrc": ForeignWord(advice: asClient), "proxy_bind": ForeignWord("source", advice: from),
        // Names.
        "resolvers": ForeignWord("resolve"),
        "resolver": ForeignWord(
            "resolve", advice: "name servers are `nameservers` in `resolve { ... }`; a name is `backend NAME:PORT`"),
        "nameserver": ForeignWord("nameservers"),
        "resolve_retries|timeout retry": ForeignWord("retries", advice: lookups),
        "resolver_timeout|timeout resolve": ForeignWord("timeout", advice: lookups),
        "parse-resolv-conf": ForeignWord(advice: "without `nameservers` in `resolve { ... }` it is read"),
        "hold": ForeignWord("hold"), "resolve-net": ForeignWord(advice: "write `allow SET` in `resolve { ... }`"),
        "server-template": ForeignWord("backend", advice: names), "resolve|service": ForeignWord(advice: names),
        // Silence.
        "timeout|idle_timeout|proxy_timeout|idle": ForeignWord(advice: idle),
    ])

    private static func balance(_ word: String) -> ForeignWord {
        ForeignWord(
            word, advice: "write `balance \(word)` in a `route` or `backends` block, or `backend \(word)` in a pipeline"
        )
    }
    private static let balances = "write `balance random_of_two` in a `route` or `backends` block"
    private static let lookups = "`resolve { ... }` has `timeout` and `retries` of lookups"
    private static let names = "write `backend NAME:PORT`, or `backend srv NAME`: names are looked up again by TTL"
    private static let probes =
        "probes are set in a `health` block, which the stage `backend` names: `backend round_robin, health NAME`"
    private static let from =
        "write `source ADDRESS` in a route or a `backends` block, or `backend round_robin, source ADDRESS`"
    private static let asClient = "for connections from the client's own address write `source client`, and no address"
    private static let idle = "for connections without a byte write `backend round_robin, idle_timeout 5m`"
}
