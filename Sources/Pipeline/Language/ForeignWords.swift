import Pipeline

/// Words of other proxies' configs with another name here, or without an equivalent: those of the language, and those of
/// its filters (``FilterDescriptor/foreignWords``).
struct ForeignWords {
    let meanings: [String: ForeignWord]

    init(_ catalog: [any Filter.Type]) {
        meanings = catalog.reduce(into: ForeignWords.own) { all, filter in
            all.merge(filter.descriptor.foreignWords) { $0.or($1) }
        }
    }

    /// The suggestion for `name` among `candidates`; nil: not a known foreign word.
    func help(for name: String, among candidates: some Collection<String>) -> String? {
        guard let meaning = meanings[name.lowercased()] else { return nil }
        if let word = meaning.ours.first(where: candidates.contains) { return "write `\(word)`" }
        return meaning.advice.isEmpty ? nil : meaning.advice.joined(separator: "; ")
    }

    /// Those that are about no filter.
    private static let own: [String: ForeignWord] = [
        // Positions.
        "frontend": ForeignWord("listen"), "bind": ForeignWord("listen"),
        "server": ForeignWord("backend", advice: backends),
        "upstream": ForeignWord("backends", "backend", advice: backends),
        "cluster": ForeignWord("backends", "backend", advice: backends),
        "backend": ForeignWord("backends", advice: backends), "use_backend": ForeignWord("route", "backends"),
        "default_backend": ForeignWord(
            advice: "a name that no `route` has is refused; at a raw port write a `route` without names"),
        "state": ForeignWord("routes", advice: "desired state is read by `routes file PATH`, outside of blocks"),
        "defaults": ForeignWord("node"), "global": ForeignWord("node"),
        // Protocols.
        "mode": ForeignWord(advice: "a `listen` line says `tls_passthrough` or `tcp_raw`"),
        "http": ForeignWord(
            advice: "the relay reads no HTTP: `tls_passthrough` routes by TLS server name, `tcp_raw` by port alone"),
        "https": ForeignWord("tls_passthrough"), "ssl": ForeignWord("tls_passthrough"),
        "tls": ForeignWord("tls_passthrough"), "tcp": ForeignWord("tcp_raw"), "stream": ForeignWord("tcp_raw"),
        "send-proxy": ForeignWord("proxy_protocol", advice: header),
        "send-proxy-v2": ForeignWord("proxy_protocol", advice: header),
        "tfo": ForeignWord("fastopen", advice: "`fastopen NUMBER` follows the pipeline of a `listen` line"),
        // Numbers and times.
        "maxconn": ForeignWord(
            "max_connections", "max", advice: "write `connections 1000 per worker`: the limit applies to each worker"),
        "max_conns": ForeignWord("max", "max_connections"), "worker_connections": ForeignWord("connections"),
        "nbthread": ForeignWord("workers"), "worker_processes": ForeignWord("workers"),
        "concurrency": ForeignWord("workers"),
        "timeout": ForeignWord(advice: timeouts), "idle_timeout": ForeignWord(advice: timeouts),
        "proxy_timeout": ForeignWord("idle_timeout", advice: timeouts),
        "idle": ForeignWord("idle_timeout", advice: timeouts),
        "maxqueue": ForeignWord("queue", advice: "`queue 100 for 5s` is a line of a `route` or `backends` block"),
        "proxy_connect_timeout": ForeignWord("connect_timeout"),
        "hard-stop-after": ForeignWord("drain_timeout"), "grace": ForeignWord("drain_timeout"),
        // Logs.
        "access_log": ForeignWord("connection_log"), "error_log": ForeignWord("event_log"),
        // Missing features.
        "backup": ForeignWord(
            "backup", advice: "`backup` follows the address of a backend in a `route` or `backends` block"),
        "down": ForeignWord(advice: "give the backend `weight 0`, or take it out of the route"),
        "disabled": ForeignWord(advice: "give the backend `weight 0`, or take it out of the route"),
        "option": ForeignWord(advice: "each option is a separate setting: see docs/LANGUAGE.md"),
    ]

    private static let backends = "a backend is a line of a `route` or `backends` block: `backend [fd00::10]:8443`"
    private static let timeouts =
        "`node` has `connect_timeout` and `half_close_timeout`; `keepalive` and `user_timeout` detect dead peers"
    private static let header = "write `proxy_protocol v2` and `backend_expects_proxy_protocol true` in the route"
}
