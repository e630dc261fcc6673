import Foundation
import TestSupport
import Testing

/// Something that nginx's or HAProxy's own tests hold, said anew: each proxy that has it gets its own words for it, the same
/// servers, and the same question in the same run.
struct Behaviour: Sendable, CustomTestStringConvertible {
    let text: String
    /// The test of theirs that holds it: nginx's `stream_*.t`, HAProxy's `*.vtc`.
    let origin: String
    var servers: [Kind] = [.saying, .saying]
    /// The lines of an `upstream` and of a `server` block; nil: nginx has it not.
    var nginx: (@Sendable ([Place]) -> (upstream: [String], server: [String]))?
    /// The lines of a `listen` section; nil: HAProxy has it not.
    var haproxy: (@Sendable ([Place]) -> [String])?
    let ours: @Sendable ([Place]) -> Ours
    let answer: String
    /// Where they answer otherwise: what the docs say is different.
    var nginxAnswers: String?
    var haproxyAnswers: String?
    let ask: @Sendable (Asked) throws -> String

    var testDescription: String { "\(origin): \(text)" }

    /// What stands behind the proxies at a place.
    enum Kind: Sendable {
        /// Says its number, and stays until the client goes.
        case saying
        /// Nobody listens.
        case dead
        /// Its queue is full: no SYN is answered.
        case silent
        /// Answers each line of a probe by what it is told to, and everybody else by its number.
        case answering(String)
        /// Says its number once its client's direction is over.
        case patient
        /// Says what it is sent first.
        case repeating
    }

    /// Our words: what a `route` has, the clauses of `backend`, and what stands beside the pipeline.
    struct Ours: Sendable {
        var route: [String]
        var backend = "round_robin"
        var stages: [String] = []
        var proxy = "proxy_v2"
        var more = ""
    }

    /// One proxy that is asked.
    struct Asked: Sendable {
        let entry: Place
        let servers: BehaviourServers
        /// What this one is expected to answer: for what comes to be so only after a while.
        let answer: String

        /// A connection, and what the server said: its number; `-`: nobody.
        func connect(from source: String = "127.0.0.1", saying words: String = "") throws -> (Socket, String) {
            let client = try Socket.connect(to: entry, from: Place(source, 0))
            // It may be refused before it has said anything.
            if !words.isEmpty { try? client.send(words) }
            guard case .bytes(let bytes) = try client.receive() else { return (client, "-") }
            return (client, String(decoding: bytes, as: UTF8.self))
        }

        /// The answers of connections one after another, each of which ends before the next begins.
        func answers(_ count: Int, from source: String = "127.0.0.1") throws -> [String] {
            try (0..<count).map { _ in try connect(from: source).1 }
        }

        /// How many came from whom: `1:4 2:2`.
        func counts(_ count: Int) throws -> String { Self.counted(try answers(count)) }

        /// Of connections that all stay.
        func held(_ count: Int, from source: String = "127.0.0.1") throws -> [(Socket, String)] {
            try (0..<count).map { _ in try connect(from: source) }
        }

        static func counted(_ answers: [String]) -> String {
            Dictionary(answers.map { ($0, 1) }, uniquingKeysWith: +).sorted { $0.key < $1.key }
                .map { "\($0.key):\($0.value)" }.joined(separator: " ")
        }
    }
}

/// The servers of one behaviour.
final class BehaviourServers: @unchecked Sendable {
    let places: [Place]
    private var servers: [Server?] = []
    private var silent: [(ManualServer, [Socket])] = []

    init(_ kinds: [Behaviour.Kind]) throws {
        var places: [Place] = []
        for (number, kind) in kinds.enumerated() {
            let name = "\(number + 1)"
            switch kind {
            case .dead: places.append(Place("::1", try FreePort.take()))
            case .silent:
                let server = try ManualServer(backlog: 0)
                silent.append((server, try server.fill()))
                places.append(server.place)
            case .saying, .answering, .patient, .repeating:
                let server = try Server { try Self.serve(name, kind, $0) }
                servers.append(server)
                places.append(server.place)
            }
        }
        self.places = places
    }

    private static func serve(_ name: String, _ kind: Behaviour.Kind, _ socket: Socket) throws {
        switch kind {
        case .answering(let answer):
            guard case .bytes(let bytes) = try socket.receive() else { return }
            try socket.send(bytes.starts(with: Array("who".utf8)) ? name : answer)
        case .repeating:
            guard case .bytes(let bytes) = try socket.receive() else { return }
            try socket.send(bytes)
        case .patient:
            let said = try socket.receiveToEnd().bytes.count
            try socket.send("\(name) after \(said)")
            socket.finish()
        default: try socket.send(name)
        }
        _ = try socket.receiveToEnd()
    }

    /// Nobody listens at its place any more.
    func stop(_ number: Int) throws {
        servers[number] = nil
        try places[number].waitUntilNobodyListens()
    }
}
