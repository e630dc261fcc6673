import Testing

/// Operator policies on names and protocols, by OpenSSL clients against a running node.
@Suite("sni policies, with real clients")
struct NamePolicyTests {
    private func connect(_ entry: Place, _ name: String, alpn: String?) throws -> Bool {
        var arguments = ["s_client", "-connect", entry.description, "-servername", name, "-tls1_3", "-ign_eof"]
        if let alpn { arguments += ["-alpn", alpn] }
        let child = try Child("openssl", arguments)
        try? child.write("GET / HTTP/1.0\r\n\r\n")
        try child.waitForExit()
        return child.output.contains("BEGIN CERTIFICATE")
    }

    @Test("names from a file, a pattern, a required protocol, and a set from a file")
    func policies() throws {
        let site = try TLSTests.Site()
        let entry = Place("::1", try FreePort.take())
        let folder = try TemporaryFolder()
        _ = try folder.write("blocked.txt", "# by name\r\nevil.example.com\r\n.internal.example.com\r\n")
        _ = try folder.write("nets.txt", "2001:db8::/32\n")
        var config = ConfigText(tlsListeners: [entry], routes: site.routes(entry.port))
        config.firstStages = ["address deny @nets"]
        config.sniff =
            #"timeout 10s, max 16KiB, deny names blocked, deny pattern "x[0-9]+\\..*", require alpn h2, require alpn http/1.1"#
        config.more = "names blocked file blocked.txt\nset nets file nets.txt\n"
        let node = try Node(config.description, folder: folder)

        #expect(try connect(entry, "app.example.com", alpn: "http/1.1"))
        #expect(try node.log("the one that passed") { $0.serverName == "app.example.com" }.route == "rt_app")
        for name in ["evil.example.com", "a.b.internal.example.com", "x17.example.com"] {
            #expect(try !connect(entry, name, alpn: "h2"))
            let line = try node.log("the line of \(name)") { $0.serverName == name }
            #expect(line.reason == "sni.name_denied client")
            #expect(line.backend == nil)
        }
        #expect(try !connect(entry, "shop.example.com", alpn: "imap"))
        #expect(
            try node.log("the refusal") { $0.serverName == "shop.example.com" }.reason == "sni.alpn_required client")
    }
}
