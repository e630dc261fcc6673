import Pipeline

/// Sets that every config may name without `@`. From the IANA IPv4 and IPv6 Special-Purpose Address Registries
/// (RFC 6890, updated by RFC 8190) and the multicast and reserved blocks, as of 2026.
package enum BuiltInSets {
    package static let names = ["bogons", "private", "link_local", "loopback", "multicast", "documentation"]

    package static func named(_ name: String) -> AddressSet? { all[name] }

    private static let all = Dictionary(
        uniqueKeysWithValues: [
            ("bogons", bogons), ("private", privateUse), ("link_local", linkLocal), ("loopback", loopback),
            ("multicast", multicast), ("documentation", documentation),
        ].map { ($0.0, AddressSet(name: $0.0, prefixes: $0.1.compactMap { Prefix($0) })) })

    /// One line for help and docs.
    package static func summary(_ name: String) -> String {
        switch name {
        case "bogons": "addresses that no packet from the public Internet comes from: all below, and reserved ones"
        case "private": "private use: RFC 1918, unique local IPv6 (RFC 4193)"
        case "link_local": "link-local: RFC 3927, RFC 4291"
        case "loopback": "loopback: RFC 1122, RFC 4291"
        case "multicast": "multicast: RFC 5771, RFC 4291"
        case "documentation": "documentation: RFC 5737, RFC 3849, RFC 9637"
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

    /// What the registries list as not globally reachable and the other sets don't have. 192.88.99.0/24 (6to4 relays,
    /// deprecated), 2001:1::1/128..3/128, 2001:3::/32 and the like are globally reachable and not here.
    static let reserved = [
        "0.0.0.0/8",  // "this network", RFC 791
        "100.64.0.0/10",  // shared address space, RFC 6598
        "192.0.0.0/24",  // IETF protocol assignments, RFC 6890
        "198.18.0.0/15",  // benchmarking, RFC 2544
        "240.0.0.0/4",  // reserved, RFC 1112; with the limited broadcast, RFC 8190
        "::/128",  // unspecified, RFC 4291
        "64:ff9b:1::/48",  // local-use translation, RFC 8215
        "100::/64",  // discard-only, RFC 6666
        "100:0:0:1::/64",  // dummy prefix, RFC 9780
        "2001:2::/48",  // benchmarking, RFC 5180
        "2001:10::/28",  // ORCHID (deprecated), RFC 4843
        "5f00::/16",  // segment routing SIDs, RFC 9602
        "fec0::/10",  // site-local (deprecated), RFC 3879
    ]

    static let bogons = reserved + privateUse + linkLocal + loopback + multicast + documentation
}
