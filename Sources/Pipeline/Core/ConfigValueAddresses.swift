/// Addresses, ports and names, as configs write them.
extension ConfigValue {
    public static func prefix(_ text: String) throws(ValueProblem) -> Prefix {
        if let prefix = Prefix(text) { return prefix }
        let form = ValueProblem(
            message: "\(quoted(text)) is not a prefix",
            expected: "an address or prefix like `192.0.2.0/24` or `2001:db8::/32`")
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, let head = parts.first, let address = IPAddress(head) else { throw form }
        let width = address.isIPv4 && !head.contains(":") ? 32 : 128
        guard let length = UInt8(parts[1]), String(length) == parts[1], length <= width else {
            throw ValueProblem(
                message: "\(quoted(text)) has no prefix length", expected: "a number from 0 to \(width) after `/`")
        }
        let shift = Int(length) + 128 - width
        var start = address
        // Clears the bits beyond the length, half by half, since shifts by 64 or more give zero.
        start = IPAddress(
            high: start.high & ~(UInt64.max >> UInt64(min(shift, 64))),
            low: start.low & ~(UInt64.max >> UInt64(max(shift - 64, 0))))
        let meant = Prefix(start, length: shift).map { "write `\($0)` for the network, or " } ?? ""
        throw ValueProblem(
            message: "\(quoted(text)) has bits set beyond its length",
            help: "\(meant)`\(head)/\(width)` for the host alone")
    }

    /// `[ADDR]:PORT` or `ADDR:PORT`, port 1...65535.
    public static func endpoint(_ text: String) throws(ValueProblem) -> Endpoint {
        let form = "an address and a port like `[::]:443` or `192.0.2.1:443`"
        if let endpoint = Endpoint(text) {
            guard endpoint.port > 0 else {
                throw ValueProblem(message: "\(quoted(text)) has port 0", expected: "a port from 1 to 65535")
            }
            return endpoint
        }
        throw ValueProblem(
            message: "\(quoted(text)) is not an address with a port", expected: form, help: endpointHelp(text))
    }

    /// What the author of something like an endpoint probably meant.
    private static func endpointHelp(_ text: String) -> String? {
        let inner = text.hasPrefix("[") && text.hasSuffix("]") ? String(text.dropFirst().dropLast()) : text
        if IPAddress(inner) != nil { return "write `\(inner.contains(":") ? "[\(inner)]" : inner):PORT`" }
        let colon = text.lastIndex(of: ":")
        let host = colon.map { text[..<$0] } ?? ""
        let port = colon.map { text[text.index(after: $0)...] } ?? text[...]
        guard UInt16(port) != nil else {
            let isAddress = host.hasPrefix("[") || IPAddress(host) != nil
            return isAddress && !port.isEmpty && port.allSatisfy(\.isNumber) ? "a port is at most 65535" : nil
        }
        if host.isEmpty || host == "*" {
            return "write `[::]:\(port)` for IPv6, and a second line with `0.0.0.0:\(port)` for IPv4"
        }
        if !host.contains(":"), !host.hasPrefix("[") { return "names are not looked up here: write the address" }
        return nil
    }

    /// `[::]` or `192.0.2.1`.
    public static func listenAddress(_ text: String) throws(ValueProblem) -> IPAddress {
        let bracketed = text.hasPrefix("[") && text.hasSuffix("]") && text.count > 2
        let inner = bracketed ? String(text.dropFirst().dropLast()) : text
        guard let address = IPAddress(inner) else {
            throw ValueProblem(
                message: "\(quoted(text)) is not an address", expected: "an address like `[::]` or `0.0.0.0`")
        }
        guard bracketed == inner.contains(":") else {
            throw ValueProblem(
                message: "\(quoted(text)): IPv6 addresses need brackets, IPv4 addresses have none",
                help: "write `\(inner.contains(":") ? "[\(inner)]" : inner)`")
        }
        return address
    }

    /// `10000-19999`, or one port.
    public static func ports(_ text: String) throws(ValueProblem) -> ClosedRange<UInt16> {
        let parts = text.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
        guard let head = parts.first else { return try port(text)...port(text) }
        let first = try port(head)
        guard parts.count == 2 else { return first...first }
        let last = try port(parts[1])
        guard first <= last else {
            throw ValueProblem(message: "\(quoted(text)) is reversed", help: "write `\(last)-\(first)`")
        }
        return first...last
    }

    /// `[ADDR]:PORT` or `[ADDR]:FIRST-LAST`.
    public static func endpoints(_ text: String) throws(ValueProblem) -> (first: Endpoint, last: UInt16) {
        guard let colon = text.lastIndex(of: ":"), let dash = text[colon...].firstIndex(of: "-") else {
            let endpoint = try endpoint(text)
            return (endpoint, endpoint.port)
        }
        let first = try endpoint(String(text[..<dash]))
        guard text.index(after: dash) < text.endIndex else {
            throw ValueProblem(
                message: "\(quoted(text)) has no last port", expected: "a range of ports like `[::]:30000-30100`")
        }
        let last = try port(text[text.index(after: dash)...])
        guard first.port <= last else {
            throw ValueProblem(
                message: "\(quoted(text)) is reversed", help: "write `\(Endpoint(first.address, last))-\(first.port)`")
        }
        return (first, last)
    }

    /// Whether an interface can have this name. IFNAMSIZ is 16, with its NUL. Fewer characters than the kernel takes: the
    /// names go into firewall rules.
    public static func isInterface(_ name: some StringProtocol) -> Bool {
        (1...15).contains(name.utf8.count) && name.utf8.first != UInt8(ascii: "-") && name != "." && name != ".."
            && name.utf8.allSatisfy { byte in
                byte.isASCIILetterOrDigit || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "-")
                    || byte == UInt8(ascii: "_")
            }
    }

    /// A name that other lines refer to: a letter, then letters, digits, `_`, `-`, `.`; at most 64.
    public static func name(_ text: String, what: String) throws(ValueProblem) -> String {
        let rest = { (c: UInt8) in c.isASCIILetterOrDigit || c == 0x5F || c == 0x2D || c == 0x2E }
        guard let first = text.utf8.first, first.isASCIILetter, text.utf8.allSatisfy(rest), text.utf8.count <= 64 else {
            throw ValueProblem(
                message: "\(quoted(text)) is not a name for a \(what)",
                expected: "a letter, then letters, digits, `_`, `-` or `.`, at most 64")
        }
        return text
    }
}
