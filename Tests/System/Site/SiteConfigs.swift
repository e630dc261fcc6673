/// Where the two proxies of one site listen, and what stands behind both.
struct SiteEntries: Sendable {
    let tls: Place
    let raw: Place
    let ssh: Place

    /// IPv4, where a machine has many addresses of its own to come from.
    init() throws {
        tls = Place("127.0.0.1", try FreePort.take())
        raw = Place("127.0.0.1", try FreePort.take())
        ssh = Place("127.0.0.1", try FreePort.take())
    }
}

/// One site, as HAProxy says it and as we do: 30 names over six groups of three servers, a backup, checks of three kinds,
/// PROXY in from a balancer and out to a group, MySQL and SSH, limits by source.
struct SiteConfigs: Sendable {
    static let balancer = "127.0.0.2"
    static let concurrent = 12
    static let names: [(group: String, names: [String])] = [
        ("web", ["example.com", "www.example.com", "blog.example.com", "news.example.com", "docs.example.com"]),
        ("shop", ["shop.example.com", "pay.example.com", "cart.example.com", "checkout.example.com"]),
        ("api", ["api.example.com", "api2.example.com", "ws.example.com", "events.example.com", "hooks.example.com"]),
        ("media", [".media.example.com", "img.example.com", "video.example.com", "cdn.example.com"]),
        ("post", ["mail.example.com", "webmail.example.com", "autodiscover.example.com", "lists.example.com"]),
        (
            "intern",
            [
                ".intern.example.com", "git.example.com", "ci.example.com", "wiki.example.com", "chat.example.com",
                "vpn.example.com", "ldap.example.com", "time.example.com",
            ]
        ),
    ]

    let servers: [String: [Place]]
    let spare: Place
    let mysql: [Place]
    let ssh: Place

    /// The maps: a name that begins with a dot is a suffix, which HAProxy has in a map of its own (`map_end`).
    static let haproxyMap = lines { name, group in "\(name.drop { $0 == "." }) \(group)" }
    static let haproxySuffixes = lines { $0.hasPrefix(".") ? "\($0) \($1)" : nil }
    static let map = lines { "\($0) \($1)" }

    private static func lines(_ line: (String, String) -> String?) -> String {
        names.flatMap { group, names in names.compactMap { line($0, group) } }.joined(separator: "\n") + "\n"
    }

    func haproxy(_ entries: SiteEntries, map: String, suffixes: String) -> String {
        func list(_ group: String, _ words: String) -> String {
            (servers[group] ?? []).enumerated().map { "    server \(group)\($0 + 1) \($1) \(words)\n" }.joined()
        }
        let check = "check inter 200ms fall 2 rise 2"
        return """
            defaults
                mode tcp
                timeout connect 500ms
                timeout client 20s
                timeout server 20s
                timeout queue 500ms
                retries 2
                option redispatch 1
            frontend tls
                bind \(entries.tls)
                tcp-request connection expect-proxy layer4 if { src \(Self.balancer) }
                stick-table type ip size 100k expire 60s store conn_cur
                tcp-request session track-sc0 src
                tcp-request session reject if { sc0_conn_cur gt \(Self.concurrent) }
                tcp-request inspect-delay 1s
                tcp-request content reject if !{ req.ssl_hello_type 1 } WAIT_END
                tcp-request content accept if { req.ssl_hello_type 1 }
                tcp-request content reject
                use_backend %[req.ssl_sni,lower,map(\(map))] if { req.ssl_sni,lower,map(\(map)) -m found }
                use_backend %[req.ssl_sni,lower,map_end(\(suffixes))] if { req.ssl_sni,lower,map_end(\(suffixes)) -m found }
            frontend raw
                bind \(entries.raw)
                default_backend mysql
            frontend ssh
                bind \(entries.ssh)
                default_backend ssh
            backend web
            \(list("web", check))    server spare \(spare) \(check) backup
            backend shop
                balance source
            \(list("shop", check + " send-proxy-v2 proxy-v2-options authority"))
            backend api
                balance leastconn
                option httpchk GET /health
            \(list("api", check))
            backend media
            \(list("media", check + " check-ssl verify none"))
            backend post
            \(list("post", check))
            backend intern
            \(list("intern", check))
            backend mysql
                server mysql1 \(mysql[0]) \(check)
                server mysql2 \(mysql[1]) \(check) backup
            backend ssh
                server ssh1 \(ssh) \(check)

            """
    }

    func pipelined(_ entries: SiteEntries, map: String) -> String {
        func list(_ group: String) -> String { (servers[group] ?? []).map(\.description).joined(separator: " ") }
        let health = { (name: String, probe: String) in
            "health \(name) {\n    probe     \(probe)\n    interval  200ms\n    fall      2\n    rise      2\n}\n\n"
        }
        return """
            node site {
                workers  2
                connect_timeout 500ms
            }

            set balancers { \(Self.balancer)/32 }

            limit per_client {
                key         client/64 v4/32
                concurrent  \(Self.concurrent)
                table       100k
            }

            \(health("site", "tcp"))\(health("web_api", "http /health"))\(health("tls", "tls sni cdn.example.com"))
            pipeline tls {
                anti_spoof  require from @balancers, refuse others
                rate_limit  per_client
                sni         timeout 1s, max 16KiB
                backend     round_robin, health site
                proxy_v2    tlv authority
                account
            }

            pipeline raw {
                backend  round_robin, health site
                account
            }

            listen \(entries.tls)  tls_passthrough  via tls
            listen \(entries.raw)  tcp_raw          via raw
            listen \(entries.ssh)  tcp_raw          via raw

            backends web {
                backend  \(list("web"))
                backend  \(spare) backup
            }

            backends shop {
                backend         \(list("shop"))
                balance         consistent_hash
                proxy_protocol  v2
                backend_expects_proxy_protocol true
            }

            backends api {
                backend  \(list("api"))
                balance  least_connections
                health   web_api
            }

            backends media {
                backend  \(list("media"))
                health   tls
            }

            backends post { backend  \(list("post")) }

            backends intern { backend  \(list("intern")) }

            route file \(map) {
                id      rt_site
                owner   acme/site/prod
                listen  \(entries.tls.port)
            }

            route {
                id       rt_mysql
                owner    acme/site/prod
                listen   \(entries.raw.port)
                backend  \(mysql[0])
                backend  \(mysql[1]) backup
            }

            route {
                id       rt_ssh
                owner    acme/site/prod
                listen   \(entries.ssh.port)
                backend  \(ssh)
            }

            """
    }
}
