/// Words by which other proxies' configs call what has another name here, or is not here: an author who comes from there gets
/// the word that is meant, not the one that is spelt most alike.
enum ForeignWords {
    /// Words of ours, of which those that may stand at the place are proposed; or, where none may, what to do instead.
    private struct Meaning {
        let ours: [String]
        let advice: String?
        init(_ ours: String..., advice: String? = nil) {
            self.ours = ours
            self.advice = advice
        }
    }

    private static let meanings: [String: Meaning] = [
        // Balancing.
        "roundrobin": Meaning("round_robin"), "static-rr": Meaning("round_robin"), "rr": Meaning("round_robin"),
        "leastconn": Meaning("least_connections"), "least_conn": Meaning("least_connections"),
        "least_request": Meaning("least_connections"), "random": Meaning("random_of_two"),
        "source": Meaning("consistent_hash"), "ip_hash": Meaning("consistent_hash"), "hash": Meaning("consistent_hash"),
        "maglev": Meaning("consistent_hash"), "ring_hash": Meaning("consistent_hash"),
        // Where things stand.
        "frontend": Meaning("listen"), "bind": Meaning("listen"),
        "server": Meaning("backend", advice: backends), "upstream": Meaning("backend", "route", advice: backends),
        "cluster": Meaning("backend", "route", advice: backends),
        "backend": Meaning(advice: "a backend stands in a `route` block: `backend [fd00::10]:8443`"),
        "use_backend": Meaning("route"), "default_backend": Meaning("route"),
        "state": Meaning("routes", advice: "desired state is read by `routes file PATH`, outside of blocks"),
        "defaults": Meaning("node"), "global": Meaning("node"), "acl": Meaning("set"),
        "stick-table": Meaning("limit"), "limit_conn": Meaning("rate_limit", "limit"),
        "limit_req": Meaning("rate_limit", "limit"),
        "tcp-request": Meaning(
            advice: "rules about addresses are an `address` stage; how long first bytes may take is `sni timeout 3s`"),
        "ssl_preread": Meaning("sni"), "req.ssl_sni": Meaning("sni"), "req_ssl_sni": Meaning("sni"),
        // Protocols.
        "mode": Meaning(advice: "a `listen` line says `tls_passthrough` or `tcp_raw`"),
        "http": Meaning(
            advice: "no HTTP is read here: `tls_passthrough` goes by the TLS server name, `tcp_raw` by the port alone"),
        "https": Meaning("tls_passthrough"), "ssl": Meaning("tls_passthrough"), "tls": Meaning("tls_passthrough"),
        "tcp": Meaning("tcp_raw"), "stream": Meaning("tcp_raw"),
        "send-proxy": Meaning("proxy_protocol", advice: header),
        "send-proxy-v2": Meaning("proxy_protocol", advice: header),
        "accept-proxy": Meaning("anti_spoof", advice: "add the stage `anti_spoof require from SET, refuse others`"),
        // Numbers and times.
        "maxconn": Meaning(
            "max_connections", "max", advice: "write `connections 1000 per worker`: it holds for each worker"),
        "max_conns": Meaning("max", "max_connections"), "worker_connections": Meaning("connections"),
        "nbthread": Meaning("workers"), "worker_processes": Meaning("workers"), "concurrency": Meaning("workers"),
        "timeout": Meaning(advice: timeouts), "idle_timeout": Meaning(advice: timeouts),
        "proxy_timeout": Meaning(advice: timeouts), "idle": Meaning(advice: timeouts),
        "proxy_connect_timeout": Meaning("connect_timeout"),
        "hard-stop-after": Meaning("drain_timeout"), "grace": Meaning("drain_timeout"),
        "inter": Meaning("interval"), "max_fails": Meaning("eject", "fall"), "fail_timeout": Meaning("eject"),
        "max_ejection_percent": Meaning("panic"), "slowstart": Meaning("slow_start"),
        "check": Meaning("health", "probe", advice: probes), "health_check": Meaning("health", "probe", advice: probes),
        // What is not here.
        "backup": Meaning(
            advice:
                "there are no backup servers: a backend with `weight 0` gets connections only if all others have 0 too"),
        "down": Meaning("weight", advice: "take the backend out of the route, or give it `weight 0`"),
        "disabled": Meaning("weight", advice: "take the backend out of the route, or give it `weight 0`"),
        "option": Meaning(advice: "options are settings of their own: see docs/LANGUAGE.md"),
    ]

    private static let backends = "a backend is a line of a `route` block: `backend [fd00::10]:8443`"
    private static let timeouts =
        "`connect_timeout`, `half_close_timeout` and the stage `sni timeout 3s` are what is here; no connection ends for being "
        + "idle: `keepalive` and `user_timeout` find peers that are gone"
    private static let header = "write `proxy_protocol v2` and `backend_expects_proxy_protocol true` in the route"
    private static let probes =
        "probes are a `health` block, which the stage `backend` names: `backend round_robin, health NAME`"

    /// What to write for `name` where `candidates` may stand; nil: it is no word of theirs.
    static func help(for name: String, among candidates: some Collection<String>) -> String? {
        guard let meaning = meanings[name.lowercased()] else { return nil }
        if let word = meaning.ours.first(where: candidates.contains) { return "write `\(word)`" }
        return meaning.advice
    }
}
