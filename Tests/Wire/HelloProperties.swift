import Pipeline
import PipelineWire

/// What must hold of the ClientHello parser for any bytes whatever. For the tests beside it and for Fuzz/run.
enum HelloProperties {
    /// Nil, or what is wrong: the whole of it for one input, at limits below, at and above what comes.
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        for limit in [512, 8192, 65536] {
            if let problem = violation(bytes, limit: limit) { return "limit \(limit): \(problem)" }
        }
        return nil
    }

    /// Nil, or what is wrong.
    static func violation(_ bytes: UnsafeBufferPointer<UInt8>, limit: Int) -> String? {
        let verdict = ClientHello.parse(bytes, limit: limit)
        if let problem = prefixes(bytes, limit: limit, final: verdict) { return problem }
        switch verdict {
        case .ok(let hello): return whole(hello, bytes, limit: limit)
        case .incomplete(let needs):
            return needs > bytes.count && needs <= limit ? nil : "needs \(needs) with \(bytes.count), limit \(limit)"
        case .notTLS, .malformed, .tooLarge: return nil
        }
    }

    /// R7: the verdict on a prefix is `incomplete` or the final one.
    private static func prefixes(_ bytes: UnsafeBufferPointer<UInt8>, limit: Int, final: HelloVerdict) -> String? {
        let step = max(1, bytes.count / 256)
        var isDecided = false
        var scan = HelloScan()
        for count in stride(from: 0, through: bytes.count, by: step) {
            let verdict = ClientHello.parse(UnsafeBufferPointer(rebasing: bytes[..<count]), limit: limit)
            // Whoever goes on from the last look sees the same.
            if !isDecided, scan.look(at: UnsafeBufferPointer(rebasing: bytes[..<count]), limit: limit) != verdict {
                return "another verdict at \(count) than from the start"
            }
            if case .incomplete(let needs) = verdict {
                if isDecided { return "undecided again at \(count)" }
                if needs <= count || needs > limit { return "needs \(needs) at \(count), limit \(limit)" }
            } else {
                if verdict != final { return "\(verdict) at \(count), \(final) in the end" }
                isDecided = true
            }
        }
        return nil
    }

    private static func whole(_ hello: ClientHello, _ bytes: UnsafeBufferPointer<UInt8>, limit: Int) -> String? {
        let total = hello.totalBytes
        guard total <= bytes.count, total <= limit else { return "total \(total) of \(bytes.count), limit \(limit)" }
        let records = UnsafeBufferPointer(rebasing: bytes[..<total])
        guard ClientHello.parse(records, limit: total) == .ok(hello) else { return "differs without what follows" }
        guard case .incomplete(total) = ClientHello.parse(.init(rebasing: bytes[..<(total - 1)]), limit: limit) else {
            return "decided before its last byte"
        }
        guard ClientHello.parse(records, limit: total - 1) == .tooLarge else { return "passes a limit that it exceeds" }
        return fields(hello, bytes, records)
    }

    private static func fields(
        _ hello: ClientHello, _ bytes: UnsafeBufferPointer<UInt8>, _ records: UnsafeBufferPointer<UInt8>
    ) -> String? {
        guard let reference = ReferenceHello(records) else { return "a second, simple parser finds no hello" }
        let name = hello.serverNameBytes(in: bytes)
        guard name == reference.name else { return "name \(String(describing: name)), not \(reference)" }
        guard hello.alpnProtocols(in: bytes) == reference.alpn else { return "ALPN is not \(reference)" }
        guard hello.hasECH == reference.hasECH else { return "ECH is not \(reference)" }
        guard let name else { return nil }
        guard name.allSatisfy({ $0 >= 0x20 && $0 <= 0x7E }) else { return "a name with control bytes" }
        return canonical(name)
    }

    /// R3: canonicalizing twice is the same as once.
    private static func canonical(_ raw: [UInt8]) -> String? {
        var once = ServerName()
        guard raw.withUnsafeBufferPointer({ once.set(wire: $0) }) else { return once.isEmpty ? nil : "half a name" }
        var twice = ServerName()
        guard once.withBytes({ twice.set(wire: $0) }), once.string == twice.string else {
            return "\(once.string) is not canonical"
        }
        return nil
    }
}

/// The same answers the slow way: put the records together, then look. Trusts that the hello is well-formed.
private struct ReferenceHello {
    var name: [UInt8]?
    var alpn: [[UInt8]] = []
    var hasECH = false
    private var types: Set<Int> = []

    init?(_ records: UnsafeBufferPointer<UInt8>) {
        var message: [UInt8] = []
        var rest = Array(records)[...]
        while rest.count >= 5 {
            let length = ReferenceHello.number(rest.dropFirst(3).prefix(2))
            message += rest.dropFirst(5).prefix(length)
            rest = rest.dropFirst(5 + length)
        }
        guard rest.isEmpty, message.count >= 38 else { return nil }
        var body = message.dropFirst(4 + 2 + 32)
        _ = ReferenceHello.vector(&body, 1)
        _ = ReferenceHello.vector(&body, 2)
        _ = ReferenceHello.vector(&body, 1)
        var extensions = ReferenceHello.vector(&body, 2)
        while extensions.count >= 4 {
            let type = ReferenceHello.number(extensions.prefix(2))
            extensions = extensions.dropFirst(2)
            var content = ReferenceHello.vector(&extensions, 2)
            guard types.insert(type).inserted else { return nil }
            read(type, &content)
        }
    }

    private mutating func read(_ type: Int, _ content: inout ArraySlice<UInt8>) {
        switch type {
        case 0:
            var list = ReferenceHello.vector(&content, 2)
            list = list.dropFirst()
            name = Array(ReferenceHello.vector(&list, 2))
        case 16:
            var list = ReferenceHello.vector(&content, 2)
            while !list.isEmpty { alpn.append(Array(ReferenceHello.vector(&list, 1))) }
        case 0xFE0D: hasECH = true
        default: break
        }
    }

    private static func number(_ bytes: ArraySlice<UInt8>) -> Int { bytes.reduce(0) { $0 << 8 | Int($1) } }

    private static func vector(_ bytes: inout ArraySlice<UInt8>, _ width: Int) -> ArraySlice<UInt8> {
        let length = number(bytes.prefix(width))
        defer { bytes = bytes.dropFirst(width + length) }
        return bytes.dropFirst(width).prefix(length)
    }
}
