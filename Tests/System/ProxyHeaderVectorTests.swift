import Pipeline
import TestSupport
import Testing

/// All of the shared PROXY headers through a socket: refused from strangers, believed or refused for what is wrong
/// with them from those who must send one, and the same however the bytes come (R17).
@Suite(
    "Shared PROXY headers through a socket", .serialized,
    .enabled(if: Vectors.arePresent, "shared/vectors is not beside this checkout"))
struct ProxyHeaderVectorTests {
    enum Outcome: Equatable {
        /// How long the header is, and whom it names: nil: nobody.
        case header(length: Int, source: String?)
        case incomplete, malformed, notProxy

        init?(_ value: Any) {
            switch value as? String {
            case "incomplete"?: self = .incomplete
            case "malformed"?: self = .malformed
            case "not_proxy"?: self = .notProxy
            case .some: return nil
            case nil:
                guard let object = value as? [String: Any], let length = object["consumed"] as? Int else { return nil }
                let address = (object["src"] as? String).flatMap { IPAddress($0) }
                let port = (object["sport"] as? Int).flatMap { UInt16(exactly: $0) }
                var source: String?
                if let address, let port { source = Endpoint(address, port).description }
                self = .header(length: length, source: source)
            }
        }
    }

    struct Vector {
        let name: String
        let bytes: [UInt8]
        let antispoof: String
        let expected: Outcome
        let accepted: [Outcome]

        init?(_ object: [String: Any]) {
            guard let name = object["name"] as? String, let hex = object["hex"] as? String,
                let bytes = TestSupport.bytes(hex: hex), let antispoof = object["antispoof"] as? String,
                let expected = object["expect"].flatMap(Outcome.init)
            else { return nil }
            self.name = name
            self.bytes = bytes
            self.antispoof = antispoof
            self.expected = expected
            accepted = [expected] + (object["alt"] as? [Any] ?? []).compactMap(Outcome.init)
        }
    }

    private func vectors(upTo limit: Int = .max) throws -> [Vector] {
        let objects = try Vectors.load("proxyv2.json")
        let vectors = objects.compactMap(Vector.init)
        #expect(vectors.count == objects.count && vectors.count >= 80)
        return vectors.filter { $0.bytes.count <= limit }
    }

    /// A raw listener in front of an echo server.
    private struct Site {
        let node: Node
        let entry: Place
        let echo: Server

        init(_ stage: String, host: String = "::1") throws {
            echo = try Server.echo()
            entry = Place(host, try FreePort.take())
            let route = RouteText(host: nil, id: "rt_raw", port: entry.port, backends: [echo.place])
            node = try Node(ConfigText(rawListeners: [entry], firstStages: [stage], routes: [route]).description)
        }
    }

    // MARK: From strangers

    @Test("R17: from strangers, whole: the `antispoof` column")
    func strangers() throws { try refuseOthers(vectors()) { [$0] } }

    @Test("R17: from strangers, byte by byte")
    func strangersBytewise() throws { try refuseOthers(vectors(upTo: 300)) { $0.map { [$0] } } }

    private func refuseOthers(_ vectors: [Vector], pieces: ([UInt8]) -> [[UInt8]]) throws {
        let site = try Site("anti_spoof refuse others")
        let clients = try vectors.map { _ in try Socket.connect(to: site.entry) }
        let places = try clients.map { try $0.local.description }
        send(vectors.map { pieces($0.bytes) }, to: clients)
        for (client, vector) in zip(clients, vectors) where vector.antispoof == "pass" {
            #expect(try client.receive(exactly: vector.bytes.count) == vector.bytes, "\(vector.name)")
            client.finish()
        }
        for (client, vector) in zip(clients, vectors) where vector.antispoof == "wait" {
            #expect(client.isQuiet, "\(vector.name): passed while it could become a header")
            client.finish()
            #expect(try client.receiveToEnd().bytes == vector.bytes, "\(vector.name)")
        }
        for (client, vector) in zip(clients, vectors) where vector.antispoof == "block" {
            #expect(try client.receiveToEnd().bytes == [], "\(vector.name)")
        }
        let lines = try site.node.logs(vectors.count)
        for (place, vector) in zip(places, vectors) {
            let expected = vector.antispoof == "block" ? "anti_spoof.spoofed client" : "relay.closed client"
            #expect(lines[place]?.reason == expected, "\(vector.name): \(String(describing: lines[place]))")
            #expect(lines[place]?.client == place, "\(vector.name): a stranger's word was believed")
            if vector.antispoof == "block" { #expect(lines[place]?.bytesToBackend == 0, "\(vector.name)") }
        }
        #expect(lines.count == vectors.count)
        #expect(!site.node.child.hasEnded)
    }

    // MARK: From those who must send one

    static let hosts = ["::1", "127.0.0.1"]

    @Test("R17: from senders, whole", arguments: hosts)
    func senders(host: String) throws { try require(host, timeout: "8s", finishes: false, vectors()) { [$0] } }

    @Test("R17: from senders, byte by byte", arguments: hosts)
    func sendersBytewise(host: String) throws {
        try require(host, timeout: "60s", finishes: true, vectors(upTo: 300)) { $0.map { [$0] } }
    }

    @Test("R17: from senders, in two pieces of every proportion", arguments: 1...7)
    func sendersSplit(eighths: Int) throws {
        try require("::1", timeout: "60s", finishes: true, vectors()) { bytes in
            let cut = bytes.count * eighths / 8
            return [Array(bytes[..<cut]), Array(bytes[cut...])].filter { !$0.isEmpty }
        }
    }

    /// - Parameter finishes: a header that is not whole ends by FIN, not by the deadline.
    private func require(
        _ host: String, timeout: String, finishes: Bool, _ vectors: [Vector], pieces: ([UInt8]) -> [[UInt8]]
    ) throws {
        let site = try Site(
            "anti_spoof require from 127.0.0.0/8, require from ::1, refuse others, max 16KiB, timeout \(timeout)",
            host: host)
        let clients = try vectors.map { _ in try Socket.connect(to: site.entry) }
        let places = try clients.map { try $0.local.description }
        send(vectors.map { pieces($0.bytes) }, to: clients)
        let answers = try zip(clients, vectors).map { client, vector -> [UInt8] in
            if finishes || vector.expected != .incomplete { client.finish() }
            return try client.receiveToEnd().bytes
        }
        let lines = try site.node.logs(vectors.count)
        for (index, vector) in vectors.enumerated() {
            guard let line = lines[places[index]] else {
                Issue.record("\(vector.name): no log line")
                continue
            }
            let incomplete = finishes ? "anti_spoof.header_closed client" : "anti_spoof.header_timeout client"
            let isRight = vector.accepted.contains { outcome in
                switch outcome {
                case .incomplete: line.reason == incomplete && answers[index].isEmpty
                case .malformed: line.reason == "anti_spoof.header_malformed client" && answers[index].isEmpty
                case .notProxy: line.reason == "anti_spoof.header_missing client" && answers[index].isEmpty
                case .header(let length, let source):
                    line.reason == "relay.closed client" && line.client == source ?? places[index]
                        && answers[index] == Array(vector.bytes.dropFirst(length))
                        && line.bytesToBackend == vector.bytes.count - length
                }
            }
            #expect(isRight, "\(vector.name): expected \(vector.accepted); \(answers[index].count) bytes back, \(line)")
        }
        #expect(lines.count == vectors.count)
        #expect(!site.node.child.hasEnded)
    }

    /// A piece of each stream in turn. One that the node has closed takes no more.
    private func send(_ pieces: [[[UInt8]]], to clients: [Socket]) {
        var left = pieces.map { $0[...] }
        while left.contains(where: { !$0.isEmpty }) {
            for index in left.indices {
                guard let piece = left[index].popFirst() else { continue }
                do { try clients[index].send(piece) } catch { left[index] = [] }
            }
        }
    }
}
