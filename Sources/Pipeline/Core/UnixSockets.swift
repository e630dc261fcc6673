import Synchronization

/// Backends that are Unix sockets. An ``Endpoint`` has no room for a path, and needs none: one with port 0 and an address of
/// ``mark`` has the path's number here (docs/adr/0090).
///
/// Threading: any. A path that was in use is never freed: a process has as many as its configs have named.
public enum UnixSockets {
    /// The longest path, in bytes: `sun_path` ends with a zero.
    public static let longestPath = 107
    /// The most paths of a process's life.
    public static let capacity = 4096

    /// The first half of those addresses: random, so that no peer can spell one, in PROXY headers neither. No host's
    /// address begins with 2 (RFC 4291 leaves 200::/7 unassigned).
    private static let mark = UInt64.random(in: .min ... .max) >> 8 | 2 << 56
    private struct Places: @unchecked Sendable { let first: UnsafeMutablePointer<UnsafePointer<CChar>?> }
    private static let paths: Places = {
        let memory = UnsafeMutablePointer<UnsafePointer<CChar>?>.allocate(capacity: capacity)
        memory.initialize(repeating: nil, count: capacity)
        return Places(first: memory)
    }()
    /// A path is there before its number is.
    private static let count = Atomic<Int>(0)
    private static let known = Mutex<[String: Int]>([:])

    /// The endpoint of a path, the same for the same. Nil: it is empty or too long, or there are ``capacity`` others.
    public static func endpoint(_ path: String) -> Endpoint? {
        guard (1...longestPath).contains(path.utf8.count) else { return nil }
        return known.withLock { known in
            let number = known[path] ?? known.count
            guard number < capacity else { return nil }
            if number == known.count {
                let bytes = path.utf8CString
                let copy = UnsafeMutablePointer<CChar>.allocate(capacity: bytes.count)
                for index in bytes.indices { (copy + index).initialize(to: bytes[index]) }
                paths.first[number] = UnsafePointer(copy)
                count.store(number + 1, ordering: .releasing)
                known[path] = number
            }
            return Endpoint(IPAddress(high: mark, low: UInt64(number)), 0)
        }
    }

    /// How many paths there are, for ``forget(beyond:)``.
    public static var pathCount: Int { count.load(ordering: .acquiring) }

    /// Frees the paths of a text that was refused. Only for who compiles, and only if nothing has been made of them.
    public static func forget(beyond wanted: Int) {
        known.withLock { known in
            guard wanted < known.count else { return }
            count.store(wanted, ordering: .releasing)
            for (path, number) in known where number >= wanted {
                paths.first[number]?.deallocate()
                paths.first[number] = nil
                known[path] = nil
            }
        }
    }

    /// The path of such an endpoint, which ends with a zero and is never freed; nil: it is an address.
    @inline(__always) public static func path(_ endpoint: Endpoint) -> UnsafePointer<CChar>? {
        endpoint.port == 0 ? pathOfPortless(endpoint.address) : nil
    }

    private static func pathOfPortless(_ address: IPAddress) -> UnsafePointer<CChar>? {
        guard address.high == mark, address.low < UInt64(count.load(ordering: .acquiring)) else { return nil }
        return paths.first[Int(address.low)]
    }
}

extension Endpoint {
    /// A backend that is a Unix socket.
    public var isUnixSocket: Bool { UnixSockets.path(self) != nil }

    /// `unix:/run/app.sock`, for a Unix socket.
    func appendPath(to bytes: inout [UInt8]) -> Bool {
        guard let path = UnixSockets.path(self) else { return false }
        bytes += "unix:".utf8
        var next = path
        while next.pointee != 0 {
            bytes.append(UInt8(bitPattern: next.pointee))
            next += 1
        }
        return true
    }

    /// The same for the same host and port, or path, in every process: what hashing over backends goes by.
    public var stableHash: UInt64 {
        guard var path = UnixSockets.path(self) else {
            return Hashing.address(address) ^ UInt64(port) << 8
        }
        var hash: UInt64 = 0
        while path.pointee != 0 {
            hash = Hashing.mix(hash ^ UInt64(UInt8(bitPattern: path.pointee)))
            path += 1
        }
        return hash
    }
}
