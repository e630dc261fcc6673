import Pipeline

/// A route as almost all are written: plain ASCII, each name known and once, a hostname that is canonical, values as
/// ``StateBuilder`` would take them. Anything else is left to that, errors included: this only reads what it reads, faster.
struct FlatRoute {
    private(set) var id = 0..<0
    private(set) var env = 0..<0
    private(set) var process = 0..<0
    private(set) var hostname = 0..<0
    private(set) var port: UInt16 = 0
    private(set) var backendPort: UInt16 = 0
    private(set) var maxConnections: UInt32 = 0
    private(set) var balance: Balance?
    private(set) var options: RouteOptions = []

    /// What it must have: the first seven of ``StateBuilder/routeKeys``.
    private static let required: UInt64 = 0b111_1111

    /// The route that comes next.
    static func route(_ flat: inout JSONFlat) -> FlatRoute? {
        var route = FlatRoute()
        let isWhole = flat.fields(StateBuilder.routeKeys, required: required) { field, flat in route.take(field, &flat)
        }
        return isWhole ? route : nil
    }

    /// The value of a field. False: it is not as almost all are.
    private mutating func take(_ field: Int, _ flat: inout JSONFlat) -> Bool {
        switch field {
        case 0: return flat.name(&id)
        case 1: return flat.name(&env)
        case 2:
            guard let text = flat.string(), Hostname.isCanonical(flat.text(text)) else { return false }
            hostname = text
            return true
        case 3: return FlatRoute.port(&flat, &port)
        case 4: return flat.isString("tls_passthrough")
        case 5: return flat.name(&process)
        case 6: return FlatRoute.port(&flat, &backendPort)
        case 7: return flat.isString("off")
        case 8: return option(&flat, .expectsProxy)
        case 9: return option(&flat, .ipv4Required)
        case 10: return option(&flat, .allowNonTLS)
        case 11:
            if flat.word("null") { return true }
            guard let value = flat.whole(to: UInt64(UInt32.max)), value > 0 else { return false }
            maxConnections = UInt32(truncatingIfNeeded: value)
            return true
        case 12:
            balance = .roundRobin
            return flat.isString("round_robin")
        case 13: return flat.isString("keep")
        case 14, 15, 16, 17: return flat.word("null")
        default: return false
        }
    }

    private static func port(_ flat: inout JSONFlat, _ port: inout UInt16) -> Bool {
        guard let value = flat.whole(to: 65535), value > 0 else { return false }
        port = UInt16(truncatingIfNeeded: value)
        return true
    }

    private mutating func option(_ flat: inout JSONFlat, _ option: RouteOptions) -> Bool {
        if flat.word("false") { return true }
        options.insert(option)
        return flat.word("true")
    }
}

extension StateBuilder {
    /// - Parameter place: of the object. False: nothing was read.
    mutating func readFlatRoute(_ reader: inout JSONReader, at place: Place) -> Bool {
        var flat = JSONFlat(reader)
        guard reader.depth < JSONReader.depthLimit, let route = FlatRoute.route(&flat),
            let id = document.text.append(flat.text(route.id)),
            let name = document.text.append(flat.text(route.hostname)),
            let env = document.symbols.intern(flat.text(route.env)),
            let process = document.symbols.intern(flat.text(route.process))
        else { return false }
        flat.give(to: &reader)
        append(
            RouteObject(
                id: id, name: name, alpnLength: 0, env: env, processType: process, backendPort: route.backendPort,
                port: route.port, options: route.options.with(route.balance, .keep),
                maxConnections: route.maxConnections, backendList: 0, place: place))
        return true
    }
}

extension Hostname {
    /// It is what ``canonical(_:)`` would make of it, a whole name. False: unsure.
    static func isCanonical(_ text: Bytes) -> Bool {
        guard !text.isEmpty, text.count <= ServerName.capacity else { return false }
        var label = 0
        var isNumber = true
        // "xn--" could be in it.
        var dashes = 0
        for byte in text {
            if byte == 0x2E {
                guard label > 0 else { return false }
                (label, isNumber, dashes) = (0, true, 0)
                continue
            }
            guard ServerName.isNameByte(byte) else { return false }
            label &+= 1
            dashes = byte == 0x2D ? dashes &+ 1 : 0
            guard label <= 63, !(dashes >= 2 && label == 4) else { return false }
            if byte < 0x30 || byte > 0x39 { isNumber = false }
        }
        return label > 0 && !isNumber
    }
}

extension ObjectDraft {
    /// As ``nameFault(_:)`` would have it.
    @inline(__always) static func isName(_ text: Bytes) -> Bool {
        guard !text.isEmpty, text.count <= StateDocument.longestID else { return false }
        for byte in text where byte <= 0x20 || byte >= 0x7F { return false }
        return true
    }
}
