import TestSupport
import Testing

/// All of the shared ClientHellos through a socket: relayed unchanged to the route of their name, or refused for what
/// is wrong with them, and the same however the bytes come (R7).
@Suite(
    "Shared ClientHellos through a socket", .serialized,
    .enabled(if: Vectors.arePresent, "shared/vectors is not beside this checkout"))
struct HelloVectorTests {
    /// What became of a hello.
    enum Verdict: Hashable {
        case name(String)
        case noName, incomplete, notTLS, malformed, tooLarge
    }

    struct Vector {
        let name: String
        let bytes: [UInt8]
        let accepted: Set<Verdict>
        /// The route's name; nil: its name must match none.
        let routingKey: String?

        init?(_ object: [String: Any]) {
            guard let name = object["name"] as? String, let hex = object["hex"] as? String,
                let bytes = TestSupport.bytes(hex: hex), let expect = object["expect"].flatMap(Vector.verdict)
            else { return nil }
            self.name = name
            self.bytes = bytes
            var accepted: Set = [expect]
            for other in object["alt"] as? [Any] ?? [] { Vector.verdict(other).map { _ = accepted.insert($0) } }
            // The parser's own limit comes on top.
            if bytes.count > HelloVectorTests.limit { accepted.insert(.tooLarge) }
            self.accepted = accepted
            routingKey = object["routing_key"] as? String
        }

        static func verdict(_ value: Any) -> Verdict? {
            switch value as? String {
            case "incomplete"?: return .incomplete
            case "not_tls"?: return .notTLS
            case "malformed"?: return .malformed
            case .some: return nil
            case nil:
                guard let object = value as? [String: Any] else { return nil }
                return (object["sni"] as? String).map(Verdict.name) ?? .noName
            }
        }
    }

    static let limit = 16384

    private func vectors() throws -> [Vector] {
        let objects = try Vectors.load("clienthello.json")
        let vectors = objects.compactMap(Vector.init)
        #expect(vectors.count == objects.count && vectors.count >= 150)
        return vectors
    }

    /// A route for each name, all to one echo server, on a listener where every name could be meant.
    private func start(_ vectors: [Vector], timeout: String) throws -> (Node, Place, Server) {
        let echo = try Server.echo()
        let entry = Place("::1", try FreePort.take())
        var names = Set(vectors.compactMap(\.routingKey))
        names.formUnion(["decoy-1.example.com", "decoy-2.example.com"])
        let routes = names.sorted().enumerated().map {
            RouteText(host: $1, id: "rt_\($0)", port: entry.port, backends: [echo.place])
        }
        let config = ConfigText(sniff: "timeout \(timeout), max 16KiB", tlsListeners: [entry], routes: routes)
        return (try Node(config.description), entry, echo)
    }

    @Test("R7: whole")
    func whole() throws { try run(timeout: "8s", finishes: false) { [$0] } }

    @Test("R7: byte by byte")
    func bytewise() throws { try run(timeout: "60s", finishes: true) { $0.map { [$0] } } }

    @Test("R7: in two pieces of every proportion", arguments: 1...7)
    func split(eighths: Int) throws {
        try run(timeout: "60s", finishes: true) { bytes in
            let cut = bytes.count * eighths / 8
            return [Array(bytes[..<cut]), Array(bytes[cut...])].filter { !$0.isEmpty }
        }
    }

    /// All at once, each on its connection, a piece of each in turn.
    /// - Parameter finishes: a hello that is not whole ends by FIN, not by the deadline: then nothing depends on how soon the
    ///   pieces of all of them are sent.
    private func run(timeout: String, finishes: Bool, pieces: ([UInt8]) -> [[UInt8]]) throws {
        let vectors = try vectors()
        let (node, entry, echo) = try start(vectors, timeout: timeout)
        let clients = try vectors.map { _ in try Socket.connect(to: entry) }
        let places = try clients.map { try $0.local.description }
        var left = vectors.map { pieces($0.bytes)[...] }
        var isBroken = vectors.map { _ in false }
        while left.contains(where: { !$0.isEmpty }) {
            for index in left.indices {
                guard let piece = left[index].popFirst(), !isBroken[index] else { continue }
                do { try clients[index].send(piece) } catch { isBroken[index] = true }
            }
        }
        for (client, vector) in zip(clients, vectors) where finishes && vector.accepted.contains(.incomplete) {
            client.finish()
        }
        // What was relayed comes back; what was not is closed without a byte.
        let echoed = try zip(clients, vectors).map { client, vector -> Bool in
            var received: [UInt8] = []
            while received.count < vector.bytes.count {
                guard case .bytes(let chunk) = try client.receive() else { break }
                received += chunk
            }
            #expect(received.isEmpty || received == vector.bytes, "\(vector.name): bytes were changed or lost")
            client.finish()
            return !received.isEmpty
        }
        let lines = try node.logs(vectors.count)
        for (index, vector) in vectors.enumerated() {
            guard let line = lines[places[index]] else {
                Issue.record("\(vector.name): no log line")
                continue
            }
            judge(
                vector, line, wasRelayed: echoed[index],
                unfinished: finishes ? "sni.closed client" : "sni.timeout client")
        }
        #expect(lines.count == vectors.count)
        #expect(!node.child.hasEnded)
        withExtendedLifetime(echo) {}
    }

    /// The log cuts long names, and says so.
    private func isName(_ logged: String?, _ key: String?) -> Bool {
        guard let logged, let key else { return false }
        return logged == key || logged.hasSuffix("…") && logged.count > 60 && key.hasPrefix(logged.dropLast())
    }

    /// - Parameter unfinished: the reason of what was not whole.
    private func judge(_ vector: Vector, _ line: LogLine, wasRelayed: Bool, unfinished: String) {
        let names = vector.accepted.contains { if case .name = $0 { true } else { false } }
        func accepts(_ verdict: Verdict) -> Bool { vector.accepted.contains(verdict) }
        let isRight =
            switch line.reason {
            case "relay.closed client":
                wasRelayed && names && isName(line.serverName, vector.routingKey)
            case "backend.no_route client", "sni.invalid_name client": names && vector.routingKey == nil
            case "sni.no_sni client": accepts(.noName)
            case "sni.not_tls client": accepts(.notTLS)
            case "sni.malformed client": accepts(.malformed)
            case "sni.too_large client": accepts(.tooLarge)
            case unfinished: accepts(.incomplete)
            default: false
            }
        #expect(
            isRight, "\(vector.name): expected \(vector.accepted), routed as \(vector.routingKey ?? "none"); \(line)")
        #expect(wasRelayed == (line.backend != nil), "\(vector.name): \(line)")
    }
}
