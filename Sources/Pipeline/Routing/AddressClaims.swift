import Pipeline

/// Addresses, each at most once: 16 bytes and a number each, since a start has a hundred thousand.
struct SoleAddresses {
    private var addresses: [IPAddress] = []
    /// 0: free; else a place in `addresses` + 1.
    private var slots: [UInt32]
    /// Addresses are not hashed by a key: with so many in a row it is given up.
    private static let mostLooks = 64

    init(_ count: Int) {
        addresses.reserveCapacity(count)
        var size = 16
        while size < count * 2 { size *= 2 }
        slots = Array(repeating: 0, count: size)
    }

    /// False: it is there, or too many are like it, or there are more than were said.
    mutating func insert(_ address: IPAddress) -> Bool {
        var slot = Int(truncatingIfNeeded: Hashing.address(address)) & (slots.count - 1)
        for _ in 0..<SoleAddresses.mostLooks {
            let place = slots[slot]
            if place == 0 {
                guard addresses.count < slots.count / 2 else { return false }
                addresses.append(address)
                slots[slot] = UInt32(addresses.count)
                return true
            }
            if addresses[Int(place) - 1] == address { return false }
            slot = (slot + 1) & (slots.count - 1)
        }
        return false
    }
}

/// Addresses that envs claim, each for one env only: the previous owner keeps it; without one, a contested address goes
/// to none.
struct AddressClaims {
    enum Kind {
        case asked
        /// The env can't have it now, but may be its owner.
        case unclear
    }

    private struct Claim {
        var envs = EnvMark.none
        let first: UInt32
        var isUnclear = false
        var holder: UInt32?
        /// All of them, once there are two.
        var all: Set<UInt32> = []

        init(first: UInt32) { self.first = first }

        mutating func add(_ env: UInt32, _ kind: Kind, had: Bool) {
            envs.add(env)
            if envs.hasOther(than: env) { all.formUnion([first, env]) }
            if kind == .unclear { isUnclear = true }
            if had { holder = env }
        }
    }
    private var claims: [IPAddress: Claim] = [:]

    mutating func reserveCapacity(_ count: Int) { claims.reserveCapacity(count) }

    mutating func add(_ address: IPAddress, _ env: UInt32, _ kind: Kind, had: Bool) {
        claims[address, default: Claim(first: env)].add(env, kind, had: had)
    }

    private func winner(_ claim: Claim) -> UInt32? {
        if let holder = claim.holder { return holder }
        return claim.envs.hasOther(than: claim.first) || claim.isUnclear ? nil : claim.first
    }

    func winner(_ address: IPAddress) -> UInt32? { claims[address].flatMap { winner($0) } }
    func envs(_ address: IPAddress) -> [UInt32] {
        claims[address].map { $0.all.isEmpty ? [$0.first] : Array($0.all) } ?? []
    }

    /// True if it claims it, and no other env does.
    func isSole(_ address: IPAddress, _ env: UInt32) -> Bool {
        claims[address].map { $0.first == env && $0.all.isEmpty } ?? false
    }

    /// True if no other env claims it.
    func isFree(_ address: IPAddress, for env: UInt32) -> Bool {
        claims[address].map { !$0.envs.hasOther(than: env) } ?? true
    }

    func forEachWinner(_ body: (IPAddress, UInt32) -> Void) {
        for (address, claim) in claims { if let env = winner(claim) { body(address, env) } }
    }

    /// Addresses that several envs claim.
    var contested: [IPAddress] { claims.filter { !$0.value.all.isEmpty }.map(\.key) }
    /// Addresses whose owner has them only because he had them.
    var disputed: [IPAddress] { claims.filter { !$0.value.all.isEmpty || $0.value.isUnclear }.map(\.key) }

    /// Records the previous owner of an address.
    mutating func had(_ address: IPAddress, _ env: UInt32) {
        guard let claim = claims[address], claim.all.contains(env) || claim.first == env else { return }
        claims[address]?.holder = env
    }
}
