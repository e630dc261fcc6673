import Pipeline

/// Addresses as bytes of text, the same as `description` gives but without a String on the way: the connection log
/// writes three or four of them a line.
enum AddressBytes {
    /// Appends `[2001:db8::1]:443` or `192.0.2.1:443`.
    static func append(_ endpoint: Endpoint, to bytes: inout [UInt8]) {
        if endpoint.address.isIPv4 {
            appendV4(endpoint.address.v4Bits, &bytes)
        } else {
            bytes.append(UInt8(ascii: "["))
            appendV6(endpoint.address, &bytes)
            bytes.append(UInt8(ascii: "]"))
        }
        bytes.append(UInt8(ascii: ":"))
        appendDecimal(UInt32(endpoint.port), &bytes)
    }

    private static func appendV4(_ bits: UInt32, _ bytes: inout [UInt8]) {
        for octet in 0..<4 as Range<UInt32> {
            if octet > 0 { bytes.append(UInt8(ascii: ".")) }
            appendDecimal(bits >> (24 - octet * 8) & 255, &bytes)
        }
    }

    /// RFC 5952: lower case, no leading zeros, the first of the longest runs of two or more zero groups as `::`.
    private static func appendV6(_ address: IPAddress, _ bytes: inout [UInt8]) {
        let gap = zeroRun(address)
        var index = 0
        while index < 8 {
            if index == gap.lowerBound, !gap.isEmpty {
                bytes.append(UInt8(ascii: ":"))
                bytes.append(UInt8(ascii: ":"))
                index = gap.upperBound
                continue
            }
            if index > 0, index != gap.upperBound || gap.isEmpty { bytes.append(UInt8(ascii: ":")) }
            appendHex(group(address, index), &bytes)
            index += 1
        }
    }

    private static func group(_ address: IPAddress, _ index: Int) -> UInt16 {
        let word = index < 4 ? address.high : address.low
        return UInt16(truncatingIfNeeded: word >> UInt64((3 - (index & 3)) * 16))
    }

    private static func zeroRun(_ address: IPAddress) -> Range<Int> {
        var best = 0..<0
        var start = 0
        while start < 8 {
            var end = start
            while end < 8, group(address, end) == 0 { end += 1 }
            if end - start >= 2, end - start > best.count { best = start..<end }
            start = max(end, start + 1)
        }
        return best
    }

    private static func appendHex(_ value: UInt16, _ bytes: inout [UInt8]) {
        var isLeading = true
        for position in 0..<4 as Range<UInt16> {
            let digit = UInt8(value >> (12 - position * 4) & 15)
            if isLeading, digit == 0, position < 3 { continue }
            isLeading = false
            bytes.append(JSONLine.hexDigit(digit))
        }
    }

    private static func appendDecimal(_ value: UInt32, _ bytes: inout [UInt8]) {
        var divisor: UInt32 = 10000
        while divisor > 1, value < divisor { divisor /= 10 }
        while divisor > 0 {
            bytes.append(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: value / divisor % 10))
            divisor /= 10
        }
    }
}
