import Foundation
import Glibc
import TestSupport

/// A network namespace with a link to the test's own: what runs in it is another host. Needs root.
final class Namespace: Sendable {
    let name: String
    /// The namespace's address on the link.
    let host: String
    /// The test's own address on it.
    let near: String
    /// The test's side of the link.
    let link: String

    private static let next = Counter(start: 0)

    /// Why there can be none here; nil: there can.
    static var obstacle: String? {
        guard geteuid() == 0 else { return "needs root" }
        for program in ["ip", "nft"] where Child.find(program) == nil { return "\(program) is missing: run make deps" }
        guard let probe = try? Namespace() else { return "the kernel gives no network namespace" }
        return probe.host.isEmpty ? "" : nil
    }

    init() throws {
        let number = Namespace.next.take()
        let tag = "\(getpid() % 100_000)x\(number)"
        name = "pipelined-\(tag)"
        link = "pt\(tag)"
        let net = "fd77:\(String(getpid() & 0xFFFF, radix: 16)):\(String(number, radix: 16))::"
        (host, near) = ("\(net)2", "\(net)1")
        try Namespace.run("ip", ["netns", "add", name])
        do {
            try Namespace.run("ip", ["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name])
            try Namespace.run("ip", ["-6", "addr", "add", "\(net)1/64", "dev", link, "nodad"])
            try Namespace.run("ip", ["link", "set", link, "up"])
            try Namespace.run("ip", ["-n", name, "-6", "addr", "add", "\(host)/64", "dev", "eth0", "nodad"])
            try Namespace.run("ip", ["-n", name, "link", "set", "lo", "up"])
            try Namespace.run("ip", ["-n", name, "link", "set", "eth0", "up"])
        } catch {
            try? Namespace.run("ip", ["netns", "del", name])
            throw error
        }
    }

    deinit {
        // The kernel takes a namespace apart when its last process has gone; the link goes at once.
        try? Namespace.run("ip", ["link", "del", link])
        try? Namespace.run("ip", ["netns", "del", name])
    }

    /// Puts these nftables commands in force at once.
    func nft(_ commands: String) throws {
        try Namespace.run("ip", ["netns", "exec", name, "nft", commands])
    }

    /// `ip` with these arguments, on the namespace's own links and routes.
    func ip(_ arguments: String) throws {
        try Namespace.run("ip", ["-n", name] + arguments.split(separator: " ").map(String.init))
    }

    /// Lets sockets in it be bound to addresses that no link has: sources of a network that is local as a whole.
    func allowAnySource() throws {
        let setting = "echo 1 > /proc/sys/net/ipv6/ip_nonlocal_bind"
        try Namespace.run("ip", ["netns", "exec", name, "sh", "-c", setting])
    }

    /// Runs `body` on a thread that is in the namespace: sockets that it makes stay there.
    func concurrently<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) -> Promise<Value> {
        let promise = Promise<Value>()
        let path = "/var/run/netns/\(name)"
        Thread.detachNewThread {
            promise.fulfil(
                Result {
                    let file = open(path, O_RDONLY | O_CLOEXEC)
                    guard file >= 0 else { throw Failure(call: "open \(path)") }
                    defer { close(file) }
                    guard try Namespace.enter(file) == 0 else { throw Failure(call: "setns") }
                    return try body()
                })
        }
        return promise
    }

    /// `setns` for networks: Glibc's module leaves it out.
    private static func enter(_ file: Int32) throws -> Int32 {
        typealias SetNamespace = @convention(c) (Int32, Int32) -> Int32
        let function = try dlsym(nil, "setns").unwrap("setns")
        return unsafeBitCast(function, to: SetNamespace.self)(file, 0x4000_0000)
    }

    static func run(_ program: String, _ arguments: [String]) throws {
        let child = try Child(program, arguments)
        child.closeInput()
        guard try child.waitForExit() == .code(0) else {
            throw Failure("\(program) \(arguments.joined(separator: " ")):\n\(child.output)")
        }
    }
}
