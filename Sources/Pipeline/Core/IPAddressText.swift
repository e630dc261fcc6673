/// Addresses as text: RFC 4291 §2.2 and dotted quad in, RFC 5952 out.
extension IPAddress: CustomStringConvertible {
    /// Parses `192.0.2.1`, `2001:db8::1` or `::ffff:192.0.2.1`. No zone, no port, no brackets, no leading zeros
    /// in IPv4 octets. Nil if it is anything else.
    public init?(_ text: some StringProtocol) {
        var copy = String(text)
        let parsed = copy.withUTF8 { IPAddress(ascii: $0) }
        guard let parsed else { return nil }
        self = parsed
    }

    /// The same, over bytes that need not be valid text.
    public init?(ascii bytes: UnsafeBufferPointer<UInt8>) {
        if bytes.contains(0x3A) {
            guard let words = IPAddress.v6Words(bytes) else { return nil }
            self.init(high: words.high, low: words.low)
        } else {
            guard let bits = IPAddress.v4Bits(bytes) else { return nil }
            self.init(v4: bits)
        }
    }

    private static func v4Bits(_ bytes: some Collection<UInt8>) -> UInt32? {
        var bits: UInt32 = 0
        var octets = 0
        var value: UInt32 = 0
        var digits = 0
        func closeOctet() -> Bool {
            guard digits > 0, octets < 4 else { return false }
            bits = bits << 8 | value
            octets += 1
            value = 0
            digits = 0
            return true
        }
        for byte in bytes {
            if byte == 0x2E {
                guard closeOctet() else { return nil }
            } else {
                guard byte >= 0x30, byte <= 0x39, digits < 3, !(digits > 0 && value == 0) else { return nil }
                value = value * 10 + UInt32(byte - 0x30)
                digits += 1
                guard value <= 255 else { return nil }
            }
        }
        guard closeOctet(), octets == 4 else { return nil }
        return bits
    }

    private static func v6Words(_ bytes: UnsafeBufferPointer<UInt8>) -> (high: UInt64, low: UInt64)? {
        var groups = InlineArray<8, UInt16>(repeating: 0)
        var count = 0
        var gap: Int?
        var index = 0
        if bytes.count >= 2, bytes[0] == 0x3A, bytes[1] == 0x3A {
            gap = 0
            index = 2
        }
        while index < bytes.count {
            guard count < 8 else { return nil }
            var end = index
            while end < bytes.count, bytes[end] != 0x3A { end += 1 }
            let piece = UnsafeBufferPointer(rebasing: bytes[index..<end])
            if end == bytes.count, piece.contains(0x2E) {
                guard count <= 6, let bits = v4Bits(piece) else { return nil }
                groups[count] = UInt16(truncatingIfNeeded: bits >> 16)
                groups[count + 1] = UInt16(truncatingIfNeeded: bits)
                count += 2
                index = end
                break
            }
            guard let group = hexGroup(piece) else { return nil }
            groups[count] = group
            count += 1
            index = end
            guard index < bytes.count else { break }
            index += 1  // the colon
            if index < bytes.count, bytes[index] == 0x3A {
                guard gap == nil else { return nil }
                gap = count
                index += 1
            } else if index == bytes.count {
                return nil  // a trailing single colon
            }
        }
        return join(groups, count: count, gap: gap)
    }

    private static func hexGroup(_ bytes: UnsafeBufferPointer<UInt8>) -> UInt16? {
        guard (1...4).contains(bytes.count) else { return nil }
        var value: UInt16 = 0
        for byte in bytes {
            guard let digit = Digits.value(ofHex: byte) else { return nil }
            value = value << 4 | UInt16(digit)
        }
        return value
    }

    private static func join(_ groups: InlineArray<8, UInt16>, count: Int, gap: Int?) -> (
        high: UInt64, low: UInt64
    )? {
        guard gap == nil ? count == 8 : count <= 7 else { return nil }
        var full = InlineArray<8, UInt16>(repeating: 0)
        let head = gap ?? 8
        for i in 0..<min(head, count) { full[i] = groups[i] }
        if head < count { for i in head..<count { full[8 - count + i] = groups[i] } }
        var high: UInt64 = 0
        var low: UInt64 = 0
        for i in 0..<4 {
            high = high << 16 | UInt64(full[i])
            low = low << 16 | UInt64(full[i + 4])
        }
        return (high, low)
    }

    /// RFC 5952 text: lower case, the longest run of zero groups shortened; IPv4 as a dotted quad.
    public var description: String {
        var bytes: [UInt8] = []
        append(to: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Appends ``description``, without a String on the way: the connection log writes three or four addresses a line.
    public func append(to bytes: inout [UInt8]) { forEachByte { bytes.append($0) } }

    /// The bytes of ``description`` in order, without an allocation.
    public func forEachByte(_ body: (UInt8) -> Void) {
        if isIPv4 {
            for octet in 12..<16 {
                if octet > 12 { body(0x2E) }
                Digits.forEach(decimal: UInt16(byte(octet)), body)
            }
            return
        }
        let gap = zeroRun
        var index = 0
        while index < 8 {
            if index == gap.lowerBound, !gap.isEmpty {
                body(0x3A)
                body(0x3A)
                index = gap.upperBound
                continue
            }
            if index > 0, index != gap.upperBound || gap.isEmpty { body(0x3A) }
            Digits.forEach(hex: group(index), body)
            index += 1
        }
    }

    private func group(_ index: Int) -> UInt16 { UInt16(byte(index * 2)) << 8 | UInt16(byte(index * 2 + 1)) }

    /// The first of the longest runs of two or more groups of zeros.
    private var zeroRun: Range<Int> {
        var best = 0..<0
        var start = 0
        while start < 8 {
            var end = start
            while end < 8, group(end) == 0 { end += 1 }
            if end - start >= 2, end - start > best.count { best = start..<end }
            start = max(end, start + 1)
        }
        return best
    }
}

extension Endpoint: CustomStringConvertible {
    /// `[2001:db8::1]:443` or `192.0.2.1:443`; of a backend also `unix:/run/app.sock`.
    public var description: String {
        var bytes: [UInt8] = []
        append(to: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Appends ``description``.
    public func append(to bytes: inout [UInt8]) {
        guard !appendPath(to: &bytes) else { return }
        if !address.isIPv4 { bytes.append(0x5B) }
        address.append(to: &bytes)
        if !address.isIPv4 { bytes.append(0x5D) }
        bytes.append(0x3A)
        Digits.append(UInt64(port), to: &bytes)
    }

    /// Parses what ``description`` writes of an address; the port is 0...65535 without leading zeros.
    public init?(_ text: some StringProtocol) {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        let portText = text[text.index(after: colon)...]
        guard let port = UInt16(portText), String(port) == portText else { return nil }
        var host = text[..<colon]
        let bracketed = host.hasPrefix("[") && host.hasSuffix("]") && host.count >= 2
        if bracketed { host = host.dropFirst().dropLast() }
        guard let address = IPAddress(host), bracketed == host.contains(":") else { return nil }
        self.init(address, port)
    }
}
