import Pipeline
import PipelineHost

/// Bridge ports, from `ip -o link show`: the host's rules see packets of a port as the bridge's.
package struct HostLinks: Sendable, Equatable {
    /// In the order of the listing.
    package let ports: [(name: String, bridge: String)]
    package let bridges: [String]

    /// - Parameters:
    ///   - ports: of `ip -o link show type bridge_slave`.
    ///   - bridges: of `ip -o link show type bridge`.
    package init(ports: String, bridges: String) {
        self.ports = ports.split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ")
            guard let name = HostLinks.name(words), let master = words.firstIndex(of: "master"),
                words.indices.contains(master + 1)
            else { return nil }
            return (name, String(words[master + 1]))
        }
        self.bridges = bridges.split(separator: "\n").compactMap { HostLinks.name($0.split(separator: " ")) }
    }

    /// `4: vm1@if2: <BROADCAST,…`
    private static func name(_ words: [Substring]) -> String? {
        guard words.count > 1, words[1].hasSuffix(":") else { return nil }
        return words[1].dropLast().split(separator: "@").first.map(String.init)
    }

    package static func == (a: HostLinks, b: HostLinks) -> Bool {
        a.bridges == b.bridges && a.ports.elementsEqual(b.ports, by: ==)
    }

    /// For which families br_netfilter has the bridge itself call the host's IP rules.
    package static func filteredFamilies() -> (v6: Bool, v4: Bool) {
        let isSet = { (name: String) in
            (try? Files.read("/proc/sys/net/bridge/bridge-nf-call-\(name)", limit: 64))?.first == UInt8(ascii: "1")
        }
        return (isSet("ip6tables"), isSet("iptables"))
    }
}

extension EgressRules {
    /// Whether an `intercept interface` line names this interface.
    func names(_ interface: String) -> Bool {
        interfaces.contains { $0.last == "*" ? interface.hasPrefix($0.dropLast()) : interface == $0 }
    }

    /// Workload interfaces without packets of their own, because they are ports of a bridge that no line names.
    func portsAround(_ links: HostLinks) -> [String] {
        let around = links.ports.filter { names($0.name) && !names($0.bridge) }
        return Set(around.map(\.bridge)).sorted().map { bridge in
            let ports = around.filter { $0.bridge == bridge }.map(\.name)
            let shown = ports.prefix(3).joined(separator: ", ")
            let more = ports.count > 3 ? " and \(ports.count - 3) more" : ""
            let (are, their) = ports.count == 1 ? ("is a port", "its") : ("are ports", "their")
            return "\(shown)\(more) \(are) of the bridge \(bridge): \(their) packets come in by \(bridge) and bypass "
                + "the relay; write `intercept interface \(bridge)`"
        }
    }

    /// With br_netfilter our rules run inside the bridge, which loses the socket chosen by `tproxy`, so that TCP fails.
    func early(_ links: HostLinks, _ isFiltered: (v6: Bool, v4: Bool)) -> [String] {
        guard let bridge = links.bridges.first(where: names) else { return [] }
        let concerned = families.filter {
            $0.listener.mode == .transparent && ($0.isIPv4 ? isFiltered.v4 : isFiltered.v6)
        }
        return concerned.map {
            let setting = "net.bridge.bridge-nf-call-\($0.isIPv4 ? "iptables" : "ip6tables")"
            return
                "br_netfilter is on (\(setting) = 1): IPv\($0.isIPv4 ? 4 : 6) connections from the bridge \(bridge) "
                + "reach no `transparent` listener; set it to 0, or use `redirect`"
        }
    }
}
