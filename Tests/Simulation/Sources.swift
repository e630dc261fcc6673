import Pipeline
import PipelineRuntime

/// Where connections to backends come from (`source`): addresses that this host lacks now and then, or that have no port
/// left. Drawn apart, so that other seeds stay what they were.
final class SourcePool {
    let addresses: UnsafePointer<SourceAddresses>
    let count: Int
    private var random: SeededRandom

    /// Nil for most seeds: the kernel chooses.
    init?(seed: UInt64) {
        random = SeededRandom(seed: seed ^ 0x50C3_0000)
        guard random.chance(25) else { return nil }
        count = random.pick(1...3)
        let first = IPAddress(high: 0xFD50 << 48, low: 16)
        let range = AddressRange(first, IPAddress(high: first.high, low: first.low + UInt64(count) - 1))
        addresses = SourceAddresses.make(.addresses(range.map { [$0] } ?? []))
    }

    deinit { SourceAddresses.free(addresses) }

    func has(_ address: IPAddress) -> Bool {
        (0..<count).contains { addresses.pointee.address($0, isIPv4: false).address == address }
    }

    /// Nil: it is there, and has a port.
    func failure() -> Int32? {
        guard random.chance(25) else { return nil }
        return random.chance(50) ? ErrorNumber.noSuchSource : ErrorNumber.addressNotAvailable
    }
}

/// The addresses that one attempt has tried.
struct SourceAttempt {
    var candidate = -1
    var tried: [IPAddress] = []
    /// The worst of them: a lack of ports says more than that an address is not there.
    var error: Int32 = 0
}

extension World {
    /// True: this call begins an attempt at a backend, false: it goes on with the next address.
    func beginsAttempt(_ connection: Connection, _ candidate: Int, _ way: UpstreamWay) -> Bool {
        guard let sources else {
            if way != .plain { fail("#\(connection.index) connects by \(way), which nobody has said") }
            return true
        }
        guard let source = way.source, !way.isForeign, !way.isMarked, sources.has(source) else {
            fail("S24: #\(connection.index) connects by \(way), which is none of its sources")
            return true
        }
        let isNew = connection.sources.candidate != candidate || connection.sources.tried.isEmpty
        if isNew { connection.sources = SourceAttempt(candidate: candidate) }
        if connection.sources.tried.contains(source) { fail("#\(connection.index) tries the source \(source) again") }
        connection.sources.tried.append(source)
        return isNew
    }

    /// What the address itself fails with; nil: it is the backend's turn to answer.
    func sourceFailure(_ connection: Connection) -> Int32? { sources == nil ? nil : sources?.failure() }

    /// The error that an attempt has when this call has failed, and whether that was its last one.
    func noteFailure(_ connection: Connection, _ error: Int32) -> (error: Int32, isLast: Bool) {
        let ofSources = [ErrorNumber.noSuchSource, ErrorNumber.addressNotAvailable]
        guard let sources, ofSources.contains(error) else {
            connection.sources = SourceAttempt()
            return (error, true)
        }
        if connection.sources.error != ErrorNumber.addressNotAvailable { connection.sources.error = error }
        let (worst, isLast) = (connection.sources.error, connection.sources.tried.count == sources.count)
        if isLast { connection.sources = SourceAttempt() }
        return (worst, isLast)
    }
}
