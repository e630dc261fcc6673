import Pipeline

/// Built-in sets, which every config may name without `@`. From the IANA IPv4 and IPv6 Special-Purpose Address
/// Registries (RFC 6890, updated by RFC 8190) and the multicast and reserved blocks, as of 2026.
package enum BuiltInSets {
    package static let names = [
        "bogons", "private", "link_local", "loopback", "multicast", "documentation", "shared", "unspecified",
        "metadata",
    ]

    package static func named(_ name: String) -> AddressSet? { all[name] }

    private static let all = Dictionary(
        uniqueKeysWithValues: [
            ("private", privateUse), ("link_local", linkLocal), ("loopback", loopback),
            ("multicast", multicast), ("documentation", documentation), ("shared", shared),
            ("unspecified", unspecified), ("metadata", metadata),
        ].map { ($0.0, AddressSet(name: $0.0, prefixes: prefixes($0.1))) }
            + [("bogons", AddressSet(name: "bogons", prefixes: bogons))])

    private static func prefixes(_ texts: [String]) -> [Prefix] { texts.compactMap { Prefix($0) } }

    /// One line for help and docs.
    package static func summary(_ name: String) -> String {
        switch name {
        case "bogons":
            "sources that never occur on the public Internet: all other built-in sets, and reserved addresses"
        case "private": "private use: RFC 1918, unique local IPv6 (RFC 4193)"
        case "link_local": "link-local: RFC 3927, RFC 4291"
        case "loopback": "loopback: RFC 1122, RFC 4291"
        case "multicast": "multicast: RFC 5771, RFC 4291"
        case "documentation": "documentation: RFC 5737, RFC 3849, RFC 9637"
        case "shared": "shared address space behind carrier-grade NAT: RFC 6598"
        case "unspecified": "no address: 0.0.0.0 (RFC 1122), :: (RFC 4291)"
        case "metadata":
            "where clouds serve instance metadata and credentials: 169.254.169.254, fd00:ec2::254 and others"
        default: ""
        }
    }

    static let privateUse = [
        "10.0.0.0/8",  // RFC 1918
        "172.16.0.0/12",  // RFC 1918
        "192.168.0.0/16",  // RFC 1918
        "fc00::/7",  // unique local, RFC 4193
    ]

    static let linkLocal = [
        "169.254.0.0/16",  // RFC 3927
        "fe80::/10",  // RFC 4291
    ]

    static let loopback = [
        "127.0.0.0/8",  // RFC 1122 §3.2.1.3
        "::1/128",  // RFC 4291
    ]

    static let multicast = [
        "224.0.0.0/4",  // RFC 5771
        "ff00::/8",  // RFC 4291
    ]

    static let documentation = [
        "192.0.2.0/24",  // TEST-NET-1, RFC 5737
        "198.51.100.0/24",  // TEST-NET-2, RFC 5737
        "203.0.113.0/24",  // TEST-NET-3, RFC 5737
        "2001:db8::/32",  // RFC 3849
        "3fff::/20",  // RFC 9637
    ]

    static let shared = [
        "100.64.0.0/10"  // RFC 6598
    ]

    static let unspecified = [
        "0.0.0.0/32",  // "this host on this network", RFC 1122 §3.2.1.3
        "::/128",  // RFC 4291
    ]

    /// Not from a registry: what clouds use.
    static let metadata = [
        "169.254.169.254/32",  // nearly all of them
        "169.254.170.2/32",  // AWS, credentials of containers
        "100.100.100.200/32",  // Alibaba Cloud
        "168.63.129.16/32",  // Azure, its agent's server
        "192.0.0.192/32",  // Oracle Cloud
        "fd00:ec2::254/128",  // AWS, for IPv6
        "fe80::a9fe:a9fe/128",  // OpenStack, for IPv6
        "fd20:ce::254/128",  // Google Cloud, for IPv6
    ]

    /// What the registries list as not globally reachable and the other sets don't have, but for ``reachable``. Of what they
    /// leave open ("N/A"), 2002::/16 (6to4, RFC 3056), 2001::/32 (Teredo, RFC 4380) and 192.88.99.0/24 (6to4 relays,
    /// RFC 7526) are in no set: such packets do cross the Internet. Nor are those listed as reachable: 64:ff9b::/96 (RFC
    /// 6052), 192.31.196.0/24, 192.175.48.0/24 and 2620:4f:8000::/48 (AS112, RFC 7534, RFC 7535), 192.52.193.0/24 (AMT,
    /// RFC 7450). ::ffff:0:0/96 is IPv4 here.
    static let reserved = [
        "0.0.0.0/8",  // "this network", RFC 791
        "192.0.0.0/24",  // IETF protocol assignments, RFC 6890
        "192.88.99.2/32",  // 6a44 relays, RFC 6751
        "198.18.0.0/15",  // benchmarking, RFC 2544
        "240.0.0.0/4",  // reserved, RFC 1112; with the limited broadcast, RFC 8190
        "64:ff9b:1::/48",  // local-use translation, RFC 8215
        "100::/64",  // discard-only, RFC 6666
        "100:0:0:1::/64",  // dummy prefix, RFC 9780
        "2001::/23",  // IETF protocol assignments, RFC 2928: benchmarking (RFC 5180), ORCHID (RFC 4843), unassigned
        "5f00::/16",  // segment routing SIDs, RFC 9602
        "fec0::/10",  // site-local (deprecated), RFC 3879
    ]

    /// Parts of ``reserved`` that are globally reachable, or left open.
    static let reachable = [
        "192.0.0.9/32", "192.0.0.10/32",  // PCP and TURN anycast, RFC 7723, RFC 8155
        "2001::/32",  // Teredo, RFC 4380
        "2001:1::1/128", "2001:1::2/128", "2001:1::3/128",  // PCP, TURN, DNS-SD SRP anycast, RFC 7723, 8155, 9665
        "2001:3::/32",  // AMT, RFC 7450
        "2001:4:112::/48",  // AS112, RFC 7535
        "2001:20::/28",  // ORCHIDv2, RFC 7343
        "2001:30::/28",  // drone remote ids, RFC 9374
    ]

    static let bogons: [Prefix] = {
        let holes = prefixes(reachable)
        let parts = prefixes(reserved).flatMap { without($0, holes) }
        let others = prefixes(privateUse + linkLocal + loopback + multicast + documentation + shared + unspecified)
        return parts + others.filter { other in !parts.contains { $0.contains(other.first) } }
    }()

    /// `whole` without all `holes`, in as few prefixes as possible.
    private static func without(_ whole: Prefix, _ holes: [Prefix]) -> [Prefix] {
        let inside = holes.filter { whole.contains($0.first) || $0.contains(whole.first) }
        guard !inside.isEmpty else { return [whole] }
        let length = whole.length + 1
        guard !inside.contains(where: { $0.length <= whole.length }), length <= 128 else { return [] }
        let bit = length <= 64 ? (UInt64(1) << UInt64(64 - length), UInt64(0)) : (0, UInt64(1) << UInt64(128 - length))
        let upper = IPAddress(high: whole.first.high | bit.0, low: whole.first.low | bit.1)
        return [whole.first, upper].compactMap { Prefix($0, length: length) }.flatMap { without($0, inside) }
    }
}
