/// SipHash-1-3 with 128 bits of result (Aumasson, Bernstein 2012), for tables whose keys strangers choose: who doesn't
/// know the seed can't pick keys that share a bucket.
@frozen package struct KeyedHash {
    package struct Seed: Sendable {
        let first: UInt64
        let second: UInt64

        /// A fixed one: for tests, which must repeat.
        package init(_ first: UInt64, _ second: UInt64) {
            self.first = first
            self.second = second
        }
        /// What a node uses: from the system's random source.
        package static func random() -> Seed {
            Seed(.random(in: 0...UInt64.max), .random(in: 0...UInt64.max))
        }
    }

    private var v0: UInt64
    private var v1: UInt64
    private var v2: UInt64
    private var v3: UInt64

    private init(_ seed: Seed) {
        v0 = seed.first ^ 0x736f_6d65_7073_6575
        // The constant that sets the long result apart from the short one.
        v1 = seed.second ^ 0x646f_7261_6e64_6f6d ^ 0xEE
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

    @inline(__always) private mutating func add(_ word: UInt64) {
        v3 ^= word
        round()
        v0 ^= word
    }

    @inline(__always) private mutating func finish() -> (UInt64, UInt64) {
        v2 ^= 0xEE
        round()
        round()
        round()
        let first = v0 ^ v1 ^ v2 ^ v3
        v1 ^= 0xDD
        round()
        round()
        round()
        return (first, v0 ^ v1 ^ v2 ^ v3)
    }

    /// The hash of 16 bytes.
    static func hash(_ first: UInt64, _ second: UInt64, seed: Seed) -> (UInt64, UInt64) {
        var state = KeyedHash(seed)
        state.add(first)
        state.add(second)
        state.add(16 &<< 56)
        return state.finish()
    }

    /// The hash of a flow's key, cut to 64 bits.
    static func hash(_ key: FlowKey, seed: Seed) -> UInt64 {
        var state = KeyedHash(seed)
        state.add(key.source.high)
        state.add(key.source.low)
        state.add(key.destination.high)
        state.add(key.destination.low)
        state.add(UInt64(key.instance) &<< 32 | UInt64(key.port) &<< 8 | UInt64(key.proto))
        return state.finish().0
    }

    /// The hash of any bytes.
    static func hash(_ bytes: UnsafeBufferPointer<UInt8>, seed: Seed) -> (UInt64, UInt64) {
        var state = KeyedHash(seed)
        var word: UInt64 = 0
        var shift: UInt64 = 0
        for byte in bytes {
            word |= UInt64(byte) &<< shift
            shift &+= 8
            if shift == 64 {
                state.add(word)
                (word, shift) = (0, 0)
            }
        }
        state.add(word | UInt64(truncatingIfNeeded: bytes.count) &<< 56)
        return state.finish()
    }
}
