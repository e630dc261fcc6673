// Also compiled by Fuzz/run, there in one module with the parser.
#if canImport(PipelineWire)
    import Pipeline
    import PipelineWire
#endif

/// What must hold of the PROXY parser, the signature check and the writer for any bytes whatever.
enum ProxyProperties {
    /// Nil, or what is wrong.
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>, limit: Int) -> String? {
        let verdict = ProxyHeader.parse(bytes, limit: limit)
        if let problem = prefixes(bytes, limit: limit, final: verdict) { return problem }
        if let problem = signature(bytes, verdict) { return problem }
        guard case .ok(let header) = verdict else { return nil }
        return whole(header, bytes, limit: limit)
    }

    private static func prefixes(_ bytes: UnsafeBufferPointer<UInt8>, limit: Int, final: ProxyVerdict) -> String? {
        let step = max(1, bytes.count / 256)
        var isDecided = false
        for count in stride(from: 0, through: bytes.count, by: step) {
            let verdict = ProxyHeader.parse(UnsafeBufferPointer(rebasing: bytes[..<count]), limit: limit)
            if case .incomplete(let needs) = verdict {
                if isDecided { return "undecided again at \(count)" }
                if needs <= count || needs > max(limit, 107) { return "needs \(needs) at \(count)" }
            } else {
                if verdict != final { return "\(verdict) at \(count), \(final) in the end" }
                isDecided = true
            }
        }
        return nil
    }

    /// R17: nothing that the parser would take for a header, or wait for, gets past the signature check.
    private static func signature(_ bytes: UnsafeBufferPointer<UInt8>, _ verdict: ProxyVerdict) -> String? {
        switch (ProxySignature.check(bytes), verdict) {
        case (.pass, .notProxy), (.wait, .incomplete), (.block, .incomplete), (.block, .ok), (.block, .malformed):
            return nil
        case (let check, let verdict): return "signature check says \(check), parser \(verdict)"
        }
    }

    private static func whole(_ header: ProxyHeader, _ bytes: UnsafeBufferPointer<UInt8>, limit: Int) -> String? {
        guard header.length <= bytes.count else { return "length \(header.length) of \(bytes.count)" }
        let alone = UnsafeBufferPointer(rebasing: bytes[..<header.length])
        guard ProxyHeader.parse(alone, limit: limit) == .ok(header) else { return "differs without what follows" }
        var tlvs = header.tlvs(in: bytes)
        while let tlv = tlvs.next() {
            if tlv.value.count > bytes.count { return "a TLV beyond the end" }
        }
        guard tlvs.isWhole, tlvs.offset == header.tlvBytes.count else { return "TLVs end early" }
        guard let source = header.source, let destination = header.destination else { return nil }
        return rewritten(source, destination)
    }

    /// What the writer writes, the parser reads, unless something was cut.
    private static func rewritten(_ source: Endpoint, _ destination: Endpoint) -> String? {
        for capacity in [0, 15, 16, 27, 28, 51, 52, 53] {
            let memory = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: capacity)
            defer { memory.deallocate() }
            var writer = ProxyV2Writer(proxy: ClientAddress(source), to: DestinationAddress(destination), in: memory)
            let isV4 = source.address.isIPv4 && destination.address.isIPv4
            guard let written = writer.finish() else {
                if capacity >= (isV4 ? 28 : 52) { return "no header in \(capacity) bytes" }
                continue
            }
            guard case .ok(let again) = ProxyHeader.parse(written), again.source == source,
                again.destination == destination, again.family == (isV4 ? .inet : .inet6), again.length == written.count
            else { return "wrote something else in \(capacity) bytes" }
        }
        return nil
    }
}
