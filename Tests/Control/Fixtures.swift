import Pipeline
import PipelineHost
import PipelineLanguage
import PipelineNode
import Testing

/// Configs that the tests vary: a TLS listener, a raw one, and an exposed range.
enum Fixture {
    static let pipelines = """
        node test {
            workers  1
        }

        pipeline tls {
            address     deny from bogons
            anti_spoof  refuse others
            sni         timeout 3s, max 16KiB
            backend     round_robin
            proxy_v2    tlv authority
            account
        }

        pipeline raw {
            backend  round_robin
            account
        }

        listen [::]:443      tls_passthrough  via tls
        listen 0.0.0.0:443   tls_passthrough  via tls
        listen [::]:5432     tcp_raw          via raw
        expose [::]          ports 10000-10010  via raw

        """

    static func route(
        _ host: String?, id: String, owner: String = "acme/shop/prod", port: Int = 443,
        backend: String = "[fd00::10]:8443", more: String = ""
    ) -> String {
        """
        route \(host.map { $0 + " " } ?? ""){
            id       \(id)
            owner    \(owner)
            listen   \(port)
            backend  \(backend)
            \(more)
        }

        """
    }

    /// A state document with two envs of acme, one ready instance each, and these routes.
    static func state(_ routes: String) -> String {
        """
        {"format": "pipelined.state/1", "revision": 42, "actor": "test",
        "envs": [{"env_id": "env_a", "app_id": "shop", "org_id": "acme", "ipv4_address": null},
        {"env_id": "env_b", "app_id": "blog", "org_id": "acme", "ipv4_address": null}],
        "instances": [
        {"instance_id": "i_a", "env_id": "env_a", "process_type": "web", "overlay_ipv6": "fd00::a", "node_id": "n1",
         "status": "ready", "drain_grace_seconds": 10},
        {"instance_id": "i_b", "env_id": "env_b", "process_type": "web", "overlay_ipv6": "fd00::b", "node_id": "n1",
         "status": "ready", "drain_grace_seconds": 10}],
        "routes": [
        \(routes)
        ]}
        """
    }

    static func stateRoute(
        _ id: String, _ host: String?, env: String = "env_a", port: Int = 443, more: String = ""
    ) -> String {
        let name = host.map { "\"\($0)\"" } ?? "null"
        let hint = host == nil ? "tcp_raw" : "tls_passthrough"
        return """
            {"route_id": "\(id)", "env_id": "\(env)", "hostname": \(name), "listen_port": \(port), \
            "protocol_hint": "\(hint)", "backend_process_type": "web", "backend_port": 8443\(more)}
            """
    }

    /// Loads `config`, with `state` as the file that it names.
    static func load(_ config: String, state: String? = nil) -> LoadedConfig {
        ConfigLoader.load(Array(config.utf8), file: "conf/edge.pipeline") { path throws(FileError) in
            guard let state else { return try Files.read("/nonexistent/" + path, limit: 1) }
            return Array(state.utf8)
        }
    }
}

extension LoadedConfig {
    /// `12:5 error: message`, one a diagnostic.
    var summary: [String] {
        diagnostics.map {
            let place = compilation.source.position(of: $0.span.start)
            return "\(place.line):\(place.column) \($0.severity.rawValue): \($0.message)"
        }
    }

    /// The underlined text of each diagnostic.
    var underlined: [String] {
        diagnostics.map {
            String(decoding: compilation.source.bytes[$0.span.start..<$0.span.end], as: UTF8.self)
        }
    }
}
