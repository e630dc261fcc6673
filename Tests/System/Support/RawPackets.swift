import Glibc
import TestSupport

/// Packets as a hostile workload makes them: by hand, past its own kernel.
struct RawPacket: CustomStringConvertible {
    static let syn: UInt8 = 2
    static let rst: UInt8 = 4
    static let ack: UInt8 = 16

    var source: String
    var destination: String
    var sourcePort: UInt16 = 40_000
    var port: UInt16 = 8080
    var sequence: UInt32 = 1000
    var acknowledged: UInt32 = 0
    var flags = RawPacket.syn
    var payload: [UInt8] = []
    /// IPv6 alone: numbers of extension headers in front of TCP: 0 hop-by-hop, 43 routing, 44 fragment, 60 destination options.
    var headers: [UInt8] = []
    /// Of a fragment, in units of 8 bytes, and whether more follow; nil: none.
    var fragment: (offset: UInt16, more: Bool)?
    /// IPv4 alone: a record of route, as an option.
    var hasOption = false

    var isIPv4: Bool { !destination.contains(":") }
    var description: String {
        "\(source):\(sourcePort) to \(destination):\(port), flags \(flags), headers \(headers), "
            + "fragment \(fragment.map { "\($0)" } ?? "none")"
    }

    /// The IP packet.
    var bytes: [UInt8] { isIPv4 ? v4 : v6 }

    private var v4: [UInt8] {
        let options: [UInt8] = hasOption ? [7, 7, 4, 0, 0, 0, 0, 0] : []
        let tcp = segment(RawPacket.address(source) + RawPacket.address(destination))
        let size = 20 + options.count + tcp.count
        let offset = fragment.map { $0.offset | ($0.more ? 0x2000 : 0) } ?? 0
        var head: [UInt8] = [0x40 | UInt8((20 + options.count) / 4), 0]
        head += RawPacket.big(UInt16(size)) + RawPacket.big(sourcePort) + RawPacket.big(offset) + [64, 6, 0, 0]
        head += RawPacket.address(source) + RawPacket.address(destination) + options
        let sum = RawPacket.checksum(head)
        (head[10], head[11]) = (UInt8(sum >> 8), UInt8(sum & 0xff))
        return head + tcp
    }

    private var v6: [UInt8] {
        let tcp = segment(RawPacket.address(source) + RawPacket.address(destination))
        var numbers = headers
        if fragment != nil { numbers.append(44) }
        let chain: [UInt8] = numbers.enumerated().flatMap { place, number -> [UInt8] in
            let next: UInt8 = place + 1 < numbers.count ? numbers[place + 1] : 6
            switch number {
            case 44:
                let (offset, more) = fragment ?? (0, false)
                return [next, 0] + RawPacket.big(offset << 3 | (more ? 1 : 0)) + [0, 0, 0, 7]
            // Type 4 with nothing left: to be passed over.
            case 43: return [next, 0, 4, 0, 0, 0, 0, 0]
            default: return [next, 0, 1, 4, 0, 0, 0, 0]
            }
        }
        let first = numbers.first ?? 6
        return [0x60, 0, 0, 0] + RawPacket.big(UInt16(chain.count + tcp.count)) + [first, 64]
            + RawPacket.address(source) + RawPacket.address(destination) + chain + tcp
    }

    private func segment(_ addresses: [UInt8]) -> [UInt8] {
        var tcp = RawPacket.big(sourcePort) + RawPacket.big(port) + RawPacket.big(UInt16(sequence >> 16))
        tcp += RawPacket.big(UInt16(sequence & 0xffff)) + RawPacket.big(UInt16(acknowledged >> 16))
        tcp += RawPacket.big(UInt16(acknowledged & 0xffff)) + [0x50, flags, 0xff, 0xff, 0, 0, 0, 0] + payload
        let length = RawPacket.big(UInt16(tcp.count))
        let sum = RawPacket.checksum(addresses + [0, 6] + length + tcp)
        (tcp[16], tcp[17]) = (UInt8(sum >> 8), UInt8(sum & 0xff))
        return tcp
    }

    static func big(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xff)] }

    static func address(_ text: String) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: text.contains(":") ? 16 : 4)
        inet_pton(text.contains(":") ? AF_INET6 : AF_INET, text, &bytes)
        return bytes
    }

    static func checksum(_ bytes: [UInt8]) -> UInt16 {
        var sum: UInt32 = 0
        for place in stride(from: 0, to: bytes.count, by: 2) {
            sum += UInt32(bytes[place]) << 8 | (place + 1 < bytes.count ? UInt32(bytes[place + 1]) : 0)
        }
        while sum > 0xffff { sum = (sum & 0xffff) + sum >> 16 }
        return ~UInt16(sum)
    }
}

/// An interface as a raw socket has it: whatever is sent goes out, and every packet that comes is seen. For the thread that made
/// it.
final class RawLink {
    private let descriptor: Int32
    private let address: [UInt8]

    /// - Parameter gateway: the link address of who is next, like `02:42:…`.
    init(_ interface: String, gateway: String) throws {
        // AF_PACKET, without the link's header; of every protocol.
        descriptor = socket(17, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0x0300)
        guard descriptor >= 0 else { throw Failure(call: "packet socket") }
        let index = if_nametoindex(interface)
        let octets = gateway.split(separator: ":").compactMap { UInt8($0, radix: 16) }
        // struct sockaddr_ll of <linux/if_packet.h>.
        let number = withUnsafeBytes(of: index) { Array($0) }
        self.address = octets + number
    }

    deinit { close(descriptor) }

    func send(_ packet: RawPacket) throws { try send(packet.bytes, "\(packet)") }

    /// - Parameter bytes: an IP packet.
    func send(_ bytes: [UInt8], _ what: String) throws {
        let kind: [UInt8] = bytes[0] >> 4 == 4 ? [0x08, 0x00] : [0x86, 0xdd]
        let place: [UInt8] = [17, 0] + kind + address[6...] + [0, 0, 0, 6] + address[..<6] + [0, 0]
        let sent = place.withUnsafeBytes { place in
            sendto(
                descriptor, bytes, bytes.count, 0, place.bindMemory(to: sockaddr.self).baseAddress,
                socklen_t(place.count))
        }
        guard sent == bytes.count else { throw Failure(call: "send of \(what)") }
    }

    /// The sequence numbers with which the other side accepts connections, by our port, once it accepts those from `last`,
    /// one of each family: others of the family that were begun before are accepted before, or not at all.
    func accepted(until last: [UInt16]) throws -> [UInt16: UInt32] {
        var found: [UInt16: UInt32] = [:]
        try awaitUntil("connections from \(last) are accepted") {
            while let (port, sequence) = nextAccepted() { found[port] = sequence }
            return last.allSatisfy { found[$0] != nil }
        }
        return found
    }

    /// Nil: nothing more has come.
    private func nextAccepted() -> (port: UInt16, sequence: UInt32)? {
        var bytes = [UInt8](repeating: 0, count: 2048)
        while true {
            let count = recv(descriptor, &bytes, bytes.count, Int32(MSG_DONTWAIT))
            guard count >= 0 else { return nil }
            guard count >= 40 else { continue }
            let isIPv4 = bytes[0] >> 4 == 4
            guard bytes[isIPv4 ? 9 : 6] == 6 else { continue }
            let tcp = isIPv4 ? Int(bytes[0] & 15) * 4 : 40
            guard count >= tcp + 20, bytes[tcp + 13] == RawPacket.syn | RawPacket.ack else { continue }
            let port = UInt16(bytes[tcp + 2]) << 8 | UInt16(bytes[tcp + 3])
            return (port, bytes[(tcp + 4)..<(tcp + 8)].reduce(0) { $0 << 8 | UInt32($1) })
        }
    }
}

/// Packets of any protocol, whole or wrong.
enum RawDatagram {
    /// - Parameter body: what stands behind the IP header.
    static func ip(_ source: String, _ destination: String, _ number: UInt8, _ body: [UInt8]) -> [UInt8] {
        let addresses = RawPacket.address(source) + RawPacket.address(destination)
        guard !destination.contains(":") else {
            return [0x60, 0, 0, 0] + RawPacket.big(UInt16(body.count)) + [number, 64] + addresses + body
        }
        var head: [UInt8] =
            [0x45, 0] + RawPacket.big(UInt16(20 + body.count)) + [0, 7, 0, 0, 64, number, 0, 0] + addresses
        let sum = RawPacket.checksum(head)
        (head[10], head[11]) = (UInt8(sum >> 8), UInt8(sum & 0xff))
        return head + body
    }

    /// - Parameter isRight: false: its checksum is wrong.
    static func udp(
        _ source: String, _ destination: String, _ ports: (UInt16, UInt16), _ payload: [UInt8], isRight: Bool = true
    ) -> [UInt8] {
        let length = RawPacket.big(UInt16(8 + payload.count))
        var body = RawPacket.big(ports.0) + RawPacket.big(ports.1) + length + [0, 0] + payload
        let pseudo = RawPacket.address(source) + RawPacket.address(destination) + [0, 17] + length
        let sum = RawPacket.checksum(pseudo + body) ^ (isRight ? 0 : 0x5555)
        (body[6], body[7]) = (UInt8(sum >> 8), UInt8(sum & 0xff))
        return ip(source, destination, 17, body)
    }

    static func icmp(_ source: String, _ destination: String, type: UInt8, code: UInt8 = 0, _ body: [UInt8]) -> [UInt8]
    {
        let isIPv4 = !destination.contains(":")
        var message: [UInt8] = [type, code, 0, 0] + body
        let pseudo =
            isIPv4
            ? []
            : RawPacket.address(source) + RawPacket.address(destination) + [0, 0] + RawPacket.big(UInt16(message.count))
                + [0, 58]
        let sum = RawPacket.checksum(pseudo + message)
        (message[2], message[3]) = (UInt8(sum >> 8), UInt8(sum & 0xff))
        return ip(source, destination, isIPv4 ? 1 : 58, message)
    }

    /// A port that is not there, as a host says it of a packet.
    static func unreachable(_ source: String, _ destination: String, quoting packet: [UInt8]) -> [UInt8] {
        let isIPv4 = !destination.contains(":")
        return icmp(source, destination, type: isIPv4 ? 3 : 1, code: isIPv4 ? 3 : 4, [0, 0, 0, 0] + packet)
    }
}
