import Foundation
import TestSupport

/// A server of a site: says its name and what it was sent. It can be taken away, come back at its port, and be up but unwell.
final class SiteServer: @unchecked Sendable {
    let name: String
    let place: Place
    private let speaksFirst: Bool
    private let isUnwell = Flag()
    private var server: Server?

    init(_ name: String, speaksFirst: Bool = false) throws {
        self.name = name
        self.speaksFirst = speaksFirst
        place = Place("::1", try FreePort.take())
        try start()
    }

    func start() throws {
        let (name, speaksFirst, isUnwell) = (name, speaksFirst, isUnwell)
        server = try Server(port: place.port) { socket in
            if speaksFirst {
                try socket.send(name)
            } else if case .bytes(let bytes) = try socket.receive() {
                try socket.send(
                    bytes.starts(with: Array("GET ".utf8))
                        ? "HTTP/1.0 \(isUnwell.isSet ? 503 : 200) x\r\n\r\n" : "\(name) \(Self.seen(bytes))")
            }
            socket.finish()
            _ = try socket.receiveToEnd()
        }
    }

    func stop() throws {
        server = nil
        try place.waitUntilNobodyListens()
    }

    func becomeUnwell() { isUnwell.set() }

    /// `hello`, or whom a PROXY v2 header in front of it names.
    private static func seen(_ bytes: [UInt8]) -> String {
        guard bytes.starts(with: [13, 10, 13, 10, 0, 13, 10]), bytes.count >= 28 else {
            return bytes.first == 22 ? "hello" : "\(bytes.prefix(8))"
        }
        let end = min(bytes.count, 16 + Int(bytes[14]) << 8 + Int(bytes[15]))
        var words = ["of", bytes[16..<20].map(String.init).joined(separator: ".")]
        var rest = bytes[28..<max(28, end)]
        while rest.count >= 3 {
            let (kind, length) = (
                rest[rest.startIndex], Int(rest[rest.startIndex + 1]) << 8 + Int(rest[rest.startIndex + 2])
            )
            let value = rest.dropFirst(3).prefix(length)
            if kind == 2 { words.append(String(decoding: value, as: UTF8.self)) }
            rest = rest.dropFirst(3 + length)
        }
        return words.joined(separator: " ")
    }
}

/// What stands behind a site: groups of three, a backup of the first, MySQL's two and SSH's one.
struct SiteServers {
    var groups: [String: [SiteServer]] = [:]
    let spare: SiteServer
    let mysql: [SiteServer]
    let ssh: SiteServer
    /// The media servers speak TLS, but for the third.
    let tls: Nginx

    init() throws {
        for (group, _) in SiteConfigs.names where group != "media" {
            groups[group] = try (1...3).map { try SiteServer("\(group)\($0)") }
        }
        spare = try SiteServer("spare")
        mysql = try (1...2).map { try SiteServer("mysql\($0)", speaksFirst: true) }
        ssh = try SiteServer("ssh1", speaksFirst: true)
        let folder = try TemporaryFolder()
        let certificate = try Certificate.make("cdn.example.com", in: folder)
        let places = try (0..<2).map { _ in Place("::1", try FreePort.take()) }
        let blocks = places.enumerated().map { number, place in
            """
                server {
                    listen \(place) ssl; ssl_protocols TLSv1.2 TLSv1.3;
                    ssl_certificate \(certificate.certificateFile); ssl_certificate_key \(certificate.keyFile);
                    location / { return 200 "media\(number + 1)"; }
                }
            """
        }
        tls = try Nginx(seen: "$uri", http: blocks.joined(separator: "\n"), ready: places[1])
        media = places
        plain = try SiteServer("media3")
        withExtendedLifetime(folder) {}
    }

    private let media: [Place]
    let plain: SiteServer

    var configs: SiteConfigs {
        var places = groups.mapValues { $0.map(\.place) }
        places["media"] = media + [plain.place]
        return SiteConfigs(servers: places, spare: spare.place, mysql: mysql.map(\.place), ssh: ssh.place)
    }
}
