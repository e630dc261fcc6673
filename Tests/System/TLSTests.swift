import Testing

/// OpenSSL clients through the node to two TLS servers with certificates of their own: one OpenSSL's, one nginx's.
@Suite("TLS is relayed by name, and not terminated")
struct TLSTests {
    /// Two backends and a node in front of them; made anew for each test.
    struct Site {
        let folder: TemporaryFolder
        let app: Certificate
        let shop: Certificate
        let openssl: Child
        let nginx: Nginx
        let appPlace: Place
        let shopPlace: Place

        init() throws {
            folder = try TemporaryFolder()
            app = try Certificate.make("app.example.com", in: folder)
            shop = try Certificate.make("shop.example.com", in: folder)
            appPlace = Place("::1", try FreePort.take())
            shopPlace = Place("::1", try FreePort.take())
            openssl = try Child(
                "openssl",
                [
                    "s_server", "-accept", appPlace.description, "-cert", app.certificateFile, "-key", app.keyFile,
                    "-www",
                    "-naccept", "1000",
                ])
            try waitForListener(at: appPlace, openssl)
            nginx = try Nginx(
                seen: "$remote_addr",
                http: """
                    server {
                        listen \(shopPlace) ssl;
                        ssl_protocols TLSv1.2 TLSv1.3;
                        ssl_certificate \(shop.certificateFile); ssl_certificate_key \(shop.keyFile);
                        location / { return 200 "the shop\\n"; }
                    }
                    """, ready: shopPlace)
        }

        func routes(_ port: UInt16) -> [RouteText] {
            [
                RouteText(host: "app.example.com", id: "rt_app", port: port, backends: [appPlace]),
                RouteText(host: "shop.example.com", id: "rt_shop", port: port, backends: [shopPlace]),
            ]
        }
    }

    @Test(
        "R1, R4: TLS 1.2 and 1.3 clients reach the backend of the name they ask for, and see its certificate",
        arguments: ["::1", "127.0.0.1"])
    func reachesTheRightBackend(host: String) throws {
        let site = try Site()
        let entry = Place(host, try FreePort.take())
        let node = try Node(ConfigText(tlsListeners: [entry], routes: site.routes(entry.port)).description)
        for (version, option) in [("TLSv1.2", "tls1_2"), ("TLSv1.3", "tls1_3")] {
            let app = try OpenSSL.connect(to: entry, name: "app.example.com", version: option)
            #expect(app.fingerprint == site.app.fingerprint, "\(app.output)")
            #expect(app.version == version)
            #expect(app.output.contains("s_server"))
            let shop = try OpenSSL.connect(to: entry, name: "shop.example.com", version: option)
            #expect(shop.fingerprint == site.shop.fingerprint, "\(shop.output)")
            #expect(shop.version == version)
            #expect(shop.output.contains("the shop"))
        }
        let line = try node.log("a line of the shop") { $0.route == "rt_shop" }
        #expect(line.serverName == "shop.example.com")
        #expect(line.sniff == "ok")
        #expect(line.backend == site.shopPlace.description)
        // nginx closes both directions at once: what the client still says, its close_notify, may be met by a reset.
        #expect(["relay.closed upstream", "relay.closed client", "relay.reset upstream"].contains(line.reason))
        #expect(line.bytesToClient > 500 && line.bytesToBackend > 100)
    }

    @Test("R3: the name is matched in its canonical form")
    func matchesCanonically() throws {
        let site = try Site()
        let entry = Place("::1", try FreePort.take())
        let node = try Node(ConfigText(tlsListeners: [entry], routes: site.routes(entry.port)).description)
        let seen = try OpenSSL.connect(to: entry, name: "SHOP.Example.COM", version: "tls1_3")
        #expect(seen.fingerprint == site.shop.fingerprint, "\(seen.output)")
        #expect(try node.log("its line") { $0.route == "rt_shop" }.serverName == "shop.example.com")
    }

    @Test("R6: without a name, closed where two routes could be meant")
    func closesWithoutNameWhenAmbiguous() throws {
        let site = try Site()
        let entry = Place("::1", try FreePort.take())
        let node = try Node(ConfigText(tlsListeners: [entry], routes: site.routes(entry.port)).description)
        for option in ["tls1_2", "tls1_3"] {
            let seen = try OpenSSL.connect(to: entry, name: nil, version: option)
            #expect(seen.fingerprint == nil, "\(seen.output)")
        }
        let line = try node.log("the refusal") { $0.reason == "sni.no_sni client" }
        #expect(line.sniff == "no_sni")
        #expect(line.backend == nil && line.route == nil)
    }

    @Test("R6: without a name, relayed where only one route can be meant")
    func relaysWithoutNameWhenSole() throws {
        let site = try Site()
        let entry = Place("::1", try FreePort.take())
        let routes = Array(site.routes(entry.port).suffix(1))
        let node = try Node(ConfigText(tlsListeners: [entry], routes: routes).description)
        for option in ["tls1_2", "tls1_3"] {
            let seen = try OpenSSL.connect(to: entry, name: nil, version: option)
            #expect(seen.fingerprint == site.shop.fingerprint, "\(seen.output)")
        }
        let line = try node.log("its line") { $0.route == "rt_shop" }
        #expect(line.sniff == "no_sni")
        #expect(line.serverName == nil)
    }

    @Test("R6: a name that nobody owns is closed, even where there is only one route")
    func closesUnknownName() throws {
        let site = try Site()
        let entry = Place("::1", try FreePort.take())
        let routes = Array(site.routes(entry.port).suffix(1))
        let node = try Node(ConfigText(tlsListeners: [entry], routes: routes).description)
        let seen = try OpenSSL.connect(to: entry, name: "nobody.example.com", version: "tls1_3")
        #expect(seen.fingerprint == nil, "\(seen.output)")
        let line = try node.log("the refusal") { $0.serverName == "nobody.example.com" }
        #expect(line.reason == "backend.no_route client")
    }
}
