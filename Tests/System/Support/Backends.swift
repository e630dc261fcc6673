import CLinux
import Foundation
import TestSupport

/// A TCP server of the test's own: each connection gets a thread and `serve`.
final class Server: Sendable {
    let place: Place
    private let listener: Socket
    private let stop = Flag()

    /// - Parameter serve: what it throws is not the test's failure; what the client sees is.
    /// - Parameter port: nil: one that is free.
    init(_ host: String = "::1", port: UInt16? = nil, serve: @escaping @Sendable (Socket) throws -> Void) throws {
        place = Place(host, try port ?? FreePort.take())
        listener = try Socket.listen(at: place)
        let (listener, stop) = (listener, stop)
        Thread.detachNewThread {
            while let accepted = try? listener.accept(Deadline(seconds: 3600)), !stop.isSet {
                Thread.detachNewThread { try? serve(accepted) }
            }
        }
    }

    deinit {
        stop.set()
        // Wakes the thread that waits in accept.
        _ = try? Socket.connect(to: place, Deadline(patience: 1))
    }

    /// Sends back what comes, and FIN after FIN.
    static func echo(_ host: String = "::1", port: UInt16? = nil) throws -> Server {
        try Server(host, port: port) { socket in
            while case .bytes(let chunk) = try socket.receive() { try socket.send(chunk) }
            socket.finish()
        }
    }

    /// Says `text`, then FIN.
    static func saying(_ text: String) throws -> Server {
        try Server { socket in
            try socket.send(text)
            socket.finish()
            _ = try socket.receiveToEnd()
        }
    }
}

extension Place {
    /// Connections that nobody has accepted, by the kernel's table; nil: nobody listens at this port.
    fileprivate var queued: Int? {
        get throws {
            let table = try KernelTable.read("/proc/net/tcp\(isIPv4 ? "" : "6")")
            let mark = ":" + String(format: "%04X", port)
            for line in table.split(separator: "\n") {
                let fields = line.split(separator: " ")
                guard fields.count > 4, fields[1].hasSuffix(mark), fields[3] == "0A" else { continue }
                return Int(fields[4].split(separator: ":").last ?? "", radix: 16) ?? 0
            }
            return nil
        }
    }

    /// Without a connection, which somebody could take.
    func waitUntilNobodyListens() throws { try awaitUntil("nobody listens at \(self)") { try queued == nil } }
}

/// A listener whose connections the test itself accepts.
struct ManualServer: Sendable {
    let place: Place
    private let listener: Socket
    private let backlog: Int32

    init(_ host: String = "::1", backlog: Int32 = 1024, keepsSyns: Bool = false) throws {
        place = Place(host, try FreePort.take())
        self.backlog = backlog
        listener = try Socket.listen(at: place, backlog: backlog)
        if keepsSyns { listener.keepSyns() }
    }

    /// Connections that fill its queue: from then on the kernel drops a SYN, as an unreachable host would.
    func fill() throws -> [Socket] {
        let fillers = try (0...backlog).map { _ in try Socket.connect(to: place) }
        try awaitUntil("the queue of \(place) is full") { try queued > Int(backlog) }
        return fillers
    }

    /// Connections that nobody has accepted.
    private var queued: Int { get throws { try place.queued.unwrap("\(place) is no listener") } }

    func accept(_ deadline: Deadline = Deadline()) throws -> Socket { try listener.accept(deadline) }
    func accept(until isOver: Flag) -> Socket? { listener.accept(until: isOver) }
}

/// A ClientHello for `name`, as small as a valid one can be; `padding` makes it larger by an extension of that size.
func clientHello(_ name: String?, padding: Int = 0) -> [UInt8] {
    func sized(_ bytes: [UInt8], _ width: Int) -> [UInt8] {
        (0..<width).map { UInt8(truncatingIfNeeded: bytes.count >> (8 * (width - 1 - $0))) } + bytes
    }
    var extensions: [UInt8] = []
    if let name { extensions += [0, 0] + sized(sized([0] + sized(Array(name.utf8), 2), 2), 2) }
    if padding > 0 { extensions += [0, 21] + sized([UInt8](repeating: 0, count: padding), 2) }
    let body =
        [3, 3] + [UInt8](repeating: 7, count: 32) + [0] + sized([0x13, 0x01], 2) + sized([0], 1) + sized(extensions, 2)
    return [22, 3, 1] + sized([1] + sized(body, 3), 2)
}

/// Bytes that are easy to make, and whose place in the stream shows: no two positions within 64 KiB look alike.
func pattern(_ count: Int, seed: UInt32 = 1) -> [UInt8] {
    var state = seed | 1
    return [UInt8](unsafeUninitializedCapacity: count) { buffer, made in
        for i in 0..<count {
            state = state &* 1_664_525 &+ 1_013_904_223
            buffer[i] = UInt8(truncatingIfNeeded: state >> 24)
        }
        made = count
    }
}

/// CRC32C over a stream, so that 50 MB need not be kept to be compared. In C: a loop over bytes in a build for tests was
/// a tenth of the whole suite's time.
struct Checksum: Equatable, Sendable {
    private var sum: UInt32 = 0
    private(set) var count = 0
    mutating func add(_ bytes: [UInt8]) {
        count += bytes.count
        sum = cl_crc32c(sum, bytes, bytes.count)
    }
}
