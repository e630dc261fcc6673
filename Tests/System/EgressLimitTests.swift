import Foundation
import TestSupport
import Testing

/// Limits by sender as an egress node keeps them, with instances of two orgs in namespaces of their own (R20).
@Suite("Limits by sender", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct EgressLimitTests {
    private static let (rate, burst) = (50, 10)
    private static let bytesPerSecond = 2 << 20

    @Test(
        "R20: connections and bytes a second, by instance, env and org: never more, and nearly as many; the other sender is not held up",
        arguments: ["instance", "env", "org"])
    func rates(key: String) throws {
        let lab = try EgressLab()
        let server = try lab.startServer()
        let node = try lab.startNode(
            limit: "key \(key)\n    rate \(Self.rate)/s burst \(Self.burst)\n    bytes_down 2MiB/s")
        let (served, seconds) = try lab.inside(lab.alpha) { try Self.connectAgainAndAgain(for: 4) }
        let allowed = Double(Self.burst) + Double(Self.rate) * seconds
        // How near it comes is the machine's doing as well: who is not run for long finds no more than the burst.
        #expect(Double(served) <= allowed + 1 && Double(served) >= allowed * 0.7, "\(served) of \(allowed)")
        #expect(try lab.curl(lab.beta, EgressLab.v6).exit == .code(0))

        let source = try lab.inside(lab.server) {
            try Server("2001:db8:9::2", port: 9000) { socket in
                let chunk = pattern(65536)
                while (try? socket.send(chunk, Deadline(seconds: 60))) != nil {}
            }
        }
        let speed = try lab.inside(lab.alpha) { try Self.speed(from: Place("2001:db8:9::2", 9000)) }
        #expect(speed.bytes <= speed.allowed && speed.bytes >= speed.allowed * 0.7, "\(speed)")
        print("by \(key): \(served) of \(allowed) connections, \(speed)")
        withExtendedLifetime((server, node, source)) {}
    }

    /// One after the other, as fast as they are answered; how many were, and how long it took.
    private static func connectAgainAndAgain(for seconds: Double) throws -> (served: Int, seconds: Double) {
        let begin = DispatchTime.now().uptimeNanoseconds
        var served = 0
        while true {
            if (try? answered()) == true { served += 1 }
            let elapsed = Double(DispatchTime.now().uptimeNanoseconds - begin) / 1e9
            if elapsed >= seconds { return (served, elapsed) }
        }
    }

    private static func answered() throws -> Bool {
        let socket = try Socket.connect(to: EgressLab.v6)
        try socket.send("GET / HTTP/1.0\r\nHost: egress.test\r\n\r\n")
        if case .bytes = try socket.receive() { return true }
        return false
    }

    /// What came of one connection, and how much may have come in that time: a second's worth is the burst, as none is given.
    private static func speed(from place: Place) throws -> (bytes: Double, allowed: Double) {
        let begin = DispatchTime.now().uptimeNanoseconds
        let socket = try admitted(to: place)
        _ = try socket.receive(exactly: 9 << 20, Deadline(seconds: 120))
        let seconds = Double(DispatchTime.now().uptimeNanoseconds - begin) / 1e9
        return (Double(9 << 20), Double(bytesPerSecond) * (seconds + 1) + 65536)
    }

    /// The limit of connections a second may have to let the next one in first.
    private static func admitted(to place: Place) throws -> Socket {
        let deadline = Deadline()
        while true {
            let socket = try Socket.connect(to: place)
            if (try? socket.receive(exactly: 1)) != nil { return socket }
            guard !deadline.hasPassed else { throw Failure("nobody is let in any more") }
        }
    }
}
