import CLinux
import Foundation
import Glibc
import Pipeline

@testable import PipelineExport

/// CAP_NET_ADMIN of the calling thread.
enum NetAdmin {
    private struct Header {
        var version: UInt32 = 0x2008_0522  // _LINUX_CAPABILITY_VERSION_3
        var pid: Int32 = 0
    }
    private typealias Call = @convention(c) (UnsafeMutableRawPointer, UnsafeMutableRawPointer) -> Int32

    /// It stays permitted, so that it can be taken back.
    static func set(_ isEffective: Bool) {
        guard let get = dlsym(nil, "capget"), let set = dlsym(nil, "capset") else { return }
        var header = Header()
        // Twice effective, permitted, inheritable.
        var sets = [UInt32](repeating: 0, count: 6)
        guard unsafeBitCast(get, to: Call.self)(&header, &sets) == 0 else { return }
        sets[0] = isEffective ? sets[0] | 1 << 12 : sets[0] & ~(1 << 12)
        _ = unsafeBitCast(set, to: Call.self)(&header, &sets)
    }
}

/// A datagram socket with an address of ours.
final class Datagrams {
    struct Failed: Error { let call: String, error: Int32 }
    private let fd: Int32

    init(_ version: Int, _ source: IPAddress, _ port: UInt16) throws {
        fd = socket(version == 0 ? AF_INET6 : AF_INET, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        try Datagrams.withAddress(source, port) {
            if bind(fd, $0, $1) != 0 { throw Failed(call: "bind", error: errno) }
        }
    }
    private init(raw version: Int, _ source: IPAddress) throws {
        fd = socket(
            version == 0 ? AF_INET6 : AF_INET, Int32(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue), version == 0 ? 58 : 1)
        try Datagrams.withAddress(source, 0) { if bind(fd, $0, $1) != 0 { throw Failed(call: "bind", error: errno) } }
    }
    deinit { close(fd) }

    func send(_ count: Int, to place: IPAddress, _ port: UInt16) throws {
        try send([UInt8](repeating: 7, count: count), to: place, port)
    }
    private func send(_ bytes: [UInt8], to place: IPAddress, _ port: UInt16) throws {
        try Datagrams.withAddress(place, port) {
            if sendto(fd, bytes, bytes.count, 0, $0, $1) != bytes.count { throw Failed(call: "send", error: errno) }
        }
    }

    /// An echo request with 56 bytes of data; the kernel answers.
    static func echo(_ version: Int, from source: IPAddress, to place: IPAddress) throws {
        var bytes: [UInt8] = [version == 0 ? 128 : 8, 0, 0, 0, 0, 77, 0, 1] + [UInt8](repeating: 0, count: 56)
        if version == 1 {
            // IPv6's checksum is the kernel's work.
            var sum: UInt32 = 0
            for index in stride(from: 0, to: bytes.count, by: 2) {
                sum += UInt32(bytes[index]) << 8
                sum += UInt32(bytes[index + 1])
            }
            while sum > 0xFFFF { sum = sum >> 16 + sum & 0xFFFF }
            bytes[2] = UInt8(~sum >> 8 & 0xFF)
            bytes[3] = UInt8(~sum & 0xFF)
        }
        try Datagrams(raw: version, source).send(bytes, to: place, 0)
    }

    fileprivate static func withAddress(
        _ address: IPAddress, _ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) throws -> Void
    ) throws {
        var v4 = sockaddr_in()
        var v6 = sockaddr_in6()
        v4.sin_family = sa_family_t(AF_INET)
        v4.sin_port = port.bigEndian
        v4.sin_addr.s_addr = address.v4Bits.bigEndian
        v6.sin6_family = sa_family_t(AF_INET6)
        v6.sin6_port = port.bigEndian
        withUnsafeMutableBytes(of: &v6.sin6_addr) { for index in 0..<16 { $0[index] = address.byte(index) } }
        if address.isIPv4 {
            try withUnsafePointer(to: &v4) {
                try $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { try body($0, 16) }
            }
        } else {
            try withUnsafePointer(to: &v6) {
                try $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { try body($0, 28) }
            }
        }
    }
}

/// A TCP socket that listens at an address of ours, or is connected to it.
final class Stream {
    private let fd: Int32

    init(at place: IPAddress, _ port: UInt16) throws {
        fd = Stream.open(place)
        try Datagrams.withAddress(place, port) {
            if bind(fd, $0, $1) != 0 || listen(fd, 5) != 0 { throw Datagrams.Failed(call: "listen", error: errno) }
        }
    }
    init(to place: IPAddress, _ port: UInt16) throws {
        fd = Stream.open(place)
        try Datagrams.withAddress(place, port) {
            if connect(fd, $0, $1) != 0 { throw Datagrams.Failed(call: "connect", error: errno) }
        }
    }
    deinit { close(fd) }

    private static func open(_ place: IPAddress) -> Int32 {
        socket(place.isIPv4 ? AF_INET : AF_INET6, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    }
}

/// A network namespace that one thread enters, with two hosts' addresses on its loopback and conntrack at work. It goes
/// with its last socket.
struct Sandbox {
    struct Failed: Error, CustomStringConvertible { let description: String }

    static let isPossible = geteuid() == 0 && (try? run { _ in }) != nil

    static func run(_ body: @escaping (Sandbox) throws -> Void) throws {
        nonisolated(unsafe) let body = body
        nonisolated(unsafe) var result: Result<Void, any Error> = .failure(Failed(description: "not run"))
        let done = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            result = Result {
                try enter()
                try body(Sandbox())
            }
            done.signal()
        }
        done.wait()
        try result.get()
    }

    private static func enter() throws {
        typealias Unshare = @convention(c) (Int32) -> Int32
        guard let symbol = dlsym(nil, "unshare"), unsafeBitCast(symbol, to: Unshare.self)(0x4000_0000) == 0 else {
            throw Failed(description: "no network namespace: \(String(cString: strerror(errno)))")
        }
        try command("ip", ["link", "set", "lo", "up"])
        for address in ["fd77::10/64", "fd77::20/64"] {
            try command("ip", ["-6", "addr", "add", address, "dev", "lo", "nodad"])
        }
        for address in ["10.77.0.1/32", "10.77.0.2/32"] { try command("ip", ["addr", "add", address, "dev", "lo"]) }
        try command(
            "nft",
            [
                "add table inet t; add chain inet t c { type filter hook output priority 0; }; add rule inet t c ct state new counter"
            ])
    }

    /// A child of this thread is in its namespace.
    static func command(_ program: String, _ arguments: [String]) throws {
        let folders: [String] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        let path: String? = folders.map { $0 + "/" + program }.first { access($0, X_OK) == 0 }
        guard let path else { throw Failed(description: "\(program) is missing") }
        let words: [String] = [path] + arguments
        var argv: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { for pointer in argv { free(pointer) } }
        var pid: pid_t = 0
        var status: Int32 = -1
        guard posix_spawn(&pid, path, nil, nil, &argv, environ) == 0, waitpid(pid, &status, 0) == pid, status == 0
        else {
            throw Failed(description: "\(program) \(arguments): \(status)")
        }
    }

    /// `nf_conntrack_acct` of this namespace.
    func setCounting(_ isOn: Bool) throws { try set("nf_conntrack_acct", isOn) }

    /// Events also of entries that began before anyone listened; by itself the kernel makes none of those.
    func setEarlyEvents() throws { try set("nf_conntrack_events", true) }

    private func set(_ name: String, _ isOn: Bool) throws {
        let fd = open("/proc/sys/net/netfilter/\(name)", O_WRONLY | O_CLOEXEC)
        defer { close(fd) }
        guard fd >= 0, write(fd, isOn ? "1" : "0", 1) == 1 else {
            throw Failed(description: "\(name) can't be set")
        }
    }

    /// Ends every entry, as `conntrack -F` does.
    func flush() throws {
        let fd = socket(AF_NETLINK, Int32(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue), 12)  // NETLINK_NETFILTER
        defer { close(fd) }
        var message: [UInt8] = []
        withUnsafeBytes(of: UInt32(20)) { message += $0 }
        withUnsafeBytes(of: ConntrackReader.deleteEntry) { message += $0 }
        withUnsafeBytes(of: UInt16(5)) { message += $0 }  // NLM_F_REQUEST | NLM_F_ACK
        message += [UInt8](repeating: 0, count: 12)
        var answer = [UInt8](repeating: 0, count: 8192)
        guard send(fd, message, message.count, 0) == 20, recv(fd, &answer, answer.count, 0) >= 20,
            answer[16..<20].allSatisfy({ $0 == 0 })
        else { throw Failed(description: "the flush was refused") }
    }
}
