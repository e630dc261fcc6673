import FilterCatalog
import Pipeline
import PipelineLanguage
import PipelineRouting

/// A compiled config, routes, and the places to connect to.
struct ChainFixture: @unchecked Sendable {
    struct Place {
        let chain: Chain
        let listener: UInt16
        let hint: ProtocolHint
        let port: UInt16
        let peer: Endpoint
        /// No stage lists it as a sender.
        let isStranger: Bool
    }

    static let config = """
        pipeline tls {
            anti_spoof  require from 192.0.2.0/24, accept from 198.51.100.0/24, refuse others, max 1KiB
            sni         timeout 3s, max 4KiB
            backend     round_robin
            proxy_v2    tlv authority, tlv alpn, tlv unique_id, tlv crc32c, tlv route, pass_through
            account
        }
        pipeline raw {
            anti_spoof  accept from 198.51.100.0/24, refuse others
            backend     round_robin
            proxy_v2    pass_through
        }
        pipeline small {
            anti_spoof  refuse others
            address     deny 198.51.100.0/24
            sni         max 512, deny suffix bad.w.example.com, deny pattern "b[0-9]+\\\\..*"
            backend     round_robin
            proxy_v2
        }
        pipeline strict {
            anti_spoof  refuse others
            sni         max 4KiB, require alpn h2
            backend     least_connections
            proxy_v2
        }
        limit per_client {
            key   client/64
            rate  1000/s burst 1000
            table 1k
        }
        health unprobed {
            probe off
            panic use_all
        }
        pipeline every {
            address     deny peer 203.0.113.0/24, allow to ::/0
            anti_spoof  accept from 198.51.100.0/24, refuse others
            address     deny from bogons, shadow
            rate_limit  per_client, shadow
            sni         max 4KiB, deny name c.example.com
            backend     random_of_two, health unprobed, slow_start 10s
            proxy_v2    tlv env, tlv org, tlv unique_id
            account     every 5s
        }
        pipeline hashed {
            anti_spoof  require from 198.51.100.0/24, refuse others
            backend     consistent_hash
            proxy_v2    tlv crc32c, pass_through
            account
        }
        listen [::]:443   tls_passthrough  via tls
        listen [::]:8443  tls_passthrough  via tls
        listen [::]:9443  tls_passthrough  via small
        listen [::]:5432  tcp_raw          via raw
        listen [::]:7443  tls_passthrough  via strict
        listen [::]:6443  tls_passthrough  via every
        listen [::]:6432  tcp_raw          via hashed
        """

    let program: Program
    let snapshot: RouteTableSnapshot
    /// One state a stage, as a worker has them.
    let states: [UnsafeMutableRawPointer]

    init?() {
        let compilation = compile(Array(ChainFixture.config.utf8), file: "chain", catalog: catalog)
        guard let program = compilation.program else { return nil }
        self.program = program
        let routing = RoutingState(seed: HashSeed(1, 2))
        let report = routing.apply(StateDocument.config(ChainFixture.routes, seed: HashSeed(1, 2)).document)
        guard report.added == ChainFixture.routes.count else { return nil }
        snapshot = routing.snapshot
        states = program.chains.buffer.flatMap { chain in
            chain.stages.buffer.map { $0.filter.makeStateErased($0.settings, StageContext(worker: 0)) }
        }
    }

    func place(_ byte: UInt8) -> Place {
        let index = Int(byte & 7) % program.listeners.count
        let spec = program.listeners[index]
        // A stranger, one that must send a header, one that may.
        let peers = [IPAddress(high: 0x2600 << 48, low: 9), IPAddress(v4: 0xC000_0209), IPAddress(v4: 0xC633_6409)]
        let peer = Int(byte >> 3) % peers.count
        return Place(
            chain: program.chains[spec.chain], listener: UInt16(index), hint: spec.hint, port: spec.endpoint.port,
            peer: Endpoint(peers[peer], 40000), isStranger: peer == 0)
    }

    /// Names with and without a PROXY header on 443 and 9443, a port with one route that takes what is no TLS, a raw one.
    private static let routes: [RouteSpec] = {
        let rows: [(String?, UInt16, proxy: Bool, any: Bool)] = [
            ("a.example.com", 443, false, false), ("b.example.com", 443, true, false), (nil, 5432, true, false),
            ("*.w.example.com", 443, true, false), ("*.w.example.com", 9443, false, false),
            ("a.example.com", 8443, true, true), ("a.example.com", 9443, false, false),
            ("b.example.com", 9443, true, false), ("a.example.com", 7443, false, false),
            ("a.example.com", 6443, true, false), ("*.w.example.com", 6443, false, false), (nil, 6432, true, false),
        ]
        return rows.enumerated().map { index, row in
            var spec = RouteSpec(
                index: index, id: "rt_\(index)", org: "acme", app: "shop", env: "prod", hostname: row.0, port: row.1,
                hint: row.0 == nil ? .tcpRaw : .tlsPassthrough,
                backends: (1...3).map { BackendSpec(Endpoint(IPAddress(high: 0xFD00 << 48, low: $0), 8443)) })
            spec.proxyHeader = row.proxy ? .v2 : .off
            (spec.backendExpectsProxy, spec.allowNonTLS) = (row.proxy, row.any)
            return spec
        } + conditional(after: rows.count)
    }()

    /// Beside names: ALPN, and what is no TLS, with and without a PROXY header.
    private static func conditional(after count: Int) -> [RouteSpec] {
        let rows: [(String?, UInt16, proxy: Bool, RouteCondition)] = [
            ("a.example.com", 443, true, .alpn("h2")), ("*.w.example.com", 443, false, .alpn("http/1.1")),
            (nil, 443, true, .client(.ssh)), (nil, 9443, false, .client(.postgresql)),
            (nil, 9443, true, .client(.plain)),
            (nil, 6443, true, .client(.silent)), (nil, 6443, false, .client(.ssh)), (nil, 7443, false, .client(.plain)),
        ]
        return rows.enumerated().map { index, row in
            var spec = RouteSpec(
                index: count + index, id: "rt_\(count + index)", org: "acme", app: "shop", env: "prod", hostname: row.0,
                port: row.1, hint: .tlsPassthrough,
                backends: [BackendSpec(Endpoint(IPAddress(high: 0xFD00 << 48, low: 9), 8443))])
            spec.condition = row.3
            spec.proxyHeader = row.proxy ? .v2 : .off
            spec.backendExpectsProxy = row.proxy
            return spec
        }
    }
}
