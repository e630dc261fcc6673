import Foundation
import Glibc
import Synchronization
import TestSupport

/// Four network namespaces, as hosts: a node, two instances behind it, and a server in front of it. Nothing is forwarded
/// by the node's kernel: what gets through went through the relay. Needs root.
///
///     alpha (acme)  fd10:1::2, 10.81.1.2 ─ vm1 ┐
///                                              node ─ up0 ─ server 2001:db8:9::2, 198.51.100.2
///     beta (other)  fd10:2::2, 10.81.2.2 ─ vm2 ┘                  fd10:f::5 and fd10:f::6, in the platform's range
final class EgressLab: Sendable {
    let node: String
    let alpha: String
    let beta: String
    let server: String
    let folder: TemporaryFolder
    private let hops = Mutex<[String]>([])

    static let port: UInt16 = 8080
    static let tlsPort: UInt16 = 8443
    static let v6 = Place("2001:db8:9::2", port)
    static let v4 = Place("198.51.100.2", port)

    private static let next = Counter(start: 0)

    /// Why there can be none here; nil: there can.
    static let obstacle: String? = {
        guard geteuid() == 0 else { return "needs root" }
        for program in ["ip", "nft", "curl", "nginx", "openssl"] where Child.find(program) == nil {
            return "\(program) is missing: run make deps"
        }
        guard let lab = try? EgressLab() else { return "the kernel gives no network namespaces" }
        let rules = """
            table inet probe {
              chain c { type filter hook prerouting priority mangle;
                socket transparent 1 socket wildcard 0 accept
                meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :1 accept
              }
            }
            """
        return (try? lab.run(in: lab.node, ["nft", rules])) == nil ? "the kernel has no TPROXY" : nil
    }()

    init() throws {
        let tag = "\(getpid() % 100_000)y\(EgressLab.next.take())"
        node = "pe-n\(tag)"
        alpha = "pe-a\(tag)"
        beta = "pe-b\(tag)"
        server = "pe-s\(tag)"
        folder = try TemporaryFolder()
        var script = "set -e\n"
        for name in [node, alpha, beta, server] {
            script += "ip netns add \(name)\nip -n \(name) link set lo up\n"
            // A link-local address that is still being checked for duplicates asks for no neighbour, and the first
            // packets in an instance's name would wait for it in vain.
            script += "ip netns exec \(name) sysctl -qw net.ipv6.conf.all.accept_dad=0 "
            script += "net.ipv6.conf.default.accept_dad=0\n"
        }
        let addresses = [
            ("vm1", alpha, ["fd10:1::1/64", "10.81.1.1/24"], ["fd10:1::2/64", "10.81.1.2/24", "fd10:1::bad/64"]),
            ("vm2", beta, ["fd10:2::1/64", "10.81.2.1/24"], ["fd10:2::2/64", "10.81.2.2/24"]),
            (
                "up0", server, ["2001:db8:9::1/64", "198.51.100.1/24", "fd10:f::1/64"],
                ["2001:db8:9::2/64", "198.51.100.2/24", "fd10:f::5/64", "fd10:f::6/64"]
            ),
        ]
        for (link, host, near, far) in addresses {
            script += "ip -n \(node) link add \(link) type veth peer name eth0 netns \(host)\n"
            for (name, device, list) in [(node, link, near), (host, "eth0", far)] {
                for address in list {
                    // What an instance took for itself is never its first choice.
                    let isTaken = address.contains("::bad")
                    let nodad = address.contains(":") ? " nodad\(isTaken ? " preferred_lft 0" : "")" : ""
                    script += "ip -n \(name) addr add \(address) dev \(device)\(nodad)\n"
                }
                script += "ip -n \(name) link set \(device) up\n"
            }
            for address in near where !address.hasPrefix("fd10:f:") {
                let gateway = address.prefix { $0 != "/" }
                script += "ip -n \(host) \(address.contains(":") ? "-6" : "-4") route add default via \(gateway)\n"
            }
        }
        try EgressLab.shell(script)
    }

    deinit { remove() }

    private func remove() {
        for name in [node, alpha, beta, server] + hops.withLock({ $0 }) {
            try? EgressLab.shell("ip netns del \(name) 2>/dev/null")
        }
    }

    private static func shell(_ script: String) throws {
        let child = try Child("/bin/sh", ["-c", script])
        child.closeInput()
        guard try child.waitForExit() == .code(0) else { throw Failure("\(script)\n\(child.output)") }
    }

    /// The node's kernel forwards, and the server knows the way back: as on a host whose workloads are routed.
    func forward() throws {
        for setting in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            try run(in: node, ["sysctl", "-qw", "\(setting)=1"])
        }
        for (net, gateway) in [
            ("fd10:1::/64", "2001:db8:9::1"), ("fd10:2::/64", "2001:db8:9::1"), ("10.81.1.0/24", "198.51.100.1"),
            ("10.81.2.0/24", "198.51.100.1"),
        ] {
            try run(in: server, ["ip", net.contains(":") ? "-6" : "-4", "route", "add", net, "via", gateway])
        }
    }

    /// Both instances' links become ports of a bridge, which has their gateways' addresses.
    /// - Parameter isFiltered: br_netfilter has the bridge call the host's IP rules.
    func bridge(isFiltered: Bool) throws {
        var script = "set -e\nip -n \(node) link add br0 type bridge\nip -n \(node) link set br0 up\n"
        for port in ["vm1", "vm2"] {
            script += "ip -n \(node) addr flush dev \(port)\nip -n \(node) link set \(port) master br0\n"
        }
        for address in ["fd10:1::1/64", "10.81.1.1/24", "fd10:2::1/64", "10.81.2.1/24"] {
            script += "ip -n \(node) addr add \(address) dev br0\(address.contains(":") ? " nodad" : "")\n"
        }
        // Not there where the kernel has no br_netfilter: then it is off.
        script += "cd /proc/sys/net/bridge 2>/dev/null || exit 0\n"
        let value = isFiltered ? 1 : 0
        script += "for name in bridge-nf-call-iptables bridge-nf-call-ip6tables; do echo \(value) > $name; done\n"
        try run(in: node, ["/bin/sh", "-c", script])
    }

    /// Puts two routers between the node and the server; the link between the routers takes smaller packets than all others.
    func insertNarrowLink(mtu: Int) throws {
        let routers = ["\(server)r", "\(server)q"]
        let links = [
            (node, "up0", routers[0], "near", ["2001:db8:8::1", "198.51.101.1"], ["2001:db8:8::2", "198.51.101.2"]),
            (
                routers[0], "mid", routers[1], "mid", ["2001:db8:7::1", "198.51.102.1"],
                ["2001:db8:7::2", "198.51.102.2"]
            ),
            (routers[1], "far", server, "eth0", ["2001:db8:9::1", "198.51.100.1"], ["2001:db8:9::2", "198.51.100.2"]),
        ]
        var script = "set -e\nip -n \(node) link del up0\n"
        for router in routers {
            script += "ip netns add \(router)\nip -n \(router) link set lo up\n"
            script += "ip netns exec \(router) sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\n"
        }
        for (left, device, right, peer, near, far) in links {
            script += "ip -n \(left) link add \(device) type veth peer name \(peer) netns \(right)\n"
            for (host, device, addresses) in [(left, device, near), (right, peer, far)] {
                for address in addresses {
                    let isIPv6 = address.contains(":")
                    script += "ip -n \(host) addr add \(address)/\(isIPv6 ? "64 nodad" : "24") dev \(device)\n"
                }
                script += "ip -n \(host) link set \(device) up\n"
            }
        }
        for router in routers { script += "ip -n \(router) link set mid mtu \(mtu)\n" }
        for (host, net, gateway) in [
            (node, "2001:db8:9::/64", "2001:db8:8::2"), (node, "198.51.100.0/24", "198.51.101.2"),
            (routers[0], "2001:db8:9::/64", "2001:db8:7::2"), (routers[0], "198.51.100.0/24", "198.51.102.2"),
            (routers[0], "fd10::/16", "2001:db8:8::1"), (routers[0], "10.81.0.0/16", "198.51.101.1"),
            (routers[1], "default", "2001:db8:7::1"), (routers[1], "0.0.0.0/0", "198.51.102.1"),
            (server, "default", "2001:db8:9::1"), (server, "0.0.0.0/0", "198.51.100.1"),
        ] {
            script += "ip -n \(host) \(gateway.contains(":") ? "-6" : "-4") route add \(net) via \(gateway)\n"
        }
        try EgressLab.shell(script)
        hops.withLock { $0 += routers }
    }

    // MARK: What runs where

    /// Runs a program of `host` to its end; what it printed.
    @discardableResult
    func run(in host: String, _ words: [String]) throws -> String {
        let (exit, output) = try attempt(in: host, words)
        guard exit == .code(0) else { throw Failure("\(words.joined(separator: " ")):\n\(output)") }
        return output
    }

    func attempt(in host: String, _ words: [String]) throws -> (exit: Child.Exit, output: String) {
        let child = try Child("ip", ["netns", "exec", host] + words)
        child.closeInput()
        return (try child.waitForExit(), child.output)
    }

    /// `pipelined egress rules` on the node, which has to succeed; what it printed.
    @discardableResult
    func rules(_ config: String, _ words: String...) throws -> String {
        try run(in: node, [Binary.path, "egress", "rules", config] + words)
    }

    func attemptRules(_ config: String, _ words: String...) throws -> (exit: Child.Exit, output: String) {
        try attempt(in: node, [Binary.path, "egress", "rules", config] + words)
    }

    /// Runs `body` on a thread of `host`: the sockets that it opens are that host's for ever.
    func inside<Value: Sendable>(_ host: String, _ body: @escaping @Sendable () throws -> Value) throws -> Value {
        let promise = Promise<Value>()
        Thread.detachNewThread {
            promise.fulfil(
                Result {
                    try EgressLab.enter(host)
                    return try body()
                })
        }
        return try promise.value(Deadline(), "answer from \(host)")
    }

    /// Moves the calling thread into a namespace.
    private static func enter(_ host: String) throws {
        typealias SetNamespace = @convention(c) (Int32, Int32) -> Int32
        // glibc has it for GNU sources only, which Swift's module is not.
        let symbol = try dlsym(nil, "setns").unwrap("setns in this C library")
        let fd = open("/var/run/netns/\(host)", O_RDONLY | O_CLOEXEC)
        guard fd >= 0 else { throw Failure(call: "open namespace \(host)") }
        defer { close(fd) }
        // CLONE_NEWNET
        guard unsafeBitCast(symbol, to: SetNamespace.self)(fd, 0x4000_0000) == 0 else { throw Failure(call: "setns") }
    }

    /// A GET by curl; what the server said, and how curl ended.
    func curl(_ host: String, _ place: Place, from source: String? = nil) throws -> (exit: Child.Exit, output: String) {
        let interface = source.map { ["--interface", $0] } ?? []
        return try attempt(
            in: host, ["curl", "-sS", "--max-time", "60"] + interface + ["http://\(place)/"])
    }

    /// An nginx on the server: it answers with the address that it sees, in clear and by TLS.
    func startServer() throws -> Child {
        let certificate = try Certificate.make("egress.test", in: folder)
        let listens = { (port: UInt16, more: String) in
            "listen [::]:\(port)\(more); listen 0.0.0.0:\(port)\(more);"
        }
        let config = try folder.write(
            "nginx.conf",
            """
            user root; daemon off; master_process off; pid \(folder.path)/pid; error_log stderr warn;
            events { worker_connections 256; }
            http {
                access_log off; client_body_temp_path \(folder.path)/b; proxy_temp_path \(folder.path)/p;
                fastcgi_temp_path \(folder.path)/f; uwsgi_temp_path \(folder.path)/u; scgi_temp_path \(folder.path)/s;
                server {
                    \(listens(EgressLab.port, "")) \(listens(15001, "")) \(listens(EgressLab.tlsPort, " ssl"))
                    ssl_certificate \(certificate.certificateFile); ssl_certificate_key \(certificate.keyFile);
                    location / { default_type text/plain; return 200 "seen $remote_addr\\n"; }
                }
            }
            """)
        let child = try Child(
            "ip", ["netns", "exec", server, "nginx", "-p", folder.path, "-c", config, "-e", "stderr"])
        let deadline = Deadline()
        while try curl(server, EgressLab.v6).exit != .code(0) {
            guard !child.hasEnded, !deadline.hasPassed else { throw Failure("nginx:\n\(child.output)") }
        }
        return child
    }

    /// Desired state: an instance on each host; a third one with beta's second address runs on another node.
    static let state = """
        {"format":"pipelined.state/1","revision":1,
         "envs":[{"env_id":"env_a","app_id":"shop","org_id":"acme"},{"env_id":"env_b","app_id":"blog","org_id":"other"}],
         "instances":[
          {"instance_id":"i_alpha","env_id":"env_a","process_type":"w","overlay_ipv6":"fd10:1::2","ipv4":"10.81.1.2",
           "node_id":"test","status":"ready"},
          {"instance_id":"i_beta","env_id":"env_b","process_type":"w","overlay_ipv6":"fd10:2::2","ipv4":"10.81.2.2",
           "node_id":"test","status":"ready"},
          {"instance_id":"i_away","env_id":"env_b","process_type":"w","overlay_ipv6":"fd10:1::bad",
           "node_id":"elsewhere","status":"ready"}],
         "routes":[]}
        """

    /// The node, with the rules of its own config in force.
    /// - Parameters:
    ///   - setting: a further line of `node`.
    ///   - more: further top-level text.
    ///   - interface: where it looks for the workloads.
    ///   - isApplied: false: nobody puts its rules in force.
    func startNode(
        mode: String = "transparent", backend: String = "original_destination", limit: String? = nil,
        account: String = "account", setting: String = "", more: String = "", interface: String = "vm*",
        isApplied: Bool = true
    ) throws -> Node {
        try folder.write("state.json", EgressLab.state)
        let limits = limit.map { "limit per_instance {\n    \($0)\n    table 1k\n}\n" } ?? ""
        let config = """
            node test {
                workers    2
                intercept  interface \(interface)
                \(setting)
            }
            \(more)
            set platform { fd10::/16 10.81.0.0/16 }
            set services { fd10:f::5/128 }
            \(limits)
            pipeline outbound {
                anti_spoof  source assigned
                address     allow to @services, deny to @platform, deny to metadata
                \(limit == nil ? "" : "rate_limit  per_instance")
                backend     \(backend)
                \(account)
            }
            listen [::]:15001     \(mode)  via outbound
            listen 0.0.0.0:15001  \(mode)  via outbound
            routes file state.json
            """
        let running = try Node(config, folder: folder, in: node)
        if isApplied { try rules(running.config, "--apply") }
        return running
    }
}
