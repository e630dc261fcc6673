/// The key of every hash over text that tenants choose. A tenant who can't guess it can't pick names that collide, so
/// no name can make lookups of others slow.
package struct HashSeed: Sendable {
    package let first: UInt64
    package let second: UInt64

    /// A fixed key: for tests, which must repeat.
    package init(_ first: UInt64, _ second: UInt64) {
        self.first = first
        self.second = second
    }

    /// What a node uses: new at every start, from the system's random source.
    package static func random() -> HashSeed {
        HashSeed(.random(in: 0...UInt64.max), .random(in: 0...UInt64.max))
    }
}

/// SipHash-1-3 (Aumasson, Bernstein 2012, with the rounds that Linux, Rust and Swift use for hash tables): keyed, no
/// known way to find collisions without the key, and 15–20 ns for a hostname, one cache miss's worth.
package struct SipHash {
    private var v0: UInt64
    private var v1: UInt64
    private var v2: UInt64
    private var v3: UInt64

    private init(_ seed: HashSeed) {
        v0 = seed.first ^ 0x736f_6d65_7073_6575
        v1 = seed.second ^ 0x646f_7261_6e64_6f6d
        v2 = seed.first ^ 0x6c79_6765_6e65_7261
        v3 = seed.second ^ 0x7465_6462_7974_6573
    }

    @inline(__always) private mutating func round() {
        v0 = v0 &+ v1
        v1 = (v1 &<< 13 | v1 &>> 51) ^ v0
        v0 = v0 &<< 32 | v0 &>> 32
        v2 = v2 &+ v3
        v3 = (v3 &<< 16 | v3 &>> 48) ^ v2
        v0 = v0 &+ v3
        v3 = (v3 &<< 21 | v3 &>> 43) ^ v0
        v2 = v2 &+ v1
        v1 = (v1 &<< 17 | v1 &>> 47) ^ v2
        v2 = v2 &<< 32 | v2 &>> 32
    }

    /// The hash of `bytes` in the namespace `domain`: equal bytes of different domains have unrelated hashes.
    package static func hash(
        _ bytes: UnsafeBufferPointer<UInt8>, domain: UInt8 = 0, seed: HashSeed
    ) -> UInt64 {
        var state = SipHash(seed)
        let count = bytes.count
        var offset = 0
        if let base = UnsafeRawPointer(bytes.baseAddress) {
            while offset &+ 8 <= count {
                let word = UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
                state.v3 ^= word
                state.round()
                state.v0 ^= word
                offset &+= 8
            }
        }
        var tail = UInt64(truncatingIfNeeded: count) &<< 56
        var shift: UInt64 = 0
        while offset < count {
            tail |= UInt64(bytes[offset]) &<< shift
            shift &+= 8
            offset &+= 1
        }
        // Domain 0 is plain SipHash-1-3.
        state.v1 ^= UInt64(domain)
        state.v3 ^= tail
        state.round()
        state.v0 ^= tail
        state.v2 ^= 0xFF
        state.round()
        state.round()
        state.round()
        return state.v0 ^ state.v1 ^ state.v2 ^ state.v3
    }
}
