import Glibc
import Pipeline
import PipelineWire

/// Version 1, for Fuzz/run: what must hold of every header, and that a second parser over strings agrees.
enum ProxyV1Properties {
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        if let problem = ProxyProperties.violation(bytes, limit: 107) { return problem }
        let verdict = ProxyHeader.parse(bytes)
        if case .ok(let header) = verdict, header.version != 1 { return nil }
        guard let reference = ReferenceV1(bytes) else {
            if case .ok = verdict { return "parsed what a second parser finds no v1 header in" }
            return nil
        }
        guard case .ok(let header) = verdict else { return "\(verdict) where a second parser finds a v1 header" }
        guard header.length == reference.length else { return "length \(header.length), not \(reference.length)" }
        guard header.source == reference.source, header.destination == reference.destination else {
            return "other addresses than \(reference)"
        }
        return nil
    }
}

/// Version 2, for Fuzz/run: the same with a second parser over arrays, at several limits.
enum ProxyV2Properties {
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        if let problem = violationAsItIs(bytes) { return problem }
        // No mutation finds the checksum of what it made: what lies behind it is only reached with one put right.
        guard case .malformed(.checksum) = ProxyHeader.parse(bytes), let repaired = ReferenceV2.repaired(Array(bytes))
        else { return nil }
        return repaired.withUnsafeBufferPointer { bytes in
            if case .malformed(.checksum) = ProxyHeader.parse(bytes) {
                return "refuses the right checksum: \(repaired)"
            }
            return violationAsItIs(bytes)
        }
    }

    private static func violationAsItIs(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        for limit in [107, 536, ProxyHeader.maxLength] {
            if let problem = ProxyProperties.violation(bytes, limit: limit) { return "limit \(limit): \(problem)" }
        }
        let verdict = ProxyHeader.parse(bytes)
        if case .ok(let header) = verdict, header.version != 2 { return nil }
        guard let reference = ReferenceV2(Array(bytes)) else {
            if case .ok = verdict { return "parsed what a second parser finds no v2 header in" }
            return nil
        }
        guard case .ok(let header) = verdict else { return "\(verdict) where a second parser finds a v2 header" }
        guard header.length == reference.length, header.command == reference.command else {
            return "length \(header.length), \(header.command), not \(reference)"
        }
        guard header.source == reference.source, header.destination == reference.destination else {
            return "other addresses than \(reference)"
        }
        let tlvs = Array(header.tlvs(in: bytes)).map { [$0.type] + Array($0.value) }
        return tlvs == reference.tlvs ? nil : "other TLVs than \(reference)"
    }
}

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

/// A whole v1 header, found the slow way: the line as a string, cut at its spaces; addresses by the C library.
private struct ReferenceV1 {
    var length: Int
    var source: Endpoint?
    var destination: Endpoint?

    init?(_ bytes: UnsafeBufferPointer<UInt8>) {
        let head = Array(bytes.prefix(107))
        guard let end = head.firstIndex(where: { $0 == 13 || $0 == 10 }), head[end] == 13, end + 1 < head.count,
            head[end + 1] == 10
        else { return nil }
        length = end + 2
        let fields = head[..<end].split(separator: 32, omittingEmptySubsequences: false)
            .map { String(decoding: $0, as: UTF8.self) }
        guard fields.count >= 2, fields[0] == "PROXY" else { return nil }
        if fields[1] == "UNKNOWN" { return }
        guard fields.count == 6, fields[1] == "TCP4" || fields[1] == "TCP6" else { return nil }
        let isV4 = fields[1] == "TCP4"
        guard let from = ReferenceV1.endpoint(fields[2], fields[4], isV4: isV4),
            let to = ReferenceV1.endpoint(fields[3], fields[5], isV4: isV4)
        else { return nil }
        (source, destination) = (from, to)
    }

    private static func endpoint(_ address: String, _ port: String, isV4: Bool) -> Endpoint? {
        // Strict where Swift's and C's own readers are not: no sign, no NUL.
        guard !port.isEmpty, port.utf8.allSatisfy({ $0 >= 48 && $0 <= 57 }), let number = UInt16(port),
            port == "\(number)", !address.utf8.contains(0)
        else { return nil }
        var raw = [UInt8](repeating: 0, count: 16)
        guard inet_pton(isV4 ? AF_INET : AF_INET6, address, &raw) == 1 else { return nil }
        if isV4 { return Endpoint(IPAddress(v4: UInt32(bigEndianBytes(raw[..<4]))), number) }
        return Endpoint(IPAddress(high: bigEndianBytes(raw[..<8]), low: bigEndianBytes(raw[8...])), number)
    }
}

/// A whole v2 header, found the slow way: byte arrays cut in pieces, the checksum bit by bit.
private struct ReferenceV2 {
    var length: Int
    var command: ProxyHeader.Command
    var source: Endpoint?
    var destination: Endpoint?
    var tlvs: [[UInt8]] = []

    init?(_ bytes: [UInt8]) {
        let signature: [UInt8] = [13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10]
        guard bytes.starts(with: signature), bytes.count >= 16, bytes[12] == 0x20 || bytes[12] == 0x21 else {
            return nil
        }
        length = 16 + Int(bytes[14]) * 256 + Int(bytes[15])
        command = bytes[12] == 0x20 ? .local : .proxy
        let (family, transport) = (bytes[13] / 16, bytes[13] % 16)
        guard bytes.count >= length else { return nil }
        if command == .local { return }
        guard family <= 3, transport <= 2 else { return nil }
        guard (family == 0) == (transport == 0) else { return nil }
        if family == 0 { return }
        let addressLength = [0, 12, 36, 216][Int(family)]
        var rest = Array(bytes[16..<length])
        guard rest.count >= addressLength else { return nil }
        if family < 3 {
            let size = family == 1 ? 4 : 16
            source = ReferenceV2.endpoint(rest[..<size], rest[(2 * size)...].prefix(2))
            destination = ReferenceV2.endpoint(rest[size..<2 * size], rest[(2 * size + 2)...].prefix(2))
        }
        rest.removeFirst(addressLength)
        var checksums = 0
        while !rest.isEmpty {
            guard rest.count >= 3 else { return nil }
            let count = Int(rest[1]) * 256 + Int(rest[2])
            guard rest.count >= 3 + count else { return nil }
            let value = Array(rest[3..<3 + count])
            if rest[0] == 3 {
                checksums += 1
                guard count == 4 else { return nil }
                var zeroed = Array(bytes[..<length])
                let place = length - rest.count + 3
                for index in place..<place + 4 { zeroed[index] = 0 }
                guard UInt64(ReferenceV2.crc32c(zeroed)) == bigEndianBytes(value[...]) else { return nil }
            }
            if rest[0] == 5, count > 128 { return nil }
            tlvs.append([rest[0]] + value)
            rest.removeFirst(3 + count)
        }
        guard checksums <= 1 else { return nil }
    }

    private static func endpoint(_ address: ArraySlice<UInt8>, _ port: ArraySlice<UInt8>) -> Endpoint {
        let port = UInt16(bigEndianBytes(port))
        if address.count == 4 { return Endpoint(IPAddress(v4: UInt32(bigEndianBytes(address))), port) }
        return Endpoint(
            IPAddress(high: bigEndianBytes(address.prefix(8)), low: bigEndianBytes(address.suffix(8))), port)
    }

    /// The same with its first checksum put right; nil if it has none.
    static func repaired(_ bytes: [UInt8]) -> [UInt8]? {
        guard bytes.count >= 16 else { return nil }
        let length = 16 + Int(bytes[14]) * 256 + Int(bytes[15])
        var place = 16 + [0, 12, 36, 216][Int(bytes[13] / 16) % 4]
        guard bytes.count >= length else { return nil }
        while place + 7 <= length, bytes[place] != 3 {
            place += 3 + Int(bytes[place + 1]) * 256 + Int(bytes[place + 2])
        }
        guard place + 7 <= length else { return nil }
        var copy = bytes
        for index in place + 3..<place + 7 { copy[index] = 0 }
        let sum = crc32c(Array(copy[..<length]))
        for index in 0..<4 { copy[place + 3 + index] = UInt8(truncatingIfNeeded: sum >> UInt32(24 - 8 * index)) }
        return copy
    }

    /// RFC 3720, appendix B.4: the reflected polynomial, a bit at a time.
    private static func crc32c(_ bytes: [UInt8]) -> UInt32 {
        var crc = ~UInt32(0)
        for byte in bytes {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0x82F6_3B78 : crc >> 1 }
        }
        return ~crc
    }
}

private func bigEndianBytes(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
