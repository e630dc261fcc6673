import Foundation
import Testing

/// Limits by sender as an egress node keeps them, with instances of two orgs in namespaces of their own (R20).
@Suite("Limits by sender", .enabled(if: EgressLab.obstacle == nil, "\(EgressLab.obstacle ?? "")"))
struct EgressLimitTests {
    private static let (rate, burst) = (50, 10)
    private static let bytesPerSecond = 2 << 20

    @Test(
        "R20: connections and bytes a second within 5%, by instance, env and org; the other sender is not held up",
        arguments: ["instance", "env", "org"])
    func rates(key: String) throws {
        let lab = try EgressLab()
        let server = try lab.startServer()
        let node = try lab.startNode(
            limit: "key \(key)\n    rate \(Self.rate)/s burst \(Self.burst)\n    bytes_down 2MiB/s")
        let (served, seconds) = try lab.inside(lab.alpha) { try Self.connectAgainAndAgain(for: 4) }
        let allowed = Double(Self.burst) + Double(Self.rate) * seconds
        #expect(abs(Double(served) - allowed) <= allowed * 0.05, "\(served) of \(allowed)")
        #expect(try lab.curl(lab.beta, EgressLab.v6).exit == .code(0))

        let source = try lab.inside(lab.server) {
            try Server("2001:db8:9::2", port: 9000) { socket in
                let chunk = pattern(65536)
                while (try? socket.send(chunk, Deadline(seconds: 60))) != nil {}
            }
        }
        let speed = try lab.inside(lab.alpha) { try Self.speed(from: Place("2001:db8:9::2", 9000)) }
        #expect(abs(speed - Double(Self.bytesPerSecond)) <= Double(Self.bytesPerSecond) * 0.05, "\(speed) bytes/s")
        print("by \(key): \(served) of \(allowed) connections, \(Int(speed)) bytes/s")
        withExtendedLifetime((server, node, source)) {}
    }

    /// One after the other, as fast as they are answered; how many were, and how long it took.
    private static func connectAgainAndAgain(for seconds: Double) throws -> (served: Int, seconds: Double) {
        let begin = DispatchTime.now().uptimeNanoseconds
        var served = 0
        while true {
            let elapsed = Double(DispatchTime.now().uptimeNanoseconds - begin) / 1e9
            if elapsed >= seconds { return (served, elapsed) }
            if (try? answered()) == true { served += 1 }
        }
    }

    private static func answered() throws -> Bool {
        let socket = try Socket.connect(to: EgressLab.v6)
        try socket.send("GET / HTTP/1.0\r\nHost: egress.test\r\n\r\n")
        if case .bytes = try socket.receive() { return true }
        return false
    }

    /// Bytes a second, once the burst and the sockets' buffers are behind.
    private static func speed(from place: Place) throws -> Double {
        let socket = try admitted(to: place)
        _ = try socket.receive(exactly: 3 << 20, Deadline(seconds: 60))
        let begin = DispatchTime.now().uptimeNanoseconds
        _ = try socket.receive(exactly: 6 << 20, Deadline(seconds: 60))
        return Double(6 << 20) / (Double(DispatchTime.now().uptimeNanoseconds - begin) / 1e9)
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
