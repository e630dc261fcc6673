import CLinux
import Pipeline

/// The purpose of an upstream socket.
enum UpstreamKind: UInt8, CaseIterable {
    /// For a route's env.
    case backend
    /// For an instance (docs/EGRESS.md): carries the node's mark.
    case marked
    /// Never reused: bound to a client's address, or its owner is unknown.
    case single
}

/// The owner, destination and source of an upstream socket: a connection reuses only a socket of the same key.
///
/// A reused socket continues from its last TCP sequence number, so that one who saw one of its connections can guess
/// the next one's. It therefore stays with one owner and destination (docs/adr/0030).
struct UpstreamKey: Equatable {
    let destination: Endpoint
    let kind: UpstreamKind
    /// The number of the route's owner, or of the instance: never another's in this process.
    let tenant: UInt32
    /// Of the address that it is bound to (``SourceAddresses/address(_:isIPv4:)``); 0: the kernel chooses.
    let source: UInt32

    /// - Parameter source: as ``source``.
    static func backend(_ address: BackendAddress, of owner: UInt32?, from source: UInt32 = 0) -> UpstreamKey {
        // A Unix socket can't be disconnected and connected again.
        guard let owner, !address.endpoint.isUnixSocket else { return single(address) }
        return UpstreamKey(destination: address.endpoint, kind: .backend, tenant: owner, source: source)
    }

    static func single(_ address: BackendAddress) -> UpstreamKey {
        UpstreamKey(destination: address.endpoint, kind: .single, tenant: 0, source: 0)
    }

    /// - Parameter isForeign: from the instance's own address.
    static func direct(_ destination: Endpoint, isForeign: Bool = false, of instance: UInt32) -> UpstreamKey {
        let mayKeep = !isForeign && instance != InstanceIdentity.unknown
        return UpstreamKey(destination: destination, kind: mayKeep ? .marked : .single, tenant: instance, source: 0)
    }

    /// Seeded: workloads choose destinations, and must not be able to make them collide.
    fileprivate func hash(_ seed: (UInt64, UInt64)) -> UInt64 {
        func fold(_ a: UInt64, _ b: UInt64) -> UInt64 {
            let product = a.multipliedFullWidth(by: b)
            return product.high ^ product.low
        }
        let rest = UInt64(destination.port) << 40 | UInt64(kind.rawValue) << 32 | UInt64(tenant)
        let address = fold(destination.address.high ^ seed.0, destination.address.low ^ seed.1)
        return fold(address ^ rest ^ seed.0 &+ UInt64(source) &* 0x9E37_79B9_7F4A_7C15, seed.1 | 1)
    }
}

/// Idle upstream sockets by key: newest first within a key, with constant-time access to the oldest of all. Memory is
/// mapped once, and touched only as far as it was ever used.
struct IdleUpstreamSockets: ~Copyable {
    /// Links are node indices; 0: none.
    private struct Node {
        let key: UpstreamKey
        let since: Instant
        /// The entry in ``UpstreamSockets``.
        let place: Int32
        /// The next key of the bucket, or the next free node. Only the newest node of a key is in a bucket.
        var next: Int32 = 0
        /// Of the same key.
        var older: Int32 = 0
        var newer: Int32 = 0
        /// Links of the list of all nodes, in order of arrival.
        var before: Int32 = 0
        var after: Int32 = 0
    }

    let capacity: Int
    private let nodes: UnsafeMutablePointer<Node>
    private let nextOffset: Int
    private let buckets: UnsafeMutablePointer<Int32>
    private let bucketCount: Int
    private let seed = (UInt64.random(in: .min ... .max), UInt64.random(in: .min ... .max))
    private var touched: Int32 = 0
    private var free: Int32 = 0
    private var first: Int32 = 0
    private var last: Int32 = 0
    private(set) var count = 0

    /// - Returns: nil if the address space can't be had.
    init?(capacity: Int) {
        var bucketCount = 1
        while bucketCount < 2 * capacity { bucketCount *= 2 }
        guard let nextOffset = MemoryLayout<Node>.offset(of: \.next),
            let memory = cl_map((capacity + 1) * MemoryLayout<Node>.stride)
        else { return nil }
        // Zeros, which is: empty.
        guard let table = cl_map(bucketCount * MemoryLayout<Int32>.stride) else {
            cl_unmap(memory, (capacity + 1) * MemoryLayout<Node>.stride)
            return nil
        }
        self.capacity = capacity
        self.nextOffset = nextOffset
        self.bucketCount = bucketCount
        nodes = memory.bindMemory(to: Node.self, capacity: capacity + 1)
        buckets = table.bindMemory(to: Int32.self, capacity: bucketCount)
    }

    deinit {
        cl_unmap(nodes, (capacity + 1) * MemoryLayout<Node>.stride)
        cl_unmap(buckets, bucketCount * MemoryLayout<Int32>.stride)
    }

    /// When the oldest one became idle; nil: there is none.
    var oldest: Instant? { first == 0 ? nil : nodes[Int(first)].since }

    /// The caller has checked that there is room.
    mutating func push(_ place: Int32, _ key: UpstreamKey, at now: Instant) {
        guard let index = takeNode() else { return }
        var node = Node(key: key, since: now, place: place)
        let link = link(to: key)
        if link.pointee != 0 {
            node.older = link.pointee
            node.next = nodes[Int(link.pointee)].next
            nodes[Int(link.pointee)].newer = index
        }
        link.pointee = index
        node.before = last
        if last == 0 { first = index } else { nodes[Int(last)].after = index }
        last = index
        (nodes + Int(index)).initialize(to: node)
        count += 1
    }

    /// Takes the newest one of a key.
    mutating func pop(_ key: UpstreamKey) -> Int32? {
        guard count > 0 else { return nil }
        let newest = link(to: key).pointee
        return newest == 0 ? nil : remove(newest)
    }

    /// Takes the oldest one.
    mutating func popOldest() -> Int32? { first == 0 ? nil : remove(first) }

    private mutating func remove(_ index: Int32) -> Int32 {
        let node = nodes[Int(index)]
        if node.newer != 0 {
            nodes[Int(node.newer)].older = node.older
        } else {
            // It is in a bucket, where the next one of its key takes its place, or the next key.
            let link = link(to: node.key)
            link.pointee = node.older == 0 ? node.next : node.older
            if node.older != 0 { nodes[Int(node.older)].next = node.next }
        }
        if node.older != 0 { nodes[Int(node.older)].newer = node.newer }
        if node.before == 0 { first = node.after } else { nodes[Int(node.before)].after = node.after }
        if node.after == 0 { last = node.before } else { nodes[Int(node.after)].before = node.before }
        nodes[Int(index)].next = free
        free = index
        count -= 1
        return node.place
    }

    private mutating func takeNode() -> Int32? {
        if free != 0 {
            let index = free
            free = nodes[Int(index)].next
            return index
        }
        guard Int(touched) < capacity else { return nil }
        touched += 1
        return touched
    }

    /// The link to the newest node of a key; without one, the empty link where it would be.
    private func link(to key: UpstreamKey) -> UnsafeMutablePointer<Int32> {
        var link = buckets + Int(truncatingIfNeeded: key.hash(seed) & UInt64(bucketCount - 1))
        while link.pointee != 0, nodes[Int(link.pointee)].key != key {
            link = (UnsafeMutableRawPointer(nodes + Int(link.pointee)) + nextOffset).assumingMemoryBound(to: Int32.self)
        }
        return link
    }
}
