import Foundation
import Glibc
import TestSupport
import Testing

/// Backends that don't expect the PROXY header that their route puts in front, without a `health` block (R18): a client's
/// connection raises the doubt, and the node's own LOCAL header decides.
@Suite("R18: proxy_rejected without a health block")
struct ProxyRejectedTests {
    private final class Site {
        let node: Node
        let entry: Place
        let admin: String

        /// - Parameter isTLS: a route by name, else a raw one.
        init(_ backend: Place, isTLS: Bool, at host: String = "::1") throws {
            let folder = try TemporaryFolder()
            admin = "\(folder.path)/admin.sock"
            entry = Place(host, try FreePort.take())
            let name = isTLS ? "api.example.com other.example.com" : nil
            node = try Node(
                ConfigText(
                    settings: ["admin unix:\(admin)"], workers: 2, tlsListeners: isTLS ? [entry] : [],
                    rawListeners: isTLS ? [] : [entry],
                    routes: [RouteText(host: name, id: "rt_v2", port: entry.port, backends: [backend], proxy: true)]
                ).description, folder: folder)
        }

        func verdict() throws -> String {
            let routes = try (Admin.json(["routes"], admin)["routes"] as? [[String: Any]]).unwrap("routes")
            return try (routes.first?["proxy"] as? String).unwrap("verdict")
        }

        func awaitVerdict(_ wanted: String) throws {
            try awaitUntil("the verdict is \(wanted)") { try verdict() == wanted }
        }

        func explained() throws -> String {
            try Binary.run(
                ["explain", "--admin", admin, "--to", entry.description, "--from", "[2600::1]:4000", "--sni"]
                    + ["api.example.com"]
            ).out
        }

        /// What is said once a connection has failed, everywhere that an operator looks.
        /// - Parameter again: fails as the first one has, from a client at the place that it says.
        func expectRejected(_ again: () throws -> Place?) throws {
            try awaitVerdict("rejected")
            let client = try again()
            let line = try node.log("a connection's end") { line in
                line.reason == "proxy_v2.proxy_rejected upstream" && client.map { line.isOf($0) } != false
            }
            #expect(line.route == "rt_v2")
            let told = try explained()
            #expect(told.contains("PROXY header: rejected"), "\(told)")
            let said = try node.event("proxy_rejected", route: "rt_v2")
            #expect(said.contains(#""org":"acme","app":"rt_v2","env":"prod""#), "whose: \(said)")
            #expect(said.contains(line.backend ?? "?"), "\(said)")
            // Once, however many names the route has.
            let lines = node.child.lines
            let takenBack = lines.count { $0.isEvent("proxy_accepted") || $0.isEvent("proxy_unknown") }
            #expect(lines.count { $0.isEvent("proxy_rejected") } <= takenBack + 1)
        }

        func expectAccepted() throws {
            #expect(try verdict() == "accepted")
            #expect(try explained().contains("PROXY header: accepted"))
            let taken = try node.event("proxy_accepted", route: "rt_v2")
            #expect(taken.contains(#""org":"acme","app":"rt_v2","env":"prod""#), "whose: \(taken)")
        }
    }

    @Test("a plain nginx, HTTP: named after the first connection, and taken back when it has learned")
    func http() throws {
        let place = Place("::1", try FreePort.take())
        let start = { (word: String) in
            try Nginx(
                seen: "$request", http: "server { listen \(place)\(word); location / { return 200 ok; } }", ready: place
            )
        }
        var nginx = try start("")
        let site = try Site(place, isTLS: false)
        #expect(try site.verdict() == "unknown")
        let ask = {
            let client = try Socket.connect(to: site.entry)
            let from = try client.local
            try client.send("GET / HTTP/1.0\r\n\r\n")
            // The answer goes through as it is.
            #expect(try String(decoding: client.receiveToEnd().bytes, as: UTF8.self).contains("400"))
            client.finish()
            return from
        }
        _ = try ask()
        try site.expectRejected(ask)
        nginx.child.signal(SIGKILL)
        try nginx.child.waitForExit()
        nginx = try start(" proxy_protocol")
        #expect(try Load.ask(site.entry) == "ok")
        try site.expectAccepted()
        #expect(!nginx.child.hasEnded)
    }

    @Test("a plain nginx, TLS")
    func tls() throws {
        let folder = try TemporaryFolder()
        let certificate = try Certificate.make("api.example.com", in: folder)
        let place = Place("::1", try FreePort.take())
        let start = { (word: String) in
            try Nginx(
                seen: "$request",
                http: """
                    server {
                        listen \(place) ssl\(word); ssl_protocols TLSv1.2 TLSv1.3;
                        ssl_certificate \(certificate.certificateFile); ssl_certificate_key \(certificate.keyFile);
                        location / { return 200 ok; }
                    }
                    """, ready: place)
        }
        var nginx = try start("")
        let site = try Site(place, isTLS: true)
        let fail = {
            let failed = try OpenSSL.connect(to: site.entry, name: "api.example.com", version: "tls1_3")
            #expect(failed.fingerprint == nil, "\(failed.output)")
        }
        try fail()
        try site.expectRejected {
            try fail()
            return nil
        }
        nginx.child.signal(SIGKILL)
        try nginx.child.waitForExit()
        nginx = try start(" proxy_protocol")
        let seen = try OpenSSL.connect(to: site.entry, name: "api.example.com", version: "tls1_3")
        #expect(seen.fingerprint == certificate.fingerprint, "\(seen.output)")
        try site.expectAccepted()
        #expect(!nginx.child.hasEnded)
    }

    /// Greets, takes each line for a command, and says goodbye at QUIT: what the header's signature has in it.
    private static func smtp(_ socket: Socket) throws {
        try socket.send("220 mail.example.com ESMTP\r\n")
        try eachLine(from: socket) { line in
            switch line.prefix(4) {
            case "EHLO": try socket.send("250 mail.example.com\r\n")
            case "QUIT":
                try socket.send("221 bye\r\n")
                socket.finish()
                return false
            default: try socket.send("500 command not recognized\r\n")
            }
            return true
        }
    }

    /// Until `body` says that it is the last one, or the other side has ended.
    private static func eachLine(from socket: Socket, _ body: (String) throws -> Bool) throws {
        var text: [UInt8] = []
        while case .bytes(let chunk) = try socket.receive() {
            text += chunk
            while let end = text.firstIndex(of: 0x0A) {
                let line = String(decoding: text[..<end].filter { $0 != 0x0D }, as: UTF8.self)
                text.removeSubrange(...end)
                guard try body(line) else { return }
            }
        }
    }

    /// One client's talk, and what it was answered.
    private func talk(_ entry: Place, until words: String) throws -> (from: Place, said: String) {
        let client = try Socket.connect(to: entry)
        let from = try client.local
        var said = ""
        let listen = {
            guard case .bytes(let chunk)? = try? client.receive() else { return false }
            said += String(decoding: chunk, as: UTF8.self)
            return true
        }
        while !words.isEmpty, !said.contains(words), listen() {}
        // The other side may have gone by now.
        try? client.send("EHLO me\r\nQUIT\r\n")
        while listen() {}
        client.finish()
        return (from, said)
    }

    @Test("an SMTP-like server: named at the first client that lets it speak; hasty ones never make it accepted")
    func smtp() throws {
        let learned = Flag()
        let server = try Server { socket in
            if learned.isSet { try ProxyRejectedTests.header(socket) }
            try ProxyRejectedTests.smtp(socket)
        }
        let site = try Site(server.place, isTLS: false)
        // Whoever speaks at once may have earned the error itself: that is never taken for consent.
        for _ in 0..<20 {
            _ = try site.node.log(of: talk(site.entry, until: "").from)
            #expect(try site.verdict() != "accepted")
        }
        // As every client does that is farther away than the backend: by its answer to the greeting, the error is here.
        let first = try talk(site.entry, until: "500 ")
        #expect(!first.said.contains("250 mail"), "\(first.said)")
        try site.expectRejected { try talk(site.entry, until: "500 ").from }
        for _ in 0..<20 {
            _ = try talk(site.entry, until: "")
            let patient = try talk(site.entry, until: "500 ")
            #expect(try site.node.log(of: patient.from).reason == "proxy_v2.proxy_rejected upstream")
        }
        #expect(try site.verdict() == "rejected")
        learned.set()
        let last = try talk(site.entry, until: "220 ")
        #expect(last.said.contains("250 mail"), "\(last.said)")
        #expect(try site.node.log(of: last.from).reason.hasPrefix("relay.closed"))
        try site.expectAccepted()
    }

    @Test("R18: a server that only speaks when spoken to, as Redis: the error in front of its answer is no consent")
    func redis() throws {
        let learned = Flag()
        let server = try Server { socket in
            if learned.isSet { try ProxyRejectedTests.header(socket) }
            try ProxyRejectedTests.eachLine(from: socket) { line in
                if !line.isEmpty { try socket.send(line == "PING" ? "+PONG\r\n" : "-ERR unknown command\r\n") }
                return true
            }
        }
        let site = try Site(server.place, isTLS: false)
        let ping = {
            let client = try Socket.connect(to: site.entry)
            let from = try client.local
            try client.send("PING\r\nPING\r\n")
            var said = ""
            while !said.contains("PONG"), case .bytes(let chunk) = try client.receive() {
                said += String(decoding: chunk, as: UTF8.self)
            }
            client.finish()
            _ = try client.receiveToEnd()
            return (from, said)
        }
        #expect(try ping().1.contains("-ERR"))
        try site.expectRejected { try ping().0 }
        learned.set()
        #expect(try !ping().1.contains("-ERR"))
        try site.expectAccepted()
    }

    /// Takes headers as it should.
    private static func header(_ socket: Socket) throws {
        let head = try socket.receive(exactly: 16)
        _ = try socket.receive(exactly: Int(head[14]) << 8 | Int(head[15]))
    }

    @Test(
        "R18: a good backend that hangs up on junk is not rejected, whatever one network sends it; silence proves nothing"
    )
    func junk() throws {
        let server = try Server { socket in
            try ProxyRejectedTests.header(socket)
            guard case .bytes(let bytes) = try socket.receive(), bytes.starts(with: "GET ".utf8) else { return }
            try socket.send("HTTP/1.1 200 OK\r\n\r\nok")
            socket.finish()
            _ = try socket.receiveToEnd()
        }
        let site = try Site(server.place, isTLS: false)
        let junk = {
            for _ in 0..<12 {
                let client = try Socket.connect(to: site.entry)
                let from = try client.local
                try client.send("\u{1}\u{2}junk")
                _ = try client.receiveToEnd()
                client.finish()
                #expect(try site.node.log(of: from).reason.hasPrefix("relay."))
            }
        }
        try junk()
        // Meanwhile the node has asked as well, and has heard nothing.
        #expect(try site.verdict() == "unknown")
        #expect(try Load.ask(site.entry) == "ok")
        #expect(try site.verdict() == "accepted")
        try junk()
        #expect(try site.verdict() == "accepted")
        #expect(!site.node.child.lines.contains { $0.isEvent("proxy_rejected") })
    }

    @Test("R18: clients of three networks that fail in a row are a verdict, where a LOCAL header is met by silence")
    func threeNetworks() throws {
        let learned = Flag()
        let server = try Server { socket in
            let head = try socket.receive(exactly: 16)
            guard head[12] == 0x20 || learned.isSet else { return }
            _ = try socket.receive(exactly: Int(head[14]) << 8 | Int(head[15]))
            guard case .bytes = try socket.receive() else { return }
            try socket.send("HTTP/1.0 200 OK\r\n\r\nok")
            socket.finish()
            _ = try socket.receiveToEnd()
        }
        let site = try Site(server.place, isTLS: false, at: "127.0.0.1")
        let fail = { (host: String) in
            let source = Place(host, try FreePort.take())
            let client = try Socket.connect(to: site.entry, from: source)
            let from = try client.local
            // The backend may have hung up on the header by then, and the client know it.
            try? client.send("GET / HTTP/1.0\r\n\r\n")
            _ = try client.receiveToEnd()
            client.finish()
            return try site.node.log(of: from).reason
        }
        for host in ["127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.2"] {
            #expect(try fail(host).hasPrefix("relay."))
            #expect(try site.verdict() == "unknown")
        }
        #expect(try fail("127.0.0.3") == "proxy_v2.proxy_rejected upstream")
        #expect(try site.verdict() == "rejected")
        _ = try site.node.event("proxy_rejected", route: "rt_v2")
        learned.set()
        #expect(try Load.ask(site.entry) == "ok")
        #expect(try site.verdict() == "accepted")
        _ = try site.node.event("proxy_accepted", route: "rt_v2")
    }

    @Test(
        "R18: one that never says a word is unknown, however long it lives; one that closes first and takes 50 KB as well"
    )
    func unproved() throws {
        let taken = Promise<Int>()
        let server = try Server { socket in
            try ProxyRejectedTests.header(socket)
            socket.finish()
            taken.fulfil(.success(try socket.receiveToEnd().bytes.count))
        }
        let site = try Site(server.place, isTLS: false)
        let client = try Socket.connect(to: site.entry)
        let from = try client.local
        #expect(try client.receiveToEnd().bytes.isEmpty)
        try client.send(pattern(50_000))
        client.finish()
        #expect(try taken.value() == 50_000)
        let line = try site.node.log(of: from)
        #expect(line.reason.hasPrefix("relay.closed") && line.bytesToBackend == 50_000, "\(line)")
        #expect(try site.verdict() == "unknown")
    }
}
