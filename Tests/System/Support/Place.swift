import Glibc
import TestSupport

/// Where a socket is: an address in text and a port.
struct Place: Hashable, Sendable, CustomStringConvertible {
    let host: String
    let port: UInt16
    /// Of a client's own socket: when it connected, in milliseconds since 1970. A port that a reset has freed may be a later
    /// client's: by this ``Node/log(of:_:)`` tells them apart. Two places are the same without it.
    private(set) var since: UInt64 = 0
    init(_ host: String, _ port: UInt16) {
        self.host = host
        self.port = port
    }
    static func == (a: Place, b: Place) -> Bool { a.host == b.host && a.port == b.port }
    func hash(into hasher: inout Hasher) {
        hasher.combine(host)
        hasher.combine(port)
    }
    func connected(at time: UInt64) -> Place {
        var place = self
        place.since = time
        return place
    }
    var isIPv4: Bool { !host.contains(":") }
    var description: String { isIPv4 ? "\(host):\(port)" : "[\(host)]:\(port)" }

    func withAddress<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) throws -> Result {
        if isIPv4 {
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = port.bigEndian
            guard inet_pton(AF_INET, host, &address.sin_addr) == 1 else { throw Failure("\(host) is no address") }
            return withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
        }
        var address = sockaddr_in6()
        address.sin6_family = sa_family_t(AF_INET6)
        address.sin6_port = port.bigEndian
        guard inet_pton(AF_INET6, host, &address.sin6_addr) == 1 else { throw Failure("\(host) is no address") }
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_in6>.size))
            }
        }
    }

    init(_ fill: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32) throws {
        var storage = sockaddr_in6()
        var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
        let result = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { fill($0, &length) }
        }
        guard result == 0 else { throw Failure(call: "address of a socket") }
        var text = [CChar](repeating: 0, count: 64)
        if storage.sin6_family == sa_family_t(AF_INET) {
            let v4 = withUnsafePointer(to: &storage) {
                $0.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { $0.pointee }
            }
            var address = v4.sin_addr
            inet_ntop(AF_INET, &address, &text, 64)
        } else {
            var address = storage.sin6_addr
            inet_ntop(AF_INET6, &address, &text, 64)
        }
        let end = text.firstIndex(of: 0) ?? text.endIndex
        host = String(decoding: text[..<end].map(UInt8.init(bitPattern:)), as: UTF8.self)
        port = UInt16(bigEndian: storage.sin6_port)
    }
}
