import Foundation
import TestSupport
import Testing

/// Limits on real connections (R27), two workers, clients in processes of their own.
@Suite("Limits", .serialized)
struct RateLimitTests {
    /// Connects over and over for the time it is told, once it is told to go; says how many were served, how many
    /// were refused, and when its first and last began. `pace` is how long it looks after each refusal for an end.
    private static let client = """
        import select, socket, sys, time
        host, port, seconds, pace = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
        print("ready", flush=True)
        sys.stdin.readline()
        served = refused = other = 0
        first = time.monotonic()
        last = first
        while last - first < seconds:
            last = time.monotonic()
            s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            s.settimeout(20)
            try:
                s.connect((host, port))
                if s.recv(16): served += 1
                else: other += 1
            except ConnectionResetError: refused += 1
            except OSError: other += 1
            end = time.monotonic()
            s.close()
            select.select([], [], [], pace)
        print(f"done {served} {refused} {other} {first:.6f} {last:.6f} {end:.6f}", flush=True)
        """

    private struct Count {
        var served = 0
        var refused = 0
        var other = 0
        var first = Double.infinity
        /// When the last one that was tried began, and when it was over.
        var last = 0.0
        var end = 0.0
    }

    private static func offer(to entry: Place, processes: Int, seconds: Int) throws -> Count {
        let clients = try (0..<processes).map { _ in
            try Child("python3", ["-c", client, entry.host, "\(entry.port)", "\(seconds)", "0.004"])
        }
        for child in clients { _ = try child.wait("that it is ready") { $0.first { $0.text == "ready" } } }
        for child in clients { try child.write("go\n") }
        var count = Count()
        for child in clients {
            let line = try child.wait("its counts", Deadline(seconds: Double(seconds) + Deadline.usual)) { lines in
                lines.first { $0.text.hasPrefix("done ") }
            }
            let numbers = line.text.split(separator: " ").dropFirst().compactMap { Double($0) }
            guard numbers.count == 6 else { throw Failure("a client said \(line.text)") }
            count.served += Int(numbers[0])
            count.refused += Int(numbers[1])
            count.other += Int(numbers[2])
            count.first = min(count.first, numbers[3])
            count.last = max(count.last, numbers[4])
            count.end = max(count.end, numbers[5])
        }
        return count
    }

    private static func config(_ limit: String, entry: Place, backend: Place, workers: Int = 2) -> String {
        let route = RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [backend])
        return ConfigText(
            workers: workers, rawListeners: [entry], firstStages: ["rate_limit tested"], routes: [route], more: limit
        ).description
    }

    @Test("100/s over 10 s, with two workers and 8 client processes: never more, and nearly as many")
    func rate() throws {
        let server = try Server { socket in
            try socket.send("hello")
            socket.finish()
            _ = try socket.receiveToEnd()
        }
        let entry = Place("::1", try FreePort.take())
        let limit = "limit tested {\n    key client/128\n    rate 100/s burst 20\n    table 1k\n}\n"
        let node = try Node(Self.config(limit, entry: entry, backend: server.place))
        let count = try Self.offer(to: entry, processes: 8, seconds: 10)
        let seconds = count.last - count.first
        let allowed = 20 + 100 * (count.end - count.first)
        print("limit 100/s burst 20: \(count.served) served, \(count.refused) refused in \(seconds) s")
        #expect(seconds >= 10)
        #expect(count.other == 0)
        #expect(Double(count.served) <= allowed + 1, "\(count)")
        // How near it comes is the machine's doing as well: clients that are not run for long find no more than the burst.
        #expect(Double(count.served) >= 0.9 * (20 + 100 * seconds), "\(count)")
        #expect(count.refused > count.served / 4, "what is offered must be above the limit")
        let logged = try node.child.wait("a log line for each") { lines -> [LogLine]? in
            let out = lines.filter { $0.stream == .out }
            return out.count >= count.served + count.refused ? out.compactMap { LogLine($0.text) } : nil
        }
        #expect(logged.count { $0.reason == "rate_limit.rate_exceeded client" } == count.refused)
        #expect(logged.count { $0.backend != nil && $0.attempts > 0 } == count.served)
    }

    @Test("as many at once as the limit says, exactly, whichever of two workers they land on")
    func concurrent() throws {
        let server = try Server.saying("hello")
        let entry = Place("::1", try FreePort.take())
        let limit = "limit tested {\n    key client/64\n    concurrent 5\n    table 1k\n}\n"
        let node = try Node(Self.config(limit, entry: entry, backend: server.place))
        let clients = try (0..<40).map { _ in try Socket.connect(to: entry) }
        var served: [Socket] = []
        for client in clients {
            if case .bytes? = try? client.receive(atMost: 5) { served.append(client) }
        }
        #expect(served.count == 5)
        let refused = try node.child.wait("35 refusals") { lines -> Int? in
            let count = lines.count { $0.text.contains("rate_limit.too_many_connections client") }
            return count >= 35 ? count : nil
        }
        #expect(refused == 35)
    }

    @Test("R20, R28: envs of the same id in two orgs have a limit each, and their lines, routes and backends say whose")
    func wholePaths() throws {
        let server = try Server.echo()
        let folder = try TemporaryFolder()
        let admin = "\(folder.path)/admin.sock"
        let entries = try (0..<2).map { _ in Place("::1", try FreePort.take()) }
        let owners = ["acme/shop/prod", "globex/web/prod"]
        let routes = (0..<2).map {
            RouteText(
                host: nil, id: "rt_\($0)", owner: owners[$0], port: entries[$0].port, backends: [server.place])
        }
        let config = ConfigText(
            settings: ["admin unix:\(admin)"], workers: 2, rawListeners: entries, proxy: "rate_limit tested",
            routes: routes, more: "limit tested {\n    key env\n    concurrent 1\n    table 1k\n}\n")
        let node = try Node(config.description, folder: folder)
        var held: [Socket] = []
        for (entry, owner) in zip(entries, owners) {
            let first = try Socket.connect(to: entry)
            try first.send("ping")
            #expect(try first.receive(exactly: 4) == Array("ping".utf8), "the first of \(owner)")
            held.append(first)
            let second = try Socket.connect(to: entry)
            let line = try node.log(of: second.local)
            #expect(line.reason == "rate_limit.too_many_connections client" && line.owner == owner, "\(line)")
        }
        for (client, owner) in zip(held, owners) {
            client.finish()
            let line = try node.log(of: client.local)
            #expect(line.owner == owner && line.env == "prod", "\(line)")
        }
        for (what, list) in [
            ("routes", { (row: [String: Any]) in [row] }), ("backends", { $0["envs"] as? [[String: Any]] ?? [] }),
        ] {
            let answer = try Binary.run([what, "--json", "--admin", admin])
            let json = try JSONSerialization.jsonObject(with: Data(answer.out.utf8)) as? [String: Any]
            let rows = json?[what] as? [[String: Any]] ?? []
            let found = rows.flatMap(list).map { env in ["org", "app", "env"].map { env[$0] as? String ?? "" } }
            #expect(Set(found.map { $0.joined(separator: "/") }) == Set(owners), "\(answer.out)")
        }
    }

    @Test("when one of them ends, there is room for one more")
    func givenBack() throws {
        let server = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        let limit = "limit tested {\n    key client/64\n    concurrent 1\n    table 1k\n}\n"
        let node = try Node(Self.config(limit, entry: entry, backend: server.place))
        for _ in 0..<3 {
            let client = try Socket.connect(to: entry)
            try client.send("ping")
            #expect(try client.receive(exactly: 4) == Array("ping".utf8))
            let other = try Socket.connect(to: entry)
            #expect(try node.log(of: other.local).reason == "rate_limit.too_many_connections client")
            client.finish()
            #expect(try client.receiveToEnd().ending == .fin)
            _ = try node.log(of: client.local)
        }
    }
}
