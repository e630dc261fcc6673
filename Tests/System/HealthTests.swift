import Foundation
import Glibc
import Testing

/// Probes find out which ready backends answer, and the node goes by it (R12, R13, R18).
@Suite("Health")
struct HealthTests {
    private static let health = """

        health web {
            probe     tcp
            interval  1s jitter 10%
            timeout   1s
            rise      3
            fall      2
        }

        """

    /// A node with one raw listener whose pipeline has a `health` block.
    private func node(_ entry: Place, _ backends: [Place], proxy: Bool = false) throws -> Node {
        let route = RouteText(id: "rt_web", port: entry.port, backends: backends, proxy: proxy)
        return try Node(
            ConfigText(
                settings: ["connect_timeout 300ms"], rawListeners: [entry], backend: "round_robin, health web",
                routes: [route], more: Self.health
            ).description)
    }

    @Test("R12: all out means a reset at once, and nobody waits for a connect timeout")
    func failsFast() throws {
        let gone = Place("::1", try FreePort.take())
        let entry = Place("::1", try FreePort.take())
        let node = try node(entry, [gone])
        _ = try node.event("backend_down", of: gone)
        let client = try Socket.connect(to: entry)
        let from = try client.local
        #expect(try client.receiveToEnd().ending == .reset)
        let line = try node.log(of: from)
        #expect(line.reason.hasPrefix("backend.") && line.attempts == 0, "\(line)")
    }

    // MARK: PROXY headers that are not understood

    @Test("R18: a plain nginx behind a v2 route is proxy_rejected before the first client, and not down")
    func nginxRejects() throws {
        let place = Place("::1", try FreePort.take())
        let nginx = try Nginx(
            seen: "$request", http: "server { listen \(place); location / { return 200 plain; } }", ready: place)
        let entry = Place("::1", try FreePort.take())
        let node = try node(entry, [place], proxy: true)
        let said = try node.event("backend_proxy_rejected", of: place)
        #expect(said.text.contains("\"routes\":[\"rt_web\"]") && said.text.contains("\"probe\":\"good\""))
        #expect(said.text.contains(#""envs":[{"org":"acme","app":"rt_web","env":"prod"}]"#), "whose: \(said.text)")
        #expect(node.child.lines.allSatisfy { $0.stream == .error && !$0.isEvent("backend_down") })
        #expect(!nginx.child.hasEnded)
    }

    @Test("R18: an nginx that expects the header takes the probe's")
    func nginxAccepts() throws {
        let place = Place("::1", try FreePort.take())
        let start = {
            try Nginx(
                seen: "$request",
                http: "server { listen \(place) proxy_protocol; location / { return 200 $proxy_protocol_addr; } }",
                ready: place)
        }
        var nginx = try start()
        let entry = Place("::1", try FreePort.take())
        let node = try node(entry, [place], proxy: true)
        nginx.child.signal(SIGKILL)
        _ = try node.event("backend_down", of: place)
        nginx = try start()
        // Three good probes, each of which waited for an answer to its header.
        _ = try node.event("backend_up", of: place)
        #expect(try Load.ask(entry) == "::1")
        #expect(!node.child.lines.contains { $0.isEvent("backend_proxy_rejected") })
        #expect(!nginx.child.hasEnded)
    }

    @Test("R18: an SMTP-like server that greets, complains and says goodbye is proxy_rejected before the first client")
    func smtpRejects() throws {
        let server = try Server { socket in
            try socket.send("220 mail.example.com ESMTP\r\n")
            var text = ""
            while case .bytes(let chunk) = try socket.receive() {
                text += String(decoding: chunk, as: UTF8.self)
                while let end = text.firstIndex(of: "\n") ?? text.firstIndex(of: "\r\n") {
                    let line = text[..<end].trimmingCharacters(in: .whitespacesAndNewlines)
                    text.removeSubrange(...end)
                    if line == "QUIT" {
                        try socket.send("221 bye\r\n")
                        return socket.finish()
                    }
                    try socket.send("500 command not recognized\r\n")
                }
            }
        }
        let entry = Place("::1", try FreePort.take())
        let node = try node(entry, [server.place], proxy: true)
        let said = try node.event("backend_proxy_rejected", of: server.place)
        #expect(said.text.contains("\"probe\":\"good\""))
        #expect(node.child.lines.allSatisfy { $0.stream == .error })
    }
}
