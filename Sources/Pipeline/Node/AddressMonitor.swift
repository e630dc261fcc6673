import CMnl
import Glibc
import Pipeline
import PipelineHost
import PipelineNetlink
import PipelineRuntime

/// Reports address changes from the kernel (rtnetlink(7), RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR). An IPv6 address is
/// reported again when duplicate address detection is over.
///
/// It reports which addresses changed, and no more: only the kernel knows whether one can be bound, which depends on
/// more than the list of addresses (`ip_nonlocal_bind`, local routes, an address on two links).
///
/// Threading: the control thread.
final class AddressMonitor {
    private let socket: NetlinkSocket
    var descriptor: Descriptor { Descriptor(socket.descriptor) }

    /// Nil without netlink (forbidden in some containers): then only polling finds addresses.
    init?() {
        let groups = UInt32(RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR)
        guard let socket = NetlinkSocket.open(NETLINK_ROUTE, groups: groups).socket else { return nil }
        self.socket = socket
    }

    enum News: Equatable {
        case nothing
        case addresses(Set<IPAddress>)
        /// The socket overflowed (ENOBUFS): any address may have changed.
        case anything

        mutating func add(_ more: News) {
            switch (self, more) {
            case (_, .nothing): break
            case (.addresses(let known), .addresses(let new)): self = .addresses(known.union(new))
            case (.anything, _): break
            default: self = more
            }
        }
    }

    /// All that has come since the last call.
    func take() -> News {
        var news = Set<IPAddress>()
        while true {
            switch socket.receive() {
            case .messages(let bytes): AddressMonitor.read(bytes, into: &news)
            case .nothing: return news.isEmpty ? .nothing : .addresses(news)
            // The next call reads the rest.
            case .failed: return .anything
            }
        }
    }

    /// The addresses in a batch of messages. Incomplete messages are skipped.
    static func read(_ bytes: UnsafeRawBufferPointer, into news: inout Set<IPAddress>) {
        Netlink.messages(bytes) { message in
            if message.pointee.nlmsg_type == UInt16(RTM_NEWADDR) || message.pointee.nlmsg_type == UInt16(RTM_DELADDR) {
                readAddress(message, &news)
            }
            return true
        }
    }

    /// IFA_LOCAL is the address itself (IPv6 has it on point-to-point links alone); on a point-to-point link IFA_ADDRESS is the other end's.
    private static func readAddress(_ message: UnsafePointer<nlmsghdr>, _ news: inout Set<IPAddress>) {
        let header = MemoryLayout<ifaddrmsg>.size
        let payload = Netlink.payload(message)
        // Its first byte is the family.
        guard payload.count >= header, let size = length(ofFamily: payload[0]) else { return }
        Netlink.attributes(message, header: header) { type, value in
            guard type == IFA_LOCAL || type == IFA_ADDRESS, value.count == size else { return }
            news.insert(address(value))
        }
    }

    private static func length(ofFamily family: UInt8) -> Int? {
        switch Int32(family) {
        case AF_INET: 4
        case AF_INET6: 16
        default: nil
        }
    }

    /// - Parameter bytes: four or sixteen, in network order.
    private static func address(_ bytes: UnsafeRawBufferPointer) -> IPAddress {
        let word = { (range: Range<Int>) in bytes[range].reduce(UInt64(0)) { $0 << 8 | UInt64($1) } }
        if bytes.count == 4 { return IPAddress(v4: UInt32(truncatingIfNeeded: word(0..<4))) }
        return IPAddress(high: word(0..<8), low: word(8..<16))
    }
}
