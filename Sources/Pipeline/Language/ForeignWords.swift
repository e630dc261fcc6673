import Pipeline

/// Words of other proxies' configs with another name here, or without an equivalent: those of the language, and those of
/// its filters (``FilterDescriptor/foreignWords``).
struct ForeignWords {
    let meanings: [String: ForeignWord]
    /// The most words that are looked up together.
    private static let longest = 3

    init(_ catalog: [any Filter.Type]) {
        meanings = catalog.reduce(into: ForeignWords.own) { all, filter in
            all.merge(filter.descriptor.foreignWords) { $0.or($1) }
        }
    }

    /// What these words mean, as many of them as are known together; nil: nothing of another proxy's.
    /// - Parameter least: how many of them at least.
    func meaning(of words: [String], least: Int = 1) -> ForeignWord? {
        let words = words.prefix(ForeignWords.longest).map(ForeignWords.plain)
        for count in (least...max(least, words.count)).reversed() where count <= words.count {
            if let meaning = meanings[words.prefix(count).joined(separator: " ")] { return meaning }
        }
        return nil
    }

    /// nginx writes `weight=3;`.
    private static func plain(_ word: String) -> String {
        let name = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).first ?? ""
        return (name.hasSuffix(";") ? name.dropLast() : name).lowercased()
    }

    /// Those that are about no filter.
    private static let own: [String: ForeignWord] = .foreignWords([
        // Places.
        "frontend|bind": ForeignWord("listen"), "server": ForeignWord("backend", "listen", "route", advice: backends),
        "upstream|cluster": ForeignWord("backends", "backend", advice: backends),
        "backend": ForeignWord("backends", advice: backends), "use_backend": ForeignWord("route", "backends"),
        "proxy_pass": ForeignWord("backend", "route", advice: backends),
        "default_backend": ForeignWord(
            advice: "a name that no `route` has is refused; at a raw port write a `route` without names"),
        "server_name": ForeignWord("route", advice: "a `route HOSTNAME { ... }` has its names behind `route`"),
        "map": ForeignWord("route file PATH"),
        "state": ForeignWord("routes", advice: "desired state is read by `routes file PATH`, outside of blocks"),
        "defaults|global|events|description": ForeignWord("node"),
        "guid|label|name": ForeignWord("id", advice: "a `route` has an `id`; the node's name stands behind `node`"),
        // Protocols.
        "mode": ForeignWord(advice: "a `listen` line says `tls_passthrough` or `tcp_raw`"),
        "http": ForeignWord(
            advice: "the relay reads no HTTP: `tls_passthrough` routes by TLS server name, `tcp_raw` by port alone"),
        "https|ssl|tls": ForeignWord("tls_passthrough"), "tcp": ForeignWord("tcp_raw"),
        "stream": ForeignWord("tcp_raw", "pipeline", "node"),
        "send-proxy|send-proxy-v2": ForeignWord("proxy_protocol", advice: header),
        "proxy_protocol": ForeignWord(
            "proxy_protocol", advice: "to write a header `proxy_protocol` is a line of a `route`"),
        "check-send-proxy": ForeignWord(
            advice: "probes of routes with `proxy_protocol` begin with a header by themselves: leave it out"),
        // Listeners.
        "transparent": ForeignWord(
            "transparent",
            advice: "for connections from the client's own address write `source client`; on egress nodes "
                + "`transparent` is the kind of a `listen` line"),
        "level|gid|group": ForeignWord(advice: "who may read: `admin unix:PATH group NAME` in `node`"),
        "req.payload|payload": ForeignWord(advice: "a `route` says `when protocol ssh|postgresql|plain`"),
        "tfo": ForeignWord("fastopen", advice: "`fastopen NUMBER` follows the pipeline of a `listen` line"),
        "fastopen": ForeignWord("fastopen"), "multipath": ForeignWord("multipath on"),
        "backlog": ForeignWord("backlog"), "interface": ForeignWord("interface"),
        "transparent": ForeignWord("transparent"),
        "v6only|ipv6only": ForeignWord(
            advice: "`listen [::]:443` never takes IPv4: for both write a second `listen` line with `0.0.0.0`"),
        "cc": ForeignWord(
            "congestion", advice: "write `congestion client NAME` or `congestion upstream NAME` in `node`"),
        "shards|thread|reuseport": ForeignWord("workers"),
        // Numbers and times.
        "maxconn": ForeignWord(
            "max_connections", "max", advice: "write `connections 1000 per worker`: the limit applies to each worker"),
        "max_conns": ForeignWord("max", "max_connections"), "worker_connections": ForeignWord("connections"),
        "worker_rlimit_nofile|ulimit-n|fd-hard-limit|strict-limits|prealloc-fd": ForeignWord(
            "connections", "descriptors"),
        "nbthread|worker_processes|concurrency": ForeignWord("workers"),
        "maxpipes|tune.buffers.limit|tune.buffers.reserve|tune.pipesize|tune.memory.hot-size": ForeignWord("memory"),
        "tune.pool-high-fd-ratio|tune.pool-low-fd-ratio|tune.streams-elasticity": ForeignWord("memory"),
        "tune.fd.tables": ForeignWord("descriptors"),
        "tune.idle-pool.shared|tune.takeover-other-tg-connections": ForeignWord("idle_upstream_sockets"),
        "keepalive|keepalive_requests|keepalive_timeout": ForeignWord("idle_upstream_sockets"),
        "option clitcpka|option srvtcpka|option tcpka|clitcpka-idle|srvtcpka-idle": ForeignWord("keepalive"),
        "so_keepalive|proxy_socket_keepalive": ForeignWord("keepalive"),
        "clitcpka-cnt|clitcpka-intvl|srvtcpka-cnt|srvtcpka-intvl|tcp-ut": ForeignWord("user_timeout"),
        "option splice-auto|option splice-request|option splice-response": ForeignWord("coalesce"),
        "timeout|idle_timeout": ForeignWord(advice: timeouts),
        "proxy_timeout|idle": ForeignWord("idle_timeout", advice: timeouts),
        "timeout client|timeout server|timeout tunnel|clitimeout|srvtimeout": ForeignWord("idle_timeout", advice: idle),
        "timeout connect|contimeout|proxy_connect_timeout": ForeignWord("connect_timeout"),
        "timeout client-fin|timeout server-fin|proxy_half_close": ForeignWord("half_close_timeout"),
        "timeout queue|maxqueue|queue": ForeignWord(
            "queue", advice: "`queue 100 for 5s` is a line of a `route` or `backends` block"),
        "hard-stop-after|grace|worker_shutdown_timeout": ForeignWord("drain_timeout"),
        // Backends' lines.
        "weight": ForeignWord("weight"),
        "backup": ForeignWord(
            "backup", advice: "`backup` follows the address of a backend in a `route` or `backends` block"),
        "no-backup": ForeignWord(advice: "leave it out: without `backup` a backend is none"),
        "option allbackups": ForeignWord(advice: "always: all backends with `backup` share"),
        "first": ForeignWord(advice: "`priority N` behind the address of a backend says in which order they serve"),
        "down|disabled": ForeignWord(advice: "give the backend `weight 0`, or take it out of the route"),
        "enabled": ForeignWord(advice: "leave it out: a backend without `weight 0` serves"),
        "split_clients": ForeignWord(advice: "write `backend ADDRESS:PORT weight N`: shares of connections"),
        // Logs.
        "access_log|log-tag|log-send-hostname": ForeignWord("connection_log"), "error_log": ForeignWord("event_log"),
        "no log": ForeignWord("log off"),
        "log global": ForeignWord(
            advice: "write `connection_log` and `event_log` in `node`: where lines go, once for all"),
        "log-format|log-format-sd|error-log-format|log-steps|log_format": ForeignWord("log connections"),
        "option tcplog|option httplog|option httpslog": ForeignWord("log connections"),
        "option dontlognull": ForeignWord("log connections refusals 0/s"),
        "option dontlog-normal": ForeignWord("log except relay.closed"),
        // Commands.
        "stats": ForeignWord("admin unix:PATH", advice: "`admin unix:PATH` is a line of `node`"),
        "status|status_zone|stub_status": ForeignWord(advice: "`pipelined status --json` shows it"),
        "api": ForeignWord(advice: "`pipelined status --json` shows it; `pipelined reload` changes it"),
        "option socket-stats": ForeignWord(advice: "always: `pipelined routes` counts by route"),
        "option": ForeignWord(advice: "each option is a separate setting: see docs/LANGUAGE.md"),
    ])

    private static let backends = "a backend is a line of a `route` or `backends` block: `backend [fd00::10]:8443`"
    private static let timeouts =
        "`node` has `connect_timeout` and `half_close_timeout`; `keepalive` and `user_timeout` detect dead peers"
    private static let idle =
        "write `idle_timeout 5m` in a `route` or `backends` block, or as a clause of the stage `backend`"
    private static let header = "write `proxy_protocol v2` and `backend_expects_proxy_protocol true` in the route"
}
