import Foundation
import TestSupport
import Testing

/// Many clients and few places, with HAProxy's `maxconn` beside it. The test is the server: it has at most as many
/// connections as there are places, and lets the oldest go for each that it wants.
private struct Crowd {
    let server: ManualServer
    let entry: Place
    let places: Int
    private(set) var clients: [Socket] = []
    private var held: [(number: Int, socket: Socket)] = []
    /// By when they were served: who came as which.
    private(set) var order: [Int] = []

    init(_ server: ManualServer, _ entry: Place, places: Int) {
        self.server = server
        self.entry = entry
        self.places = places
    }

    /// One after the other, each with its number. The first ones have the places at once.
    mutating func come(_ count: Int) throws {
        for number in 0..<count {
            let client = try Socket.connect(to: entry)
            try client.send(Crowd.text(number))
            clients.append(client)
            if number < places { try serve() }
        }
    }

    static func text(_ number: Int) -> String { String(String(number + 10_000).suffix(4)) }

    private mutating func serve() throws {
        let socket = try server.accept()
        let text = String(decoding: try socket.receive(exactly: 4), as: UTF8.self)
        let number = try Int(text).unwrap("number: \(text)")
        held.append((number, socket))
        order.append(number)
    }

    /// Serves `count` more, a place at a time: nobody gets one before another goes.
    mutating func serve(_ count: Int) throws {
        for _ in 0..<count {
            let oldest = held.removeFirst()
            clients[oldest.number].reset()
            try serve()
        }
    }

    mutating func leave() {
        for one in held { clients[one.number].reset() }
        held = []
        clients = []
        order = []
    }

    /// The most places by which somebody was served earlier or later than it came.
    var displacement: Int { order.enumerated().map { abs($0.offset - $0.element) }.max() ?? 0 }
}

@Suite("Queues of many", .serialized) struct QueueLoadTests {
    private func site(_ server: ManualServer, workers: Int, max: Int, _ queue: String) throws -> QueueSite {
        try QueueSite { entry in
            var config = QueueSite.route(entry, server.place, max: max, "queue \(queue)")
            config.workers = workers
            return config
        }
    }

    @Test(
        "1,000 clients at `max 50`: served in order, none starved, none beyond its wait, memory flat",
        arguments: [1, 2])
    func thousand(workers: Int) throws {
        let server = try ManualServer()
        let site = try site(server, workers: workers, max: 50, "1k for 1m")
        var resident: [Int] = []
        var crowd = Crowd(server, site.entry, places: 50)
        for round in 0..<7 {
            try crowd.come(1000)
            try site.waitUntil(queued: 950)
            resident.append(try site.node.residentBytes)
            try crowd.serve(950)
            #expect(crowd.order.sorted() == Array(0..<1000), "somebody was served twice, or not")
            #expect(workers > 1 || crowd.displacement == 0, "\(crowd.order)")
            // The kernel spreads connections by their ports: as evenly as a coin.
            #expect(crowd.displacement < 200, "\(crowd.displacement)")
            print("queue: round \(round), \(workers) workers, displaced by \(crowd.displacement), \(resident[round]) B")
            crowd.leave()
            try awaitUntil("all are over") { try NodeStatus.total("connections_active", site.admin) == 0 }
        }
        // Who waits has a slot and a block, once. The first rounds also touch the rings of records for the log.
        #expect(resident[6] - resident[4] < 500_000, "\(resident)")
        let lines = try site.node.logs(7000).values
        #expect(lines.allSatisfy { $0.reason == "relay.reset client" && ($0.queuedMilliseconds ?? 0) < 60_000 })
    }

    @Test(
        "HAProxy beside it: `maxconn`, `timeout queue`: the same order; the end of a wait is a FIN there, a reset here")
    func peer() throws {
        let servers = (try ManualServer(), try ManualServer())
        let site = try site(servers.0, workers: 1, max: 3, "100 for 2s")
        let entry = Place("::1", try FreePort.take())
        let proxy = try HAProxy(
            """
            global
                nbthread 1
            defaults
                mode tcp
                timeout connect 2s
                timeout client 1m
                timeout server 1m
                timeout queue 2s
            listen raw
                bind [::1]:\(entry.port)
                server one \(servers.1.place) maxconn 3

            """, ready: entry)
        // The look whether it listens has left a connection, whose client is gone.
        _ = try servers.1.accept().receiveToEnd()
        var crowds = [Crowd(servers.0, site.entry, places: 3), Crowd(servers.1, entry, places: 3)]
        for index in crowds.indices {
            try crowds[index].come(20)
            try crowds[index].serve(10)
            #expect(crowds[index].order == Array(0..<13))
        }
        // The rest waits until its time is over.
        let endings = try crowds.map { try $0.clients[13...].map { try $0.receiveToEnd().ending } }
        #expect(endings == [[Ending](repeating: .reset, count: 7), [Ending](repeating: .fin, count: 7)])
        let line = try site.node.log(of: crowds[0].clients[19].local)
        #expect(line.reason == "backend.backends_queue_timeout upstream", "\(line)")
        withExtendedLifetime(proxy) {}
    }

    @Test("two workers and one place: each place that comes free is had at once, whichever worker's client is next")
    func handOver() throws {
        let server = try ManualServer()
        let site = try site(server, workers: 2, max: 1, "300 for 1m")
        var crowd = Crowd(server, site.entry, places: 1)
        try crowd.come(200)
        try site.waitUntil(queued: 199)
        let began = Deadline.now()
        try crowd.serve(199)
        let milliseconds = (Deadline.now() - began) / 1_000_000
        #expect(crowd.order.sorted() == Array(0..<200))
        // By looks every 50 ms alone half of them would take five seconds.
        #expect(milliseconds < 3000, "\(milliseconds) ms")
        print("queue: 199 places between two workers in \(milliseconds) ms")
    }
}
