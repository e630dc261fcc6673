import CLinux
import Foundation
import Glibc
import TestSupport

/// How a stream from the other side ended.
enum Ending: Equatable, Sendable { case fin, reset }

/// A TCP socket that blocks, with a deadline on everything. One thread reads and one may write.
final class Socket: @unchecked Sendable {
    private let fd: Int32
    /// The other side accepted and reset before `connect` was over: asking for its outcome has used the error up.
    private var wasReset = false
    private var connectedAt: UInt64 = 0

    private init(fd: Int32) { self.fd = fd }
    deinit { close(fd) }
    /// For a program that is started with it.
    var descriptor: Int32 { fd }

    private static func open(_ place: Place, protocol number: Int32 = 0) throws -> Socket {
        let fd = socket(
            place.isIPv4 ? AF_INET : AF_INET6,
            Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), number)
        guard fd >= 0 else { throw Failure(call: "socket") }
        return Socket(fd: fd)
    }

    // MARK: Client

    static func connect(
        to place: Place, from source: Place? = nil, receiveBuffer: Int32? = nil, multipath: Bool = false,
        _ deadline: Deadline = Deadline()
    ) throws -> Socket {
        let made = try begin(to: place, from: source, receiveBuffer: receiveBuffer, multipath: multipath)
        try made.waitFor(POLLOUT, deadline, "connection to \(place)")
        try made.expectConnected(to: place)
        return made
    }

    /// The same; nil once the kernel has sent its SYN again, since nobody has answered.
    static func answer(of place: Place, from source: Place? = nil) throws -> Socket? {
        let made = try begin(to: place, from: source, receiveBuffer: nil, multipath: false)
        let isThere = try awaitValue("an answer of \(place), or a second SYN") {
            if made.becomesWritable(Deadline(seconds: 0)) { return true }
            return try made.info.tcpi_total_retrans > 0 ? false : nil
        }
        guard isThere else { return nil }
        try made.expectConnected(to: place)
        return made
    }

    private static func begin(
        to place: Place, from source: Place?, receiveBuffer: Int32?, multipath: Bool
    ) throws -> Socket {
        let made = try open(place, protocol: multipath ? multipathTCP : 0)
        made.set(IPPROTO_TCP, TCP_NODELAY, 1)
        if let receiveBuffer { made.set(SOL_SOCKET, SO_RCVBUF, receiveBuffer) }
        if let source {
            made.set(SOL_SOCKET, SO_REUSEADDR, 1)
            guard try source.withAddress({ bind(made.fd, $0, $1) }) == 0 else { throw Failure(call: "bind \(source)") }
        }
        // Nobody has its port before `connect` does.
        made.connectedAt = cl_wall_clock() / 1_000_000
        if try place.withAddress({ Glibc.connect(made.fd, $0, $1) }) != 0, errno != EINPROGRESS {
            throw Failure(call: "connect to \(place)")
        }
        return made
    }

    /// IPPROTO_MPTCP.
    private static let multipathTCP: Int32 = 262

    /// Whether this kernel has Multipath TCP, and it is on.
    static var hasMultipath: Bool {
        let fd = socket(AF_INET6, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), multipathTCP)
        if fd >= 0 { close(fd) }
        return fd >= 0
    }

    /// Whether the connection is one of Multipath TCP: the other side takes it too (MPTCP_INFO, without its fallback bit).
    var isMultipath: Bool {
        var info = [UInt32](repeating: 0, count: 64)
        var length = socklen_t(info.count * 4)
        return getsockopt(fd, 284, 1, &info, &length) == 0 && info[2] & 1 == 0
    }

    /// Connects with these bytes in the SYN, where the other side has given a cookie before (MSG_FASTOPEN).
    static func connect(to place: Place, sending bytes: [UInt8], _ deadline: Deadline = Deadline()) throws -> Socket {
        let made = try open(place)
        made.set(IPPROTO_TCP, TCP_NODELAY, 1)
        let flags = Int32(MSG_NOSIGNAL) | 0x2000_0000
        let sent = try place.withAddress { sendto(made.fd, bytes, bytes.count, flags, $0, $1) }
        // Without a cookie nothing is sent yet.
        guard sent >= 0 || errno == EINPROGRESS else { throw Failure(call: "sendto \(place)") }
        try made.waitFor(POLLOUT, deadline, "connection to \(place)")
        if sent < bytes.count { try made.send(Array(bytes[max(0, sent)...]), deadline) }
        return made
    }

    private func expectConnected(to place: Place) throws {
        var error: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length)
        wasReset = error == ECONNRESET
        guard error == 0 || wasReset else { throw Failure(call: "connect to \(place)", error) }
    }

    // MARK: Server

    static func listen(at place: Place, backlog: Int32 = 1024) throws -> Socket {
        let made = try open(place)
        made.set(SOL_SOCKET, SO_REUSEADDR, 1)
        if !place.isIPv4 { made.set(IPPROTO_IPV6, IPV6_V6ONLY, 1) }
        guard try place.withAddress({ bind(made.fd, $0, $1) }) == 0, Glibc.listen(made.fd, backlog) == 0 else {
            throw Failure(call: "listen at \(place)")
        }
        return made
    }

    /// A Unix socket; what was there is replaced.
    static func listen(path: String, backlog: Int32 = 1024) throws -> Socket {
        unlink(path)
        let fd = cl_unix_listen(path, 0o777, backlog)
        guard fd >= 0 else { throw Failure(call: "listen at \(path)", -fd) }
        return Socket(fd: fd)
    }

    static func connect(path: String) throws -> Socket {
        let fd = cl_unix_connect(path, 0)
        guard fd >= 0 else { throw Failure(call: "connect to \(path)", -fd) }
        return Socket(fd: fd)
    }

    func accept(_ deadline: Deadline = Deadline()) throws -> Socket {
        while true {
            // Close-on-exec from the start, so that no program started meanwhile holds the connection open.
            var peer = cl_endpoint()
            let accepted = cl_accept(fd, &peer)
            if accepted >= 0 {
                let made = Socket(fd: accepted)
                made.set(IPPROTO_TCP, TCP_NODELAY, 1)
                return made
            }
            guard [EAGAIN, EINTR, ECONNABORTED].contains(-accepted) else { throw Failure(call: "accept", -accepted) }
            try waitFor(POLLIN, deadline, "connection to accept")
        }
    }

    /// The next connection; nil once `isOver` is set, or if this can't listen any more.
    func accept(until isOver: Flag) -> Socket? {
        while !isOver.isSet {
            if let taken = try? accept(Deadline(patience: 0.1)) { return taken }
        }
        return nil
    }

    /// Has the kernel keep the SYN of each connection that is accepted here, for ``syn``.
    func keepSyns() { set(IPPROTO_TCP, TCP_SAVE_SYN, 1) }

    /// The SYN that began this connection, of a listener that keeps them; once.
    var syn: Syn {
        get throws {
            var bytes = [UInt8](repeating: 0, count: 256)
            var length = socklen_t(bytes.count)
            guard getsockopt(fd, Int32(IPPROTO_TCP), TCP_SAVED_SYN, &bytes, &length) == 0 else {
                throw Failure(call: "TCP_SAVED_SYN")
            }
            return try Syn(Array(bytes.prefix(Int(length)))).unwrap("SYN")
        }
    }

    var local: Place { get throws { try Place { getsockname(fd, $0, $1) }.connected(at: connectedAt) } }
    var peer: Place { get throws { try Place { getpeername(fd, $0, $1) } } }

    // MARK: Bytes

    func send(_ bytes: [UInt8], _ deadline: Deadline = Deadline()) throws {
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.send(fd, $0.baseAddress! + done, bytes.count - done, Int32(MSG_NOSIGNAL))
            }
            if count >= 0 {
                done += count
                continue
            }
            guard errno == EAGAIN || errno == EINTR else { throw Failure(call: "send") }
            try waitFor(POLLOUT, deadline, "room to send (\(done) of \(bytes.count) bytes are gone)")
        }
    }
    func send(_ text: String) throws { try send(Array(text.utf8)) }

    /// Sends what fits now. Nil: the socket is broken.
    func sendSome(_ bytes: ArraySlice<UInt8>) -> Int? {
        let count = bytes.withUnsafeBytes { Glibc.send(fd, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        if count >= 0 { return count }
        return errno == EAGAIN || errno == EINTR ? 0 : nil
    }

    /// The last bytes and FIN in one segment: corked, so that the kernel holds the bytes until the FIN is there too.
    func sendAndFinish(_ bytes: [UInt8]) throws {
        set(IPPROTO_TCP, TCP_CORK, 1)
        try send(bytes)
        finish()
    }

    enum Chunk: Equatable, Sendable {
        case bytes([UInt8])
        case ended(Ending)
    }

    func receive(atMost limit: Int = 262_144, _ deadline: Deadline = Deadline()) throws -> Chunk {
        guard !wasReset else { return .ended(.reset) }
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: limit, alignment: 16)
        defer { room.deallocate() }
        while true {
            let count = recv(fd, room.baseAddress, limit, 0)
            if count > 0 { return .bytes(Array(room[..<count])) }
            if count == 0 { return .ended(.fin) }
            switch errno {
            case ECONNRESET, EPIPE: return .ended(.reset)
            case EAGAIN, EINTR: try waitFor(POLLIN, deadline, "bytes or an end")
            default: throw Failure(call: "receive")
            }
        }
    }

    /// Exactly `count` bytes; throws if the stream ends before.
    func receive(exactly count: Int, _ deadline: Deadline = Deadline()) throws -> [UInt8] {
        var result: [UInt8] = []
        while result.count < count {
            switch try receive(atMost: count - result.count, deadline) {
            case .bytes(let chunk): result += chunk
            case .ended(let ending): throw Failure("\(ending) after \(result.count) of \(count) bytes")
            }
        }
        return result
    }

    func receiveToEnd(_ deadline: Deadline = Deadline()) throws -> (bytes: [UInt8], ending: Ending) {
        var result: [UInt8] = []
        while true {
            switch try receive(deadline) {
            case .bytes(let chunk): result += chunk
            case .ended(let ending): return (result, ending)
            }
        }
    }

    private func receive(_ deadline: Deadline) throws -> Chunk { try receive(atMost: 262_144, deadline) }

    /// True if nothing has come and nothing has ended.
    var isQuiet: Bool {
        var byte: UInt8 = 0
        return recv(fd, &byte, 1, Int32(MSG_PEEK)) < 0 && errno == EAGAIN
    }

    /// True if something has come or ended before the deadline.
    func becomesReadable(_ deadline: Deadline) -> Bool { (try? waitFor(POLLIN, deadline, "")) != nil }

    /// True if there is room to send before the deadline.
    func becomesWritable(_ deadline: Deadline) -> Bool { (try? waitFor(POLLOUT, deadline, "")) != nil }

    /// Sends `chunk` over and over until the other side takes no more: its window is closed, and still was when the kernel
    /// asked again. - Returns: how much it was.
    func fill(with chunk: [UInt8], atMost limit: Int = 64 << 20) throws -> Int {
        var sent = 0
        while sent < limit {
            let count = try sendSome(chunk[...]).unwrap("socket that takes bytes")
            sent += count
            guard count == 0 else { continue }
            let isFull = try awaitValue("room to send, or a window that stays closed") {
                try info.isHeldUp ? true : becomesWritable(Deadline(seconds: 0)) ? false : nil
            }
            if isFull { return sent }
        }
        throw Failure("\(sent) bytes went in, and none came out")
    }

    /// Returns once the kernel has sent something again, since nobody has acknowledged it.
    func awaitResend() throws {
        let before = try info.tcpi_total_retrans
        try awaitUntil("something is sent again") { try info.tcpi_total_retrans > before }
    }

    private var info: tcp_info {
        get throws {
            var info = tcp_info()
            var length = socklen_t(MemoryLayout<tcp_info>.size)
            guard getsockopt(fd, Int32(IPPROTO_TCP), TCP_INFO, &info, &length) == 0 else {
                throw Failure(call: "TCP_INFO")
            }
            return info
        }
    }

    // MARK: Ends

    /// FIN: our direction is over, the other goes on.
    func finish() { shutdown(fd, Int32(SHUT_WR)) }

    /// RST, now.
    func reset() {
        var linger = linger(l_onoff: 1, l_linger: 0)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<Glibc.linger>.size))
        // A connect to nowhere dissolves the connection at once, and the descriptor stays ours until deinit.
        var none = sockaddr()
        none.sa_family = sa_family_t(AF_UNSPEC)
        _ = Glibc.connect(fd, &none, socklen_t(MemoryLayout<sockaddr>.size))
    }

    // MARK: Helpers

    private func set(_ level: Int32, _ name: Int32, _ value: Int32) {
        var value = value
        setsockopt(fd, level, name, &value, socklen_t(MemoryLayout<Int32>.size))
    }
    private func set(_ level: Int, _ name: Int32, _ value: Int32) { set(Int32(level), name, value) }

    private func waitFor(_ events: Int32, _ deadline: Deadline, _ what: String) throws {
        var polled = pollfd(fd: fd, events: Int16(events), revents: 0)
        while true {
            let count = poll(&polled, 1, deadline.milliseconds)
            if count > 0 { return }
            if count == 0, deadline.hasPassed { throw Failure("no \(what) in time") }
            guard count == 0 || errno == EINTR else { throw Failure(call: "poll") }
        }
    }
}

extension tcp_info {
    /// All that was sent is acknowledged, and a probe of the closed window was answered.
    fileprivate var isHeldUp: Bool { tcpi_unacked == 0 && tcpi_backoff > 0 }
}
