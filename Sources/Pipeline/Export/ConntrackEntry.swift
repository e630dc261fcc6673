import Pipeline

/// What the kernel says of one tracked connection (ctnetlink): who began it, to whom, and how much passed.
package struct ConntrackEntry: Equatable {
    /// One direction, as its sender wrote it. Ports are 0 where the protocol has none.
    package struct Tuple: Equatable {
        package var source = IPAddress.unspecified
        package var destination = IPAddress.unspecified
        package var sourcePort: UInt16 = 0
        package var destinationPort: UInt16 = 0
        package var proto: UInt8 = 0
        /// type << 8 | code, if the protocol is ICMP or ICMPv6.
        package var icmp: UInt16 = 0
    }
    package var original = Tuple()
    package var reply = Tuple()
    /// CTA_ID: the kernel's hash of the entry. Two live entries may share one: see ``ConntrackAccount``.
    package var id: UInt32 = 0
    package var zone: UInt16 = 0
    package var mark: UInt32 = 0
    /// IP bytes, headers counted; nil without `nf_conntrack_acct`.
    package var originalBytes: UInt64?
    package var replyBytes: UInt64?
    /// Wall clock, nanoseconds since 1970; 0 without `nf_conntrack_timestamp`.
    package var start: UInt64 = 0
    package var stop: UInt64 = 0
}

/// One message of ctnetlink's.
package enum ConntrackMessage: Equatable {
    /// An entry as it is (a dump, or it is new).
    case entry(ConntrackEntry)
    /// An entry that is gone, with its last counters.
    case end(ConntrackEntry)
    /// A dump is complete.
    case done
    /// An errno; 0: what was asked for is acknowledged.
    case error(Int32)
    /// A message that we have no use for, or can't read.
    case other
}

/// Reads netlink messages (netlink(7), linux/netfilter/nfnetlink_conntrack.h). Pure over bytes; whatever they are, it
/// reads inside them and traps never. Headers are in the machine's order, conntrack's own values in the network's.
package enum ConntrackReader {
    package static let headerLength = 16
    static let newEntry: UInt16 = 0x100
    static let getEntry: UInt16 = 0x101
    static let deleteEntry: UInt16 = 0x102
    /// NLM_F_DUMP_INTR: the table changed so that the dump may miss something.
    static let interrupted: UInt16 = 0x10

    /// Calls `body` for each whole message, with its flags. What isn't whole ends the batch.
    package static func read(_ bytes: UnsafeRawBufferPointer, _ body: (ConntrackMessage, _ flags: UInt16) -> Void) {
        var rest = bytes
        while rest.count >= headerLength {
            let length = Int(rest.loadUnaligned(as: UInt32.self))
            guard length >= headerLength, length <= rest.count else { return }
            let type = rest.loadUnaligned(fromByteOffset: 4, as: UInt16.self)
            let flags = rest.loadUnaligned(fromByteOffset: 6, as: UInt16.self)
            let payload = UnsafeRawBufferPointer(rebasing: rest[headerLength..<length])
            body(message(type, payload), flags)
            // Messages begin at multiples of four.
            rest = UnsafeRawBufferPointer(rebasing: rest[min(rest.count, (length + 3) & ~3)...])
        }
    }

    private static func message(_ type: UInt16, _ payload: UnsafeRawBufferPointer) -> ConntrackMessage {
        switch type {
        case 2:  // NLMSG_ERROR
            guard payload.count >= 4 else { return .other }
            let error = payload.loadUnaligned(as: Int32.self)
            return error <= 0 && error > -4096 ? .error(-error) : .other
        case 3: return .done  // NLMSG_DONE
        case newEntry: return entry(payload).map { .entry($0) } ?? .other
        case deleteEntry: return entry(payload).map { .end($0) } ?? .other
        default: return .other
        }
    }

    /// Nil if it says not both ends of both directions, and not its id: nothing can be counted by it then.
    private static func entry(_ payload: UnsafeRawBufferPointer) -> ConntrackEntry? {
        // struct nfgenmsg: family, version, resource.
        guard payload.count >= 4 else { return nil }
        var entry = ConntrackEntry()
        var found = (original: false, reply: false, id: false)
        forEachAttribute(UnsafeRawBufferPointer(rebasing: payload[4...])) { type, value in
            switch type {
            case 1: if let tuple = tuple(value) { (entry.original, found.original) = (tuple, true) }
            case 2: if let tuple = tuple(value) { (entry.reply, found.reply) = (tuple, true) }
            case 8: entry.mark = number(value) ?? 0
            case 9: entry.originalBytes = counter(value)
            case 10: entry.replyBytes = counter(value)
            case 12: if let id: UInt32 = number(value) { (entry.id, found.id) = (id, true) }
            case 18: entry.zone = number(value) ?? 0
            case 20:
                forEachAttribute(value) { type, value in
                    if type == 1 { entry.start = number(value) ?? 0 }
                    if type == 2 { entry.stop = number(value) ?? 0 }
                }
            default: break
            }
        }
        return found.original && found.reply && found.id ? entry : nil
    }

    /// CTA_TUPLE_*: nil without two addresses of one family and a protocol.
    private static func tuple(_ bytes: UnsafeRawBufferPointer) -> ConntrackEntry.Tuple? {
        var tuple = ConntrackEntry.Tuple()
        var (source, destination): (IPAddress?, IPAddress?) = (nil, nil)
        var proto: UInt8?
        forEachAttribute(bytes) { type, value in
            switch type {
            case 1:
                forEachAttribute(value) { type, value in
                    if type == 1 || type == 3 { source = address(value, isIPv4: type == 1) }
                    if type == 2 || type == 4 { destination = address(value, isIPv4: type == 2) }
                }
            case 2: proto = readProtocol(value, &tuple)
            default: break
            }
        }
        guard let source, let destination, let proto else { return nil }
        (tuple.source, tuple.destination, tuple.proto) = (source, destination, proto)
        return tuple
    }

    /// CTA_TUPLE_PROTO.
    private static func readProtocol(_ bytes: UnsafeRawBufferPointer, _ tuple: inout ConntrackEntry.Tuple) -> UInt8? {
        var proto: UInt8?
        var kind: UInt8 = 0
        var code: UInt8 = 0
        forEachAttribute(bytes) { type, value in
            switch type {
            case 1: proto = number(value)
            case 2: tuple.sourcePort = number(value) ?? 0
            case 3: tuple.destinationPort = number(value) ?? 0
            case 5, 8: kind = number(value) ?? 0
            case 6, 9: code = number(value) ?? 0
            default: break
            }
        }
        tuple.icmp = UInt16(kind) << 8 | UInt16(code)
        return proto
    }

    /// CTA_COUNTERS_BYTES of CTA_COUNTERS_*.
    private static func counter(_ bytes: UnsafeRawBufferPointer) -> UInt64? {
        var result: UInt64?
        forEachAttribute(bytes) { type, value in if type == 2 { result = number(value) } }
        return result
    }

    private static func address(_ bytes: UnsafeRawBufferPointer, isIPv4: Bool) -> IPAddress? {
        if isIPv4 { return number(bytes).map { IPAddress(v4: $0) } }
        guard bytes.count == 16 else { return nil }
        return IPAddress(
            high: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
            low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
    }

    /// A number that is exactly as long as it has to be.
    private static func number<Value: FixedWidthInteger>(_ bytes: UnsafeRawBufferPointer) -> Value? {
        bytes.count == Value.bitWidth / 8 ? Value(bigEndian: bytes.loadUnaligned(as: Value.self)) : nil
    }

    /// struct nlattr: length with header, type with two flag bits; each begins at a multiple of four.
    private static func forEachAttribute(
        _ bytes: UnsafeRawBufferPointer, _ body: (_ type: UInt16, _ value: UnsafeRawBufferPointer) -> Void
    ) {
        var rest = bytes
        while rest.count >= 4 {
            let length = Int(rest.loadUnaligned(as: UInt16.self))
            guard length >= 4, length <= rest.count else { return }
            let type = rest.loadUnaligned(fromByteOffset: 2, as: UInt16.self) & 0x3FFF
            body(type, UnsafeRawBufferPointer(rebasing: rest[4..<length]))
            rest = UnsafeRawBufferPointer(rebasing: rest[min(rest.count, (length + 3) & ~3)...])
        }
    }
}
