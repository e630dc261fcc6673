import TestSupport
import Testing

/// `idle_timeout` of the `backend` stage (R14), with HAProxy's `timeout client` and `timeout server` beside it.
@Suite("Idle connections") struct IdleTimeoutTests {
    /// One connection that is quiet both ways, and one whose client goes on, through the same proxy.
    private struct Couple {
        let quiet: (client: Socket, backend: Socket)
        let busy: (client: Socket, backend: Socket)

        init(_ entry: Place, _ server: ManualServer) throws {
            let first = try Socket.connect(to: entry)
            quiet = (first, try server.accept())
            let second = try Socket.connect(to: entry)
            busy = (second, try server.accept())
        }

        /// The busy one's client sends, and nobody answers, until the quiet one's is gone; the busy one has outlived it, and
        /// ends when it falls quiet too.
        func endings() throws -> (quiet: Ending, busyServes: Bool, busy: Ending) {
            let quiet = quiet
            let ended = Flag()
            let ending = concurrently {
                defer { ended.set() }
                return try quiet.client.receiveToEnd().ending
            }
            var pace = Pace(perSecond: 20)
            while !ended.isSet {
                try busy.client.send("x")
                _ = try busy.backend.receive(exactly: 1)
                pace.wait()
            }
            try busy.backend.send("y")
            let serves = try busy.client.receive(exactly: 1) == Array("y".utf8)
            return (try ending.value(), serves, try busy.client.receiveToEnd().ending)
        }
    }

    @Test("R14, R15: quiet both ways for idle_timeout ends by a reset; bytes of one side keep it")
    func quiet() throws {
        let server = try ManualServer()
        let entry = Place("::1", try FreePort.take())
        var config = ConfigText(
            rawListeners: [entry],
            routes: [RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [server.place])])
        config.backend = "round_robin, idle_timeout 1s"
        let node = try Node(config.description)
        let couple = try Couple(entry, server)
        let found = try couple.endings()
        #expect(found.quiet == .reset && found.busyServes && found.busy == .reset, "\(found)")
        #expect(try couple.quiet.backend.receiveToEnd().ending == .reset)
        for client in [couple.quiet.client, couple.busy.client] {
            let line = try node.log(of: client.local)
            #expect(line.reason == "relay.idle_timeout client" && line.durationMilliseconds >= 1000, "\(line)")
        }
    }

    @Test("HAProxy beside it: `timeout client` and `timeout server` end and keep the same connections, by a FIN")
    func peer() throws {
        let server = try ManualServer()
        let entry = Place("::1", try FreePort.take())
        let proxy = try HAProxy(
            """
            defaults
                mode tcp
                timeout connect 2s
                timeout client 1s
                timeout server 1s
            listen raw
                bind [::1]:\(entry.port)
                server one \(server.place)

            """, ready: entry)
        // The look whether it listens has left a connection.
        _ = try server.accept()
        let couple = try Couple(entry, server)
        let found = try couple.endings()
        #expect(found.busyServes && found.quiet == .fin && found.busy == .fin, "\(found)")
        withExtendedLifetime(proxy) {}
    }
}
