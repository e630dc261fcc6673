import CMnl
import Pipeline
import PipelineNetlink

/// One tracked connection of the kernel (ctnetlink): its endpoints and counters.
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
    /// An errno; 0: the request is acknowledged.
    case error(Int32)
    /// An unused or unreadable message.
    case other
}

/// Reads ctnetlink's messages (linux/netfilter/nfnetlink_conntrack.h). Pure over bytes; never reads out of bounds,
/// never traps. Headers are in the machine's order, conntrack's own values in the network's.
package enum ConntrackReader {
    static let newEntry = kind(IPCTNL_MSG_CT_NEW)
    static let getEntry = kind(IPCTNL_MSG_CT_GET)
    static let deleteEntry = kind(IPCTNL_MSG_CT_DELETE)

    private static func kind(_ message: cntl_msg_types) -> UInt16 {
        UInt16(NFNL_SUBSYS_CTNETLINK) << 8 | UInt16(message.rawValue)
    }

    /// Calls `body` for each whole message, with its flags. What isn't whole ends the batch.
    package static func read(_ bytes: UnsafeRawBufferPointer, _ body: (ConntrackMessage, _ flags: UInt16) -> Void) {
        Netlink.messages(bytes) { message in
            body(read(message.pointee.nlmsg_type, Netlink.payload(message)), message.pointee.nlmsg_flags)
            return true
        }
    }

    private static func read(_ type: UInt16, _ payload: UnsafeRawBufferPointer) -> ConntrackMessage {
        switch type {
        case UInt16(NLMSG_ERROR): Netlink.error(payload).map { .error($0) } ?? .other
        case UInt16(NLMSG_DONE): .done
        case newEntry: entry(payload).map { .entry($0) } ?? .other
        case deleteEntry: entry(payload).map { .end($0) } ?? .other
        default: .other
        }
    }

    /// Nil without both ends of both directions and the id, since nothing can be counted then.
    private static func entry(_ payload: UnsafeRawBufferPointer) -> ConntrackEntry? {
        guard payload.count >= MemoryLayout<nfgenmsg>.size else { return nil }
        var entry = ConntrackEntry()
        var found = (original: false, reply: false, id: false)
        Netlink.attributes(UnsafeRawBufferPointer(rebasing: payload[MemoryLayout<nfgenmsg>.size...])) { type, value in
            switch ctattr_type(UInt32(type)) {
            case CTA_TUPLE_ORIG: if let tuple = tuple(value) { (entry.original, found.original) = (tuple, true) }
            case CTA_TUPLE_REPLY: if let tuple = tuple(value) { (entry.reply, found.reply) = (tuple, true) }
            case CTA_MARK: entry.mark = Netlink.number(value) ?? 0
            case CTA_COUNTERS_ORIG: entry.originalBytes = counter(value)
            case CTA_COUNTERS_REPLY: entry.replyBytes = counter(value)
            case CTA_ID: if let id: UInt32 = Netlink.number(value) { (entry.id, found.id) = (id, true) }
            case CTA_ZONE: entry.zone = Netlink.number(value) ?? 0
            case CTA_TIMESTAMP:
                Netlink.attributes(value) { type, value in
                    if type == Int(CTA_TIMESTAMP_START.rawValue) { entry.start = Netlink.number(value) ?? 0 }
                    if type == Int(CTA_TIMESTAMP_STOP.rawValue) { entry.stop = Netlink.number(value) ?? 0 }
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
        Netlink.attributes(bytes) { type, value in
            switch ctattr_tuple(UInt32(type)) {
            case CTA_TUPLE_IP:
                Netlink.attributes(value) { type, value in
                    switch ctattr_ip(UInt32(type)) {
                    case CTA_IP_V4_SRC: source = v4(value)
                    case CTA_IP_V4_DST: destination = v4(value)
                    case CTA_IP_V6_SRC: source = v6(value)
                    case CTA_IP_V6_DST: destination = v6(value)
                    default: break
                    }
                }
            case CTA_TUPLE_PROTO: proto = readProtocol(value, &tuple)
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
        Netlink.attributes(bytes) { type, value in
            switch ctattr_l4proto(UInt32(type)) {
            case CTA_PROTO_NUM: proto = Netlink.number(value)
            case CTA_PROTO_SRC_PORT: tuple.sourcePort = Netlink.number(value) ?? 0
            case CTA_PROTO_DST_PORT: tuple.destinationPort = Netlink.number(value) ?? 0
            case CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMPV6_TYPE: kind = Netlink.number(value) ?? 0
            case CTA_PROTO_ICMP_CODE, CTA_PROTO_ICMPV6_CODE: code = Netlink.number(value) ?? 0
            default: break
            }
        }
        tuple.icmp = UInt16(kind) << 8 | UInt16(code)
        return proto
    }

    /// CTA_COUNTERS_BYTES of CTA_COUNTERS_*.
    private static func counter(_ bytes: UnsafeRawBufferPointer) -> UInt64? {
        var result: UInt64?
        Netlink.attributes(bytes) { type, value in
            if type == Int(CTA_COUNTERS_BYTES.rawValue) { result = Netlink.number(value) }
        }
        return result
    }

    private static func v4(_ bytes: UnsafeRawBufferPointer) -> IPAddress? {
        Netlink.number(bytes).map { IPAddress(v4: $0) }
    }

    private static func v6(_ bytes: UnsafeRawBufferPointer) -> IPAddress? {
        guard bytes.count == 16, let high: UInt64 = Netlink.number(UnsafeRawBufferPointer(rebasing: bytes[..<8])),
            let low: UInt64 = Netlink.number(UnsafeRawBufferPointer(rebasing: bytes[8...]))
        else { return nil }
        return IPAddress(high: high, low: low)
    }
}
