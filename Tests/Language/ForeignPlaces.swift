/// Where users of other proxies type the words of a section of docs/FROM-HAPROXY.md or docs/FROM-NGINX.md.
enum ForeignPlace {
    case top, node, pipeline, listen, backends, server, limit, health, resolve

    /// A config with these words there.
    func config(_ words: String) -> String {
        switch self {
        case .top: "\(words)\n"
        case .node: "node a {\n    \(words)\n}\n"
        case .pipeline: "pipeline a {\n    \(words)\n}\n"
        case .listen: "pipeline a {\n    backend\n}\nlisten [::]:443 tcp_raw via a \(words)\n"
        case .backends: "backends a {\n    \(words)\n}\n"
        case .server: "backends a {\n    backend [::1]:80 \(words)\n}\n"
        case .limit: "limit a {\n    \(words)\n}\n"
        case .health: "health a {\n    \(words)\n}\n"
        case .resolve: "resolve {\n    \(words)\n}\n"
        }
    }

    /// By page and heading; none: nothing there is typed into a config (a log's fields, commands, an admin socket).
    static let ofSections: [String: [ForeignPlace]] = [
        "FROM-HAPROXY.md/The file": [.top], "FROM-HAPROXY.md/Global": [.top, .node],
        "FROM-HAPROXY.md/Frontend and bind": [.top, .pipeline], "FROM-HAPROXY.md/Bind options": [.listen],
        "FROM-HAPROXY.md/tcp-request and tcp-response": [.top, .pipeline],
        "FROM-HAPROXY.md/acl and fetches": [.pipeline], "FROM-HAPROXY.md/Actions": [.pipeline],
        "FROM-HAPROXY.md/Stick tables and stickiness": [.limit, .backends],
        "FROM-HAPROXY.md/Backend and balance": [.backends], "FROM-HAPROXY.md/Server options": [.server],
        "FROM-HAPROXY.md/Checks": [.backends, .health],
        "FROM-HAPROXY.md/Timeouts, retries and queues": [.node, .backends, .pipeline],
        "FROM-HAPROXY.md/Logs": [.node], "FROM-HAPROXY.md/Tuning": [.node],
        "FROM-HAPROXY.md/Words of Envoy": [.top, .node, .backends, .health],
        "FROM-NGINX.md/The file": [.top, .node], "FROM-NGINX.md/Stream core": [.top, .pipeline],
        "FROM-NGINX.md/listen": [.listen], "FROM-NGINX.md/ssl_preread, map and other variables": [.top, .pipeline],
        "FROM-NGINX.md/upstream": [.backends, .server], "FROM-NGINX.md/proxy": [.pipeline, .backends],
        "FROM-NGINX.md/Access, limits and real addresses": [.pipeline], "FROM-NGINX.md/Logs": [.node],
        "FROM-NGINX.md/Health checks and the API (NGINX Plus)": [.pipeline, .backends, .health],
    ]

    /// Words whose row is not about the section's place; empty: words of ours that are typed elsewhere, too.
    static let ofWords: [String: [ForeignPlace]] = [
        "upstream": [.top], "cluster": [.top], "health_check": [.pipeline, .backends], "max_conns": [.server],
        "limit_conn_zone": [.top], "listen": [], "id": [], "log": [],
    ]

    /// Words that begin no line and no option: parts of conditions, operators, options of a command line.
    static func isTyped(_ words: String) -> Bool {
        guard let first = words.first, first.isLowercase || first == "." else { return false }
        return !words.hasPrefix(".") && !words.hasSuffix("*") && !expressions.contains(words)
    }

    /// What stands in HAProxy's expressions alone, and is shown here and no condition; contexts of nginx.
    private static let expressions: Set<String> = [
        "or", "dst_port", "fc_dst_port", "so_id", "so_name", "fe_id", "fe_name", "fe_defbe", "fe_client_timeout",
        "fe_tarpit_timeout", "dst_conn", "nbsrv", "queue", "avg_queue", "connslots", "act_conn", "fe_conn",
        "fe_req_rate", "fe_sess_rate", "bc_be_queue", "bc_srv_queue", "bytes_in", "bytes_out", "accept_date", "lower",
        "map",
        "field", "word", "http", "ipmask", "hash",
    ]
}
