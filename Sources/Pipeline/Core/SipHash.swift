/// The key of every hash over text that tenants choose. It is secret, so that no tenant can pick colliding names and
/// slow down others' lookups.
public struct HashSeed: Sendable {
    public let first: UInt64
    public let second: UInt64

    /// A fixed key: for tests, which must repeat.
    public init(_ first: UInt64, _ second: UInt64) {
        self.first = first
        self.second = second
    }

    /// A node's key: new at every start, from the system's random source.
    public static func random() -> HashSeed {
        HashSeed(.random(in: 0...UInt64.max), .random(in: 0...UInt64.max))
    }
}

/// SipHash-1-3 (Aumasson, Bernstein 2012, with the rounds that Linux, Rust and Swift use for hash tables): keyed, no
/// known way to find collisions without the key, and 15–20 ns for a hostname, one cache miss's worth.
public struct SipHash {
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

    @inline(__always) private mutating func add(_ word: UInt64) {
        v3 ^= word
        round()
        v0 ^= word
    }

    /// Adds the whole words of `bytes`; the answer is the last word, with what is left of them and their number.
    @inline(__always) private mutating func addWords(of bytes: UnsafeBufferPointer<UInt8>) -> UInt64 {
        let count = bytes.count
        var offset = 0
        if let base = UnsafeRawPointer(bytes.baseAddress) {
            while offset &+ 8 <= count {
                add(UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self)))
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
        return tail
    }

    @inline(__always) private mutating func result() -> UInt64 {
        round()
        round()
        round()
        return v0 ^ v1 ^ v2 ^ v3
    }

    /// The hash of `bytes` in the namespace `domain`: equal bytes of different domains have unrelated hashes.
    public static func hash(
        _ bytes: UnsafeBufferPointer<UInt8>, domain: UInt8 = 0, seed: HashSeed
    ) -> UInt64 {
        var state = SipHash(seed)
        let tail = state.addWords(of: bytes)
        // Domain 0 is plain SipHash-1-3.
        state.v1 ^= UInt64(domain)
        state.add(tail)
        state.v2 ^= 0xFF
        return state.result()
    }

    /// The hash of five words: two addresses and what else a flow's key has. All keys of one table have as many.
    public static func hash(
        _ first: UInt64, _ second: UInt64, _ third: UInt64, _ fourth: UInt64, _ fifth: UInt64, seed: HashSeed
    ) -> UInt64 {
        var state = SipHash(seed)
        state.add(first)
        state.add(second)
        state.add(third)
        state.add(fourth)
        state.add(fifth)
        state.v2 ^= 0xFF
        return state.result()
    }

    // MARK: 128 bits of result

    /// For tables that store the hash instead of the key: collisions are negligible.
    private init(wide seed: HashSeed) {
        self.init(seed)
        // Distinguishes the 128-bit variant from the 64-bit one.
        v1 ^= 0xEE
    }

    @inline(__always) private mutating func wideResult() -> (UInt64, UInt64) {
        v2 ^= 0xEE
        let first = result()
        v1 ^= 0xDD
        return (first, result())
    }

    /// The long hash of 16 bytes.
    public static func wideHash(_ first: UInt64, _ second: UInt64, seed: HashSeed) -> (UInt64, UInt64) {
        var state = SipHash(wide: seed)
        state.add(first)
        state.add(second)
        state.add(16 &<< 56)
        return state.wideResult()
    }

    /// The 128-bit hash of several texts; equal concatenations of different texts have different hashes.
    public struct Row {
        private var state: SipHash

        public init(seed: HashSeed) { state = SipHash(wide: seed) }

        public mutating func add(_ text: UnsafeBufferPointer<UInt8>) {
            // The length goes before the text, so that boundaries can't be confused.
            state.add(UInt64(truncatingIfNeeded: text.count))
            state.add(state.addWords(of: text))
        }

        public mutating func result() -> (UInt64, UInt64) { state.wideResult() }
    }

    /// The long hash of any bytes.
    public static func wideHash(_ bytes: UnsafeBufferPointer<UInt8>, seed: HashSeed) -> (UInt64, UInt64) {
        var state = SipHash(wide: seed)
        let tail = state.addWords(of: bytes)
        state.add(tail)
        return state.wideResult()
    }
}
