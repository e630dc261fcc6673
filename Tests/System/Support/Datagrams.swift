import Foundation
import Glibc
import Synchronization
import TestSupport

/// UDP clients. Their sockets are the calling thread's namespace's.
enum Datagrams {
    /// Sends `count` datagrams one after the other, each after the answer to the one before.
    static func exchange(with place: Place, count: Int, bytes: Int) throws {
        let fd = try connected(to: place)
        defer { close(fd) }
        var patience = timeval(tv_sec: Int(Deadline.usual), tv_usec: 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        let payload = [UInt8](repeating: 1, count: bytes)
        var answer = [UInt8](repeating: 0, count: bytes)
        for number in 0..<count {
            guard Glibc.send(fd, payload, bytes, 0) == bytes else { throw Failure(call: "send of datagram \(number)") }
            guard recv(fd, &answer, bytes, 0) == bytes else { throw Failure(call: "the answer to datagram \(number)") }
        }
    }

    /// Sends `count` datagrams, 40,000 at most, each from a port of its own, at a steady pace; how long it took.
    static func flows(to place: Place, count: Int, bytes: Int, perSecond: Int) throws -> Double {
        let payload = [UInt8](repeating: 1, count: bytes)
        let begin = DispatchTime.now().uptimeNanoseconds
        // Five at once: finer, and waiting takes longer than the work.
        var pace = Pace(perSecond: perSecond / 5)
        for number in 0..<count {
            if number % 5 == 0 { pace.wait() }
            let fd = try connected(to: place, from: UInt16(20_000 + number))
            guard Glibc.send(fd, payload, bytes, 0) == bytes else { throw Failure(call: "send of flow \(number)") }
            close(fd)
        }
        return Double(DispatchTime.now().uptimeNanoseconds - begin) / 1e9
    }

    /// Sends `count` datagrams, and waits for no answer.
    /// - Parameter source: an address of the sender's; nil: the usual one.
    static func send(to place: Place, count: Int, bytes: Int, from port: UInt16 = 0, source: String? = nil) throws {
        let fd = try connected(to: place, from: port, source: source)
        defer { close(fd) }
        let payload = [UInt8](repeating: 1, count: bytes)
        for number in 0..<count where Glibc.send(fd, payload, bytes, 0) != bytes {
            throw Failure(call: "send of datagram \(number)")
        }
    }

    private static func connected(to place: Place, from port: UInt16 = 0, source: String? = nil) throws -> Int32 {
        let isV6 = place.host.contains(":")
        let fd = socket(isV6 ? AF_INET6 : AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard fd >= 0 else { throw Failure(call: "socket") }
        let own = Place(source ?? (isV6 ? "::" : "0.0.0.0"), port)
        if port != 0 || source != nil, try own.withAddress({ bind(fd, $0, $1) }) != 0 {
            close(fd)
            throw Failure(call: "bind to port \(port)")
        }
        guard try place.withAddress({ connect(fd, $0, $1) }) == 0 else {
            close(fd)
            throw Failure(call: "connect to \(place)")
        }
        return fd
    }
}

/// A UDP server in the calling thread's namespace.
final class DatagramEcho: Sendable {
    private let fd: Int32
    private let stopped = Flag()
    private let count = Atomic<Int>(0)
    /// Datagrams that have come so far.
    var received: Int { count.load(ordering: .relaxed) }

    init(_ place: Place, answers: Bool = true) throws {
        let family = place.host.contains(":") ? AF_INET6 : AF_INET
        let fd = socket(family, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        self.fd = fd
        guard fd >= 0 else { throw Failure(call: "socket") }
        guard try place.withAddress({ bind(fd, $0, $1) }) == 0 else { throw Failure(call: "bind to \(place)") }
        let stopped = stopped
        Thread.detachNewThread { [self] in
            var buffer = [UInt8](repeating: 0, count: 65536)
            var peer = sockaddr_storage()
            while !stopped.isSet {
                var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
                withUnsafeMutablePointer(to: &peer) { pointer in
                    pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                        let bytes = recvfrom(fd, &buffer, buffer.count, 0, address, &length)
                        if bytes > 0 { count.add(1, ordering: .relaxed) }
                        if answers, bytes > 0 { sendto(fd, buffer, bytes, 0, address, length) }
                    }
                }
            }
            close(fd)
        }
    }

    /// The thread ends with the next datagram, or with the process.
    func stop() {
        stopped.set()
        shutdown(fd, Int32(SHUT_RD))
    }
}
