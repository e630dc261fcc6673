import FilterCatalog
import PipelineLanguage
import Testing

/// `check --print` shows every setting: a change of one that it does not show would be seen by nobody.
@Suite struct PrintTests {
    /// A setting's keyword, and two ways to write it, each a part of a file: what stands around it is the same.
    private static let samples: [(keyword: String, one: String, other: String)] = {
        var all: [(String, String, String)] = []
        let add = { (keyword: String, before: String, values: (String, String), after: String) in
            all.append((keyword, before + values.0 + after, before + values.1 + after))
        }
        let rows: [(block: String, lines: [(String, String, String)])] = [
            (
                "node n",
                [
                    ("workers", "2", "auto"), ("connections", "10 per worker", "11 per worker"),
                    ("unrouted", "5 per worker", "6 per worker"), ("memory", "1GiB", "50%"),
                    ("conntrack", "every 5s", "every 5s table 1001"), ("backlog", "10", "11"),
                    ("descriptors", "shared", "per_worker"), ("coalesce", "2ms", "3ms"),
                    ("idle_upstream_sockets", "1 per worker", "2 per worker"), ("connect_timeout", "1s", "2s"),
                    ("canary", "5% for 10m", "5% for 10m by connection"),
                    ("half_close_timeout", "1s", "2s"), ("drain_timeout", "1s", "2s"),
                    ("cooldown", "1h", "10s ipv4 20s"), ("keepalive", "1s", "2s"),
                    ("user_timeout", "1s", "2s"), ("log", "off", "connections"), ("state", "/a", "/b"),
                    ("log", "sample 1/2", "sample 1/2 of all"), ("log", "only sni.*", "except sni.*"),
                    ("connection_log", "file /a", "file /b"),
                    ("event_log", "syslog unix:/a", "syslog unix:/a facility local0"),
                    ("admin", "unix:/a", "unix:/b"), ("admin", "unix:/a", "unix:/a group 7"),
                    ("journal", "size 1MiB", "size 2MiB"), ("journal", "files 2", "files 3"),
                    ("congestion", "client bbr", "upstream bbr"),
                    ("denied_ports", "25", "none"), ("intercept", "interface a", "interface b"),
                    ("intercept", "interface a\nintercept rules watch", "interface a\nintercept rules manage"),
                    ("mark", "1", "2"),
                    ("nat64", "2001:db8::/96", "2001:db8::/64"),
                    ("ledger", "/a", "/a minutes 1h"),
                ]
            ),
            (
                "health h",
                [
                    ("probe", "tls sni a.example", "expect \"220\""), ("interval", "5s", "5s jitter 3%"),
                    ("timeout", "1s", "2s"), ("rise", "3", "4"), ("fall", "3", "4"), ("rate", "10/s", "11/s"),
                    ("eject", "after 2 for 1s", "after 2 for 1s max 4s"), ("port", "1", "2"), ("address", "::1", "::2"),
                    ("on_down", "keep", "end"),
                    ("on_up", "keep", "end_backup"), ("panic", "use_all", "fail_fast"),
                ]
            ),
            (
                "alerts",
                [
                    ("fan_out", "3 in 1m", "off"), ("smtp", "3 in 1m", "4 in 1m"), ("port_scan", "3 in 1m", "3 in 2m"),
                    ("volume", "2x over 1MiB in 1m", "3x over 1MiB in 1m"), ("repeat", "1h", "2h"),
                ]
            ),
            (
                "limit l",
                [
                    ("key", "env", "client/64 v4/24"), ("table", "1k", "2k"), ("rate", "1/s", "1/s burst 7"),
                    ("concurrent", "1", "2"), ("bytes_up", "10Mbit/s", "11Mbit/s"),
                    ("bytes_down", "10Mbit/s", "10Mbit/s burst 1GiB"), ("when_full", "refuse", "refuse"),
                ]
            ),
            (
                "resolve",
                [
                    ("nameservers", "::1", "::2"), ("min_ttl", "1s", "2s"), ("max_ttl", "1m", "2m"),
                    ("timeout", "1s", "3s"), ("retries", "0", "1"), ("hold", "0s", "1s"),
                    ("allow", "private", "::1 loopback"),
                ]
            ),
            (
                "route",
                [
                    ("id", "a", "b"), ("owner", "a/b/c", "a/b/d"), ("listen", "80", "81"),
                    ("backend", "[::1]:80 max 9", "[::1]:81 max 9"), ("proxy_protocol", "v2", "v1"),
                    ("backend_expects_proxy_protocol", "true", "false"), ("allow_non_tls", "true", "false"),
                    ("balance", "round_robin", "consistent_hash"), ("max_connections", "1", "2"),
                    ("queue", "1 for 1s", "2 for 1s"), ("idle_timeout", "1m", "off"), ("source", "::1", "client"),
                    ("when", "protocol ssh", "protocol plain"),
                ]
            ),
            (
                "backends b",
                [
                    ("backend", "[::1]:80 max 9", "[::1]:80 max 9 weight 2"), ("proxy_protocol", "v2", "off"),
                    ("backend_expects_proxy_protocol", "true", "false"),
                    ("balance", "round_robin", "consistent_hash"), ("max_connections", "1", "2"),
                    ("queue", "1 for 1s", "1 for 2s"), ("idle_timeout", "1m", "off"), ("source", "::1 ::2", "off"),
                ]
            ),
        ]
        let more = "}\nroute {\n id a\n owner a/b/c\n listen 80\n "
        let health = "health h {\n probe tcp\n" + more + "backend [::1]:1\n health "
        add("health", health, ("h", "off"), "\n}\n")
        let groups = "backends g {\n backend [::1]:1\n}\nbackends h {\n backend [::1]:1\n"
        add("backends", groups + more + "backends ", ("g", "h"), "\n}\n")
        for (block, lines) in rows {
            for line in lines {
                let required =
                    [
                        "route": ["id", "owner", "listen", "backend"], "limit l": ["key", "table", "concurrent"],
                        "backends b": ["backend"],
                    ][block]
                    ?? []
                let fixed = lines.filter { required.contains($0.0) }
                let rest = fixed.filter { $0.0 != line.0 }.map { "    \($0.0) \($0.1)\n" }.joined()
                add(line.0, "\(block) {\n\(rest)    \(line.0) ", (line.1, line.2), "\n}\n")
            }
        }
        return all
    }()

    private func shown(_ text: String) -> String? {
        let compilation = compile(Array(text.utf8), file: "x", catalog: catalog)
        let errors = compilation.diagnostics.filter { $0.severity == .error }
        #expect(errors.isEmpty, "\(text): \(errors.map(\.message))")
        return compilation.program.map { describe($0) + describe(compilation) }
    }

    @Test("each setting of a block makes a difference to what is printed")
    func settings() {
        for sample in Self.samples {
            guard let one = shown(sample.one), let other = shown(sample.other) else { continue }
            // There is only one way to say it.
            if sample.keyword == "when_full" { continue }
            #expect(one != other, "\(sample.keyword): \(sample.one)")
        }
    }

    @Test("no setting of these blocks is left out of this test")
    func complete() {
        // Those of `listen` lines are in `others`.
        let known = Set(Self.samples.map(\.keyword)).union(["export", "interface", "backlog", "fastopen", "multipath"])
        for (block, setting) in languageSettings(catalog) {
            #expect(known.contains(setting.keyword), "\(block): \(setting.keyword)")
        }
    }

    @Test("what is no setting of a block as well: sets, names, limits, alerts, exports, listeners")
    func others() {
        let pairs = [
            ("set a { ::1 }\n", "set a { ::2 }\n"), ("names a { a.example }\n", "names a { *.a.example }\n"),
            (
                "limit a {\n key client/64\n rate 1/s burst 2\n table 1k\n}\n",
                "limit a {\n key client/64\n rate 1/s burst 3\n table 1k\n}\n"
            ),
            (
                "limit a {\n key client/64\n concurrent 1\n table 1k\n}\n",
                "limit a {\n key client/63\n concurrent 1\n table 1k\n}\n"
            ),
            (
                "limit a {\n key env\n bytes_up 10Mbit/s\n table 1k\n}\n",
                "limit a {\n key env\n bytes_down 10Mbit/s\n table 1k\n}\n"
            ),
            ("limit a {\n key env\n rate 1/s\n table 1k\n}\n", "limit a {\n key env\n rate 1/s\n table 2k\n}\n"),
            ("alerts {\n smtp 3 in 1m\n}\n", "alerts {\n smtp 4 in 1m\n}\n"),
            ("export ipfix udp [::1]:1\n", "export ipfix tcp [::1]:1\n"),
        ]
        let listening = "pipeline p {\n backend round_robin\n}\nlisten [::]:1 tcp_raw via p"
        for option in ["interface eth0", "backlog 7", "fastopen 7", "multipath on"] {
            #expect(shown("\(listening) \(option)\n") != shown("\(listening)\n"), "\(option)")
        }
        #expect(shown("\(listening) fastopen off multipath off\n") == shown("\(listening)\n"))
        for (one, other) in pairs { #expect(shown(one) != shown(other), "\(one)") }
    }
}
