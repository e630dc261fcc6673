import Pipeline
import PipelineRouting

/// What must hold of the two canonicalizers of hostnames (R3), the wire's and the config's, for any bytes whatever. For
/// the tests beside it and for Fuzz/run.
enum HostnameProperties {
    /// Nil, or what is wrong.
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        let onWire = wire(bytes)
        let reference = ReferenceName.canonical(Array(bytes))
        guard onWire == reference else { return "wire: \(show(onWire)), a second reader \(show(reference))" }
        return config(bytes, onWire: onWire) ?? pattern(bytes)
    }

    private static func wire(_ bytes: UnsafeBufferPointer<UInt8>) -> [UInt8]? {
        var name = ServerName()
        guard name.set(wire: bytes) else { return name.isEmpty ? nil : [] }
        return name.withBytes { Array($0) }
    }

    private static func wire(_ bytes: [UInt8]) -> [UInt8]? { bytes.withUnsafeBufferPointer { wire($0) } }

    private static func config(_ bytes: [UInt8]) -> [UInt8]? {
        bytes.withUnsafeBufferPointer { bytes in (try? Hostname.canonical(bytes))?.withBytes { Array($0) } }
    }

    private static func config(_ bytes: UnsafeBufferPointer<UInt8>, onWire: [UInt8]?) -> String? {
        let isASCII = bytes.allSatisfy { $0 < 0x80 }
        do throws(HostnameError) {
            let name = try Hostname.canonical(bytes).withBytes { Array($0) }
            // A client asks for it in this form, so the wire must take it for itself; and so must a written-back config.
            guard wire(name) == name else { return "config: \(show(name)), on the wire \(show(wire(name)))" }
            guard config(name) == name else { return "config: \(show(name)), again \(show(config(name)))" }
            if isASCII, onWire != name { return "config: \(show(name)), on the wire \(show(onWire))" }
            return variants(Array(bytes), name)
        } catch {
            if let problem = wording(error) { return problem }
            // Only IDNA's rules are stricter than the wire's, and they are asked for `xn--` labels alone.
            guard onWire != nil, !hasPunycode(Array(bytes)) else { return nil }
            return "on the wire \(show(onWire)), config: \(error.problem)"
        }
    }

    /// Other ways to write the same name.
    private static func variants(_ bytes: [UInt8], _ name: [UInt8]) -> String? {
        let upper = bytes.map { $0 >= 0x61 && $0 <= 0x7A ? $0 - 0x20 : $0 }
        guard config(upper) == name else { return "\(show(name)), in capitals \(show(config(upper)))" }
        guard bytes.last != 0x2E, bytes.count < 1024 else { return nil }
        let dotted = config(bytes + [0x2E])
        // IDNA has more than one dot; after one of the others a second dot is an empty label.
        return dotted == name || dotted == nil && bytes.last.map({ $0 >= 0x80 }) == true
            ? nil : "\(show(name)), with a dot behind it \(show(dotted))"
    }

    /// R4: a pattern is a name, or `*.` or `.` and a name, and stays what it is when written back.
    private static func pattern(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        do throws(HostnameError) {
            let pattern = try HostPattern(bytes)
            let again = try? HostPattern(pattern.text)
            guard again?.text == pattern.text, again?.mark == pattern.mark else {
                return "pattern: \(pattern.text), again \(again?.text ?? "none")"
            }
            guard !pattern.mark.isEmpty else { return config(Array(bytes)) == nil ? "a pattern, but no name" : nil }
            guard pattern.name.string.contains("."), pattern.text.utf8.count <= ServerName.capacity else {
                return "the wildcard \(pattern.text)"
            }
            return nil
        } catch {
            return config(Array(bytes)) == nil ? wording(error) : "a name, but no pattern"
        }
    }

    /// Errors go to terminals and logs: printable, and with something to do.
    private static func wording(_ error: HostnameError) -> String? {
        let text = error.problem + error.remedy
        guard !error.problem.isEmpty, !error.remedy.isEmpty,
            text.unicodeScalars.allSatisfy({ $0.value >= 0x20 && $0.value != 0x7F })
        else { return "an error that can't be shown: \(Array(text.utf8))" }
        return nil
    }

    private static func hasPunycode(_ bytes: [UInt8]) -> Bool {
        bytes.split(separator: 0x2E).contains { String(decoding: $0.prefix(4), as: UTF8.self).lowercased() == "xn--" }
    }

    private static func show(_ name: [UInt8]?) -> String { name.map { String(decoding: $0, as: UTF8.self) } ?? "none" }
}

/// R3 for ASCII names by splitting and counting.
private enum ReferenceName {
    static func canonical(_ raw: [UInt8]) -> [UInt8]? {
        let body = raw.last == 0x2E ? Array(raw.dropLast()) : raw
        let lower = body.map { $0 >= 0x41 && $0 <= 0x5A ? $0 + 0x20 : $0 }
        let labels = lower.split(separator: 0x2E, omittingEmptySubsequences: false)
        let allowed = Set("abcdefghijklmnopqrstuvwxyz0123456789-_".utf8)
        guard (1...253).contains(lower.count), labels.allSatisfy({ (1...63).contains($0.count) }),
            labels.allSatisfy({ $0.allSatisfy(allowed.contains) }),
            labels.last?.contains(where: { $0 < 0x30 || $0 > 0x39 }) == true
        else { return nil }
        return lower
    }
}
