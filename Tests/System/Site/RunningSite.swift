import Foundation
import TestSupport

/// The site's servers with both proxies in front of them.
final class RunningSite {
    var servers: SiteServers
    let node: Node
    let haproxy: HAProxy
    let entries: [(name: String, entries: SiteEntries)]
    private let folder: TemporaryFolder
    private var seen: [String: Int] = [:]

    init() throws {
        servers = try SiteServers()
        folder = try TemporaryFolder()
        let (theirs, ours) = (try SiteEntries(), try SiteEntries())
        entries = [("HAProxy", theirs), ("this node", ours)]
        let map = try folder.write("haproxy.map", SiteConfigs.haproxyMap)
        let suffixes = try folder.write("haproxy.suffixes", SiteConfigs.haproxySuffixes)
        haproxy = try HAProxy(
            servers.configs.haproxy(theirs, map: map, suffixes: suffixes), ready: theirs.ssh)
        try folder.write("sni.map", SiteConfigs.map)
        node = try Node(servers.configs.pipelined(ours, map: "sni.map"), folder: folder)
    }

    /// Both have noticed that the server is down, or up again.
    func notice(_ group: String, _ name: String, _ place: Place, isUp: Bool) throws {
        let count = (seen["\(name) \(isUp)"] ?? 0) + 1
        seen["\(name) \(isUp)"] = count
        let text = "Server \(group)/\(name) is \(isUp ? "UP" : "DOWN")"
        _ = try haproxy.child.wait("HAProxy's \(text)") { $0.count { $0.text.contains(text) } >= count ? true : nil }
        _ = try node.event(isUp ? "backend_up" : "backend_down", of: place, count)
    }

    func stop(_ group: String, _ server: SiteServer) throws {
        try server.stop()
        try notice(group, server.name, server.place, isUp: false)
    }

    func start(_ group: String, _ server: SiteServer) throws {
        try server.start()
        try notice(group, server.name, server.place, isUp: true)
    }
}
