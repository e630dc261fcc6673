import Foundation
import TestSupport
import Testing

/// STARTTLS with the servers that sites have, and their clients.
@Suite("TLS behind STARTTLS: Dovecot and OpenLDAP")
struct StartTLSServersTests {
    private let entry: Place

    init() throws { entry = Place("127.0.0.1", try FreePort.take()) }

    private func node(_ stage: String, _ routes: [(host: String, backend: Place)]) throws -> Node {
        let texts = routes.map { route in
            """
            route \(route.host) {
                id       rt_\(route.host)
                owner    \(route.host)/app/prod
                listen   \(entry.port)
                backend  \(route.backend)
            }

            """
        }
        return try Node(
            ConfigText(
                sniff: "timeout 10s", tlsListeners: [entry], firstStages: ["starttls \(stage)"], more: texts.joined()
            ).description)
    }

    /// What curl has seen: what it printed, and the commands and answers of the session.
    private func curl(_ scheme: String, _ host: String, _ more: [String] = []) throws -> String {
        let child = try Child(
            "curl",
            [
                "-sS", "-v", "-k", "--ssl-reqd", "--max-time", "20", "--resolve", "\(host):\(entry.port):127.0.0.1",
                "\(scheme)://\(host):\(entry.port)/",
            ] + more)
        child.closeInput()
        try child.waitForExit()
        return child.output
    }

    @Test(
        "R5: curl reads the mailbox of the tenant that it names, by IMAP; a name that is nobody's reaches none",
        .enabled(if: DovecotServer.isInstalled, "no Dovecot here, or not as root"))
    func imap() throws {
        let (one, two) = (
            try DovecotServer(certificate: "a.example.com"), try DovecotServer(certificate: "b.example.com")
        )
        let node = try node("imap", [("a.example.com", one.imap), ("b.example.com", two.imap)])
        for host in ["a.example.com", "b.example.com"] {
            let seen = try curl("imap", host, ["-u", "me:secret"])
            #expect(seen.contains("INBOX") && seen.contains("subject: CN=\(host)"), "\(seen)")
            // The node offers nothing but STARTTLS; what the server offers is asked for behind it.
            #expect(seen.contains("LOGINDISABLED") && seen.contains("AUTH=PLAIN"), "\(seen)")
        }
        let wrong = try curl("imap", "c.example.com", ["-u", "me:secret"])
        #expect(!wrong.contains("INBOX"), "\(wrong)")
        _ = try node.log("a refusal") { $0.reason == "backend.no_route client" && $0.serverName == "c.example.com" }
        let line = try node.log("a session") { $0.serverName == "a.example.com" }
        #expect(line.reason.hasPrefix("relay.") && line.backend == one.imap.description, "\(line)")
    }

    @Test(
        "R5: curl speaks SMTP with the tenant that it names",
        .enabled(if: DovecotServer.isInstalled, "no Dovecot here, or not as root"))
    func smtp() throws {
        let (one, two) = (
            try DovecotServer(certificate: "a.example.com"), try DovecotServer(certificate: "b.example.com")
        )
        let node = try node(
            "smtp, name mx.example.com", [("a.example.com", one.smtp), ("b.example.com", two.smtp)])
        for host in ["a.example.com", "b.example.com"] {
            let seen = try curl("smtp", host)
            #expect(seen.contains("220 mx.example.com ESMTP") && seen.contains("subject: CN=\(host)"), "\(seen)")
            #expect(seen.contains("250-AUTH PLAIN") && seen.contains("221 2.0.0 Bye"), "\(seen)")
        }
        let wrong = try curl("smtp", "c.example.com")
        #expect(!wrong.contains("AUTH PLAIN"), "\(wrong)")
        _ = try node.log("a refusal") { $0.reason == "backend.no_route client" && $0.serverName == "c.example.com" }
    }

    @Test(
        "R5: ldapsearch finds what the server of its name holds; OpenSSL's client sees each tenant's certificate",
        .enabled(if: LDAPServer.isInstalled, "no OpenLDAP here"))
    func ldap() throws {
        let one = try LDAPServer(certificate: "localhost", suffix: "dc=one,dc=example")
        let two = try LDAPServer(certificate: "b.example.com", suffix: "dc=two,dc=example")
        let node = try node("ldap", [("localhost", one.place), ("b.example.com", two.place)])
        let found = try LDAPServer.search(at: entry)
        #expect(found.contains("namingContexts: dc=one,dc=example"), "\(found)")
        for host in ["localhost", "b.example.com", "c.example.com"] {
            let child = try Child(
                "openssl", ["s_client", "-starttls", "ldap", "-connect", entry.description, "-servername", host])
            child.closeInput()
            try child.waitForExit()
            #expect(
                child.output.contains("subject=CN = \(host)") == (host != "c.example.com"), "\(host): \(child.output)")
        }
        _ = try node.log("a refusal") { $0.reason == "backend.no_route client" && $0.serverName == "c.example.com" }
    }
}
