import Foundation
import TestSupport
import Testing

/// What a change of desired state does to connections that are open (R22, R26): reload by reload, on a running node.
@Suite("Draining by reload")
struct DrainTests {
    /// A node whose routes, raw ones on ports that `expose` opens, come from a state file.
    private final class Site {
        let node: Node
        var state: DesiredState
        private let folder: TemporaryFolder

        init(_ state: DesiredState, workers: Int = 2, more: String = "") throws {
            self.state = state
            folder = try TemporaryFolder()
            try folder.write("state.json", state.description)
            let ports = state.routes.map { "\($0.port)" }
            let config = ConfigText(
                workers: workers, rawListeners: [Place("::1", try FreePort.take())],
                more: ports.map { "expose [::] ports \($0) via raw\n" }.joined() + "routes file state.json\n" + more)
            node = try Node(config.description, folder: folder)
        }

        func apply(_ change: (inout DesiredState) -> Void) throws {
            change(&state)
            state.revision += 1
            try folder.write("state.json", state.description)
            try node.reload(revision: state.revision)
        }
    }

    /// A connection through `port` to an echo.
    private func open(_ port: UInt16) throws -> Socket {
        let client = try Socket.connect(to: Place("::1", port))
        try expectAlive(client)
        return client
    }

    private func expectAlive(_ client: Socket) throws {
        try client.send("ping")
        #expect(try client.receive(exactly: 4) == Array("ping".utf8))
    }

    @Test(
        "a draining instance gets no new connection; its old one has its grace, and ends as drain.instance",
        .enabled(if: Namespace.obstacle == nil, "no network namespace here, for a second address"))
    func instanceDrains() throws {
        let namespace = try Namespace()
        let port = try FreePort.take()
        let servers = [try Server.echo(port: port), try Server.echo(namespace.near, port: port)]
        let route = try FreePort.take()
        let site = try Site(
            DesiredState(
                backendPort: port,
                instances: [.init(id: "i_1", grace: 10), .init(id: "i_2", address: namespace.near)],
                routes: [.init(id: "rt_x", port: route)]))
        // Round robin: one to each.
        let clients = [try open(route), try open(route)]
        let asked = Date()
        try site.apply { $0.instances[0].status = "draining" }
        // In its grace both go on, and all new ones go to the other.
        for client in clients { try expectAlive(client) }
        for _ in 0..<4 {
            let new = try open(route)
            let place = try new.local
            new.finish()
            #expect(try new.receiveToEnd().ending == .fin)
            #expect(try site.node.log(of: place).backend == servers[1].place.description)
        }
        let line = try site.node.log("the end of the drained one") { $0.reason == "drain.instance node" }
        let after = try line.seconds(after: asked)
        #expect(after >= 9.9, "its grace is ten seconds, and it ended after \(after)")
        #expect(line.backend == servers[0].place.description && line.route == "rt_x", "\(line)")
        let places = try clients.map { try $0.local.description }
        let drained = try places.firstIndex(of: line.peer ?? "").unwrap("a client of the line \(line)")
        #expect(try clients[drained].receiveToEnd().ending == .reset)
        try expectAlive(clients[1 - drained])
    }

    @Test("ready again before the grace is over: the connection stays")
    func instanceReturns() throws {
        let server = try Server.echo()
        let first = try FreePort.take()
        let clock = try NodeClock("9s")
        let site = try Site(
            DesiredState(
                backendPort: server.place.port, instances: [.init(id: "i_1", grace: 8)],
                routes: [.init(id: "rt_x", port: first)]), workers: 1, more: clock.config)
        let client = try open(first)
        try site.apply { $0.instances[0].status = "draining" }
        let refused = try Socket.connect(to: Place("::1", first))
        let from = try refused.local
        #expect(try refused.receiveToEnd().ending == .reset)
        #expect(try site.node.log(of: from).reason == "backend.no_backend upstream")
        try site.apply { $0.instances[0].status = "ready" }
        try expectAlive(try open(first))
        // Longer than what was left of the grace.
        try clock.pass(site.node)
        #expect(client.isQuiet)
        try expectAlive(client)
    }

    @Test("a route that is removed: keep goes on, drain has its time, kill ends at once, as drain.route")
    func routeRemoved() throws {
        let server = try Server.echo()
        let words = ["keep", "drain", "kill"]
        let routes = try words.map { DesiredState.Route(id: "rt_\($0)", port: try FreePort.take(), onDelete: $0) }
        let site = try Site(
            DesiredState(backendPort: server.place.port, instances: [.init(id: "i_1")], routes: routes))
        let clients = try routes.map { try open($0.port) }
        try site.apply { $0.routes = [] }
        let ending = try clients[2].receiveToEnd()
        #expect(ending.ending == .reset)
        let line = try site.node.log(of: clients[2].local)
        #expect(line.reason == "drain.route node" && line.route == "rt_kill", "\(line)")
        for client in clients[..<2] { try expectAlive(client) }
        // No new ones, on any of the ports.
        let deadline = Deadline()
        for route in routes {
            while let early = try? Socket.connect(to: Place("::1", route.port)), !deadline.hasPassed { early.reset() }
        }
        #expect(!deadline.hasPassed)
        for client in clients[..<2] {
            let place = try client.local
            client.finish()
            #expect(try client.receiveToEnd().ending == .fin)
            #expect(try site.node.log(of: place).reason.hasPrefix("relay.closed"))
        }
    }
}
