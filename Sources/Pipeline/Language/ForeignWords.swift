/// Words of other proxies' configs with another name here, or without an equivalent: their authors get the intended
/// word instead of the most similar spelling.
enum ForeignWords {
    /// Our words, of which the valid ones are suggested; or advice if none is valid.
    struct Meaning {
        let ours: [String]
        let advice: String?
        init(_ ours: String..., advice: String? = nil) {
            self.ours = ours
            self.advice = advice
        }
    }

    /// docs/FROM-HAPROXY.md or docs/FROM-NGINX.md has a row for each.
    static let meanings: [String: Meaning] = [
        // Balancing.
        "roundrobin": Meaning("round_robin"), "static-rr": Meaning("round_robin"), "rr": Meaning("round_robin"),
        "leastconn": Meaning("least_connections"), "least_conn": Meaning("least_connections"),
        "least_request": Meaning("least_connections"), "random": Meaning("random_of_two"),
        "source": Meaning("consistent_hash"), "ip_hash": Meaning("consistent_hash"), "hash": Meaning("consistent_hash"),
        "maglev": Meaning("consistent_hash"), "ring_hash": Meaning("consistent_hash"),
        // Positions.
        "frontend": Meaning("listen"), "bind": Meaning("listen"),
        "server": Meaning("backend", advice: backends),
        "upstream": Meaning("backends", "backend", advice: backends),
        "cluster": Meaning("backends", "backend", advice: backends),
        "backend": Meaning("backends", advice: backends), "use_backend": Meaning("route", "backends"),
        "default_backend": Meaning("route"),
        "state": Meaning("routes", advice: "desired state is read by `routes file PATH`, outside of blocks"),
        "defaults": Meaning("node"), "global": Meaning("node"), "acl": Meaning("set"),
        "stick-table": Meaning("limit"), "limit_conn": Meaning("rate_limit", "limit"),
        "limit_req": Meaning("rate_limit", "limit"),
        "tcp-request": Meaning(
            advice: "for rules about addresses add an `address` stage; for a deadline of the first bytes write `sni "
                + "timeout 3s`"),
        "ssl_preread": Meaning("sni"), "req.ssl_sni": Meaning("sni"), "req_ssl_sni": Meaning("sni"),
        // Protocols.
        "mode": Meaning(advice: "a `listen` line says `tls_passthrough` or `tcp_raw`"),
        "http": Meaning(
            advice: "the relay reads no HTTP: `tls_passthrough` routes by TLS server name, `tcp_raw` by port alone"),
        "https": Meaning("tls_passthrough"), "ssl": Meaning("tls_passthrough"), "tls": Meaning("tls_passthrough"),
        "tcp": Meaning("tcp_raw"), "stream": Meaning("tcp_raw"),
        "send-proxy": Meaning("proxy_protocol", advice: header),
        "send-proxy-v2": Meaning("proxy_protocol", advice: header),
        "accept-proxy": Meaning("anti_spoof", advice: "add the stage `anti_spoof require from SET, refuse others`"),
        "tfo": Meaning("fastopen", advice: "`fastopen NUMBER` follows the pipeline of a `listen` line"),
        // Numbers and times.
        "maxconn": Meaning(
            "max_connections", "max", advice: "write `connections 1000 per worker`: the limit applies to each worker"),
        "max_conns": Meaning("max", "max_connections"), "worker_connections": Meaning("connections"),
        "nbthread": Meaning("workers"), "worker_processes": Meaning("workers"), "concurrency": Meaning("workers"),
        "timeout": Meaning(advice: timeouts), "idle_timeout": Meaning(advice: timeouts),
        "proxy_timeout": Meaning(advice: timeouts), "idle": Meaning(advice: timeouts),
        "proxy_connect_timeout": Meaning("connect_timeout"),
        "hard-stop-after": Meaning("drain_timeout"), "grace": Meaning("drain_timeout"),
        "inter": Meaning("interval"), "max_fails": Meaning("eject", "fall"), "fail_timeout": Meaning("eject"),
        "max_ejection_percent": Meaning("panic"), "slowstart": Meaning("slow_start"),
        "check": Meaning("health", "probe", advice: probes), "health_check": Meaning("health", "probe", advice: probes),
        // Missing features.
        "backup": Meaning(
            "backup", advice: "`backup` follows the address of a backend in a `route` or `backends` block"),
        "down": Meaning("weight", advice: "take the backend out of the route, or give it `weight 0`"),
        "disabled": Meaning("weight", advice: "take the backend out of the route, or give it `weight 0`"),
        "option": Meaning(advice: "each option is a separate setting: see docs/LANGUAGE.md"),
    ]

    private static let backends = "a backend is a line of a `route` or `backends` block: `backend [fd00::10]:8443`"
    private static let timeouts =
        "use `connect_timeout` or `half_close_timeout` in `node`, the stage `sni timeout 3s`, or "
        + "`backend round_robin, idle_timeout 5m`; `keepalive` and `user_timeout` detect dead peers"
    private static let header = "write `proxy_protocol v2` and `backend_expects_proxy_protocol true` in the route"
    private static let probes =
        "probes are set in a `health` block, which the stage `backend` names: `backend round_robin, health NAME`"

    /// The suggestion for `name` among `candidates`; nil: not a known foreign word.
    static func help(for name: String, among candidates: some Collection<String>) -> String? {
        guard let meaning = meanings[name.lowercased()] else { return nil }
        if let word = meaning.ours.first(where: candidates.contains) { return "write `\(word)`" }
        return meaning.advice
    }
}
