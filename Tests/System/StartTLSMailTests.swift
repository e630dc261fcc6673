import Foundation
import TestSupport
import Testing

/// STARTTLS of SMTP, IMAP and LDAP with OpenSSL's client. The servers in the clear are the test's own, and slow; the TLS
/// behind them is OpenSSL's (ADR 0097).
@Suite("TLS behind STARTTLS")
struct StartTLSMailTests {
    /// What a backend and its node say to each other: what it reads, and what it answers.
    private static let scripts: [String: [(reads: Int, says: String)]] = [
        "smtp": [
            (0, "220-mail\r\n220 ready\r\n"), (21, "250-mail\r\n250-SIZE\r\n250 STARTTLS\r\n"),
            (10, "220 go ahead\r\n"),
        ],
        "imap": [
            (0, "* OK [CAPABILITY IMAP4rev1] hello\r\n"), (12, "* OK busy\r\na OK go ahead\r\n"),
        ],
        "ldap": [(31, "0\u{C}\u{2}\u{1}\u{1}x\u{7}\u{A}\u{1}\0\u{4}\0\u{4}\0")],
    ]

    private func stage(_ name: String) -> String {
        "starttls \(name)" + (name == "smtp" ? ", name mx.example.com" : "")
    }

    private func config(_ entry: Place, _ name: String, _ routes: [(host: String, backend: Place)]) -> String {
        let texts = routes.enumerated().map { number, route in
            """
            route \(route.host) {
                id       rt_\(number)
                owner    org\(number)/app/prod
                listen   \(entry.port)
                backend  \(route.backend)
            }

            """
        }
        return ConfigText(
            sniff: "timeout 10s", tlsListeners: [entry], firstStages: [stage(name)], more: texts.joined()
        ).description
    }

    @Test(
        "R5: OpenSSL's client reaches the tenant that it names, and nobody by another name",
        arguments: ["smtp", "imap", "ldap"])
    func openssl(name: String) throws {
        let folder = try TemporaryFolder()
        let script = try Self.scripts[name].unwrap(name)
        var routes: [(host: String, backend: Place)] = []
        var kept: [Any] = []
        for host in ["a.example.com", "b.example.com"] {
            let certificate = try Certificate.make(host, in: folder)
            let inner = Place("127.0.0.1", try FreePort.take())
            let tls = try Child(
                "openssl",
                ["s_server", "-accept", inner.description, "-www", "-quiet", "-cert", certificate.certificateFile]
                    + ["-key", certificate.keyFile])
            try waitForListener(at: inner, tls)
            let server = try Server("127.0.0.1") { socket in
                for (reads, says) in script {
                    _ = try socket.receive(exactly: reads)
                    // Byte by byte, as a slow network has it.
                    for byte in says.utf8 { try socket.send([byte]) }
                }
                try relay(socket, try Socket.connect(to: inner))
            }
            routes.append((host, server.place))
            kept += [tls, server]
        }
        let entry = Place("127.0.0.1", try FreePort.take())
        let node = try Node(config(entry, name, routes))
        for host in ["a.example.com", "b.example.com", "c.example.com"] {
            let child = try Child(
                "openssl", ["s_client", "-starttls", name, "-connect", entry.description, "-servername", host])
            child.closeInput()
            try child.waitForExit()
            let isServed = child.output.contains("subject=CN = \(host)")
            #expect(isServed == (host != "c.example.com"), "\(host): \(child.output)")
        }
        _ = try node.log("a refusal") { $0.reason == "backend.no_route client" && $0.serverName == "c.example.com" }
        withExtendedLifetime(kept) {}
    }

    @Test("SMTP by hand: what is answered, and what ends it; no backend hears of it")
    func byHand() throws {
        let backend = try ManualServer()
        let entry = Place("::1", try FreePort.take())
        let node = try Node(config(entry, "smtp", [("a.example.com", backend.place)]))
        func ask(_ lines: [String]) throws -> (answers: String, reason: String) {
            let client = try Socket.connect(to: entry)
            let place = try client.local
            var answers = String(decoding: try client.receive(exactly: 26), as: UTF8.self)
            for line in lines { try client.send(line) }
            answers += String(decoding: try client.receiveToEnd().bytes, as: UTF8.self)
            return (answers, try node.log(of: place).reason)
        }
        let greeting = "220 mx.example.com ESMTP\r\n"
        #expect(try ask(["QUIT\r\n"]) == (greeting + "221 2.0.0 Bye\r\n", "starttls.closed client"))
        #expect(try ask(["EHLO me\r\nSTARTTLS\r\n"]) == (greeting, "starttls.pipelined client"))
        #expect(try ask(["\0"]) == (greeting, "starttls.malformed client"))
        let refused = try Socket.connect(to: entry)
        _ = try refused.receive(exactly: greeting.utf8.count)
        try refused.send("MAIL FROM:<a@b>\r\n")
        let answer = "530 5.7.0 Must issue a STARTTLS command first\r\n"
        #expect(try refused.receive(exactly: answer.utf8.count) == Array(answer.utf8))
        try refused.send("STARTTLS\r\n")
        _ = try refused.receive(exactly: 30)
        try refused.send("MAIL FROM:<a@b>\r\n")
        #expect(try refused.receiveToEnd().bytes == [])
        _ = try node.log("a client without TLS") { $0.reason == "sni.not_tls client" }
    }
}
