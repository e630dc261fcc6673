import Pipeline

/// Where a connection to a backend comes from (`source`).
extension Worker {
    /// Begins the connect to a backend, from where its route or its stage says.
    mutating func openBackend(_ index: Int, _ backend: BackendAddress) -> Outcome {
        let slot = slab.slots + index
        let owner = slot.pointee.owner?.pointee.number
        let source = blocks.pending(slot.pointee.pending).pointee.facts.source
        guard let source, !backend.endpoint.isUnixSocket else {
            return openUpstream(index, .backend(backend, of: owner), .plain)
        }
        guard source.pointee.isClient else { return openBackend(index, backend, of: owner, from: source) }
        let client = slot.pointee.lasting.client.endpoint.address
        guard client.isIPv4 == backend.endpoint.address.isIPv4 else { return Worker.noSource }
        // Who saw this connection could foretell the next one's sequence number, and clients share nothing (ADR 0030).
        return openUpstream(index, .single(backend), UpstreamWay(source: client, isForeign: true))
    }

    /// The addresses take turns. One that this host lacks, or that has no port left towards the backend, is passed over.
    private mutating func openBackend(
        _ index: Int, _ backend: BackendAddress, of owner: UInt32?, from source: UnsafePointer<SourceAddresses>
    ) -> Outcome {
        let isIPv4 = backend.endpoint.address.isIPv4
        let count = source.pointee.count(isIPv4: isIPv4)
        guard count > 0 else { return Worker.noSource }
        var place = source.pointee.nextTurn(isIPv4: isIPv4)
        var failure = Worker.noSource
        for _ in 0..<min(count, Self.sourcesTried) {
            let (address, number) = source.pointee.address(place, isIPv4: isIPv4)
            let key = number == 0 ? UpstreamKey.single(backend) : .backend(backend, of: owner, from: number)
            let outcome = openUpstream(index, key, UpstreamWay(source: address))
            switch outcome.error {
            case ErrorNumber.noSuchSource: break
            // Were the others there too, it would be ports that are missing.
            case ErrorNumber.addressNotAvailable: failure = outcome
            default: return outcome
            }
            place = place + 1 == count ? 0 : place + 1
        }
        return failure
    }

    private static var noSource: Outcome { Outcome(-Int(ErrorNumber.noSuchSource)) }

    /// The most addresses that one connect tries: each costs a socket (R27).
    private static var sourcesTried: Int { 64 }
}
