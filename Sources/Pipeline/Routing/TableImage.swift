import Pipeline

/// What is in force at one moment, to be written as a ``MappedTable`` while the node goes on (ADR 0116).
///
/// It has the routes of which nothing need be known at a start but what a table says of them: of desired state, with an exact
/// name, to the instances of a process type, and nothing to be said of them by the rules. All others are named, and read as
/// texts by whoever takes the table.
///
/// Threading: made and let go of by the control thread; ``write(_:)`` on any, once.
public final class TableImage: @unchecked Sendable {
    struct Group {
        let env: Range<Int>
        let process: Range<Int>
        let port: UInt16
        let isHashed: Bool
    }

    let snapshot: RouteTableSnapshot
    let rules: RouteRules
    let seed: HashSeed
    /// By number; nil: its routes are among the others.
    let groups: [Group?]
    let texts: [UInt8]
    /// 16 bytes: of the rules that it was made by.
    public let key: [UInt8]

    /// Of fewer routes nobody waits for the table.
    public static let least = 4096
    /// With more others a start had better read all.
    static let mostOthers = 50_000

    init(_ state: RoutingState, key: [UInt8]) {
        (snapshot, rules, seed, self.key) = (state.snapshot, state.rules, state.seed, key)
        var texts: [UInt8] = []
        var known: [UInt32: Range<Int>] = [:]
        func text(_ symbol: UInt32) -> Range<Int> {
            if let range = known[symbol] { return range }
            let start = texts.count
            texts.append(contentsOf: state.symbols.bytes(symbol))
            known[symbol] = start..<texts.count
            return start..<texts.count
        }
        var groups = [Group?](repeating: nil, count: state.groups.count)
        state.groups.visit { number, group in
            let key = group.key
            guard key.isOfInstances, state.symbols.bytes(key.env).allSatisfy({ $0 != 0 }) else { return }
            let process = text(UInt32(truncatingIfNeeded: key.pool))
            groups[Int(number)] = Group(env: text(key.env), process: process, port: key.port, isHashed: key.isHashed)
        }
        (self.groups, self.texts) = (groups, texts)
    }

    /// Writes it a piece at a time.
    /// - Returns: what is to be noted with it; nil: it is not worth keeping.
    public func write<Failure>(
        _ put: (UnsafeRawBufferPointer) throws(Failure) -> Void
    ) throws(Failure) -> [UInt8]? {
        var writer = TableWriter(self)
        let shards = snapshot.table.pointee.shards
        for shard in shards {
            writer.add(shard)
            try TableImage.put(writer.scratch, put)
        }
        guard writer.isWorthKeeping else { return nil }
        for part in writer.parts() { try TableImage.put(part, put) }
        return writer.layout.info
    }

    private static func put<Failure>(
        _ bytes: [UInt8], _ put: (UnsafeRawBufferPointer) throws(Failure) -> Void
    ) throws(Failure) {
        let result = bytes.withUnsafeBytes { bytes -> Result<Void, Failure> in
            do throws(Failure) { return .success(try put(bytes)) } catch { return .failure(error) }
        }
        try result.get()
    }
}

extension GroupKey {
    /// Of desired state, and nothing is said of it but where its backends are.
    fileprivate var isOfInstances: Bool {
        addresses.isEmpty && !isNamed && maxConnections == 0 && health == nil && policy == nil
    }
}

extension RoutingState {
    /// What is in force now, to be written; nil: too little, or not made by the rules that hold now.
    /// - Parameter least: of routes.
    public func image(least: Int = TableImage.least) -> TableImage? {
        let key = rulesKey
        guard snapshot.routeCount >= least, tableKey == key else { return nil }
        return TableImage(self, key: key)
    }

    /// 16 bytes of the rules by which routes are judged, but for what those say that a mapped table has not.
    public var rulesKey: [UInt8] {
        var text = "\(MappedLayout.meaning) \(hashesByDefault)"
        for range in rules.policy.denied { text += " -\(range.lowerBound)-\(range.upperBound)" }
        for it in rules.listeners ?? [] {
            text += "\n\(it.address) \(it.ports.lowerBound)-\(it.ports.upperBound) \(it.hint.name) \(it.injectsProxy)"
            text += " \(it.injectsText) \(it.pipeline)"
        }
        if rules.listeners == nil { text += "\nany" }
        let hash = Array(text.utf8).withUnsafeBufferPointer { SipHash.wideHash($0, seed: seed) }
        return [hash.0, hash.1].flatMap { withUnsafeBytes(of: $0.littleEndian, Array.init) }
    }
}
